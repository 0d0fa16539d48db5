"""Rows of `processed_tracks.parquet`: what a worker gives back, as plain columns.

What belongs here: the columns and their meaning, and reading them. What does not: which tracks are worked on
(`processed_tracks.py`).

Besides the verdict a row holds its measures, tags heard, score parts, envelope and fingerprint words, the hash of the
MP3 (`audio_sha256`, "" without one) and of the lossless master (`lossless_sha256`), and `part_of`: the id of the raw
file that was cut, "" for a track that is a whole file. `chain` is the version of the audio chain that judged it.
"""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lofi_assets.files.tables import read_columns, table_columns
from lofi_assets.sources.licensed_sources import verified_files
from lofi_assets.store import Row, Store, rows_of
from lofi_assets.wording import rounded

if TYPE_CHECKING:
    from lofi_assets.tracks.process_track import ProcessResult
    from lofi_assets.workers.mapping import WorkerFailure

PROCESSED = "processed_tracks.parquet"
PROMPTS = "prompts.parquet"
DUPLICATES = "duplicates.json"
SCORES = "quality_scores.json"

CHAIN_VERSION = "2"
"""Raised when the audio chain accepts what it turned away before: files without audio are then worked on again, once.
Unlike `processed_tracks.TRACKS_VERSION` it leaves the accepted ones as they are."""
SHOWN_MEASURES = {
    **{"duration_s": 2, "tempo_bpm": 1, "loudness_lufs": 1, "peak_dbfs": 2},
    **{"clipped_share": 5, "silent_share": 3},
}
"""Measures that the UI shows, and the digits that people read."""


def result_rows(result: "ProcessResult | WorkerFailure", track_id: str, wanted: str, *, judged_by: str) -> list[Row]:
    """The rows of one raw file: one, or one per part; from a worker's result or from its death.

    Args:
        wanted: fingerprint of the work. A job that raised (a full disk, no memory) keeps none, so that the next run
            tries it again.
        judged_by: the gates of the day (`rejudge.rules_hash`).
    """
    from lofi_assets.workers.mapping import WorkerFailure

    if isinstance(result, WorkerFailure):
        measures = {"worker_survived": False}
        rows = [_decided(track_id, wanted if result.retried else "", result.rule, result.reason, measures)]
    elif result.parts:
        rows = [_heard(part, wanted) | {"part_of": track_id} for part in result.parts]
    else:
        rows = [_heard(result, wanted)]
    return [row | {"judged_by": judged_by, "chain": CHAIN_VERSION} for row in rows]


def _heard(result: "ProcessResult", wanted: str) -> Row:
    measures: dict[str, Any] = {**result.measures, "worker_survived": True}
    return _decided(result.track_id, wanted, result.rule, result.reason, measures) | {
        "heard": json.dumps(result.tags, sort_keys=True),
        "score_parts": json.dumps(result.score_parts, sort_keys=True),
        "envelope": json.dumps([] if result.envelope is None else result.envelope.round(3).tolist()),
        "source_sha256": result.source_sha256,
        "audio_sha256": result.sha256,
        "lossless_sha256": result.lossless_sha256,
        "quality_score": int(result.measures.get("quality_score") or 0),
        "duration": float(result.measures.get("duration_s") or 0.0),
        "words": base64.b64encode(result.fingerprint).decode("ascii"),
    }


def _decided(track_id: str, wanted: str, rule: str, reason: str, measures: Mapping[str, Any]) -> Row:
    return {
        "track_id": track_id,
        "part_of": "",
        "fingerprint": wanted,
        "status": "rejected" if rule else "accepted",
        "rule": rule,
        "reason": reason,
        "measures": json.dumps(measures, sort_keys=True),
        "heard": "{}",
        "score_parts": "{}",
        "envelope": "[]",
        "source_sha256": "",
        "audio_sha256": "",
        "lossless_sha256": "",
        "quality_score": 0,
        "duration": 0.0,
        "words": "",
    }


def shown_track(row: Row) -> Row:
    """A row as the UI shows it."""
    measures = json.loads(row["measures"])
    return {
        "track_id": row["track_id"],
        "status": row["status"],
        "rule": row["rule"],
        "reason": row["reason"],
        "score": row["quality_score"],
        **{name: rounded(measures.get(name), digits) for name, digits in SHOWN_MEASURES.items()},
        "audio": row["audio_path"],
    }


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


def verified_sources(store: Store) -> list[Row]:
    """Inventory rows of what may be processed and used; a file that was cut also has one per part, under its id."""
    files = verified_files(store)
    return [
        *files.values(),
        *(files[whole] | {"track_id": part} for part, whole in part_ids(store).items() if whole in files),
    ]


def part_ids(store: Store) -> dict[str, str]:
    """Id of every part of a file that was cut -> id of that file."""
    return {row["track_id"]: row["part_of"] for row in _columns(store, "track_id", "part_of", where="part_of")}
