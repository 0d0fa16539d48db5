"""Content hashes: of values, files and folders, and those of files that have not changed since."""

import hashlib
import json
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path

READ_BLOCK = 1 << 20
"""Bytes read at a time when hashing."""


def hash_of(*parts: object) -> str:
    """sha256 (hex) of the canonical JSON of `parts`: the same for the same values on every machine."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=_canonical)
    return hashlib.sha256(text.encode()).hexdigest()


def _canonical(value: object) -> str:
    if isinstance(value, Path | date):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no canonical form to be hashed by; pass JSON data")


def sha256_file(path: Path) -> str:
    """sha256 (hex) of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(READ_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def sha256_folder(folder: Path) -> dict[str, str]:
    """Relative POSIX path -> sha256 of every file below `folder`, sorted by path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in files}


def stat_key(path: Path) -> str:
    """Size and times of writing and of change: cheap evidence that a file's recorded hash still holds.

    A tagger may keep the size and set the time of writing back, but nothing sets the time of change.
    """
    status = path.stat()
    return f"{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"


def remembered(path: Path, compute: Callable[[Path], str], memory: Mapping[str, tuple[str, str]]) -> tuple[str, str]:
    """`(stat_key, value)` of a file, taken from `memory` if size and times are as remembered, else computed."""
    key = stat_key(path)
    known = memory.get(str(path))
    return known if known and known[0] == key else (key, compute(path))
