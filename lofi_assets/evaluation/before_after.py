"""What training changed, to be seen: the base's clips beside the best checkpoint's and the real tracks.

To be heard, they are on the pages of `reports/`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lofi_assets import pictures
from lofi_assets.evaluation.samples import BASE, clips_of
from lofi_assets.records import Checkpoint
from lofi_assets.store import Store
from lofi_assets.training.trained_on import trained_dataset

if TYPE_CHECKING:
    import numpy as np

PICTURED = 3
"""Rows of the picture."""
SECONDS = 30.0
"""Of each spectrogram."""


@dataclass(frozen=True)
class Row:
    """One prompt and seed, thrice."""

    name: str
    prompt: str
    files: tuple[Path, Path, Path]
    """Of the base, the checkpoint and the real track."""


def rows(store: Store, checkpoint: Checkpoint) -> list[Row]:
    """Every clip that both the base and the checkpoint have; the real track is the prompt's own."""
    version = trained_dataset(store)
    before = _clips(store, BASE)
    return [
        Row(name, prompt, (before[name][0], path, version.audio(name.partition("_")[2])))
        for name, (path, prompt) in _clips(store, checkpoint.checkpoint_id).items()
        if name in before
    ]


def spectrograms(store: Store, checkpoint: Checkpoint) -> bytes:
    """The first clips side by side with what they should be like."""
    some = rows(store, checkpoint)[:PICTURED]
    read = {row.name: [_samples(path) for path in row.files] for row in some}
    rate = next(iter(read.values()))[0][1]
    drawn = {name: [samples for samples, _ in clips] for name, clips in read.items()}
    return pictures.spectrogram_grid(drawn, heads=_heads(checkpoint), sample_rate=rate)


def _heads(checkpoint: Checkpoint) -> tuple[str, str, str]:
    return "base", f"step {checkpoint.step}", "real track"


def _clips(store: Store, model: str) -> dict[str, tuple[Path, str]]:
    clips = [(clip.file(store), clip.prompt) for clip in clips_of(store, model)]
    return {path.stem: (path, prompt) for path, prompt in clips if path.is_file()}


def _samples(path: Path) -> "tuple[np.ndarray, int]":
    """The beginning of a file, (channels, frames), and its rate."""
    import soundfile

    with soundfile.SoundFile(path) as file:
        return file.read(round(SECONDS * file.samplerate), dtype="float32", always_2d=True).T, file.samplerate
