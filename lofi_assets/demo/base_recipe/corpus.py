"""The music on disk: one file of samples per clip, and what is true of each.

Which clips there are, writing them, reading parts of them; what they are is in `genres`. A clip that is there is not
made again, so a killed run goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import count, islice
from pathlib import Path

import numpy as np

from lofi_assets.audio.arrays import FloatArray
from lofi_assets.audio.synth.song import Song, render, render_clean
from lofi_assets.demo.base_recipe.beats import beat
from lofi_assets.demo.base_recipe.genres import GENRES, STEADY_GENRES, Piece, piece
from lofi_assets.demo.base_recipe.settings import BeatsSettings, CorpusSettings, SteadySettings
from lofi_assets.files.documents import write_json
from lofi_assets.files.writing import atomic_path
from lofi_assets.progress import over
from lofi_assets.styles.taxonomy import Taxonomy

CLIPS = "clips.json"
FULL_SCALE = 32_767.0
HELD_OUT = 1_000_000
"""Index of the first piece that no base is trained on."""
STEADY = 2_000_000
"""Index of the first steady piece."""


@dataclass(frozen=True)
class Clip:
    """A clip of the corpus."""

    name: str
    path: Path
    piece: Piece
    worn: bool
    """Played from a worn tape: heard by the codec only."""


def clips(folder: Path, settings: CorpusSettings, *, seed: int, taxonomy: Taxonomy) -> list[Clip]:
    """Every clip of a corpus, the clean ones first; whether its file is there or not."""
    return [
        _clip(folder, index, settings, seed=seed, taxonomy=taxonomy) for index in range(settings.clips + settings.worn)
    ]


def steady_clips(
    folder: Path, settings: SteadySettings, *, seconds: float, seed: int, taxonomy: Taxonomy
) -> list[Clip]:
    """Every steady clip, named by its place among the pieces of all genres."""
    return [
        Clip(
            f"steady_{index - STEADY:05d}",
            folder / f"{index - STEADY:05d}.npy",
            piece(seed, index, seconds=seconds, taxonomy=taxonomy, steady=True),
            worn=False,
        )
        for index in islice(_of_steady_genres(STEADY), settings.clips)
    ]


def beat_clips(folder: Path, settings: BeatsSettings, *, seconds: float, seed: int, taxonomy: Taxonomy) -> list[Clip]:
    """Every clip of the last stage's own music."""
    return [
        Clip(
            f"tempo_{index:05d}",
            folder / f"{index:05d}.npy",
            beat(seed, index, seconds=seconds, taxonomy=taxonomy),
            worn=False,
        )
        for index in range(settings.clips)
    ]


def held_out(pieces: int, *, seconds: float, seed: int, taxonomy: Taxonomy) -> list[Piece]:
    """Steady pieces of the same seed that are in no corpus."""
    return [
        piece(seed, index, seconds=seconds, taxonomy=taxonomy, steady=True)
        for index in islice(_of_steady_genres(HELD_OUT), pieces)
    ]


def write_corpus(corpus: Sequence[Clip], *, peak: float, folder: Path) -> None:
    """Make the clips that are missing: (2, frames) int16 at 44.1 kHz, and `clips.json` with songs and captions."""
    missing = [clip for clip in corpus if not clip.path.is_file()]
    for clip in over(missing, "corpus", unit="clip"):
        play = render if clip.worn else render_clean
        samples = np.round(play(clip.piece.song, peak=peak) * FULL_SCALE).astype(np.int16)
        with atomic_path(clip.path) as temporary, temporary.open("wb") as file:
            np.save(file, samples)
    rows = [
        {"name": clip.name, "worn": clip.worn, "caption": clip.piece.caption, "song": asdict(clip.piece.song)}
        for clip in corpus
    ]
    write_json(folder / CLIPS, rows)


def read_part(clip: Clip, *, place: float, samples: int) -> FloatArray:
    """(2, samples) float32 in [-1, 1], from `place` in [0, 1) of what is left over."""
    stored = np.load(clip.path, mmap_mode="r", allow_pickle=False)
    start = int(place * (stored.shape[1] - samples + 1))
    part: FloatArray = stored[:, start : start + samples].astype(np.float32) / np.float32(FULL_SCALE)
    return part


def read_whole(clip: Clip) -> FloatArray:
    """(2, frames) float32 in [-1, 1]."""
    samples: FloatArray = np.load(clip.path, allow_pickle=False).astype(np.float32) / np.float32(FULL_SCALE)
    return samples


def _of_steady_genres(start: int) -> Iterator[int]:
    return (index for index in count(start) if GENRES[index % len(GENRES)].tag in STEADY_GENRES)


def _clip(folder: Path, index: int, settings: CorpusSettings, *, seed: int, taxonomy: Taxonomy) -> Clip:
    worn = index >= settings.clips
    made = piece(seed, index, seconds=settings.seconds, taxonomy=taxonomy)
    if worn:
        made = replace(made, song=_on_tape(made.song, seed=seed, index=index))
    name = f"{index:05d}"
    return Clip(name, folder / f"{name}.npy", made, worn)


def _on_tape(song: Song, *, seed: int, index: int) -> Song:
    rng = np.random.default_rng([seed, index, 1])
    return replace(
        song,
        cutoff_hz=float(rng.uniform(3_000, 12_000)),
        hiss_dbfs=float(rng.uniform(-66, -48)),
        crackles_per_s=float(rng.uniform(0, 16)),
        wow=float(rng.uniform(0, 0.003)),
    )
