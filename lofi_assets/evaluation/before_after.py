"""What training changed, to be heard and seen: the base's clips beside the best checkpoint's and the real tracks.

Written as `samples/before_after/index.html`: players that read the clips where they lie, and the pictures beside it.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from lofi_assets import pictures
from lofi_assets.evaluation.samples import BASE, clips_of
from lofi_assets.files.documents import write_text
from lofi_assets.files.writing import atomic_path
from lofi_assets.html.frame import framed, players
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


def page_path(store: Store) -> Path:
    """Where the page is."""
    return store.samples / "before_after" / "index.html"


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


def write_page(store: Store, checkpoint: Checkpoint, *, drawn: Mapping[str, bytes]) -> None:
    """Write the page, and beside it the pictures that are on it, by title."""
    page = page_path(store)
    page.parent.mkdir(parents=True, exist_ok=True)
    files = {}
    for title, picture in drawn.items():
        files[title] = page.parent / f"{title.replace(' ', '_').lower()}.png"
        with atomic_path(files[title]) as temporary:
            temporary.write_bytes(picture)
    write_text(page, _page(rows(store, checkpoint), files, heads=_heads(checkpoint), folder=page.parent))


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


def _page(listed: Sequence[Row], files: Mapping[str, Path], *, heads: Sequence[str], folder: Path) -> str:
    images = "\n".join(f'<p><img src="{quote(path.name)}" alt="{escape(title)}"></p>' for title, path in files.items())
    heard = "\n".join(f"<h3>{escape(row.prompt)}</h3>\n{_players(row, heads, folder)}" for row in listed)
    return framed(
        title="Before and after",
        body="<h1>Before and after</h1>\n<p>Same prompts, same seeds: the base, the best checkpoint, and the track that"
        f" was prompted for.</p>\n{images}\n<h2>To hear</h2>\n{heard}",
    )


def _players(row: Row, heads: Sequence[str], folder: Path) -> str:
    clips = zip(heads, row.files, strict=True)
    return players([(head, _address(path, folder)) for head, path in clips if path.is_file()])


def _address(path: Path, folder: Path) -> str:
    return quote(Path(os.path.relpath(path, folder)).as_posix())
