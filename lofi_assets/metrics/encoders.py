"""The encoder that a profile names, loaded."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path

from lofi_assets.files.hashing import hash_of, sha256_file, stat_key
from lofi_assets.metrics.embedding import LOUDNESS_LUFS, Embedder
from lofi_assets.metrics.errors import MetricError
from lofi_assets.metrics.musicnn import MusicnnEmbedder


def load_embedder(
    name: str, *, weights: Path | None = None, device: str = "cpu", lufs: float | None = LOUDNESS_LUFS
) -> Embedder:
    """The encoder of a name: "musicnn" (shipped), "vggish" (`weights`: a file), "laion_clap" (`weights`: a folder).

    Args:
        lufs: loudness that clips are brought to before it hears them; None leaves them at their own.

    Raises:
        MetricError: an unknown name, or weights that are absent; the message says where they come from.
    """
    if name == "musicnn":
        return MusicnnEmbedder(lufs=lufs)
    if name == "vggish":
        from lofi_assets.metrics.vggish import VggishEmbedder

        return VggishEmbedder.load(weights, device=device, lufs=lufs)
    if name == "laion_clap":
        from lofi_assets.metrics.clap import ClapEmbedder

        return ClapEmbedder.load(weights, device=device, lufs=lufs)
    raise MetricError(f"no encoder is called {name!r}; there are musicnn, vggish and laion_clap")


def content_of(paths: Iterable[Path | None]) -> str:
    """Hash of the bytes of weights and clips, files or folders, for the key of what was measured with them.

    None and absent ones count as such.

    A file is read again only if its size or times have changed since this process read it.
    """
    return hash_of([[_content(file) for file in _files(path)] if path else None for path in paths])


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())


def _content(path: Path) -> list[str]:
    return [path.name, _hashed(path, stat_key(path))]


@cache
def _hashed(path: Path, _: str) -> str:
    return sha256_file(path)
