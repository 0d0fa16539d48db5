"""Tracks -> the training set (constitution II; data model, Dataset).

What belongs here: which tracks are in it and on which side, and what the gates are told. What does not: the side of a
group (`split.py`), the version on the disk (`build.py`), the judgement of tracks and their prompts (`tracks/`), and
what a version says of itself (`card.py`).
"""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from lofi_assets.dataset import report as dataset_report
from lofi_assets.dataset.build import Candidate, build_dataset, current_splits, recorded_splits
from lofi_assets.dataset.split import assign_splits, group_tracks, linked_tracks, split_note, straddling_groups
from lofi_assets.files.documents import read_json
from lofi_assets.files.tables import read_columns
from lofi_assets.outcome import Outcome
from lofi_assets.records import Split, Track
from lofi_assets.store import Store
from lofi_assets.tracks.duplicates import splits_with_copies
from lofi_assets.tracks.states import advance
from lofi_assets.tracks.track_table import DUPLICATES, PROCESSED, PROMPTS, verified_sources

DATASET_VERSION = "2"
"""Raised when the layout of a dataset version changes."""

MIN_SECONDS, MAX_SECONDS = 30.0, 180.0
"""What enters training (constitution, Audio Specifications)."""


def assemble(store: Store, *, now: datetime) -> Outcome:
    """The dataset of every accepted and tagged track whose source is verified today (see `build_dataset`)."""
    verified = {row["track_id"]: row for row in verified_sources(store)}
    prompts = {
        row["track_id"]: row for row in read_columns(store.metadata(PROMPTS), *_PROMPT) if row["status"] == "tagged"
    }
    known = read_columns(store.metadata(PROCESSED), *_TRACK)
    rows = [row for row in known if row["status"] == "accepted" and row["track_id"] in prompts]
    licensed = [row for row in rows if verified.get(row["track_id"], {}).get("sha256") == row["source_sha256"]]
    pairs = read_json(store.metadata(DUPLICATES), default=[])
    groups = group_tracks((row["track_id"] for row in known), linked=linked_tracks(known, pairs))
    before = current_splits(store)
    entering = {row["track_id"]: groups[row["track_id"]] for row in licensed}
    splits = assign_splits(entering, recorded=splits_with_copies(recorded_splits(store), groups=groups))
    candidates = [
        _candidate(store, verified[key] | row, prompts[key], groups[key], splits[key])
        for row, key in ((row, row["track_id"]) for row in licensed)
    ]
    built = build_dataset(store, candidates, now=now)
    record = built.record
    left_out = sorted({row["track_id"] for row in rows} - splits.keys())
    return Outcome(
        data_version=record.hash,
        counts={
            "tracks": record.track_count,
            "train": record.train_count,
            "validation": record.validation_count,
            "left_out": len(left_out),
            "recomputed": int(built.created),
        },
        values={
            "unlicensed_tracks": sum(verified.get(c.track.track_id) is None for c in candidates),
            "train_count": {"value": record.train_count, "note": split_note("train", splits, groups)},
            "validation_count": {"value": record.validation_count, "note": split_note("validation", splits, groups)},
            "straddling_groups": len(straddling_groups(splits, groups)),
            "tracks_out_of_range": sum(not MIN_SECONDS <= track.duration <= MAX_SECONDS for track in built.tracks),
            "hash_verified": {"value": not built.fault, "note": built.fault},
        },
        rows=[_shown(candidate) for candidate in candidates],
        **dataset_report.about(record, before=before, splits=splits, left_out=left_out, mended=built.mended),
    )


_PROMPT = ("track_id", "status", "state", "prompt", "lyrics", "style_ids")
_AUDIO = ("audio_sha256", "audio_path", "raw_path", "duration", "quality_score", "measures")
_TRACK = ("track_id", "status", "source_id", "source_sha256", *_AUDIO)


def _candidate(store: Store, row: Mapping[str, Any], prompt: Mapping[str, Any], group: str, split: Split) -> Candidate:
    stem, measures = row["audio_path"].removesuffix(".mp3"), json.loads(row["measures"])
    track = Track(
        **{name: row[name] for name in ("track_id", "duration", "source_id", "audio_sha256")},
        filename=f"{row['track_id']}.mp3",
        audio_path=row["audio_path"],
        prompt_path=f"{stem}_prompt.txt",
        lyrics_path=f"{stem}_lyrics.txt",
        sample_rate=48000,
        quality_score=int(row["quality_score"]),
        style_ids=json.loads(prompt["style_ids"]),
        split=split,
        group=group,
        human_verified=prompt["state"] == "VERIFIED",
        state=advance(prompt["state"], "TRAINING_READY"),
    )
    return Candidate(
        track=track,
        audio=store.root / row["audio_path"],
        prompt=prompt["prompt"],
        lyrics=prompt["lyrics"],
        **{name: row[name] for name in ("audio_sha256", "license_type", "provider", "attribution")},
        **{name: measures.get(name) for name in ("tempo_bpm", "loudness_lufs")},
        group=group,
    )


def _shown(candidate: Candidate) -> dict[str, Any]:
    track = candidate.track
    return {
        "track_id": track.track_id,
        "split": track.split,
        "seconds": round(track.duration, 1),
        "styles": ", ".join(track.style_ids),
        "score": track.quality_score,
        "source": track.source_id,
        "prompt": candidate.prompt,
    }
