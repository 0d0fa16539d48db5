"""The library of tracks: verified raw files -> processed tracks, track by track and only what changed.

What belongs here: what has to be done (fingerprints), which rows the stage's table has. What does not: the work on one
file (`process_track.py`), its columns (`track_table.py`), copies (`duplicates.py`), licences (`sources/`), styles.
"""

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence

from lofi_assets.constitution.gates import Gate, gates_of
from lofi_assets.files.documents import read_json, write_json
from lofi_assets.files.hashing import fingerprint
from lofi_assets.files.recorded_hashes import FileHashes
from lofi_assets.outcome import Outcome
from lofi_assets.profiles import AudioSettings
from lofi_assets.sources.licensed_sources import INVENTORY, verified_files
from lofi_assets.sources.raw_files import PART
from lofi_assets.store import Row, Store, plan, rows_of, write_rows
from lofi_assets.tracks.duplicates import mark_duplicates, same_file
from lofi_assets.tracks.quarantine import write_quarantine
from lofi_assets.tracks.rejudge import judged_today, rules_hash
from lofi_assets.tracks.report import tracks_outcome
from lofi_assets.tracks.track_table import DUPLICATES, PROCESSED, result_rows
from lofi_assets.tracks.work_files import (
    changed_audio,
    clear_stale,
    clear_unfinished,
    mend_work_files,
    place_tracks,
    work_file,
)
from lofi_assets.workers.mapping import MapTracks

TRACKS_VERSION = "2"
"""Raised when the audio chain changes what it measures or writes: every track is then processed again."""

FILE_HASHES = "track_files.json"
"""In the cache: hashes of work files and of their copies in `processed/`."""

LOFI_TEMPO = (62, 124)
"""BPM range that decides octaves for a track whose style no curator has named (`audio.tempo.LOFI_RANGE`)."""

StyleOf = Callable[[Sequence[Row]], Mapping[str, str]]
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
    clear_unfinished(store, tables=(PROCESSED, DUPLICATES))
    inventory = rows_of(store, INVENTORY)
    verified = verified_files(store)
    track_gates = gates_of(gates, asset="processed_tracks", scope="track")
    recorded: dict[str, list[Row]] = {}
    for row in rows_of(store, PROCESSED):
        recorded.setdefault(row.get("part_of") or row["track_id"], []).append(row)
    wanted = {
        track_id: fingerprint(TRACKS_VERSION, row["sha256"], tempo_ranges.get(track_id, LOFI_TEMPO), *_extras(settings))
        for track_id, row in verified.items()
    }
    increment = plan(wanted=wanted, recorded={key: rows[0]["fingerprint"] for key, rows in recorded.items()})
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
        f"{store.relative(path)}: had been changed or removed; {verified[key]['path']} was processed again"
        for key, paths in lost.items()
        for path in paths
    ]
    rows = [row for key in sorted(wanted) for row in fresh.get(key) or standing[key] or ()]
    before = {row["track_id"]: row for key in recorded for row in recorded[key]}
    licences = {key: json.loads(row.get("measures") or "{}").get("license_status", "") for key, row in verified.items()}
    rows, pairs = mark_duplicates(
        rows, recorded=before, licences=licences, gates=track_gates, memory=store.cache / DUPLICATES
    )
    folders = style_of([row for row in rows if row["status"] == "accepted"])
    rows, placed = place_tracks(store, rows, folders, hashes)
    hashes.save()
    write_rows(store, PROCESSED, rows)
    write_json(store.metadata(DUPLICATES), [*pairs, *same_file(rows)])
    accepted = [row for row in rows if row["status"] == "accepted"]
    rejected = [row for row in rows if row["status"] == "rejected"]
    write_quarantine(store, "sources", [row for row in inventory if row["status"] == "rejected"])
    write_quarantine(store, "tracks", rejected)
    clear_stale(store, rows, wanted)
    licensed = {row["track_id"]: verified[row["part_of"] or row["track_id"]]["sha256"] for row in rows}
    counts = increment.counts() | {"recomputed": computed}
    return tracks_outcome(
        accepted, rejected, licensed=licensed, counts=counts, gates=track_gates, mended=[*mended, *placed]
    )


def _extras(settings: AudioSettings) -> list[str]:
    """What a profile adds to the work, for its fingerprint."""
    return [name for name in ("lossless", "segment") if getattr(settings, name)]


def _process(
    store: Store,
    todo: Sequence[str],
    verified: Mapping[str, Row],
    wanted: Mapping[str, str],
    *,
    gates: Sequence[Gate],
    settings: AudioSettings,
    ranges: Mapping[str, tuple[int, int]],
    hashes: FileHashes,
    map_tracks: MapTracks,
) -> tuple[dict[str, list[Row]], int]:
    """Rows of the files to do, and how many were computed now rather than adopted from an interrupted run."""
    from lofi_assets.tracks.process_track import ProcessJob, process_track

    rows: dict[str, list[Row]] = {}
    jobs: list[ProcessJob] = []
    taken = {PART.sub("", track_id) for track_id in wanted if PART.search(track_id)}
    for track_id in todo:
        provenance = _provenance(verified[track_id])
        recorded = work_file(store, track_id, wanted[track_id], ".json")
        kept = [row | provenance for row in read_json(recorded, default=[])]
        found = judged_today(kept, gates=gates, segment=settings.segment) if kept else None
        sound = found and found[0]["fingerprint"] == wanted[track_id] and not changed_audio(store, found, hashes)
        if found and sound:
            rows[track_id] = found
            continue
        jobs.append(
            ProcessJob(
                track_id=track_id,
                source=store.root / verified[track_id]["path"],
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
            made = result_rows(result, job.track_id, wanted[job.track_id], judged_by=rules)
            write_json(job.target.with_suffix(".json"), made)
            rows[job.track_id] = [row | _provenance(verified[job.track_id]) for row in made]
    return rows, len(jobs)


def _provenance(source: Row) -> Row:
    return {"source_id": source["source_id"], "raw_path": source["path"]}
