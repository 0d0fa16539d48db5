"""Which base model a folder holds, without loading it: features, runs and merges record this fingerprint.

The folder is not believed about itself, since it may come from anywhere. What it takes long to read is remembered in
the user's own cache.
"""

import contextlib
import hashlib
from pathlib import Path

from lofi_assets.environment import user_cache
from lofi_assets.files.hashing import hash_of, sha256_file
from lofi_assets.files.recorded_hashes import FileHashes
from lofi_assets.files.writing import StoreError

NOTE = ".fingerprint.json"
"""Where the sums were once kept, in the folder itself: no part of the model, and no longer read."""
REMEMBERED_FROM = 1 << 28
"""Bytes of a model whose sums are remembered; less is read again in a moment."""


def base_fingerprint(directory: Path) -> str:
    """Hash of a base model: SHA-256 over the sorted names and SHA-256 sums of its JSON and safetensors files.

    A file of a large model (the published one has 8 GB) is read again only if its size, or its time of writing or of
    change, is another than when it was read last.
    """
    found = (path for path in directory.rglob("*") if path.suffix in {".json", ".safetensors"} and path.is_file())
    files = sorted(path for path in found if path != directory / NOTE)
    total = hashlib.sha256()
    for path, digest in zip(files, _sums(directory, files), strict=True):
        total.update(f"{path.relative_to(directory)}\0{digest}\n".encode())
    return total.hexdigest()


def _sums(directory: Path, files: list[Path]) -> list[str]:
    """SHA-256 of each file, in order. A cache that cannot be read or written costs reading the model each time."""
    cache = user_cache("models")
    if cache is None or sum(path.stat().st_size for path in files) < REMEMBERED_FROM:
        return [sha256_file(path) for path in files]
    try:
        hashes = FileHashes(directory, cache / f"{hash_of(directory.resolve())[:16]}.json")
    except StoreError:
        return [sha256_file(path) for path in files]
    sums = [hashes(path) for path in files]
    with contextlib.suppress(StoreError, OSError):
        hashes.save()
    return sums
