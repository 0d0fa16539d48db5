"""Whether somebody wears headphones: of three tones the quietest is out of phase between the ears (Woods et al. 2017).

Over loudspeakers the two sides cancel in the air, so that the tone in opposite phase seems the quietest; over
headphones the one that was made quieter does. https://doi.org/10.3758/s13414-017-1361-2
"""

import secrets

import numpy as np

from lofi_assets.listening.excerpts import PLAYED_RATE, steps, wav

TONES = 3
ROUNDS = 3
"""Of three tones each; who guesses passes one attempt in 27."""
ATTEMPTS = 3
QUIETER_DB = 6.0
TONE_HZ = 200.0
TONE_S = 0.8
LEVEL_DBFS = -20.0


def quietest_tones() -> list[int]:
    """Which tone is the quietest, of each round."""
    return [secrets.randbelow(TONES) for _ in range(ROUNDS)]


def tones(quietest: int) -> bytes:
    """A WAV file of three tones with pauses: one quieter, and one of the others out of phase between the ears."""
    opposite = secrets.choice([tone for tone in range(TONES) if tone != quietest])
    t = np.arange(round(TONE_S * PLAYED_RATE)) / PLAYED_RATE
    shape = np.minimum(1.0, np.minimum(t, TONE_S - t) / 0.05)
    parts = []
    for tone in range(TONES):
        level = LEVEL_DBFS - (QUIETER_DB if tone == quietest else 0.0)
        left = 10.0 ** (level / 20.0) * shape * np.sin(2.0 * np.pi * TONE_HZ * t)
        parts += [np.stack([left, -left if tone == opposite else left]), np.zeros((2, PLAYED_RATE // 2))]
    return wav(steps(np.concatenate(parts, axis=1).astype(np.float32)), PLAYED_RATE)
