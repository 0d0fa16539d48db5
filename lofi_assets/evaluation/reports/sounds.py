"""Where a page takes its audio and its spectrograms from: files beside it, or inside the page.

Beside it, a page of 24 clips is a few hundred kB and plays the very files that were measured. Inside it, clips are MP3
at 96 kbit/s, so that the page can be sent: what is heard then is not what was measured, and the page says so.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote

from lofi_assets import pictures
from lofi_assets.evaluation.reports.markup import data_address
from lofi_assets.files.hashing import sha256_file
from lofi_assets.files.writing import atomic_path
from lofi_assets.store import Store

if TYPE_CHECKING:
    import numpy as np

SENT_KBPS = 96
"""Bit rate of audio inside a page."""
SENT_TRACK_S = 20.0
"""Of a real track inside a page."""


@dataclass(frozen=True)
class Part:
    """A stretch of a file."""

    start_s: float
    seconds: float


class Sounds(Protocol):
    """How a page plays a file: addresses that a player loads."""

    @property
    def note(self) -> str:
        """What people should know of how it sounds; empty if nothing."""
        ...

    def clip(self, path: Path, part: Part | None = None) -> str:
        """A file as a whole, or a part of it."""
        ...

    def track(self, path: Path) -> str:
        """A real track, or its beginning."""
        ...


@dataclass(frozen=True)
class Beside:
    """Files where they lie, by relative address from the page's folder."""

    folder: Path
    note: str = ""

    def clip(self, path: Path, part: Part | None = None) -> str:
        """A media fragment (W3C Media Fragments URI 1.0) names the part."""
        relative = quote(Path(os.path.relpath(path, self.folder)).as_posix())
        return relative if part is None else f"{relative}#t={part.start_s:.1f},{part.start_s + part.seconds:.1f}"

    def track(self, path: Path) -> str:
        """The whole of it."""
        return self.clip(path)


@dataclass(frozen=True)
class Inside:
    """MP3 at 96 kbit/s inside the page."""

    note: str = (
        f"The audio in this page is a copy at {SENT_KBPS} kbit/s, of real tracks the first {SENT_TRACK_S:g} s. What "
        "was measured are the files under the data root."
    )

    def clip(self, path: Path, part: Part | None = None) -> str:
        """As a data address; none for a file that holds no audio, which no player could play either."""
        from lofi_assets.audio.encode import encode_mp3
        from lofi_assets.metrics.clip_measures import SAMPLE_RATE, clip_audio
        from lofi_assets.metrics.errors import attempt

        samples, _ = attempt(lambda: clip_audio(path))
        if samples is None:
            return ""
        start = round(part.start_s * SAMPLE_RATE) if part else 0
        end = start + round(part.seconds * SAMPLE_RATE) if part else samples.shape[1]
        return data_address(encode_mp3(samples[:, start:end], kbps=SENT_KBPS), "audio/mpeg")

    def track(self, path: Path) -> str:
        """The beginning."""
        return self.clip(path, Part(0.0, SENT_TRACK_S))


def strip(store: Store, path: Path, part: Part | None = None) -> bytes | None:
    """The spectrogram of a file or a part of it; None of one that holds no audio. Drawn once for a file's content."""
    cached = store.cache / "spectrograms" / f"{sha256_file(path)}.png"
    if not cached.is_file():
        read = _samples(path)
        if read is None:
            return None
        cached.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(cached) as temporary:
            temporary.write_bytes(pictures.spectrogram_strip(read[0], sample_rate=read[1]))
    return cached.read_bytes() if part is None else _cut(cached.read_bytes(), path, part)


def _cut(png: bytes, path: Path, part: Part) -> bytes:
    """The columns of a strip that belong to a part of the file."""
    import soundfile

    seconds = soundfile.info(path).duration
    return pictures.columns_of(png, start=part.start_s / seconds, end=(part.start_s + part.seconds) / seconds)


def _samples(path: Path) -> "tuple[np.ndarray, int] | None":
    from lofi_assets.metrics.embedding import read_samples
    from lofi_assets.metrics.errors import attempt

    found, _ = attempt(lambda: read_samples(path))
    return found
