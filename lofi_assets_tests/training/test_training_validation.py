"""Validation on its own interval changes no weight; a run may end where it no longer helps, and its best is kept."""

from collections.abc import Sequence
from typing import Any

import pytest

from lofi_assets.backbones.training import Item
from lofi_assets.training.checkpoints.description import CheckpointDescription
from lofi_assets.training.checkpoints.files import checkpoint_id
from lofi_assets.training.checkpoints.manifest import best_by_validation, prune, read_manifest, update_record
from lofi_assets.training.checkpoints.runs import finished, log_path
from lofi_assets.training.config import TrainingRun, TrainingSettings
from lofi_assets.training.trainer import loop
from lofi_assets.training.trainer.log import read_log
from lofi_assets.training.trainer.loop import train
from lofi_assets.training.trainer.progress import Progress
from lofi_assets_tests.training.fixtures import MakeRun, Settings


def quiet(message: str) -> None:
    del message


def validated(run: TrainingRun) -> list[int]:
    return [line["step"] for line in read_log(log_path(run)) if "validation_loss" in line]


def digest(run: TrainingRun, step: int) -> str:
    return CheckpointDescription.read(run.checkpoints_dir / checkpoint_id(step)).adapter_sha256


def with_settings(run: TrainingRun, **changes: Any) -> TrainingRun:
    return run.model_copy(update={"training": run.training.model_copy(update=changes)})


def test_more_validation_is_the_same_run_with_the_same_weights(make_run: MakeRun) -> None:
    usual, often = make_run("usual"), make_run("often", validation_interval=2)
    assert usual.run_id == often.run_id
    for run in (usual, often):
        train(run, say=quiet)
    assert validated(usual) == [0, 3, 6] and validated(often) == [0, 2, 3, 4, 6]
    assert digest(usual, 6) == digest(often, 6)


def test_a_run_ends_when_validation_no_longer_falls_and_stays_ended(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lowest at step 4; two that are not below it follow."""
    by_step = {0: 0.9, 2: 0.8, 4: 0.5, 6: 0.5, 8: 0.6}

    def losses(self: loop.Trainer, items: Sequence[Item]) -> list[float]:
        return [by_step[self.progress.step]] * len(items)

    monkeypatch.setattr(loop.Trainer, "_validation_losses", losses)
    settings: Settings = {"max_steps": 20, "checkpoint_interval": 4, "validation_interval": 2}
    run = make_run(**settings, early_stopping=2)
    said: list[str] = []
    summary = train(run, say=said.append)
    assert summary.step == 8 and summary.ended_early and not summary.interrupted
    assert "ended early at step 8: no validation loss below 0.5 (step 4) in the last 2" in said
    end = finished(run)
    assert end is not None and end.ended_early and end.steps_now == 0
    assert train(run, say=quiet).steps_now == 0
    assert finished(with_settings(run, early_stopping=3)) is None and finished(with_settings(run)) is not None
    assert best_by_validation(run.checkpoints_dir) == checkpoint_id(4)
    by_step.update({10: 0.7, 12: 0.7})
    assert train(with_settings(run, early_stopping=4), say=quiet).step == 12


def test_no_run_ends_early_before_its_first_checkpoint() -> None:
    settings = TrainingSettings(checkpoint_interval=100, early_stopping=1, max_steps=1000)
    assert not settings.ends_early(step=50, stale=9) and settings.ends_early(step=100, stale=1)
    assert not TrainingSettings().ends_early(step=10**6, stale=10**6)


def test_a_validation_loss_that_is_no_number_is_no_lower_one() -> None:
    progress = Progress(step=4)
    for loss in (0.5, float("nan"), 0.4, 0.4, float("inf")):
        progress.observe_validation(loss)
    assert progress.lowest_validation == 0.4 and progress.stale == 2


def test_the_best_by_validation_is_kept_besides_the_best_by_fad(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_step = {0: 0.9, 1: 0.3, 2: 0.5, 3: 0.5, 4: 0.6}
    monkeypatch.setattr(
        loop.Trainer, "_validation_losses", lambda self, items: [by_step[self.progress.step]] * len(items)
    )
    run = make_run(max_steps=4, checkpoint_interval=1)
    train(run, say=quiet)
    for step, fad in ((1, 9.0), (2, 1.0), (3, 2.0), (4, 3.0)):
        update_record(run.checkpoints_dir, checkpoint_id(step), fad_score=fad)
    best = best_by_validation(run.checkpoints_dir)
    assert best == checkpoint_id(1)
    prune(run.checkpoints_dir, keep_best=1, keep=[best])
    assert [record.step for record in read_manifest(run.checkpoints_dir)] == [1, 2, 4]
    prune(run.checkpoints_dir, keep_best=1)
    assert [record.step for record in read_manifest(run.checkpoints_dir)] == [2, 4]


def test_the_settings_leave_a_runs_id_alone() -> None:
    changed = TrainingSettings(validation_interval=7, early_stopping=3, keep_best_validation=True)
    assert changed.identifying == TrainingSettings().identifying
