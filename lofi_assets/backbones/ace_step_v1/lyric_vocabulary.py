"""Upstream's lyric vocabulary: a local file, or one downloaded once; refused without the pinned hash."""

from __future__ import annotations

import hashlib
import urllib.request
from pathlib import Path

from lofi_assets.errors import LofiError
from lofi_assets.files.hashing import sha256_file
from lofi_assets.files.writing import atomic_path

LYRIC_VOCABULARY = "lyric_vocab.json"
"""Its name in a base model's folder."""
LARGEST_BYTES = 16 * 2**20
"""The published file has 0.4 MB; a server that sends more sends something else."""
TIMEOUT_S = 60


class VocabularyError(LofiError, ValueError):
    """The lyric vocabulary cannot be had; the message names file or URL and what to do."""


def vocabulary_file(source: str, *, sha256: str, root: Path, downloads: Path) -> Path:
    """The vocabulary's file with its content checked.

    Args:
        source: path, relative to `root`, or https URL.
        sha256: of the file, 64 hexadecimal digits.
        downloads: folder that keeps a downloaded vocabulary under its hash; a damaged copy is downloaded again.
    Raises:
        VocabularyError: absent, not to be downloaded, or another file than was pinned.
    """
    if not source.startswith("https://"):
        path = root / source
        if not path.is_file():
            raise VocabularyError(f"{path}: no such file; put ACE-Step's vocab.json there, or give its https URL")
        return _pinned(path, sha256)
    path = downloads / f"lyric_vocab-{sha256[:16]}.json"
    if not (path.is_file() and sha256_file(path) == sha256):
        _download(source, path, sha256=sha256)
    return path


def _pinned(path: Path, sha256: str) -> Path:
    found = sha256_file(path)
    if found != sha256:
        raise VocabularyError(
            f"{path}: has sha256 {found}, the profile pins {sha256}: fetch the file again, or pin what you mean to use"
        )
    return path


def _download(url: str, path: Path, *, sha256: str) -> None:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:
            data = response.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise VocabularyError(
            f"{url}: cannot be downloaded ({error}); download it by hand and give its path as lyric_vocabulary.source"
        ) from error
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise VocabularyError(
            f"{url}: sent {len(data)} bytes with sha256 {found}, the profile pins {sha256}; nothing was kept. Give the "
            "URL of the pinned file, or pin what you mean to use"
        )
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
