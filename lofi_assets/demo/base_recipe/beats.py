"""The music that a base hears last: clean hip hop at the tempi of lofi, so that it keeps the time of its prompt.

The instruments, drum patterns and tempi that prompts of the demo name, without tape, hiss or crackle: those stay for a
LoRA to teach.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lofi_assets.audio.synth.song import Song
from lofi_assets.demo.base_recipe.genres import (
    NINTH,
    SAMPLE_RATE,
    Genre,
    Piece,
    any_of,
    caption_of,
)
from lofi_assets.styles.taxonomy import Taxonomy

BEATS = 3_000_000
"""Index of the first piece."""
_COMMON: Mapping[str, Any] = {
    "bpm": (62, 100),
    "leads": ("vibes", "guitar", "flute", "kalimba", "piano", None),
    "comping": ("held", "held", "arpeggio", "charleston", "sustained"),
    "basslines": ("root_fifth", "root_fifth", "held"),
    "modes": ("major", "minor", "dorian"),
    "voicing": NINTH,
    "swing": 0.58,
}
GENRES: tuple[Genre, ...] = (
    Genre("hip hop", chords=("rhodes", "piano", "guitar", "pad"), drums=("boom_bap", "half_time"), **_COMMON),
    Genre("boom bap", chords=("piano", "rhodes", "guitar"), drums=("boom_bap",), **{**_COMMON, "bpm": (76, 100)}),
    Genre("chillhop", chords=("rhodes", "guitar", "piano"), drums=("half_time", "boom_bap"), **_COMMON),
    Genre("jazzhop", chords=("piano", "guitar", "rhodes"), drums=("brushes", "boom_bap"), **{**_COMMON, "swing": 0.62}),
    Genre(
        "downtempo", chords=("pad", "rhodes", "piano"), drums=("half_time", "boom_bap"), **{**_COMMON, "bpm": (62, 88)}
    ),
)
"""They take turns."""


def beat(seed: int, index: int, *, seconds: float, taxonomy: Taxonomy) -> Piece:
    """The piece at `index` of the endless list of a seed; it begins with a bar."""
    rng = np.random.default_rng([seed, BEATS + index])
    genre = GENRES[index % len(GENRES)]
    bpm = _with_even_bars(rng, genre.bpm)
    song = Song(
        seed=int(rng.integers(2**31)),
        bpm=bpm,
        key=int(rng.integers(12)),
        mode=any_of(rng, genre.modes),
        seconds=seconds,
        sample_rate=SAMPLE_RATE,
        chords=any_of(rng, genre.chords),
        lead=any_of(rng, genre.leads),
        drums=any_of(rng, genre.drums),
        bass=any_of(rng, genre.bass),
        comping=any_of(rng, genre.comping),
        bassline=any_of(rng, genre.basslines),
        voicing=genre.voicing,
        intro_bars=0,
        swing=genre.swing,
    )
    return Piece(genre, song, caption_of(genre, song, rng, taxonomy))


def _with_even_bars(rng: np.random.Generator, tempi: tuple[int, int]) -> float:
    """A whole BPM of a range, as if a bar's length had been drawn evenly: a slow bar has more places to tell apart, so
    it is heard more often."""
    low, high = tempi
    beat_s = rng.uniform(60 / (high + 0.5), 60 / (low - 0.5))
    return float(round(60 / beat_s))
