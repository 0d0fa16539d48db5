"""Audio -> embedding windows, once per file: what an encoder is given, and the cache of what it made of it.

Every encoder hears the same thing: mono, at one loudness, resampled to its own rate; level alone moves FAD by several
points. An encoder's weights and version are part of its numbers, so both are part of the cache key.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from lofi_assets.metrics.errors import MetricError
from lofi_assets.workers.side_by_side import side_by_side

Samples = npt.NDArray[np.float32]
R = TypeVar("R")

LOUDNESS_LUFS = -23.0
"""EBU R 128's programme loudness; every clip is brought there before it is heard, unless an encoder is told not to."""


def preparation(lufs: float | None) -> str:
    """Names how audio is prepared; part of every version string. Change it when `levelled` or `resampled` does."""
    return f"mono-lufs{lufs:g}-soxr1" if lufs is not None else "mono-own-level-soxr1"


@runtime_checkable
class Embedder(Protocol):
    """An encoder of audio. `trained` is False for random weights, whose numbers must not pass a gate.

    The encoders of this package come to `trained` by what they were asked (`metrics/proof.py`), and have it as `proof`.
    """

    name: str
    version: str
    sample_rate: int
    window_s: float
    hop_s: float
    dim: int
    normalized: bool
    weights_sha256: str

    @property
    def trained(self) -> bool:
        """Whether its numbers mean something."""
        ...

    def embed(self, audio: Samples) -> Samples:
        """(windows, dim) of audio (channels, frames) or (frames,) at `sample_rate`; in several threads at once."""
        ...


def embed_files(
    paths: Iterable[Path], embedder: Embedder, cache_dir: Path, *, progress: bool = True
) -> dict[Path, Samples]:
    """Embedding windows of every file, each computed once and kept in `cache_dir` as (windows, dim) float32 .npy.

    The key is the file's content with the encoder's name, version and weights, so nothing stale is ever read.

    Raises:
        MetricError: a file that cannot be read or embedded, named in the message.
    """
    wanted = list(paths)
    if absent := [path for path in wanted if not path.is_file()]:
        raise MetricError(f"{absent[0]}: no such file; generate the samples again")
    code = hashlib.sha256(f"{embedder.name}|{embedder.version}|{embedder.weights_sha256}".encode()).hexdigest()
    folder = cache_dir / f"{embedder.name}-{code[:12]}"
    return by_content(
        lambda path, digest: _embed_file(path, embedder, folder / f"{digest}.npy"),
        wanted,
        label=f"embedding ({embedder.name})" if progress else None,
    )


def by_content(work: Callable[[Path, str], R], paths: Iterable[Path], *, label: str | None = None) -> dict[Path, R]:
    """`work` of each file and its SHA-256, side by side, and once for each content: its copies get the same."""
    digests = {path: file_sha256(path) for path in paths}
    firsts: dict[str, Path] = {}
    for path, digest in digests.items():
        firsts.setdefault(digest, path)
    found = side_by_side(lambda digest: work(firsts[digest], digest), list(firsts), label=label)
    of_content = dict(zip(firsts, found, strict=True))
    return {path: of_content[digest] for path, digest in digests.items()}


def read_samples(path: Path) -> tuple[Samples, int]:
    """(channels, frames) float32 and the sample rate of a file; MetricError when it cannot be decoded or is empty."""
    import soundfile

    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, RuntimeError) as error:
        raise MetricError(f"{path}: cannot be decoded ({error}); generate or export it again") from error
    if not len(samples):
        raise MetricError(f"{path}: holds no samples; generate or export it again")
    return samples.T, int(rate)


def levelled(audio: Samples, *, sample_rate: int, min_seconds: float, lufs: float | None = LOUDNESS_LUFS) -> Samples:
    """Mono (frames,) at a loudness. Silence stays silence: it has no loudness to bring up.

    Args:
        lufs: integrated loudness (ITU-R BS.1770); None leaves the level as it is.
    Raises:
        MetricError: NaN or infinity, or shorter than `min_seconds`.
    """
    import pyloudnorm

    mono = np.asarray(audio, dtype=np.float32)
    mono = mono.mean(axis=0) if mono.ndim == 2 else mono
    if not np.isfinite(mono).all():
        raise MetricError("the audio holds NaN or infinity")
    if len(mono) < min_seconds * sample_rate:
        raise MetricError(f"{len(mono) / sample_rate:.2f} s of audio; the encoder's window is {min_seconds:g} s")
    if lufs is None:
        return mono
    with np.errstate(divide="ignore", invalid="ignore"):
        loudness = pyloudnorm.Meter(sample_rate).integrated_loudness(mono.astype(np.float64))
    if not np.isfinite(loudness):
        return mono
    level: Samples = (mono * 10.0 ** ((lufs - loudness) / 20.0)).astype(np.float32)
    return level


def resampled(samples: Samples, *, source: int, target: int) -> Samples:
    """(channels, frames) at another rate, soxr's high quality."""
    import soxr

    return samples if source == target else soxr.resample(samples.T, source, target, quality="HQ").T


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checked_embedding(windows: npt.ArrayLike, embedder: Embedder) -> Samples:
    """The windows as float32; MetricError for another shape than (>= 1, dim), NaN or infinity."""
    array = np.asarray(windows, dtype=np.float32)
    if array.ndim != 2 or array.shape[1] != embedder.dim or not len(array):
        raise MetricError(f"{embedder.name} gave {array.shape}, expected (windows, {embedder.dim})")
    if not np.isfinite(array).all():
        raise MetricError(f"{embedder.name} gave NaN or infinity")
    return array


def _embed_file(path: Path, embedder: Embedder, cached: Path) -> Samples:
    try:
        return checked_embedding(np.load(cached, allow_pickle=False), embedder)
    except (OSError, ValueError):
        pass  # absent, or cut short by a crash of the disk: computed below
    try:
        samples, rate = read_samples(path)
        windows = checked_embedding(
            embedder.embed(resampled(samples, source=rate, target=embedder.sample_rate)), embedder
        )
    except MetricError as error:
        raise error if str(path) in str(error) else MetricError(f"{path}: {error}") from error
    except Exception as error:
        raise MetricError(f"{path}: {embedder.name} failed: {type(error).__name__}: {error}") from error
    _write_atomically(cached, lambda file: np.save(file, windows))
    return windows


def _write_atomically(path: Path, write: Callable[[str], None]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, suffix=".npy")
    os.close(descriptor)
    try:
        write(name)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)
