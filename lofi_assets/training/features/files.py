"""The files of the feature cache: `<kind>/<key>.safetensors`, named by a hash of all that decides their content.

What belongs here: keys, whole writes, checks before use, mapped reads, and which files nothing needs. What does not:
how features are computed (`backbones/`), which a track needs (`cache`). Imports without torch.
"""

import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from lofi_assets.backbones.features import FeatureError
from lofi_assets.files.documents import read_json
from lofi_assets.files.hashing import stat_key
from lofi_assets.files.writing import atomic_path, locked

if TYPE_CHECKING:
    import numpy as np
    import torch

MAPPED_FILES = 16_384
"""Files held open as memory maps, of the 65,530 that Linux gives a process; more are checked and mapped again."""

Shape = tuple[int | None, ...]
"""None: of any length."""

_UNNAMED = ("latents", "text", "lyrics", "speaker")
"""Kinds whose keys stand first and without their name in the text of a key that has all of them."""
_HASH = "[0-9a-f]{32}"
_NAMED = f"[a-z][a-z0-9-]*={_HASH}"
KEY_PATTERN = rf"^({_HASH}(\.{_HASH}){{3}}|{_NAMED})(\.{_NAMED})*$"
_KEY = re.compile(KEY_PATTERN)


@dataclass(frozen=True)
class FeatureKey:
    """The files of one track."""

    hashes: Mapping[str, str]
    """Kind -> key of its file (`backbones.features.content_key`)."""

    @classmethod
    def parse(cls, text: str) -> "FeatureKey":
        """The key that `str` wrote.

        Raises:
            FeatureError: it is none.
        """
        if not _KEY.fullmatch(text):
            raise FeatureError(f"{text!r} is no key of cached features; materialise feature_cache again")
        parts = text.split(".")
        unnamed = [part for part in parts if "=" not in part]
        named = [part.split("=") for part in parts[len(unnamed) :]]
        return cls({**dict(zip(_UNNAMED, unnamed, strict=False)), **dict(named)})

    def __str__(self) -> str:
        """`kind=key` for each kind, joined by dots; the four of `_UNNAMED` first and without `kind=`."""
        unnamed = _UNNAMED if all(kind in self.hashes for kind in _UNNAMED) else ()
        named = (f"{kind}={key}" for kind, key in sorted(self.hashes.items()) if kind not in unnamed)
        return ".".join((*(self.hashes[kind] for kind in unnamed), *named))

    def files(self, cache_dir: Path) -> dict[str, Path]:
        """Kind -> file."""
        return {kind: cache_dir / kind / f"{key}.safetensors" for kind, key in self.hashes.items()}


def write_features(path: Path, array: "np.ndarray", *, shape: Shape, note: Mapping[str, str] | None = None) -> None:
    """Write a file whole, with a checksum, and read it back.

    Args:
        shape: that the array must have.
        note: small strings kept beside the array.
    Raises:
        FeatureError: what was written is not fit to be used, e.g. not finite.
    """
    from safetensors.numpy import save_file

    with atomic_path(path) as temporary:
        save_file({path.parent.name: array}, temporary, metadata={**(note or {}), "crc32": _checksum(array)})
    check(path, shape=shape)


def read_features(path: Path, *, shape: Shape) -> "torch.Tensor":
    """The tensor of a file, mapped from disk: only what is used is read. The file is checked once per process.

    Do not write to it: it is shared by everyone who reads the file.

    Raises:
        FeatureError: absent or damaged.
    """
    return _mapped(path, _stat_key(path), shape)


def read_array(path: Path, *, shape: Shape) -> "np.ndarray":
    """A copy of the array of a file; loads no torch.

    Raises:
        FeatureError: absent or damaged.
    """
    from safetensors.numpy import load_file

    check(path, shape=shape)
    array: np.ndarray = load_file(path)[path.parent.name]
    return array


def check(path: Path, *, shape: Shape) -> None:
    """Checksum, shapes and numbers of a file; asked again in the same process only if the file has changed.

    Raises:
        FeatureError: absent or damaged.
    """
    _checked(path, _stat_key(path), shape)


def is_sound(path: Path, *, shape: Shape) -> bool:
    """Whether `check` finds nothing."""
    try:
        check(path, shape=shape)
    except FeatureError:
        return False
    return True


def note_of(path: Path) -> dict[str, str]:
    """The small strings that were written beside the arrays."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return {name: text for name, text in (file.metadata() or {}).items() if name != "crc32"}


def length_of(path: Path, *, axis: int) -> int:
    """How long an array is along an axis, from its file's header.

    Raises:
        FeatureError: absent or damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return int(file.get_slice(path.parent.name).get_shape()[axis])
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from error


def unneeded_files(cache_dir: Path, keys: Iterable[str]) -> list[Path]:
    """Files that none of the keys names (of tracks, prompts or models that are gone), and what a killed write left."""
    needed = {path for key in keys for path in FeatureKey.parse(key).files(cache_dir).values()}
    found = {*cache_dir.glob("*/*.safetensors"), *cache_dir.glob("*/.*.safetensors.*.part")}
    return sorted(found - needed)


def keys_of_runs(*places: Path) -> set[str]:
    """Every feature key that a training run's configuration names: below folders of checkpoints, or in single files."""
    files = [file for place in places for file in (place.rglob("*.json") if place.is_dir() else [place])]
    runs = [run for run in (read_json(file, default={}) for file in files) if isinstance(run, dict)]
    tracks = [track for run in runs if isinstance(run.get("tracks"), list) for track in run["tracks"]]
    named = [track for track in tracks if isinstance(track, dict) and "key" in track]
    return {key for track in named for key in (track["key"], *(track.get("variants") or ()))}


@contextmanager
def exclusive(cache_dir: Path) -> Iterator[None]:
    """Keep writing and removing apart for the block.

    Raises:
        FeatureError: another process is at it.
    """
    busy = FeatureError(f"{cache_dir}: another process is filling or pruning it; wait for it or stop it")
    with locked(cache_dir, busy=busy):
        yield


def _unreadable(path: Path, error: Exception) -> FeatureError:
    return FeatureError(f"{path}: cached features do not load ({error}); materialise feature_cache again")


def _stat_key(path: Path) -> str:
    try:
        return stat_key(path)
    except OSError as error:
        raise _unreadable(path, error) from error


@lru_cache(maxsize=MAPPED_FILES)
def _mapped(path: Path, stat: str, shape: Shape) -> "torch.Tensor":
    from safetensors import safe_open

    _checked(path, stat, shape)
    with safe_open(path, framework="pt") as file:
        tensor: torch.Tensor = file.get_tensor(path.parent.name)
        return tensor


@lru_cache(maxsize=2 * MAPPED_FILES)
def _checked(path: Path, stat: str, shape: Shape) -> None:
    """What `check` does; size and time are part of the question, so that a changed file is checked again."""
    import numpy as np
    from safetensors import SafetensorError, safe_open

    kind = path.parent.name
    try:
        with safe_open(path, framework="numpy") as file:
            checksum = (file.metadata() or {}).get("crc32")
            array = file.get_tensor(kind)
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from error
    shaped = array.ndim == len(shape) and all(
        want in (None, have) for want, have in zip(shape, array.shape, strict=True)
    )
    if not (shaped and array.size and np.isfinite(array).all() and checksum == _checksum(array)):
        raise FeatureError(
            f"{path}: cached features are damaged; materialise feature_cache again, it replaces the file"
        )


def _checksum(array: "np.ndarray") -> str:
    import numpy as np

    return f"{zlib.crc32(array.reshape(-1).view(np.uint8).data):08x}"
