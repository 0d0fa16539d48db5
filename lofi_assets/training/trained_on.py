"""What checkpoints were trained on: tracks and whether their rights still hold (constitution I), dataset and base.

What belongs here: what a checkpoint's own record says it was trained on, against the ledger of today. What does not:
the ledger (`sources/`), the training (`lora_checkpoints.py`).
"""

from collections.abc import Iterable
from datetime import UTC, date, datetime

from lofi_assets.backbones.features import FeatureError
from lofi_assets.constitution.gates import load_gates
from lofi_assets.dataset.versions import DatasetError, DatasetVersion, current_dataset, read_version, recorded_dataset
from lofi_assets.files.documents import read_json
from lofi_assets.records import Checkpoint
from lofi_assets.sources.claims import unlicensed
from lofi_assets.sources.inventory import read_inventory, withdrawn_tracks
from lofi_assets.sources.licences import load_licences
from lofi_assets.sources.raw_files import raw_track_id
from lofi_assets.sources.rights import latest_day
from lofi_assets.store import CONFIG_DIR, Store
from lofi_assets.training.checkpoints.manifest import read_manifest
from lofi_assets.training.checkpoints.runs import RUN
from lofi_assets.training.feature_cache import FeatureRecord


def on_revoked_tracks(store: Store, *, today: date | None = None) -> dict[str, str]:
    """Checkpoint id -> why a track that it was trained on has no rights now: by the inventory, or the records since.

    The records are asked as they stand, so that a revocation counts before anything is materialised again, and after
    the raw file is gone.
    """
    rows = read_inventory(store)
    known = {row.track_id for row in rows}
    trained = {
        record.checkpoint_id: {raw_track_id(track, inventory=known) for track in _trained_on(store, record)}
        for record in read_manifest(store.checkpoints)
    }
    if not trained:
        return {}
    lost = withdrawn_tracks(rows) | unlicensed(
        store,
        set().union(*trained.values()),
        licences=load_licences(CONFIG_DIR),
        gates=load_gates(),
        today=today or latest_day(datetime.now(UTC)),
    )
    found = {name: sorted(tracks & lost.keys()) for name, tracks in trained.items()}
    return {name: f"{tracks[0]}: {lost[tracks[0]]}" for name, tracks in found.items() if tracks}


def _trained_on(store: Store, record: Checkpoint) -> set[str]:
    run = read_json(store.checkpoints / record.checkpoint_id / "config.json", default={})
    return {track["track_id"] for track in run.get("tracks", ()) if track.get("split") == "train"}


def trained_dataset(store: Store) -> DatasetVersion:
    """The version that the checkpoints were trained on; the current one before any.

    What a checkpoint is sampled and measured with comes from here: a later dataset may hold in training what this one
    validated against, and moves nothing until it is trained on.

    Raises:
        DatasetError, StoreError: that version's folder is gone, or what it records of itself is broken.
    """
    run = read_json(store.checkpoints / RUN, default={})
    current = recorded_dataset(store)
    if not run or (current and run["dataset_hash"] == current.hash):
        return current_dataset(store)
    folder = store.datasets / run["dataset_id"]
    version = read_version(folder)
    if version is None or version.record.hash != run["dataset_hash"]:
        raise DatasetError(
            f"{folder}: is not there, and the checkpoints were trained on it; restore that version from a backup, or "
            "train on the current one: materialise feature_cache and lora_checkpoints"
        )
    return version


def trained_base(store: Store, checkpoints: Iterable[str]) -> FeatureRecord:
    """The features' record: the base that they were computed with, and checkpoints trained.

    Raises:
        FeatureError: there are none, or a checkpoint was trained on another base than they are of.
    """
    features = FeatureRecord.read(store)
    for name in checkpoints:
        of = read_json(store.checkpoints / name / "config.json", default={}).get("base_fingerprint")
        if of not in (None, features.base_fingerprint):
            raise FeatureError(
                f"{FeatureRecord.path(store)}: the features are of the base {features.base_fingerprint[:12]}, {name} "
                f"was trained on {of[:12]}; materialise lora_checkpoints, or set the profile's base back and "
                "materialise feature_cache"
            )
    return features
