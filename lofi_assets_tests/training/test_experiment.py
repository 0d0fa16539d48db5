"""What a training run says of itself to the gates and the card."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from lofi_assets.records import Checkpoint
from lofi_assets.store import Store
from lofi_assets.training import lora_checkpoints as experiment
from lofi_assets.training.checkpoints.description import CheckpointDescription
from lofi_assets.training.checkpoints.files import checkpoint_id
from lofi_assets.training.checkpoints.manifest import prune, write_manifest
from lofi_assets.training.checkpoints.trainer_record import enter
from lofi_assets.training.config import TrackFeatures, TrainingRun, TrainingSettings
from lofi_assets.training.lora_settings import LoraSettings

HASH = "0" * 64


def planned(store: Store) -> experiment.PlannedRun:
    run = TrainingRun(
        base=store.base_models,
        base_fingerprint=HASH,
        features_dir=store.features,
        tracks=(TrackFeatures(track_id="a", key=".".join(["0" * 32] * 4)),),
        dataset_id="lofi-0",
        dataset_hash=HASH,
        checkpoints_dir=store.checkpoints,
        logs_dir=store.logs,
        lora=LoraSettings(target_modules=("to_q",)),
        training=TrainingSettings(max_steps=50, checkpoint_interval=10),
    )
    return experiment.PlannedRun(run, store.metadata("training_run.json"), 0)


def test_retention_does_not_change_what_a_run_is_said_to_have_produced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else an unchanged run after pruning would rewrite the model card and undo its approval."""
    store = Store(tmp_path)
    records = [
        Checkpoint(
            checkpoint_id=checkpoint_id(step),
            step=step,
            path=f"checkpoints/{checkpoint_id(step)}",
            timestamp=datetime(2026, 1, 1, tzinfo=UTC),
            is_valid=False,
            config_hash=HASH,
            dataset_hash=HASH,
            fad_score=fad,
        )
        for step, fad in ((10, 1.0), (20, 2.0), (30, 3.0), (40, 4.0), (50, 5.0))
    ]
    write_manifest(store.checkpoints, [record.model_copy(update={"is_valid": True}) for record in records])
    for record in records:
        CheckpointDescription(record=record).write(store.checkpoints / record.checkpoint_id)
        enter(planned(store).run, store.checkpoints / record.checkpoint_id, step=record.step)
    monkeypatch.setattr(experiment, "fault", lambda folder: None)
    before = experiment.describe_training(store, planned(store))
    assert prune(store.checkpoints, keep_best=3)
    after = experiment.describe_training(store, planned(store))
    assert before.values["checkpoints"] == after.values["checkpoints"] == 5
    assert before.data_version == after.data_version and after.counts["checkpoints"] == 4
