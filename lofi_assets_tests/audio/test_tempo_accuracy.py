"""How often the tempo is right on synthesised songs with drums, 60 to 140 BPM; the table is printed (pytest -s)."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from lofi_assets.audio.synth.grooves import Drums
from lofi_assets.audio.synth.song import Mode, Song, render
from lofi_assets.audio.tempo import LOFI_RANGE, estimate_tempo

RATE = 32_000
BANDS = ((60, 80), (80, 100), (100, 120), (120, 141))
OCTAVES = (1.0, 2.0, 0.5)
BANDS_OF: dict[Drums, tuple[str, str | None, float]] = {
    "boom_bap": ("rhodes", "guitar", 0.60),
    "half_time": ("piano", "vibes", 0.56),
    "four_floor": ("pad", "kalimba", 0.50),
    "brushes": ("guitar", None, 0.66),
}
"""Drums -> chords, lead and swing."""
STYLE_RANGES = ((40, 64), (50, 74), (64, 96), (70, 90), (80, 104), (92, 116), (108, 126), (120, 160))
"""Ranges that presets have, and one above all of them."""


@dataclass(frozen=True)
class Reading:
    song: Song
    unknown_style: float | None
    known_style: float | None


def right(bpm: float | None, truth: float, *, octaves: bool = False) -> bool:
    return bpm is not None and any(
        abs(bpm * octave - truth) <= 0.04 * truth for octave in (OCTAVES if octaves else (1.0,))
    )


def style_range(bpm: float) -> tuple[int, int]:
    """The first range that holds the tempo with some room on either side."""
    return next((low, high) for low, high in STYLE_RANGES if low + 2 <= bpm <= high - 2)


def songs() -> list[Song]:
    modes: tuple[Mode, ...] = ("minor", "major", "dorian")
    return [
        Song(
            7_000 + bpm * 4 + index,
            bpm + 0.37 * index,
            (bpm + 5 * index) % 12,
            modes[(bpm + index) % 3],
            40,
            RATE,
            chords=chords,  # type: ignore[arg-type]
            lead=lead,  # type: ignore[arg-type]
            drums=drums,
            swing=swing,
        )
        for bpm in range(60, 140, 5)
        for index, (drums, (chords, lead, swing)) in enumerate(BANDS_OF.items())
    ]


def read(song: Song) -> Reading:
    samples = render(song)
    found = [
        estimate_tempo(samples, sample_rate=RATE, tempo_range=span) for span in (LOFI_RANGE, style_range(song.bpm))
    ]
    unknown, known = (estimate.bpm if estimate else None for estimate in found)
    return Reading(song, unknown, known)


def share(readings: Sequence[Reading], *, known: bool, octaves: bool) -> float:
    hits = [
        right(reading.known_style if known else reading.unknown_style, reading.song.bpm, octaves=octaves)
        for reading in readings
    ]
    return sum(hits) / len(hits)


def table(readings: Sequence[Reading]) -> str:
    groups = {f"{low}-{high - 1} BPM": [r for r in readings if low <= r.song.bpm < high] for low, high in BANDS}
    groups |= {drums: [r for r in readings if r.song.drums == drums] for drums in BANDS_OF}
    groups |= {"all": list(readings)}
    lines = ["| songs | n | style known: within 4 % | style unknown: within 4 % | after octaves | not told |"]
    lines += ["|---|---|---|---|---|---|"]
    for name, rows in groups.items():
        shares = (
            share(rows, known=known, octaves=octaves)
            for known, octaves in ((True, False), (False, False), (False, True))
        )
        untold = sum(row.unknown_style is None for row in rows)
        lines.append(f"| {name} | {len(rows)} | " + " | ".join(f"{value:.2f}" for value in shares) + f" | {untold} |")
    return "\n".join(lines)


@pytest.mark.slow
def test_tempo_is_right_for_a_known_style_and_up_to_an_octave_for_an_unknown_one() -> None:
    readings = [read(song) for song in songs()]
    print("\n" + table(readings))
    assert share(readings, known=True, octaves=False) >= 0.97
    assert share(readings, known=False, octaves=True) >= 0.95
    assert share([r for r in readings if r.song.bpm <= 100], known=False, octaves=False) >= 0.93
    assert share(readings, known=False, octaves=False) >= 0.65


@pytest.mark.parametrize(
    ("bpm", "span"), [(58, (50, 74)), (58, (40, 64)), (112, (108, 126)), (120, (108, 126)), (130, (120, 160))]
)
def test_a_style_outside_the_usual_range_decides_the_octave(bpm: float, span: tuple[int, int]) -> None:
    estimate = estimate_tempo(render(Song(31, bpm, 4, "minor", 40, RATE)), sample_rate=RATE, tempo_range=span)
    assert estimate is not None and estimate.bpm == pytest.approx(bpm, rel=0.02)


@pytest.mark.parametrize("drums", ["boom_bap", "four_floor"])
def test_a_style_does_not_bend_a_tempo_to_two_thirds(drums: Drums) -> None:
    """104 has no octave in 60-100, but 69 there is wrong: the onsets repeat at 104."""
    estimate = estimate_tempo(
        render(Song(33, 104, 4, "minor", 40, RATE, drums=drums)), sample_rate=RATE, tempo_range=(60, 100)
    )
    assert estimate is not None and estimate.bpm == pytest.approx(104, rel=0.02)
