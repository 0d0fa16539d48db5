"""The library of tracks: verified raw files -> processed tracks, track by track and only what changed.

What belongs here: what has to be done (fingerprints), which rows the stage's table has. What does not: the work on one
file (`process_track.py`), its columns (`track_table.py`), copies (`duplicates.py`).
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from lofi_assets.constitution.gates import Gate, gates_of
from lofi_assets.files.hashing import hash_of
from lofi_assets.files.recorded_hashes import FileHashes
from lofi_assets.outcome import Outcome, Written
from lofi_assets.profiles import AudioSettings
from lofi_assets.sources.inventory import SourceRow, read_inventory
from lofi_assets.sources.raw_files import PART
from lofi_assets.store import Increment, Store
from lofi_assets.tracks.duplicates import comparisons_path, mark_duplicates, pairs_path, same_file, write_pairs
from lofi_assets.tracks.file_tags import current_tags
from lofi_assets.tracks.quarantine import Quarantined, write_quarantine
from lofi_assets.tracks.rejudge import judged_today, rules_hash
from lofi_assets.tracks.report import tracks_outcome
from lofi_assets.tracks.track_table import TrackRow, WorkedTrack, read_tracks, tracks_path, worked_tracks, write_tracks
from lofi_assets.tracks.work_files import (
    changed_audio,
    clear_stale,
    clear_unfinished,
    mend_work_files,
    place_tracks,
    read_work,
    work_file,
    write_work,
)
from lofi_assets.workers.mapping import MapTracks

TRACKS_VERSION = "2"
"""Raised when the audio chain changes what it measures or writes: every track is then processed again."""

FILE_HASHES = "track_files.json"
"""In the cache: hashes of work files and of their copies in `processed/`."""

LOFI_TEMPO = (62, 124)
"""BPM range that decides octaves for a track whose style no curator has named (`audio.tempo.LOFI_RANGE`)."""

StyleOf = Callable[[Sequence[TrackRow]], Mapping[str, str]]
"""Accepted rows -> track id -> style category; `tagged_tracks.categories` in production."""


def process_library(
    store: Store,
    *,
    gates: Sequence[Gate],
    settings: AudioSettings,
    tempo_ranges: Mapping[str, tuple[int, int]],
    style_of: StyleOf,
    map_tracks: MapTracks,
) -> Outcome:
    """Bring `processed_tracks.parquet`, `processed/` and `quarantine/` in line with the verified sources.

    Args:
        tempo_ranges: track id -> BPM range of the style a curator named, where one did.
        style_of: decides the folder of each accepted track.
        map_tracks: works on the files that are new or changed.
    """
    clear_unfinished(store, files=(tracks_path(store), pairs_path(store), comparisons_path(store)))
    inventory = read_inventory(store)
    verified = {row.track_id: row for row in inventory if row.status == "verified"}
    track_gates = gates_of(gates, asset="processed_tracks", scope="track")
    recorded: dict[str, list[TrackRow]] = {}
    for row in read_tracks(store):
        recorded.setdefault(row.whole, []).append(row)
    wanted = {
        track_id: hash_of(TRACKS_VERSION, row.sha256, tempo_ranges.get(track_id, LOFI_TEMPO), *_extras(settings))
        for track_id, row in verified.items()
    }
    increment = Increment.between(wanted=wanted, recorded={key: rows[0].fingerprint for key, rows in recorded.items()})
    standing = {
        key: judged_today(recorded[key], gates=track_gates, segment=settings.segment) for key in increment.unchanged
    }
    hashes = FileHashes(store.root, store.cache / FILE_HASHES)
    mended = mend_work_files(store, [row for rows in standing.values() for row in rows or ()], hashes)
    lost = {key: changed_audio(store, rows, hashes) for key, rows in standing.items() if rows is not None}
    again = [key for key in standing if lost.get(key, True)]
    fresh, computed = _process(
        store,
        [*increment.todo, *again],
        verified,
        wanted,
        gates=track_gates,
        settings=settings,
        ranges=tempo_ranges,
        hashes=hashes,
        map_tracks=map_tracks,
    )
    mended += [
        f"{store.relative(path)}: had been changed or removed; {verified[key].path} was processed again"
        for key, paths in lost.items()
        for path in paths
    ]
    rows = [row for key in sorted(wanted) for row in fresh.get(key) or standing[key] or ()]
    before = {row.track_id: row for key in recorded for row in recorded[key]}
    licences = {key: row.license_status for key, row in verified.items()}
    rows, pairs = mark_duplicates(
        rows, recorded=before, licences=licences, gates=track_gates, memory=comparisons_path(store)
    )
    rows = [_with_file_tags(store, row) for row in rows]
    folders = style_of([row for row in rows if row.accepted])
    rows, placed = place_tracks(store, rows, folders, hashes)
    hashes.save()
    write_tracks(store, rows)
    write_pairs(store, [*pairs, *same_file(rows)])
    accepted = [row for row in rows if row.accepted]
    rejected = [row for row in rows if not row.accepted]
    write_quarantine(store, "sources", [_quarantined_source(row) for row in inventory if row.status == "rejected"])
    write_quarantine(store, "tracks", [_quarantined_track(row) for row in rejected])
    clear_stale(store, rows, wanted)
    licensed = {row.track_id: verified[row.whole].sha256 for row in rows}
    counts = increment.counts() | {"recomputed": computed}
    outcome = tracks_outcome(
        accepted, rejected, licensed=licensed, counts=counts, gates=track_gates, mended=[*mended, *placed]
    )
    written = Written([tracks_path(store), pairs_path(store), *(store.root / row.audio_path for row in accepted)])
    return replace(outcome, written=written)


def _extras(settings: AudioSettings) -> list[str]:
    """What a profile adds to the work, for its fingerprint."""
    return [name for name in ("lossless", "segment") if getattr(settings, name)]


def _process(
    store: Store,
    todo: Sequence[str],
    verified: Mapping[str, SourceRow],
    wanted: Mapping[str, str],
    *,
    gates: Sequence[Gate],
    settings: AudioSettings,
    ranges: Mapping[str, tuple[int, int]],
    hashes: FileHashes,
    map_tracks: MapTracks,
) -> tuple[dict[str, list[TrackRow]], int]:
    """Rows of the files to do, and how many were computed now rather than adopted from an interrupted run."""
    from lofi_assets.tracks.process_track import ProcessJob, process_track

    rows: dict[str, list[TrackRow]] = {}
    jobs: list[ProcessJob] = []
    taken = {PART.sub("", track_id) for track_id in wanted if PART.search(track_id)}
    for track_id in todo:
        kept = [_track(work, verified[track_id]) for work in read_work(store, track_id, wanted[track_id])]
        found = judged_today(kept, gates=gates, segment=settings.segment) if kept else None
        sound = found and found[0].fingerprint == wanted[track_id] and not changed_audio(store, found, hashes)
        if found and sound:
            rows[track_id] = found
            continue
        jobs.append(
            ProcessJob(
                track_id=track_id,
                source=store.root / verified[track_id].path,
                root=store.raw,
                target=work_file(store, track_id, wanted[track_id]),
                gates=tuple(gates),
                tempo_range=ranges.get(track_id, LOFI_TEMPO),
                lossless=settings.lossless,
                # Where raw files are named like its parts, a long file stays whole, and too long.
                segment=settings.segment and track_id[:116] not in taken,
            )
        )
    rules = rules_hash(gates)
    with contextlib.closing(map_tracks(process_track, jobs, label="processing tracks")) as results:
        for job, result in results:
            made = worked_tracks(result, job.track_id, wanted[job.track_id], judged_by=rules)
            write_work(store, job.track_id, wanted[job.track_id], made)
            rows[job.track_id] = [_track(work, verified[job.track_id]) for work in made]
    return rows, len(jobs)


def _track(work: WorkedTrack, source: SourceRow) -> TrackRow:
    return TrackRow(**vars(work), source_id=source.source_id, raw_path=source.path)


def _with_file_tags(store: Store, row: TrackRow) -> TrackRow:
    """An accepted track with what its raw file says of itself, by which it may be tagged without the file."""
    if not row.accepted:
        return row
    raw = store.root / row.raw_path
    tags = current_tags(raw, source_sha256=row.source_sha256, recorded=row.file_tags)
    return row if tags is row.file_tags else replace(row, file_tags=tags)


def _quarantined_source(row: SourceRow) -> Quarantined:
    return Quarantined(
        track_id=row.track_id,
        rule=row.rule,
        reason=row.reason,
        path=row.path,
        source_id=row.source_id,
        measures=row.measures,
    )


def _quarantined_track(row: TrackRow) -> Quarantined:
    return Quarantined(
        track_id=row.track_id,
        rule=row.rule,
        reason=row.reason,
        raw_path=row.raw_path,
        source_id=row.source_id,
        measures=row.measures,
    )
