"""Tracks -> the training set (constitution II; data model, Dataset).

What belongs here: which tracks are in it and on which side, and what the gates are told. What does not: the side of a
group (`split.py`), the version on the disk (`build.py`), and what a version says of itself (`card.py`).
"""

from datetime import datetime
from typing import Any

from lofi_assets.dataset import report as dataset_report
from lofi_assets.dataset.build import Candidate, build_dataset, current_splits, recorded_splits, sides_path
from lofi_assets.dataset.split import assign_splits, group_tracks, linked_tracks, split_note, straddling_groups
from lofi_assets.dataset.versions import current_version, record_files
from lofi_assets.outcome import Outcome, Written
from lofi_assets.records import Split, Track
from lofi_assets.sources.inventory import SourceRow
from lofi_assets.store import Store
from lofi_assets.tracks.duplicates import read_pairs, splits_with_copies
from lofi_assets.tracks.prompt_table import TrackPrompt, track_prompts
from lofi_assets.tracks.prompts import prompt_paths
from lofi_assets.tracks.states import advance
from lofi_assets.tracks.track_table import TrackSound, track_sounds, verified_sources

DATASET_VERSION = "2"
"""Raised when the layout of a dataset version changes."""

MIN_SECONDS, MAX_SECONDS = 30.0, 180.0
"""What enters training (constitution, Audio Specifications)."""


def assemble(store: Store, *, now: datetime) -> Outcome:
    """The dataset of every accepted and tagged track whose source is verified today (see `build_dataset`)."""
    verified = {row.track_id: row for row in verified_sources(store)}
    prompts = {row.track_id: row for row in track_prompts(store) if row.status == "tagged"}
    known = track_sounds(store)
    rows = [row for row in known if row.status == "accepted" and row.track_id in prompts]
    licensed = [row for row in rows if row.track_id in verified and verified[row.track_id].sha256 == row.source_sha256]
    groups = group_tracks((row.track_id for row in known), linked=linked_tracks(known, read_pairs(store)))
    before = current_splits(store)
    entering = {row.track_id: groups[row.track_id] for row in licensed}
    splits = assign_splits(entering, recorded=splits_with_copies(recorded_splits(store), groups=groups))
    candidates = [
        _candidate(store, row, verified[key], prompts[key], groups[key], splits[key])
        for row, key in ((row, row.track_id) for row in licensed)
    ]
    built = build_dataset(store, candidates, now=now)
    record = built.record
    left_out = sorted({row.track_id for row in rows} - splits.keys())
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
        written=_written(store),
        rows=[_shown(candidate) for candidate in candidates],
        **dataset_report.about(record, before=before, splits=splits, left_out=left_out, mended=built.mended),
    )


def _written(store: Store) -> Written:
    """The current version, and the copies of it that people open."""
    folder = current_version(store)
    records = record_files(store, folder)
    files = [path for place in (folder, store.final, store.validation) for path in sorted(place.rglob("*"))]
    return Written(
        files=[sides_path(store), *(path for path in files if path.is_file() and path not in records)], given=records
    )


def _candidate(
    store: Store, row: TrackSound, source: SourceRow, prompt: TrackPrompt, group: str, split: Split
) -> Candidate:
    prompt_path, lyrics_path = prompt_paths(row.audio_path)
    track = Track(
        track_id=row.track_id,
        duration=row.duration,
        source_id=row.source_id,
        audio_sha256=row.audio_sha256,
        filename=f"{row.track_id}.mp3",
        audio_path=row.audio_path,
        prompt_path=prompt_path,
        lyrics_path=lyrics_path,
        sample_rate=48000,
        quality_score=row.quality_score,
        style_ids=list(prompt.style_ids),
        split=split,
        group=group,
        human_verified=prompt.state == "VERIFIED",
        state=advance(prompt.state, "TRAINING_READY"),
    )
    return Candidate(
        track=track,
        audio=store.root / row.audio_path,
        prompt=prompt.prompt,
        lyrics=prompt.lyrics,
        audio_sha256=row.audio_sha256,
        tempo_bpm=row.tempo_bpm,
        loudness_lufs=row.loudness_lufs,
        license_type=source.license_type,
        provider=source.provider,
        attribution=source.attribution,
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
