"""What is played when: drum patterns, ways to play a chord, bass lines. Tables only; `song` plays them."""

from __future__ import annotations

from typing import Literal

Drums = Literal[
    "boom_bap", "half_time", "four_floor", "brushes", "rock", "funk", "bossa", "swing", "electro", "one_drop", "none"
]
Comping = Literal["held", "sustained", "arpeggio", "strummed", "pulsed", "offbeat", "stabs", "charleston"]
Bassline = Literal["root_fifth", "held", "eighths", "offbeat", "walking", "bossa", "funk", "one_drop", "none"]

PATTERNS: dict[Drums, dict[str, tuple[int, ...]]] = {
    "boom_bap": {"kick": (0, 7, 10), "snare": (4, 12), "hat": (0, 2, 4, 6, 8, 10, 12, 14)},
    "half_time": {"kick": (0, 6), "snare": (8,), "hat": (0, 2, 4, 6, 8, 10, 12, 14)},
    "four_floor": {"kick": (0, 4, 8, 12), "snare": (4, 12), "hat": (2, 6, 10, 14)},
    "brushes": {"kick": (0, 8), "brush": (4, 12), "hat": (0, 4, 7, 8, 12, 15)},
    "rock": {"kick": (0, 8, 10), "snare": (4, 12), "hat": (0, 2, 4, 6, 8, 10, 12, 14)},
    "funk": {"kick": (0, 3, 10), "snare": (4, 12), "hat": tuple(range(16))},
    "bossa": {"kick": (0, 6, 8, 14), "rim": (0, 3, 6, 10, 12), "shaker": (0, 2, 4, 6, 8, 10, 12, 14)},
    "swing": {"kick": (0, 8), "ride": (0, 4, 6, 8, 12, 14), "hat": (4, 12)},
    "electro": {"kick": (0, 4, 8, 12), "clap": (4, 12), "hat": (0, 2, 4, 6, 8, 10, 12, 14)},
    "one_drop": {"kick": (8,), "rim": (8,), "hat": (0, 2, 4, 6, 8, 10, 12, 14)},
    "none": {},
}
"""Sixteenths of a bar on which something is hit."""

CHORD_HITS: dict[Comping, tuple[tuple[float, float, float], ...]] = {
    "sustained": ((0, 15.8, 1.0),),
    "strummed": ((0, 3.6, 1.0), (4, 1.6, 0.7), (6, 3.6, 0.85), (10, 1.6, 0.7), (12, 3.6, 0.9)),
    "pulsed": tuple((2.0 * eighth, 1.7, 1.0 if eighth % 4 == 0 else 0.8) for eighth in range(8)),
    "offbeat": ((2, 1.2, 1.0), (6, 1.2, 0.9), (10, 1.2, 1.0), (14, 1.2, 0.9)),
    "stabs": ((0, 0.9, 1.0), (3, 0.9, 0.8), (6, 0.9, 0.9), (11, 0.9, 0.8), (14, 0.9, 0.7)),
    "charleston": ((0, 3.0, 1.0), (6, 1.5, 0.85)),
}
"""(start, length, velocity) of each chord in a bar, in sixteenths. `held` draws lots; `arpeggio` breaks the chord."""

ARPEGGIO = (0, 1, 2, 1, 3, 2, 1, 2)
"""Index into the chord, modulo its size, for each eighth."""

BASS_NOTES: dict[Bassline, tuple[tuple[float, float, int], ...]] = {
    "root_fifth": ((0.0, 1.4, 0), (1.75, 0.8, 0), (2.5, 1.3, 4)),
    "held": ((0.0, 3.9, 0),),
    "eighths": tuple((eighth / 2, 0.45, 0) for eighth in range(8)),
    "offbeat": tuple((beat + 0.5, 0.45, 0) for beat in range(4)),
    "walking": ((0.0, 0.95, 0), (1.0, 0.95, 2), (2.0, 0.95, 4), (3.0, 0.95, 5)),
    "bossa": ((0.0, 1.4, 0), (1.5, 0.45, 4), (2.0, 1.4, 4), (3.5, 0.45, 0)),
    "funk": ((0.0, 0.45, 0), (0.75, 0.2, 0), (1.5, 0.4, 6), (2.5, 0.45, 0), (3.25, 0.3, 4), (3.75, 0.2, 0)),
    "one_drop": ((0.0, 0.8, 0), (1.0, 0.4, 2), (1.5, 0.4, 4), (2.5, 0.9, 0)),
    "none": (),
}
"""(start, length, scale step above the root) of each note in a bar, start and length in beats."""
