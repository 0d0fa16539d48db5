"""Work files of the audio chain, in `cache/tracks/`: what they are called, whether they are sound, which may go.

Names, removal, putting back, the rows beside them, and the copies in `processed/` that people open.

A work file carries the fingerprint of the work in its name, and the track's row is written beside it last. So a killed
run leaves nothing that a later one could mistake for another version's, and what it had finished is adopted.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lofi_assets.files.documents import read_json, write_json
from lofi_assets.files.recorded_hashes import FileHashes, put_back
from lofi_assets.files.typed import parsed_row, plain_row
from lofi_assets.files.writing import StoreError
from lofi_assets.sources.raw_files import PART
from lofi_assets.store import Store
from lofi_assets.tracks.track_table import TrackRow, WorkedTrack

_REMEDY = "remove it, the file is then worked on again"


def _audio(row: WorkedTrack) -> list[tuple[str, str]]:
    """Hash and suffix of each audio file that a row tells of."""
    files = ((row.audio_sha256, ".mp3"), (row.lossless_sha256, ".flac"))
    return [(digest, suffix) for digest, suffix in files if digest]


def work_file(store: Store, track_id: str, work: str, suffix: str = ".mp3") -> Path:
    """Where the chain writes a track; `processed/<category>/` holds a copy for people to open.

    Args:
        work: fingerprint of the work that makes it.
    """
    return store.cache / "tracks" / f"{track_id}.{work[:12]}{suffix}"


def read_work(store: Store, track_id: str, work: str) -> list[WorkedTrack]:
    """What a run that was interrupted made of a raw file: a row, or one per part; none if it did not come to it.

    Raises:
        StoreError: the file beside the audio cannot be read, or is of another version.
    """
    path = work_file(store, track_id, work, ".json")
    rows = read_json(path, default=[], remedy=_REMEDY)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise StoreError(f"{path}: is no list of rows; {_REMEDY}")
    return [parsed_row(WorkedTrack, row, where=str(path), remedy=_REMEDY) for row in rows]


def write_work(store: Store, track_id: str, work: str, made: Sequence[WorkedTrack]) -> None:
    """Put the rows of a raw file beside its audio, in the form that the table has them."""
    write_json(work_file(store, track_id, work, ".json"), [plain_row(row) for row in made])


def changed_audio(store: Store, rows: Iterable[WorkedTrack], hashes: FileHashes) -> list[Path]:
    """Audio files that the rows tell of and that are not there, or are not what was measured."""
    return [
        path
        for row in rows
        for digest, suffix in _audio(row)
        if hashes(path := work_file(store, row.track_id, row.fingerprint, suffix)) != digest
    ]


def mend_work_files(store: Store, rows: Iterable[TrackRow], hashes: FileHashes) -> list[str]:
    """Put back every MP3 of the rows that was changed or removed and of which a sound copy is left; says which.

    One that is a link to another file becomes a file of its own.
    """
    told = []
    for row in rows:
        if not row.audio_sha256:
            continue
        path, digest = work_file(store, row.track_id, row.fingerprint), row.audio_sha256
        if hashes.is_own(path, digest):
            continue
        shown = [folder / f"{row.track_id}.mp3" for folder in (store.final, store.validation)]
        processed = [store.root / row.audio_path] if row.audio_path else []
        source = put_back(path, digest, sources=[path, *processed, *shown], hashes=hashes)
        if source and source != path:
            told.append(f"{store.relative(path)}: had been changed or removed; put back from {store.relative(source)}")
    return told


def place_tracks(
    store: Store, rows: Sequence[TrackRow], folders: Mapping[str, str], hashes: FileHashes
) -> tuple[list[TrackRow], list[str]]:
    """Copy each accepted track into the folder of its style, and clear away copies that are no longer wanted.

    Args:
        folders: track id -> style category.
    Returns:
        The rows with the paths of their files, and a sentence for each copy that had been changed.
    Raises:
        StoreError: a work file is not what was measured.
    """
    wanted = {
        row.track_id: store.processed / folders[row.track_id] / f"{row.track_id}.mp3" for row in rows if row.accepted
    }
    keep = {path.with_suffix("") for path in wanted.values()}
    for path in store.processed.glob("*/*") if store.processed.is_dir() else []:
        stem = path.name.removesuffix(".mp3").removesuffix("_prompt.txt").removesuffix("_lyrics.txt")
        if path.with_name(stem) not in keep and stem != path.name:
            path.unlink()
    told = []
    for row in rows:
        target = wanted.get(row.track_id)
        if target and not hashes.is_own(target, row.audio_sha256):
            told += _place(store, row, target, hashes)
    return [_with_paths(store, row, wanted.get(row.track_id)) for row in rows], told


def _place(store: Store, row: TrackRow, target: Path, hashes: FileHashes) -> list[str]:
    work, digest = work_file(store, row.track_id, row.fingerprint), row.audio_sha256
    target.parent.mkdir(parents=True, exist_ok=True)
    if not put_back(target, digest, sources=[work], hashes=hashes):
        raise StoreError(f"{work}: is not the audio that was measured; remove it and materialise processed_tracks")
    hashes.record(work, digest)
    name = store.relative(target)
    return [f"{name}: had been changed or removed; put back"] if hashes.had(target) == digest else []


def _with_paths(store: Store, row: TrackRow, audio: Path | None) -> TrackRow:
    """A row that says where the track's files are."""
    flac = work_file(store, row.track_id, row.fingerprint, ".flac") if row.lossless_sha256 else None
    audio_path, lossless_path = (store.relative(path) if path else "" for path in (audio, flac))
    return replace(row, audio_path=audio_path, lossless_path=lossless_path)


def clear_unfinished(store: Store, *, files: Sequence[Path]) -> None:
    """Remove the temporary files of a run that was killed; two runs on one data root at once are not supported.

    Args:
        files: single files that the run writes, besides those of tracks.
    """
    for folder, pattern in (
        (store.cache / "tracks", ".*.part"),
        (store.processed, "*/.*.part"),
        (store.quarantine, "sources/.*.part"),
        (store.quarantine, "tracks/.*.part"),
        *((path.parent, f".{path.name}.*.part") for path in files),
    ):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)


def clear_stale(store: Store, rows: Sequence[TrackRow], wanted: Mapping[str, str]) -> None:
    """Remove work files of the present tracks that no row uses: of an earlier version, or of a track now rejected.

    Files of tracks that are not verified today stay: their rights may come back.
    """
    used = {work_file(store, track_id, work, ".json").name for track_id, work in wanted.items()}
    for row in rows:
        used |= {work_file(store, row.track_id, row.fingerprint, suffix).name for _, suffix in _audio(row)}
    present = {track_id[:116] for track_id in wanted} | wanted.keys()
    for path in (store.cache / "tracks").glob("*"):
        track_id = path.name.partition(".")[0]
        if path.name not in used and (track_id in present or PART.sub("", track_id) in present):
            path.unlink()
