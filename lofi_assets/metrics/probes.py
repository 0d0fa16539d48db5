"""Clips that every encoder can be asked about: made by code, the same samples on every machine.

Sums of sines and `RandomState` noise, whose stream numpy keeps for ever; no audio file is shipped.
"""

from collections.abc import Callable

import numpy as np

from lofi_assets.metrics.embedding import Samples

PEAK = 0.5


def arpeggio(seconds: float, sample_rate: int) -> Samples:
    """Plucked notes of A minor 7 and D minor 9, four a second, with overtones: music without drums."""
    pitches = (220.0, 261.63, 329.63, 392.0, 293.66, 349.23, 440.0, 659.26)
    return _notes(seconds, sample_rate, pitches, rate_hz=4.0, decay_s=0.35, overtones=6)


def drums(seconds: float, sample_rate: int) -> Samples:
    """A kick on one and three, noise on two and four, at 84 beats a minute: rhythm without pitch."""
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    beat = 60.0 / 84.0
    since, index = time % beat, (time // beat).astype(int)
    sweep = np.sin(2.0 * np.pi * (50.0 * since - 6.0 * np.exp(-since / 0.03)))
    kick = np.where(index % 2 == 0, sweep * np.exp(-since / 0.12), 0.0)
    snare = np.where(index % 2 == 1, _white(len(time)) * np.exp(-since / 0.06), 0.0)
    return _peaked(kick + 0.4 * snare)


def noise(seconds: float, sample_rate: int) -> Samples:
    """White Gaussian noise."""
    return _peaked(_white(round(seconds * sample_rate)))


def tone(seconds: float, sample_rate: int) -> Samples:
    """A sine of 440 Hz."""
    return _peaked(np.sin(2.0 * np.pi * 440.0 * np.arange(round(seconds * sample_rate)) / sample_rate))


def bass(seconds: float, sample_rate: int) -> Samples:
    """Low notes, one a second, each held."""
    return _notes(seconds, sample_rate, (55.0, 65.41, 73.42, 49.0), rate_hz=1.0, decay_s=0.9, overtones=3)


def crackle(seconds: float, sample_rate: int) -> Samples:
    """Sparse clicks over faint hiss: the surface of a record."""
    white = _white(round(seconds * sample_rate))
    return _peaked(np.where(np.abs(white) > 3.6, white, 0.0) + 0.004 * white)


PROBES: dict[str, Callable[[float, int], Samples]] = {
    "an arpeggio of plucked strings": arpeggio,
    "a drum beat of kick and snare": drums,
    "white noise, loud static hiss": noise,
    "a pure sine tone, a continuous beep": tone,
    "a slow deep bass line": bass,
    "vinyl crackle, clicks and pops": crackle,
}
"""What each clip is, in words that a model of audio and text should give to it and not to another."""


def _notes(
    seconds: float, sample_rate: int, pitches: tuple[float, ...], *, rate_hz: float, decay_s: float, overtones: int
) -> Samples:
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    since = time % (1.0 / rate_hz)
    hertz = np.asarray(pitches)[(time * rate_hz).astype(int) % len(pitches)]
    partials = (np.sin(2.0 * np.pi * hertz * since * k) / k for k in range(1, overtones + 1))
    return _peaked(sum(partials, np.zeros(len(time))) * np.exp(-since / decay_s))


def _white(count: int) -> Samples:
    white: Samples = np.random.RandomState(19).standard_normal(count).astype(np.float32)
    return white


def _peaked(samples: Samples | np.ndarray) -> Samples:
    peaked: Samples = (PEAK * samples / np.abs(samples).max()).astype(np.float32)
    return peaked
