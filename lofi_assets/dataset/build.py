"""A dataset version on the disk: immutable, named by its content hash, and shown in the folders of the split.

What belongs here: writing a version, putting back what was changed in it, `final/` and `validation/`, the record of
sides. What does not: reading versions (`versions.py`), which tracks are candidates (`dataset_manifest.py`) and on which
side (`split.py`), what is hashed (`content_hash.py`).

    dataset/<id>/audio/     read-only, shared among versions by hard links: a version costs what changed in it
    final/, validation/     copies of their own, for people and their programs to open
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from pydantic.dataclasses import dataclass as stored

from lofi_assets.dataset.card import Described, style_distribution, write_card
from lofi_assets.dataset.content_hash import hash_row, hash_rows
from lofi_assets.dataset.trainer_format import write_hugging_face
from lofi_assets.dataset.verification import dataset_faults
from lofi_assets.dataset.versions import (
    SUFFIXES,
    DatasetError,
    audio_path,
    current_version,
    read_track,
    record_dataset,
    version_record,
    version_tracks,
    versions,
    write_version_records,
)
from lofi_assets.files.hashing import sha256_file
from lofi_assets.files.recorded_hashes import FileHashes, put_back
from lofi_assets.files.typed import STORED, read_typed, write_typed
from lofi_assets.files.writing import atomic_folder, atomic_path
from lofi_assets.records import Dataset, Split, Track
from lofi_assets.store import Store

FILE_HASHES = "dataset_files.json"
"""In the cache: hashes of the files of the current version and of the split folders."""


@stored(frozen=True, config=STORED)
class Sides:
    """On which side of the split tracks are: `metadata/dataset_splits.json`."""

    dataset_id: str
    splits: Mapping[str, Split]
    """Track id -> side, of those in the current version."""
    earlier: Mapping[str, Split] = field(default_factory=dict)
    """The same of those that were in a version before; a root of the first versions does not tell."""

    @classmethod
    def read(cls, store: Store) -> "Sides | None":
        """What is on record; None before the first version, and in a root that an early version of this code wrote.

        Raises:
            StoreError: it is broken, or of another version.
        """
        return read_typed(cls._path(store), cls, remedy="restore it from a backup: it says what was validated against")

    def write(self, store: Store) -> None:
        """Put on record."""
        write_typed(self._path(store), self)

    @staticmethod
    def _path(store: Store) -> Path:
        return sides_path(store)


def sides_path(store: Store) -> Path:
    """Where the sides of all tracks are recorded."""
    return store.metadata("dataset_splits.json")


@dataclass(frozen=True)
class Candidate:
    """A processed and tagged track that may enter the dataset."""

    track: Track
    audio: Path
    prompt: str
    lyrics: str
    audio_sha256: str
    group: str
    """Near-duplicates and segments of one file share a group; a group never straddles the split."""
    tempo_bpm: float | None = None
    """None where none was found."""
    loudness_lufs: float | None = None
    license_type: str = ""
    provider: str = ""
    attribution: str = ""


@dataclass(frozen=True)
class BuiltDataset:
    """What `build_dataset` made or found."""

    record: Dataset
    folder: Path
    tracks: tuple[Track, ...]
    created: bool
    """False when this very version was there already."""
    mended: tuple[str, ...] = ()
    """A sentence for each file that had been changed and was put back."""
    fault: str = ""
    """What is not as recorded and could not be put back, and what to do; "" for a version that hashes as it should."""


def dataset_hash(candidates: Iterable[Candidate]) -> str:
    """Content hash: audio, prompt, lyrics, split, styles and source of every track, whatever the order of the files."""
    return hash_rows([hash_row(c.track, c.audio_sha256, c.prompt, c.lyrics) for c in candidates])


def build_dataset(store: Store, candidates: Sequence[Candidate], *, now: datetime) -> BuiltDataset:
    """Write the dataset version of `candidates`, unless it exists; then bring `final/` and `validation/` in line.

    An existing version is never changed: dataset folders are immutable and are named by their content hash. A file that
    somebody changed or removed is put back from a sound copy.

    Raises:
        DatasetError: the audio of a candidate is not what was judged, or the version's own records are missing.
    """
    ordered = sorted(candidates, key=lambda candidate: candidate.track.track_id)
    digest = dataset_hash(ordered)
    folder = store.datasets / f"lofi-{digest[:12]}"
    hashes = FileHashes(store.root, store.cache / FILE_HASHES)
    created = not folder.is_dir()
    if created:
        with atomic_folder(folder) as temporary:
            _write_version(store, temporary, ordered, digest=digest, now=now, name=folder.name)
        for candidate in ordered:
            hashes.record(_audio(folder, candidate), candidate.audio_sha256)
    record = version_record(folder)
    if record is None:
        raise DatasetError(f"{folder / 'dataset.json'}: is missing; {_REBUILD.format(folder=folder)}")
    mended = [*_mend_version(store, folder, ordered, hashes), *_publish(store, ordered, folder, hashes)]
    fault = _fault(folder, ordered, hashes)
    hashes.save()
    _record_splits(store, folder.name, {c.track.track_id: c.track.split for c in ordered})
    record_dataset(store, record)
    tracks = tuple(c.track for c in ordered)
    return BuiltDataset(record, folder, tracks, created, tuple(mended), fault)


_REBUILD = "move {folder} away and materialise dataset_manifest, which writes it again"


def _audio(folder: Path, candidate: Candidate) -> Path:
    return audio_path(folder, candidate.track.track_id)


def _texts(candidate: Candidate) -> dict[str, bytes]:
    """End of the name -> bytes of a track's texts."""
    return dict(zip(SUFFIXES[1:], (candidate.prompt.encode(), candidate.lyrics.encode()), strict=True))


def _copies(store: Store, candidate: Candidate) -> list[Path]:
    """Where the audio of a track lies besides the versions."""
    name = f"{candidate.track.track_id}.mp3"
    return [candidate.audio, store.final / name, store.validation / name]


def _write_version(
    store: Store,
    folder: Path,
    ordered: Sequence[Candidate],
    *,
    digest: str,
    now: datetime,
    name: str,
) -> None:
    before, hashes = current_version(store), FileHashes(store.root, store.cache / FILE_HASHES)
    (folder / "audio").mkdir()
    for candidate in ordered:
        target, earlier = _audio(folder, candidate), _audio(before, candidate)
        if hashes(earlier) == candidate.audio_sha256:
            _link(earlier, target)
        elif not put_back(target, candidate.audio_sha256, sources=_copies(store, candidate), hashes=hashes):
            raise DatasetError(
                f"{candidate.audio}: is not the audio that was judged; materialise processed_tracks, which puts it "
                "back, and then dataset_manifest"
            )
        for suffix, text in _texts(candidate).items():
            stem = candidate.track.track_id
            _write_or_link(folder / "audio" / f"{stem}{suffix}", text, before / "audio" / f"{stem}{suffix}")
    tracks = [candidate.track for candidate in ordered]
    record = Dataset(
        dataset_id=name,
        created=now,
        track_count=len(tracks),
        train_count=sum(track.split == "train" for track in tracks),
        validation_count=sum(track.split == "validation" for track in tracks),
        total_duration=sum(track.duration for track in tracks) / 3600,
        style_distribution=style_distribution(tracks),
        hash=digest,
    )
    write_version_records(folder, record, tracks)
    for split in ("train", "validation"):
        if rows := [(c.track.track_id, c.prompt, c.lyrics) for c in ordered if c.track.split == split]:
            write_hugging_face(folder / split, rows)
    write_card(folder, record, [_described(candidate) for candidate in ordered])
    for path in (folder / "audio").iterdir():
        _protect(path)


def _described(candidate: Candidate) -> Described:
    return Described(
        candidate.track,
        tempo_bpm=candidate.tempo_bpm,
        loudness_lufs=candidate.loudness_lufs,
        license_type=candidate.license_type,
        provider=candidate.provider,
        attribution=candidate.attribution,
    )


def _protect(path: Path) -> None:
    """Take the right to write away: versions share the file, and who opens one must not change them all."""
    mode = path.stat().st_mode
    if mode & 0o222:
        path.chmod(mode & 0o555)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _write_or_link(target: Path, data: bytes, before: Path) -> None:
    """A text as in the version before is a link to it: an unchanged track costs a new version no space and no sync."""
    with contextlib.suppress(OSError):
        if before.read_bytes() == data:
            return _link(before, target)
    target.write_bytes(data)


def _mend_version(store: Store, folder: Path, ordered: Sequence[Candidate], hashes: FileHashes) -> list[str]:
    """Put back audio and texts of a version that are no longer what it records; says which."""
    told = []
    for candidate in ordered:
        path = _audio(folder, candidate)
        if hashes(path) != candidate.audio_sha256:
            shared = _shared_with(store, path)
            source = put_back(path, candidate.audio_sha256, sources=_copies(store, candidate), hashes=hashes)
            if source:
                told.append(_told(store, path, source))
                _share(path, shared)
                hashes.record(path, candidate.audio_sha256)
        for suffix, text in _texts(candidate).items():
            path = folder / "audio" / f"{candidate.track.track_id}{suffix}"
            if not path.is_file() or path.read_bytes() != text:
                shared = _shared_with(store, path)
                with atomic_path(path) as temporary:
                    temporary.write_bytes(text)
                _share(path, shared)
                told.append(f"{store.relative(path)}: had been changed or removed; written again")
    return told


def _share(path: Path, others: Iterable[Path]) -> None:
    _protect(path)
    for other in others:
        other.unlink()
        _link(path, other)


def _told(store: Store, path: Path, source: Path) -> str:
    return f"{store.relative(path)}: had been changed or removed; put back from {store.relative(source)}"


def _shared_with(store: Store, path: Path) -> list[Path]:
    """The same file in other versions, which whoever wrote into it changed too."""
    if not path.is_file():
        return []
    others = [folder / "audio" / path.name for folder in versions(store) if folder != path.parents[1]]
    return [other for other in others if other.is_file() and other.samefile(path)]


def _publish(store: Store, ordered: Sequence[Candidate], folder: Path, hashes: FileHashes) -> list[str]:
    """Make `final/` and `validation/` show exactly this version; only names of the layout are removed.

    What is right by the remembered hashes is neither read nor copied. Says which files had been changed.
    """
    told = []
    for split, target in (("train", store.final), ("validation", store.validation)):
        wanted = {name: digest for c in ordered if c.track.split == split for name, digest in _named(c).items()}
        target.mkdir(parents=True, exist_ok=True)
        with os.scandir(target) as entries:
            here = {entry.name for entry in entries}
        for name in here - wanted.keys():
            if name.endswith(SUFFIXES):
                (target / name).unlink()
        for name, digest in sorted(wanted.items()):
            path, source = target / name, folder / "audio" / name
            if name in here and hashes.is_own(path, digest):
                continue
            if put_back(path, digest, sources=[source], hashes=hashes) and hashes.had(path) == digest:
                told.append(_told(store, path, source))
    return told


def _named(candidate: Candidate) -> dict[str, str]:
    """Name -> sha256 of every file of a track."""
    stem = candidate.track.track_id
    texts = {f"{stem}{suffix}": hashlib.sha256(text).hexdigest() for suffix, text in _texts(candidate).items()}
    return {f"{stem}.mp3": candidate.audio_sha256, **texts}


def _fault(folder: Path, ordered: Sequence[Candidate], hashes: FileHashes) -> str:
    """Why a version does not hash as it should, reading only audio that changed since it was last read."""
    lost = [str(path) for c in ordered if hashes(path := _audio(folder, c)) != c.audio_sha256]
    if lost:
        return (
            f"{', '.join(lost[:3])}: not the audio that was judged, and no sound copy is left; materialise "
            "processed_tracks, which works on the raw file again, and then dataset_manifest"
        )
    if verify_dataset(folder, sha256=hashes):
        return ""
    faults = dataset_faults(folder, sha256=hashes) or [f"{folder}: split, styles or sources are not those recorded"]
    return f"{'; '.join(faults[:3])}: {_REBUILD.format(folder=folder)}"


def verify_dataset(folder: Path, *, sha256: Callable[[Path], str] = sha256_file) -> bool:
    """Whether the files of a dataset version still hash to the recorded hash.

    Args:
        sha256: of a file; the default reads every byte again.
    """
    record, tracks = version_record(folder), version_tracks(folder)
    if record is None or tracks is None:
        return False
    rows = []
    for track in tracks:
        try:
            rows.append(hash_row(track, *read_track(folder, track.track_id, sha256=sha256)))
        except OSError:
            return False
    return hash_rows(rows) == record.hash


def current_splits(store: Store) -> dict[str, Split]:
    """Track id -> split in the current version; empty before the first one. Outlives the version's folder."""
    if sides := Sides.read(store):
        return dict(sides.splits)
    return {track.track_id: track.split for track in version_tracks(current_version(store)) or ()}


def recorded_splits(store: Store) -> dict[str, Split]:
    """Track id -> split of every track that ever was in a version: one that comes back is where it was."""
    sides = Sides.read(store)
    return {**(sides.earlier if sides else {}), **current_splits(store)}


def _record_splits(store: Store, dataset_id: str, splits: Mapping[str, Split]) -> None:
    earlier = {key: split for key, split in sorted(recorded_splits(store).items()) if key not in splits}
    Sides(dataset_id, splits, earlier).write(store)
