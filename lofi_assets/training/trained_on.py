"""What checkpoints were trained on: tracks and whether their rights still hold (constitution I), dataset and base.

What belongs here: what a checkpoint's own record says it was trained on, against the ledger of today. What does not:
what every version and checkpoint was made from (`made_from.py`), the ledger (`sources/`).
"""

from collections.abc import Iterable
from datetime import UTC, date, datetime
from pathlib import Path

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from lofi_assets.backbones.features import FeatureError
from lofi_assets.constitution.gates import load_gates
from lofi_assets.dataset.versions import DatasetError, DatasetVersion, current_dataset, read_version, recorded_dataset
from lofi_assets.files.typed import read_typed
from lofi_assets.records import Checkpoint
from lofi_assets.sources.claims import unlicensed
from lofi_assets.sources.inventory import read_inventory, withdrawn_tracks
from lofi_assets.sources.licences import load_licences
from lofi_assets.sources.raw_files import raw_track_id
from lofi_assets.sources.rights import latest_day
from lofi_assets.store import CONFIG_DIR, Store
from lofi_assets.training.checkpoints.files import RUN_CONFIG
from lofi_assets.training.checkpoints.manifest import read_manifest
from lofi_assets.training.checkpoints.runs import RunIdentity
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
    unsaid = {
        name: f"{store.checkpoints / name / RUN_CONFIG} does not say what it was trained on; restore it from a copy"
        for name, tracks in trained.items()
        if not tracks
    }
    return unsaid | {name: f"{tracks[0]}: {lost[tracks[0]]}" for name, tracks in found.items() if tracks}


@dataclass(frozen=True, config=ConfigDict(extra="ignore"))
class TrainedTrack:
    """A track of a run's own configuration."""

    track_id: str
    split: str = "train"


@dataclass(frozen=True, config=ConfigDict(extra="ignore"))
class StartedFrom:
    """What the LoRA that a run started from goes back to (`training.config.InitialAdapter`)."""

    trained_on: tuple[str, ...]
    foreign: tuple[str, ...]


@dataclass(frozen=True, config=ConfigDict(extra="ignore"))
class TrainedOn:
    """The part of a run's own configuration that says what it was trained on; the settings may be another version's."""

    tracks: tuple[TrainedTrack, ...]
    base_fingerprint: str | None = None
    """None: not recorded."""
    initial: StartedFrom | None = None
    """None: the run started from nothing."""

    @classmethod
    def read(cls, checkpoint: Path) -> "TrainedOn":
        """That of a checkpoint's folder; nothing where there is none.

        Raises:
            StoreError: the configuration is broken.
        """
        remedy = "restore the checkpoint's folder from a copy, or move it away"
        return read_typed(checkpoint / RUN_CONFIG, cls, remedy=remedy) or cls(())

    @property
    def train(self) -> frozenset[str]:
        """Ids of the tracks that were trained on, by the run or by what it started from."""
        earlier = self.initial.trained_on if self.initial else ()
        return frozenset((*earlier, *(track.track_id for track in self.tracks if track.split == "train")))

    @property
    def foreign(self) -> tuple[str, ...]:
        """sha256 of the LoRAs from elsewhere that it goes back to."""
        return self.initial.foreign if self.initial else ()


def _trained_on(store: Store, record: Checkpoint) -> frozenset[str]:
    return TrainedOn.read(store.checkpoints / record.checkpoint_id).train


def trained_dataset(store: Store) -> DatasetVersion:
    """The version that the checkpoints were trained on; the current one before any.

    What a checkpoint is sampled and measured with comes from here: a later dataset may hold in training what this one
    validated against, and moves nothing until it is trained on.

    Raises:
        DatasetError, StoreError: that version's folder is gone, or what it records of itself is broken.
    """
    run = RunIdentity.read(store.checkpoints)
    current = recorded_dataset(store)
    if run is None or (current and run.dataset_hash == current.hash):
        return current_dataset(store)
    folder = store.datasets / run.dataset_id
    version = read_version(folder) if run.dataset_id else None
    if version is None or version.record.hash != run.dataset_hash:
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
        of = TrainedOn.read(store.checkpoints / name).base_fingerprint
        if of not in (None, features.base_fingerprint):
            raise FeatureError(
                f"{FeatureRecord.path(store)}: the features are of the base {features.base_fingerprint[:12]}, {name} "
                f"was trained on {of[:12]}; materialise lora_checkpoints, or set the profile's base back and "
                "materialise feature_cache"
            )
    return features
