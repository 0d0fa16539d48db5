"""The audio files of a folder, every one of them or an error that names those that cannot be read."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from lofi_assets.metrics.embedding import Embedder, Samples, embed_files
from lofi_assets.metrics.errors import MetricError
from lofi_assets.progress import over
from lofi_assets.wording import shortened

SUFFIXES = frozenset({".wav", ".flac", ".mp3", ".ogg", ".opus", ".aif", ".aiff", ".m4a", ".aac", ".wma"})
"""What is taken for audio. One that cannot be decoded is an error and not left out."""

LEAST_CLIPS = 2
"""One clip has no spread between clips, so nothing could be said of its number."""


def audio_of(folder: Path | str) -> dict[str, Path]:
    """Relative path -> file, of every audio file below a folder, in the order of their names.

    Raises:
        MetricError: no such folder, or fewer than two audio files in it.
    """
    root = Path(folder)
    if not root.is_dir():
        raise MetricError(f"{root}: no such folder")
    below = (path.relative_to(root) for path in root.rglob("*") if path.suffix.lower() in SUFFIXES)
    found = sorted(path for path in below if not any(part.startswith(".") for part in path.parts))
    found = [path for path in found if not (root / path).is_dir()]
    gone = [path.as_posix() for path in found if not (root / path).is_file()]
    if gone:
        raise MetricError(f"{root}: {len(gone)} files that are none: {', '.join(shortened(gone, most=5))}")
    if len(found) < LEAST_CLIPS:
        kinds = ", ".join(sorted(suffix[1:] for suffix in SUFFIXES))
        what = "1 audio file" if found else "no audio files"
        raise MetricError(f"{root}: {what} in it ({kinds}), and {LEAST_CLIPS} are the least that can be measured")
    return {path.as_posix(): root / path for path in found}


def embedded(files: Mapping[str, Path], encoder: Embedder, *, cache_dir: Path | None) -> dict[str, Samples]:
    """Embedding windows of every file, (windows, dim), by its name.

    Args:
        cache_dir: where they are kept by content for the next time; None keeps nothing.
    Raises:
        MetricError: files that cannot be read or embedded, all of them named.
    """
    found: dict[str, Samples] = {}
    faults: list[str] = []
    with TemporaryDirectory() as nowhere:
        for name, path in over(list(files.items()), f"embedding ({encoder.name})", unit="clip"):
            try:
                found |= {name: embed_files([path], encoder, cache_dir or Path(nowhere), progress=False)[path]}
            except MetricError as error:
                faults.append(str(error))
    if faults:
        raise MetricError(f"{len(faults)} of {len(files)} files: " + "; ".join(shortened(faults, most=5)))
    return found
