"""Several processes train the adapter that one process would, on the same items in the same order."""

import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lofi_assets.training.checkpoints.files import DIFFUSERS_WEIGHTS, checkpoint_id
from lofi_assets.training.checkpoints.runs import log_path
from lofi_assets.training.checkpoints.soundness import is_valid
from lofi_assets.training.checkpoints.state import resume_point
from lofi_assets.training.config import ConfigError, TrainingRun
from lofi_assets.training.ending import CONFIGURATION, DONE, INTERRUPTED
from lofi_assets.training.trainer.log import read_log
from lofi_assets.training.trainer.loop import train
from lofi_assets_tests.training.fixtures import MakeRun, Settings
from lofi_assets_tests.training.test_training_runs import quiet, start


def finish(run: TrainingRun, path: Path) -> str:
    process = start(run, path)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == DONE, errors
    return output


def adapter(run: TrainingRun, step: int) -> dict[str, torch.Tensor]:
    folder = run.checkpoints_dir / checkpoint_id(step)
    assert is_valid(folder)
    return load_file(folder / DIFFUSERS_WEIGHTS)


def steps(run: TrainingRun) -> list[dict]:
    return [line for line in read_log(log_path(run)) if "loss" in line]


def validation(run: TrainingRun) -> list[float]:
    return [line["validation_loss"] for line in read_log(log_path(run)) if "validation_loss" in line]


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_agree_with_one_at_the_same_global_batch(
    make_run: MakeRun, tmp_path: Path, parallel: str
) -> None:
    shared: Settings = {"max_steps": 4, "checkpoint_interval": 2, "warmup_steps": 0, "ema_decay": 0.9}
    one = make_run("one", batch_size=4, **shared)
    two = make_run("two", batch_size=1, accumulate=2, processes=2, parallel=parallel, **shared)
    train(one, say=quiet)
    output = finish(two, tmp_path / "run.json")
    assert output.count("complete;") == 1, "only the main process reports"
    assert [line["items"] for line in steps(one)] == [line["items"] for line in steps(two)]
    for key in ("loss", "grad_norm"):
        assert [line[key] for line in steps(two)] == pytest.approx([line[key] for line in steps(one)], rel=1e-4)
    assert validation(one) == pytest.approx(validation(two), rel=1e-4) and len(validation(one)) == 3
    expected, found = adapter(one, 4), adapter(two, 4)
    assert expected.keys() == found.keys()
    assert max(float((expected[name] - found[name]).abs().max()) for name in expected) < 1e-4


@pytest.mark.slow
def test_terminated_processes_save_once_and_go_on_to_the_same_bits(make_run: MakeRun, tmp_path: Path) -> None:
    shared: Settings = {"processes": 2, "parallel": "fsdp", "max_steps": 12, "checkpoint_interval": 6}
    shared |= {"precision": "bf16-mixed", "gradient_checkpointing": True}
    whole, stopped = make_run("whole", **shared), make_run("stopped", **shared)
    finish(whole, tmp_path / "whole.json")
    process = start(stopped, tmp_path / "stopped.json")
    while not steps(stopped):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    asked = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED, errors
    assert time.monotonic() - asked < 10
    assert 0 < resume_point(stopped.checkpoints_dir).step < 12
    finish(stopped, tmp_path / "stopped.json")
    for step in (6, 12):
        expected, found = adapter(whole, step), adapter(stopped, step)
        assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert [line["items"] for line in steps(whole)] == [line["items"] for line in steps(stopped)]


def test_a_run_for_several_processes_does_not_silently_run_in_one(make_run: MakeRun) -> None:
    with pytest.raises(ConfigError, match="accelerate launch"):
        train(make_run(processes=2), say=quiet)


@pytest.mark.slow
def test_what_is_wrong_is_reported_by_the_main_process_of_several(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(processes=2).model_copy(update={"base_fingerprint": "0" * 64})
    process = start(run, tmp_path / "run.json")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == CONFIGURATION
    assert [line.startswith("error: base:") for line in errors.splitlines()].count(True) == 1
