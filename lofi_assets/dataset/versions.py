"""Dataset versions on the disk: which there are, which is current, and what each records of itself and its tracks.

    metadata/dataset_manifest.json    the record of the current version
    dataset/<id>/dataset.json         the record of a version
    dataset/<id>/tracks.json          the records of its tracks, by id

Records keep fields that they do not know (`records.Record`), so a curator may note something in one.
"""

import errno
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lofi_assets.errors import LofiError
from lofi_assets.files.documents import read_json, write_json
from lofi_assets.files.hashing import sha256_file
from lofi_assets.files.typed import parsed, read_typed
from lofi_assets.records import Dataset, Split, Track, dump
from lofi_assets.store import Store

SUFFIXES = (".mp3", "_prompt.txt", "_lyrics.txt")
"""The files of a track, in the form that ACE-Step's converter reads."""
_MANIFEST, _RECORD, _TRACKS = "dataset_manifest.json", "dataset.json", "tracks.json"
_MEND = "restore it, or move the folder away and materialise dataset_manifest again"
_RECORD_AGAIN = "remove it and materialise dataset_manifest again"


class DatasetError(LofiError, ValueError):
    """A dataset version cannot be found or copied; the message says which, and what to do."""


class DatasetVersion(NamedTuple):
    """A version as it records itself."""

    folder: Path
    record: Dataset
    tracks: tuple[Track, ...]

    def of_split(self, split: Split) -> list[Track]:
        """Tracks of one side, by id."""
        return [track for track in self.tracks if track.split == split]

    def audio(self, track_id: str) -> Path:
        """The MP3 of a track."""
        return audio_path(self.folder, track_id)

    def prompt(self, track_id: str) -> Path:
        """The text that a track is prompted with."""
        return self.folder / "audio" / f"{track_id}{SUFFIXES[1]}"

    def lyrics(self, track_id: str) -> Path:
        """What is sung in a track, or that nothing is."""
        return self.folder / "audio" / f"{track_id}{SUFFIXES[2]}"


def record_files(store: Store, folder: Path) -> list[Path]:
    """The records of a version and the current one's, in which a curator may note something."""
    return [store.metadata(_MANIFEST), folder / _RECORD, folder / _TRACKS]


def audio_path(folder: Path, track_id: str) -> Path:
    """The MP3 of a track in the folder of a version."""
    return folder / "audio" / f"{track_id}.mp3"


def find_version(store: Store, name: str = "") -> Path:
    """Folder of a dataset version by its id or the beginning of it, with or without `lofi-`; the current one for "".

    Raises:
        DatasetError: none, or more than one.
    """
    current = recorded_dataset(store)
    name = name or (current.dataset_id if current else "none")
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
    return sorted(path.parent for path in store.datasets.glob(f"lofi-*/{_RECORD}"))


def version_record(folder: Path) -> Dataset | None:
    """What a version records of itself; None without the file.

    Raises:
        StoreError: it is broken, or of another version of the data model.
    """
    return read_typed(folder / _RECORD, Dataset, remedy=_MEND)


def version_tracks(folder: Path) -> tuple[Track, ...] | None:
    """The tracks of a version, by id; None without the file.

    Raises:
        DatasetError, StoreError: it is broken, or of another version of the data model.
    """
    path = folder / _TRACKS
    data = read_json(path, remedy=_MEND)
    if data is None:
        return None
    if not isinstance(data, list):
        raise DatasetError(f"{path}: not an array of tracks; {_MEND}")
    places = enumerate(data, start=1)
    return tuple(parsed(Track, item, where=f"{path}, track {place}", remedy=_MEND) for place, item in places)


def read_version(folder: Path) -> DatasetVersion | None:
    """A version with its tracks; None where it does not say that it is one.

    Raises:
        DatasetError, StoreError: `tracks.json` is absent, or one of the two is broken.
    """
    record = version_record(folder)
    return None if record is None else DatasetVersion(folder, record, _tracks_of(folder))


def write_version_records(folder: Path, record: Dataset, tracks: Sequence[Track]) -> None:
    """Write what a version records of itself and of its tracks."""
    write_json(folder / _RECORD, dump(record))
    write_json(folder / _TRACKS, [_plain(track) for track in tracks])


def _plain(track: Track) -> dict[str, Any]:
    """As `records.dump` writes it; the schema comes from the model that already checked every field."""
    return track.model_dump(mode="json", exclude_none=True)


def read_track(folder: Path, track_id: str, *, sha256: Callable[[Path], str] = sha256_file) -> tuple[str, str, str]:
    """sha256 of the audio, prompt and lyrics of a track of a version.

    Args:
        sha256: of a file; the default reads it.

    Raises:
        OSError: a file is missing.
    """
    audio = audio_path(folder, track_id)
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
    record = recorded_dataset(store)
    return store.datasets / (record.dataset_id if record else "none")


def current_dataset(store: Store) -> DatasetVersion:
    """The current dataset version, as `dataset_manifest` left it.

    Raises:
        DatasetError, StoreError: no dataset was built yet, or what tells of it is broken.
    """
    record = dataset_on_record(store)
    folder = store.datasets / record.dataset_id
    return DatasetVersion(folder, record, _tracks_of(folder))


def dataset_on_record(store: Store) -> Dataset:
    """The record of the current version.

    Raises:
        DatasetError, StoreError: no dataset was built yet, or the record is broken.
    """
    record = recorded_dataset(store)
    if record is None:
        raise DatasetError(f"{store.metadata(_MANIFEST)}: no dataset yet; materialise dataset_manifest")
    return record


def recorded_dataset(store: Store) -> Dataset | None:
    """The record of the current version; None before the first.

    Raises:
        DatasetError, StoreError: it is broken, or of another version of the data model.
    """
    path = store.metadata(_MANIFEST)
    data = read_json(path, remedy=_RECORD_AGAIN)
    if data is None:
        return None
    if not isinstance(data, dict) or not {"dataset_id", "hash"} <= data.keys():
        raise DatasetError(f"{path}: names no dataset version; {_RECORD_AGAIN}")
    return parsed(Dataset, data, where=str(path), remedy=_RECORD_AGAIN)


def record_dataset(store: Store, record: Dataset) -> None:
    """Make a version the current one."""
    write_json(store.metadata(_MANIFEST), dump(record))


def _tracks_of(folder: Path) -> tuple[Track, ...]:
    tracks = version_tracks(folder)
    if tracks is None:
        raise DatasetError(f"{folder / _TRACKS}: absent; {_MEND}")
    return tracks
