"""What a run says of itself: each step once in the log and in TensorBoard, its end in words."""

import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lofi_assets.training.ending import Ending, begin, read_ending, write_ending
from lofi_assets.training.trainer.curves import open_curves
from lofi_assets.training.trainer.log import StepLog, read_log


def scalars(folder: Path, name: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return [(event.step, round(event.value, 4)) for event in events.Scalars(name)]


def test_a_resumed_run_shows_no_step_twice_in_log_and_curves(tmp_path: Path) -> None:
    path = tmp_path / "train-abc.jsonl"
    killed = StepLog(path, after_step=-1)
    for step in range(1, 8):
        killed.write(step, {"loss": float(step), "lr": 1e-4, "items": ["one@500"]})
    killed.sync()
    killed.close()
    resumed = StepLog(path, after_step=4)
    for step in range(5, 11):
        resumed.write(step, {"loss": step + 0.5, "lr": 1e-4, "items": ["one@500"]})
    resumed.write(10, {"validation_loss": 0.7, "validation_by_timestep": {"t=125": 0.4, "mean": 0.7}})
    resumed.close()
    expected = [(step, float(step)) for step in range(1, 5)] + [(step, step + 0.5) for step in range(5, 11)]
    assert [(line["step"], line["loss"]) for line in read_log(path) if "loss" in line] == expected
    assert scalars(path.with_suffix(""), "loss") == expected
    assert scalars(path.with_suffix(""), "validation/t=125") == [(10, 0.4)]
    assert all(value > 0 for _, value in scalars(path.with_suffix(""), "memory_gb"))


def test_training_does_not_need_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert open_curves(tmp_path / "curves", after_step=-1) is None
    log = StepLog(tmp_path / "train-abc.jsonl", after_step=-1)
    log.write(1, {"loss": 1.0})
    log.sync()
    log.close()
    assert [line["step"] for line in read_log(tmp_path / "train-abc.jsonl")] == [1]


def test_an_ending_is_kept_until_the_next_start(tmp_path: Path) -> None:
    config = tmp_path / "training_run.json"
    assert read_ending(config) is None
    write_ending(config, Ending(3, "training diverged: step 7"))
    found = read_ending(config)
    assert found is not None and (found.code, found.message) == (3, "training diverged: step 7")
    config.with_suffix(".ending.json").write_text('{"code": 4, "message": "an earlier version\'s"}')
    found = read_ending(config)
    assert found is not None and (found.code, found.kind) == (4, "unsaid")
    begin(config)
    assert read_ending(config) is None
