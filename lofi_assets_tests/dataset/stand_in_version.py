"""Dataset versions that record themselves as `dataset_manifest` would have, without audio or texts."""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lofi_assets.dataset.card import style_distribution
from lofi_assets.dataset.versions import record_dataset, write_version_records
from lofi_assets.records import Dataset, Track
from lofi_assets.store import Store


def track_record(track_id: str, **changes: Any) -> Track:
    """A record of a minute of lofi, in training."""
    about: dict[str, Any] = {
        "track_id": track_id,
        "filename": f"{track_id}.mp3",
        "audio_path": f"processed/core/{track_id}.mp3",
        "prompt_path": f"processed/core/{track_id}_prompt.txt",
        "lyrics_path": f"processed/core/{track_id}_lyrics.txt",
        "duration": 60.0,
        "sample_rate": 48000,
        "quality_score": 80,
        "style_ids": ["CORE-01"],
        "source_id": "source_001",
    }
    return Track(**about | changes)


def dataset_record(dataset_id: str, tracks: Iterable[Track] = (), *, digest: str = "d" * 64) -> Dataset:
    """The record of a version; its hash is as told."""
    known = list(tracks)
    return Dataset(
        dataset_id=dataset_id,
        created=datetime(2025, 12, 22, 12, tzinfo=UTC),
        track_count=len(known),
        train_count=sum(track.split == "train" for track in known),
        validation_count=sum(track.split == "validation" for track in known),
        total_duration=sum(track.duration for track in known) / 3600,
        style_distribution=style_distribution(known),
        hash=digest,
    )


def deliver(store: Store, dataset_id: str, tracks: Iterable[Track] = (), *, digest: str = "d" * 64) -> Path:
    """Make a version the current one; returns its folder."""
    known = list(tracks)
    record, folder = dataset_record(dataset_id, known, digest=digest), store.datasets / dataset_id
    write_version_records(folder, record, known)
    record_dataset(store, record)
    return folder
