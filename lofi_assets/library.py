"""The library of tracks: raw files -> inventory -> processed tracks, track by track and only what changed.

What belongs here: what has to be done (fingerprints), one row per track in the stage's table, quarantine, duplicates.
What does not: the work on one file (`audio/`), licences (`sources.py`), styles (`tagging.py`).
"""

import base64
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lofi_assets import pictures
from lofi_assets.constitution import CONFIG_DIR, Gate, gates_of, judge_track
from lofi_assets.outcome import Outcome
from lofi_assets.profiles import AudioSettings
from lofi_assets.sources import (
    SourceRow,
    curated_styles,
    curator_sidecars,
    load_licences,
    load_sources,
    scan_raw,
    verify_sources,
)
from lofi_assets.store import Store, fingerprint, link_or_copy, plan, read_json, read_table, write_json, write_table
from lofi_assets.verdicts import track_rule_counts

if TYPE_CHECKING:
    from lofi_assets.audio.process import ProcessResult
    from lofi_assets.workers import WorkerFailure

TRACKS_VERSION = "1"
"""Raised when the audio chain changes what it measures or writes: every track is then processed again."""

INVENTORY = "raw_inventory.parquet"
PROCESSED = "processed_tracks.parquet"
PROMPTS = "prompts.parquet"
DUPLICATES = "duplicates.json"
DUPLICATE_RULE = "audio.near_duplicate"

LOFI_TEMPO = (60, 100)
"""BPM range into which octave errors are folded for a track whose style no curator has named."""

Row = dict[str, Any]
StyleOf = Callable[[Sequence[Row]], Mapping[str, str]]
"""Accepted rows -> track id -> style category; `prompts.categories` in production."""


def inventory_sources(store: Store, *, gates: Sequence[Gate], today: date, config_dir: Path = CONFIG_DIR) -> Outcome:
    """Write `raw_inventory.parquet`: every raw file, verified or rejected with the rule that rejected it."""
    source_file = load_sources(store.metadata("sources.json"))
    known = {row["path"]: (row["stat"], row["sha256"]) for row in rows_of(store, INVENTORY)}
    track_gates = gates_of(gates, asset="licensed_sources", scope="track")
    files = scan_raw(store, memory=known)
    rows = verify_sources(
        files, source_file=source_file, licences=load_licences(config_dir), gates=track_gates, today=today
    )
    write_rows(store, INVENTORY, [asdict(row) for row in rows])
    verified = [row for row in rows if row.status == "verified"]
    rejected = [row for row in rows if row.status == "rejected"]
    return Outcome(
        data_version=fingerprint(
            [(row.track_id, row.sha256, row.status, row.source_id, row.license_type) for row in rows],
            [curator_sidecars(store, row.path) for row in verified],
            curated(store),
        ),
        counts={
            "raw_files": len(rows),
            "verified": len(verified),
            "rejected": len(rejected),
            "recomputed": sum(known.get(file.path) != (file.stat, file.sha256) for file in files),
        },
        values={"invalid_records": len(source_file.problems), "verified_tracks": len(verified)},
        tracks=track_rule_counts(
            track_gates,
            accepted=[json.loads(row.measures) for row in verified],
            rejected_by=Counter(row.rule for row in rejected),
        ),
        rows=[_shown_source(row) for row in (*rejected, *verified)],
        details={"problems": "\n".join(f"- {problem}" for problem in source_file.problems) or None},
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


def curated(store: Store) -> dict[str, tuple[str, ...]]:
    """Track id -> style ids that a person named in `style_mapping.json`."""
    suggested = (row for row in rows_of(store, PROMPTS) if row["style_origin"] == "suggested")
    written = {row["track_id"]: json.loads(row["style_ids"]) for row in suggested}
    return curated_styles(store, written_by_tagger=written)


def verified_sources(store: Store) -> list[Row]:
    """Inventory rows that may be processed."""
    return [row for row in rows_of(store, INVENTORY) if row["status"] == "verified"]


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
    inventory = rows_of(store, INVENTORY)
    verified = {row["track_id"]: row for row in verified_sources(store)}
    track_gates = gates_of(gates, asset="processed_tracks", scope="track")
    recorded = {row["track_id"]: row for row in rows_of(store, PROCESSED)}
    wanted = {
        track_id: fingerprint(TRACKS_VERSION, row["sha256"], tempo_ranges.get(track_id, LOFI_TEMPO))
        for track_id, row in verified.items()
    }
    increment = plan(wanted=wanted, recorded={key: row["fingerprint"] for key, row in recorded.items()})
    lost = [key for key in increment.unchanged if not _has_audio(store, recorded[key])]
    fresh, computed = _process(
        store, [*increment.todo, *lost], verified, wanted, gates=track_gates, settings=settings, ranges=tempo_ranges
    )
    rows = [fresh.get(key) or recorded[key] for key in sorted(wanted)]
    rows, pairs = _mark_duplicates(rows, recorded=recorded, gates=track_gates)
    rows = _place(store, rows, style_of)
    write_rows(store, PROCESSED, rows)
    write_json(store.metadata(DUPLICATES), pairs)
    accepted = [row for row in rows if row["status"] == "accepted"]
    write_json(store.metadata("quality_scores.json"), {row["track_id"]: _score_entry(row) for row in accepted})
    rejected = [row for row in rows if row["status"] == "rejected"]
    write_quarantine(store, "sources", [row for row in inventory if row["status"] == "rejected"])
    write_quarantine(store, "tracks", rejected)
    return _outcome(accepted, rejected, verified, increment.counts() | {"recomputed": computed}, track_gates)


def _has_audio(store: Store, row: Row) -> bool:
    return not row["audio_sha256"] or _work_file(store, row["track_id"]).is_file()


def _work_file(store: Store, track_id: str) -> Path:
    """Where the chain writes a track; `processed/<category>/` links to it, so that a new style only moves a link."""
    return store.cache / "tracks" / f"{track_id}.mp3"


def _process(
    store: Store,
    todo: Sequence[str],
    verified: Mapping[str, Row],
    wanted: Mapping[str, str],
    *,
    gates: Sequence[Gate],
    settings: AudioSettings,
    ranges: Mapping[str, tuple[int, int]],
) -> tuple[dict[str, Row], int]:
    """Rows of the tracks to do, and how many were computed now rather than adopted from an interrupted run."""
    from lofi_assets.audio.process import ProcessJob, process_track
    from lofi_assets.workers import map_tracks

    rows: dict[str, Row] = {}
    jobs = []
    for track_id in todo:
        kept = read_json(_work_file(store, track_id).with_suffix(".json"), default={})
        if kept.get("fingerprint") == wanted[track_id] and _has_audio(store, kept):
            rows[track_id] = kept | _provenance(verified[track_id])
            continue
        jobs.append(
            ProcessJob(
                track_id=track_id,
                source=store.root / verified[track_id]["path"],
                root=store.raw,
                target=_work_file(store, track_id),
                gates=tuple(gates),
                tempo_range=ranges.get(track_id, LOFI_TEMPO),
            )
        )
    results = map_tracks(
        process_track,
        jobs,
        workers=settings.workers or os.cpu_count() or 1,
        timeout_s=settings.timeout_s,
        memory_gb=settings.memory_gb,
        label="processing tracks",
    )
    for job, result in results:
        row = _row(result, job.track_id, wanted[job.track_id])
        write_json(_work_file(store, job.track_id).with_suffix(".json"), row)
        rows[job.track_id] = row | _provenance(verified[job.track_id])
    return rows, len(jobs)


def _provenance(source: Row) -> Row:
    return {"source_id": source["source_id"], "raw_path": source["path"]}


def _row(result: "ProcessResult | WorkerFailure", track_id: str, wanted: str) -> Row:
    """One row of the table, from a worker's result or from its death.

    A job that raised (a full disk, no memory) keeps no fingerprint, so that the next run tries it again.
    """
    from lofi_assets.workers import WorkerFailure

    if isinstance(result, WorkerFailure):
        empty = {"source_sha256": "", "audio_sha256": "", "quality_score": 0, "duration": 0.0, "words": ""}
        measures = {"worker_survived": False}
        return _decided(track_id, wanted if result.retried else "", result.rule, result.reason, measures) | empty
    heard: dict[str, Any] = {**result.measures, "worker_survived": True}
    row = _decided(track_id, wanted, result.rule, result.reason, heard)
    return row | {
        "source_sha256": result.source_sha256,
        "audio_sha256": result.sha256,
        "quality_score": int(result.measures.get("quality_score") or 0),
        "duration": float(result.measures.get("duration_s") or 0.0),
        "words": base64.b64encode(result.fingerprint).decode("ascii"),
        "heard": json.dumps(result.tags, sort_keys=True),
        "score_parts": json.dumps(result.score_parts, sort_keys=True),
        "envelope": json.dumps([] if result.envelope is None else result.envelope.round(3).tolist()),
    }


def _decided(track_id: str, wanted: str, rule: str, reason: str, measures: Mapping[str, Any]) -> Row:
    return {
        "track_id": track_id,
        "fingerprint": wanted,
        "status": "rejected" if rule else "accepted",
        "rule": rule,
        "reason": reason,
        "measures": json.dumps(measures, sort_keys=True),
        "heard": "{}",
        "score_parts": "{}",
        "envelope": "[]",
    }


def _mark_duplicates(
    rows: Sequence[Row], *, recorded: Mapping[str, Row], gates: Sequence[Gate]
) -> tuple[list[Row], list[Row]]:
    """Reject every track that duplicates one before it; also the pairs found, which the split keeps together.

    A track that was accepted before stays; among others the better one, then the smaller id.
    """
    import numpy as np

    from lofi_assets.audio.fingerprint import find_duplicates

    sound = {row["track_id"]: row for row in rows if row["status"] == "accepted" or row["rule"] == DUPLICATE_RULE}
    found = find_duplicates(
        {track_id: np.frombuffer(base64.b64decode(row["words"]), dtype=np.uint32) for track_id, row in sound.items()}
    )
    similar: dict[str, list[tuple[str, float]]] = {}
    for pair in found:
        similar.setdefault(pair.a, []).append((pair.b, pair.similarity))
        similar.setdefault(pair.b, []).append((pair.a, pair.similarity))

    def rank(track_id: str) -> tuple[bool, int, str]:
        was_accepted = recorded.get(track_id, {}).get("status") == "accepted"
        return (not was_accepted, -int(sound[track_id]["quality_score"]), track_id)

    judged: dict[str, Row] = {}
    for track_id in sorted(sound, key=rank):
        kept = [(value, other) for other, value in similar.get(track_id, ()) if _kept(judged.get(other))]
        similarity, other = max(kept, default=(0.0, ""))
        verdict = judge_track(gates, {"duplicate_similarity": similarity})
        judged[track_id] = sound[track_id] | {
            "status": "rejected" if verdict else "accepted",
            "rule": verdict.gate.id if verdict else "",
            "reason": f"{verdict.text}: the same recording as {other}" if verdict else "",
            "measures": json.dumps(json.loads(sound[track_id]["measures"]) | {"duplicate_similarity": similarity}),
        }
    pairs = [{"a": pair.a, "b": pair.b, "similarity": round(pair.similarity, 4)} for pair in found]
    return [judged.get(row["track_id"], row) for row in rows], pairs


def _kept(row: Row | None) -> bool:
    return row is not None and row["status"] == "accepted"


def _place(store: Store, rows: Sequence[Row], style_of: StyleOf) -> list[Row]:
    """Link each accepted track into the folder of its style, and clear away links that are no longer wanted."""
    accepted = [row for row in rows if row["status"] == "accepted"]
    folders = style_of(accepted)
    wanted = {
        row["track_id"]: store.processed / folders[row["track_id"]] / f"{row['track_id']}.mp3" for row in accepted
    }
    keep = {path.with_suffix("") for path in wanted.values()}
    for path in store.processed.glob("*/*") if store.processed.is_dir() else []:
        stem = path.name.removesuffix(".mp3").removesuffix("_prompt.txt").removesuffix("_lyrics.txt")
        if path.with_name(stem) not in keep and stem != path.name:
            path.unlink()
    for track_id, path in wanted.items():
        link_or_copy(_work_file(store, track_id), path)
    return [
        row | {"audio_path": store.relative(wanted[row["track_id"]]) if row["track_id"] in wanted else ""}
        for row in rows
    ]


def _score_entry(row: Row) -> Row:
    """An entry of `quality_scores.json` (data model, File Storage Layout)."""
    return {"score": int(row["quality_score"]), "verified": False, "parts": json.loads(row["score_parts"])}


def write_quarantine(store: Store, stage: str, rows: Iterable[Row]) -> None:
    """`quarantine/<track_id>.json` for every rejected track of a stage; files of tracks that were mended go."""
    folder = store.quarantine / stage
    wanted = {f"{row['track_id']}.json": row for row in rows}
    for path in folder.glob("*.json") if folder.is_dir() else []:
        if path.name not in wanted:
            path.unlink()
    for name, row in wanted.items():
        about = {key: row.get(key) for key in ("track_id", "rule", "reason", "raw_path", "path", "source_id")}
        measures = json.loads(row.get("measures") or "{}")
        write_json(folder / name, {key: value for key, value in about.items() if value} | {"measures": measures})


def _outcome(
    accepted: Sequence[Row],
    rejected: Sequence[Row],
    verified: Mapping[str, Row],
    counts: Mapping[str, int],
    gates: Sequence[Gate],
) -> Outcome:
    unlicensed = [row for row in accepted if verified.get(row["track_id"], {}).get("sha256") != row["source_sha256"]]
    total = len(accepted) + len(rejected)
    return Outcome(
        data_version=fingerprint([(row["track_id"], row["audio_sha256"], row["audio_path"]) for row in accepted]),
        counts={"accepted": len(accepted), "rejected": len(rejected), **counts},
        values={
            "accepted_tracks": len(accepted),
            "unlicensed_tracks": len(unlicensed),
            "rejected_share": len(rejected) / total if total else None,
        },
        tracks=track_rule_counts(
            gates,
            accepted=[json.loads(row["measures"]) for row in accepted],
            rejected_by=Counter(row["rule"] for row in rejected),
        ),
        rows=[_shown_track(row) for row in (*rejected, *accepted)],
        details={"hours": sum(row["duration"] for row in accepted) / 3600},
        pictures=_pictures(accepted),
    )


def _shown_track(row: Row) -> Row:
    measures = json.loads(row["measures"])
    shown = ("duration_s", "tempo_bpm", "loudness_lufs", "peak_dbfs", "clipped_share", "silent_share")
    return {
        "track_id": row["track_id"],
        "status": row["status"],
        "rule": row["rule"],
        "reason": row["reason"],
        "score": row["quality_score"],
        **{name: measures.get(name) for name in shown},
        "audio": row["audio_path"],
    }


def _pictures(accepted: Sequence[Row]) -> dict[str, Callable[[], bytes]]:
    if not accepted:
        return {}
    envelopes = {row["track_id"]: json.loads(row["envelope"]) for row in accepted[:6]}
    return {"waveforms": lambda: pictures.waveforms(envelopes)}
