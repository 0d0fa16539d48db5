"""The library of tracks: raw files -> inventory -> processed tracks, track by track and only what changed.

What belongs here: what has to be done (fingerprints), which rows the stage's table has, quarantine. What does not: the
work on one file (`audio/`), its columns (`track_rows.py`), copies (`duplicates.py`), licences (`sources.py`), styles.
"""

import contextlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from lofi_assets.constitution.gates import Gate, gates_of
from lofi_assets.constitution.verdicts import track_rules
from lofi_assets.files.documents import read_json, write_json
from lofi_assets.files.hashing import fingerprint
from lofi_assets.files.recorded_hashes import FileHashes
from lofi_assets.files.tables import read_columns, read_table, table_columns, write_table
from lofi_assets.outcome import Outcome
from lofi_assets.profiles import AudioSettings
from lofi_assets.sources.claims import SourceRow, load_licences, load_sources, verify_sources
from lofi_assets.sources.raw_files import PART, scan_raw, tree_of
from lofi_assets.sources.unread import problems as unread
from lofi_assets.store import CONFIG_DIR, Store, plan
from lofi_assets.tracks.duplicates import mark_duplicates, same_file
from lofi_assets.tracks.quarantine import write_quarantine
from lofi_assets.tracks.rejudge import judged_today, law_of
from lofi_assets.tracks.report import inventory_summary, rejected_files, tracks_outcome
from lofi_assets.tracks.track_table import Row, result_rows, score_entry
from lofi_assets.tracks.work_files import (
    changed_audio,
    clear_stale,
    clear_unfinished,
    mend_work_files,
    place_tracks,
    work_file,
)

TRACKS_VERSION = "2"
"""Raised when the audio chain changes what it measures or writes: every track is then processed again."""

FILE_HASHES = "track_files.json"
"""In the cache: hashes of work files and of their copies in `processed/`."""

INVENTORY = "raw_inventory.parquet"
PROCESSED = "processed_tracks.parquet"
PROMPTS = "prompts.parquet"
DUPLICATES = "duplicates.json"
SCORES = "quality_scores.json"

LOFI_TEMPO = (62, 124)
"""BPM range that decides octaves for a track whose style no curator has named (`audio.tempo.LOFI_RANGE`)."""

StyleOf = Callable[[Sequence[Row]], Mapping[str, str]]
"""Accepted rows -> track id -> style category; `prompts.categories` in production."""


def inventory_sources(store: Store, *, gates: Sequence[Gate], today: date, config_dir: Path = CONFIG_DIR) -> Outcome:
    """Write `raw_inventory.parquet`: every raw file, verified or rejected with the rule that rejected it."""
    source_file = load_sources(store.metadata("sources.json"))
    before = rows_of(store, INVENTORY)
    known = {row["path"]: (row["stat"], row["sha256"]) for row in before}
    track_gates = gates_of(gates, asset="licensed_sources", scope="track")
    tree = tree_of(store.raw)
    files = scan_raw(store, tree, memory=known)
    problems = [*source_file.problems, *unread(store, tree, files, before=before, records=source_file.records)]
    rows = verify_sources(
        files, source_file=source_file, licences=load_licences(config_dir), gates=track_gates, today=today
    )
    write_rows(store, INVENTORY, [vars(row) for row in rows])
    verified = [row for row in rows if row.status == "verified"]
    rejected = [row for row in rows if row.status == "rejected"]
    return Outcome(
        data_version=fingerprint(
            [(row.track_id, row.sha256, row.status, row.source_id, row.license_type) for row in rows],
            sorted({(row.source_id, row.provider, row.attribution) for row in verified}),
        ),
        counts={
            "raw_files": len(rows),
            "verified": len(verified),
            "rejected": len(rejected),
            "recomputed": sum(known.get(file.path) != (file.stat, file.sha256) for file in files),
        },
        values={"invalid_records": len(source_file.problems), "verified_tracks": len(verified)},
        **track_rules(
            track_gates,
            accepted=[(row.track_id, json.loads(row.measures)) for row in verified],
            rejected=[(row.track_id, row.rule) for row in rejected],
        ),
        summary=inventory_summary(rejected=[row.rule for row in rejected], verified=len(verified), problems=problems),
        needs=rejected_files([vars(row) for row in rejected], path="path"),
        rows=[_shown_source(row) for row in (*rejected, *verified)],
        details={"problems": "\n".join(f"- {problem}" for problem in problems) or None},
    )


def _shown_source(row: SourceRow) -> Row:
    return {
        "track_id": row.track_id,
        "status": row.status,
        "rule": row.rule,
        "reason": row.reason,
        "source": row.source_id,
        "licence": row.license_type,
        "path": row.path,
    }


def rows_of(store: Store, name: str) -> list[Row]:
    """Rows of a table of `metadata/`; empty before the first materialisation."""
    records = read_table(store.metadata(name)).to_dict("records")
    return [{str(key): value for key, value in row.items()} for row in records]


def write_rows(store: Store, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a table of `metadata/`."""
    import pandas as pd

    write_table(store.metadata(name), pd.DataFrame(list(rows)))


def verified_sources(store: Store) -> list[Row]:
    """Inventory rows of what may be processed and used; a file that was cut also has one per part, under its id."""
    files = _verified_files(store)
    return [
        *files.values(),
        *(files[whole] | {"track_id": part} for part, whole in part_ids(store).items() if whole in files),
    ]


def _verified_files(store: Store) -> dict[str, Row]:
    return {row["track_id"]: row for row in rows_of(store, INVENTORY) if row["status"] == "verified"}


def part_ids(store: Store) -> dict[str, str]:
    """Id of every part of a file that was cut -> id of that file."""
    return {row["track_id"]: row["part_of"] for row in _columns(store, "track_id", "part_of", where="part_of")}


def lossless_masters(store: Store) -> dict[str, tuple[Path, str]]:
    """sha256 of a track's MP3 -> the FLAC of the same master and its sha256, where the profile keeps them."""
    rows = _columns(store, "audio_sha256", "lossless_path", "lossless_sha256", where="lossless_sha256")
    found = {row["audio_sha256"]: (store.root / row["lossless_path"], row["lossless_sha256"]) for row in rows}
    return {digest: master for digest, master in found.items() if master[0].is_file()}


def _columns(store: Store, *names: str, where: str) -> list[Row]:
    """A few columns of the processed tracks for which one is not empty; none of a table from before that column."""
    path = store.metadata(PROCESSED)
    if where not in table_columns(path):
        return []
    return [row for row in read_columns(path, *{*names, where}) if row[where]]


def accepted_tracks(store: Store) -> list[Row]:
    """Rows of the tracks that passed every gate, by track id."""
    return [row for row in rows_of(store, PROCESSED) if row["status"] == "accepted"]


def process_library(
    store: Store,
    *,
    gates: Sequence[Gate],
    settings: AudioSettings,
    tempo_ranges: Mapping[str, tuple[int, int]],
    style_of: StyleOf,
) -> Outcome:
    """Bring `processed_tracks.parquet`, `processed/` and `quarantine/` in line with the verified sources.

    Args:
        tempo_ranges: track id -> BPM range of the style a curator named, where one did.
        style_of: decides the folder of each accepted track.
    """
    clear_unfinished(store, tables=(PROCESSED, DUPLICATES, SCORES))
    inventory = rows_of(store, INVENTORY)
    verified = _verified_files(store)
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
    reviewed = {row["track_id"]: row for row in rows_of(store, PROMPTS) if row.get("state") == "VERIFIED"}
    write_json(store.metadata(SCORES), {row["track_id"]: score_entry(row, reviewed) for row in accepted})
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
) -> tuple[dict[str, list[Row]], int]:
    """Rows of the files to do, and how many were computed now rather than adopted from an interrupted run."""
    from lofi_assets.tracks.process_track import ProcessJob, process_track
    from lofi_assets.workers.process_pool import map_tracks

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
    law = law_of(gates)
    results = map_tracks(
        process_track,
        jobs,
        workers=settings.workers or os.cpu_count() or 1,
        timeout_s=settings.timeout_s,
        memory_gb=settings.memory_gb,
        label="processing tracks",
    )
    with contextlib.closing(results):
        for job, result in results:
            made = result_rows(result, job.track_id, wanted[job.track_id], judged_by=law)
            write_json(job.target.with_suffix(".json"), made)
            rows[job.track_id] = [row | _provenance(verified[job.track_id]) for row in made]
    return rows, len(jobs)


def _provenance(source: Row) -> Row:
    return {"source_id": source["source_id"], "raw_path": source["path"]}
