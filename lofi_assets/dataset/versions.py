"""Dataset versions on the disk: which there are, which is current, and what one track of them holds."""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lofi_assets.errors import LofiError
from lofi_assets.files.documents import read_json
from lofi_assets.files.hashing import sha256_file
from lofi_assets.store import Store

MANIFEST = "dataset_manifest.json"
"""In `metadata/`: the record of the current version."""
SUFFIXES = (".mp3", "_prompt.txt", "_lyrics.txt")
"""The files of a track, in the form that ACE-Step's converter reads."""


class DatasetError(LofiError, ValueError):
    """A dataset version cannot be found or copied; the message says which, and what to do."""


def find_version(store: Store, name: str = "") -> Path:
    """Folder of a dataset version by its id or the beginning of it, with or without `lofi-`; the current one for "".

    Raises:
        DatasetError: none, or more than one.
    """
    name = name or read_json(store.metadata("dataset_manifest.json"), default={}).get("dataset_id", "none")
    known = versions(store)
    found = [folder for folder in known if folder.name == name] or [
        folder for folder in known if folder.name.removeprefix("lofi-").startswith(name.removeprefix("lofi-"))
    ]
    if len(found) != 1:
        there = ", ".join(folder.name for folder in known) or "none; materialise dataset_manifest"
        raise DatasetError(f"{store.datasets}: {len(found)} versions are named {name!r}; there are: {there}")
    return found[0]


def versions(store: Store) -> list[Path]:
    """Folders of all dataset versions, by name."""
    return sorted(path.parent for path in store.datasets.glob("lofi-*/dataset.json"))


def read_track(folder: Path, track_id: str, *, sha256: Callable[[Path], str] = sha256_file) -> tuple[str, str, str]:
    """sha256 of the audio, prompt and lyrics of a track of a version.

    Args:
        sha256: of a file; the default reads it.

    Raises:
        OSError: a file is missing.
    """
    audio = folder / "audio" / f"{track_id}.mp3"
    digest = sha256(audio)
    if not digest:
        raise FileNotFoundError(errno.ENOENT, "is missing", str(audio))
    return digest, *read_texts(folder, track_id)


def read_texts(folder: Path, track_id: str) -> tuple[str, str]:
    """Prompt and lyrics of a track of a version; bytes that are not UTF-8 are shown as such.

    Raises:
        OSError: a file is missing.
    """
    texts = ((folder / "audio" / f"{track_id}{suffix}").read_bytes() for suffix in SUFFIXES[1:])
    prompt, lyrics = (text.decode("utf-8", errors="backslashreplace") for text in texts)
    return prompt, lyrics


def current_version(store: Store) -> Path:
    """Folder of the current version; one that is not there before the first."""
    manifest = read_json(store.metadata(MANIFEST), default={})
    return store.datasets / str(manifest.get("dataset_id"))


def current_dataset(store: Store) -> tuple[Path, dict[str, Any], list[dict[str, Any]]]:
    """Folder, manifest and tracks of the current dataset version.

    Raises:
        DatasetError: no dataset was built yet, or what tells of it is broken.
    """
    manifest = dataset_on_record(store)
    folder = store.datasets / manifest["dataset_id"]
    path, remedy = folder / "tracks.json", "restore it, or move the folder away and materialise dataset_manifest again"
    tracks = read_json(path, remedy=remedy)
    if not isinstance(tracks, list):
        raise DatasetError(f"{path}: {'absent' if tracks is None else 'not an array of tracks'}; {remedy}")
    return folder, manifest, tracks


def dataset_on_record(store: Store) -> dict[str, Any]:
    path, remedy = store.metadata(MANIFEST), "remove it and materialise dataset_manifest again"
    manifest = read_json(path, remedy=remedy)
    if manifest is None:
        raise DatasetError(f"{path}: no dataset yet; materialise dataset_manifest")
    if not isinstance(manifest, dict) or not {"dataset_id", "hash"} <= manifest.keys():
        raise DatasetError(f"{path}: names no dataset version; {remedy}")
    return manifest
