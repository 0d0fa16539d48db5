"""A run is reproducible however often it is killed, and what it saves acts at the trained strength."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel

from lofi_assets.backbones.ace_step_v1.loading import load_base
from lofi_assets.backbones.ace_step_v1.transformer import ACEStepTransformer2DModel
from lofi_assets.files.documents import read_json
from lofi_assets.files.hashing import sha256_file
from lofi_assets.training.__main__ import main as trainer
from lofi_assets.training.checkpoints import state as resume
from lofi_assets.training.checkpoints.description import CheckpointDescription
from lofi_assets.training.checkpoints.files import DESCRIPTION, DIFFUSERS_WEIGHTS, PEFT_WEIGHTS, checkpoint_id
from lofi_assets.training.checkpoints.manifest import read_manifest
from lofi_assets.training.checkpoints.runs import ARCHIVE, finished, log_path
from lofi_assets.training.checkpoints.soundness import is_valid
from lofi_assets.training.checkpoints.state import resume_point
from lofi_assets.training.config import (
    TrainingRun,
    TrainingSettings,
    load_lora_settings,
    load_run,
    save_run,
)
from lofi_assets.training.ending import CONFIGURATION, DIVERGED, DONE, FILES, INTERRUPTED
from lofi_assets.training.trainer import adapters
from lofi_assets.training.trainer.diverged import TrainingDiverged
from lofi_assets.training.trainer.log import read_log
from lofi_assets.training.trainer.loop import train
from lofi_assets.training.trainer.optimizer import learning_rate
from lofi_assets_tests.conftest import REPOSITORY
from lofi_assets_tests.feature_material import read
from lofi_assets_tests.training.fixtures import MakeRun, Settings
from lofi_assets_tests.training.started import STARTED, Started, server

LORA_CONFIG = REPOSITORY / "config" / "lofi_lora_config.json"


def quiet(message: str) -> None:
    del message


def digests(run: TrainingRun) -> dict[int, str]:
    records = read_manifest(run.checkpoints_dir)
    return {
        record.step: CheckpointDescription.read(run.checkpoints_dir / record.checkpoint_id).adapter_sha256
        for record in records
    }


def logged(run: TrainingRun) -> list[dict]:
    return [{name: value for name, value in line.items() if name != "seconds"} for line in read_log(log_path(run))]


def start(run: TrainingRun, path: Path) -> subprocess.Popen:
    save_run(path, run)
    command = [sys.executable, "-m", "lofi_assets.training", "--config", str(path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def started(run: TrainingRun, path: Path) -> Started:
    """As `start`, without the time that it takes to import torch and peft."""
    save_run(path, run)
    return Started(trainer, ["--config", str(path)])


def wait_for_step(alive: Callable[[], bool], run: TrainingRun, step: int) -> None:
    deadline = time.monotonic() + 120
    while not any(line["step"] >= step for line in read_log(log_path(run))):
        assert alive()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def kill_at(run: TrainingRun, path: Path, step: int) -> None:
    process = started(run, path)
    wait_for_step(lambda: process.poll() is None, run, step)
    process.kill()
    process.communicate()


@pytest.mark.xdist_group(STARTED)
def test_a_killed_and_resumed_run_gives_the_same_bits(make_run: MakeRun, tmp_path: Path) -> None:
    whole, killed = (
        make_run("whole", max_steps=40, checkpoint_interval=8),
        make_run("killed", max_steps=40, checkpoint_interval=8, state_minutes=1e-9),
    )
    kill_at(killed, tmp_path / "run.json", 13)
    assert 12 <= resume_point(killed.checkpoints_dir).step < 40, "a state each step: lost is one at most"
    summary = train(killed, say=quiet)
    assert 0 < summary.steps_now < 40
    train(whole, say=quiet)
    assert digests(killed) == digests(whole) and len(digests(whole)) == 5
    assert logged(killed) == logged(whole)
    for name in (PEFT_WEIGHTS, DIFFUSERS_WEIGHTS):
        pair = [sha256_file(run.checkpoints_dir / checkpoint_id(40) / name) for run in (killed, whole)]
        assert pair[0] == pair[1]
    states = [sha256_file(run.checkpoints_dir / ".resume" / "step=40" / resume.TENSORS) for run in (killed, whole)]
    assert states[0] == states[1]


@pytest.mark.slow
@pytest.mark.xdist_group(STARTED)
def test_twenty_killed_runs_give_the_same_bits(make_run: MakeRun) -> None:
    settings: Settings = {
        "max_steps": 12,
        "checkpoint_interval": 4,
        "ema_decay": 0.9,
        "batch_size": 2,
        "validation_limit": 0,
    }
    whole = make_run("whole", **settings)
    train(whole, say=quiet)
    for index, step in enumerate(np.random.default_rng(0).integers(1, 12, 20)):
        killed = make_run(f"killed-{index}", **settings)
        process = server().Process(target=train, args=(killed,), kwargs={"say": quiet})
        process.start()
        wait_for_step(process.is_alive, killed, int(step))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        train(killed, say=quiet)
        assert digests(killed) == digests(whole), f"killed at step {step}"
        assert logged(killed) == logged(whole)


@pytest.mark.xdist_group(STARTED)
def test_a_terminated_run_saves_its_last_step_and_goes_on(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(max_steps=100_000, checkpoint_interval=50_000)
    process = started(run, tmp_path / "run.json")
    wait_for_step(lambda: process.poll() is None, run, 3)
    asked = time.monotonic()
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=60)
    assert time.monotonic() - asked < 10
    assert process.returncode == INTERRUPTED, errors
    assert "interrupted and saved" in output
    step = resume_point(run.checkpoints_dir).step
    assert step == max(line["step"] for line in read_log(log_path(run)))
    longer = run.model_copy(update={"training": run.training.model_copy(update={"max_steps": step + 2})})
    assert train(longer, say=quiet).steps_now == 2


def test_a_complete_run_does_nothing_and_says_so_without_torch(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    assert train(run, say=quiet).steps_now == 6
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    save_run(tmp_path / "run.json", run)
    code = (
        "import sys; from lofi_assets.training.__main__ import main; code = main(sys.argv[1:]);"
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, "--config", str(tmp_path / "run.json")], capture_output=True, text=True
    )
    assert result.returncode == DONE, result.stderr
    assert "already complete" in result.stdout
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert finished(run).checkpoints == (checkpoint_id(3), checkpoint_id(6))


def test_more_steps_continue_from_the_last_state(make_run: MakeRun) -> None:
    whole, grown = make_run("whole", max_steps=10), make_run("grown", max_steps=4)
    train(whole, say=quiet)
    train(grown, say=quiet)
    longer = grown.model_copy(update={"training": grown.training.model_copy(update={"max_steps": 10})})
    assert train(longer, say=quiet).steps_now == 6
    assert digests(longer) == digests(whole)


def test_a_changed_dataset_starts_a_new_run_and_keeps_the_old_one(make_run: MakeRun) -> None:
    first, second = make_run(), make_run(dataset_hash="e" * 64)
    train(first, say=quiet)
    kept = digests(first)
    said: list[str] = []
    assert train(second, say=said.append).steps_now == 6
    assert any(first.run_id in message for message in said)
    archive = first.checkpoints_dir / ARCHIVE / first.run_id
    assert [is_valid(archive / record.checkpoint_id) for record in read_manifest(archive)] == [True, True]
    assert {record.dataset_hash for record in read_manifest(second.checkpoints_dir)} == {"e" * 64}
    assert log_path(first).is_file() and log_path(second).is_file()
    assert train(first, say=quiet).steps_now == 0
    assert digests(first) == kept


def test_the_loss_falls_when_two_tracks_are_learnt_by_heart(make_run: MakeRun) -> None:
    run = make_run(max_steps=120, checkpoint_interval=60, learning_rate=1e-2, batch_size=2)
    train_tracks = run.of_split("train")
    same = [t.model_copy(update={"track_id": f"{t.track_id}-again", "split": "validation"}) for t in train_tracks]
    tracks = (*train_tracks, *same)
    run = run.model_copy(update={"tracks": tracks})
    train(run, say=quiet)
    curves = [line["validation_by_timestep"] for line in read_log(log_path(run)) if "validation_loss" in line]
    assert len(curves) == 3
    falls = {name: curves[-1][name] / curves[0][name] for name in curves[0]}
    assert falls["mean"] < 0.9
    assert all(fall < 1.0 for fall in falls.values()), falls


def test_checkpoints_hold_everything_that_made_them(make_run: MakeRun) -> None:
    run = make_run()
    train(run, say=quiet)
    folder = run.checkpoints_dir / checkpoint_id(3)
    description = read_json(folder / DESCRIPTION)
    assert load_run(folder / "config.json") == run
    assert description["record"]["config_hash"] == run.config_hash
    assert description["record"]["dataset_hash"] == run.dataset_hash
    assert description["seed"] == 0 and description["validation_loss"] > 0 and description["train_loss"] > 0
    assert description["provenance"]["packages"]["torch"] == torch.__version__.split("+")[0]
    assert description["provenance"]["command"]
    assert [record.path for record in read_manifest(run.checkpoints_dir)] == [
        f"checkpoints/{checkpoint_id(step)}" for step in (3, 6)
    ]


def velocity(transformer: torch.nn.Module, run: TrainingRun) -> torch.Tensor:
    conditions = read(run.features_dir).conditions(run.of_split("train")[1].key)
    with torch.no_grad():
        output = transformer(
            hidden_states=torch.randn(1, 8, 16, 12, generator=torch.Generator().manual_seed(0)),
            attention_mask=None,
            text_hidden_states=conditions["text"][None],
            text_attention_mask=torch.ones(1, len(conditions["text"])),
            speaker_embeds=torch.ones(1, len(conditions["speaker"])),
            lyric_token_ids=conditions["lyric_ids"][None],
            lyric_mask=conditions["lyric_mask"][None],
            timestep=torch.tensor([500.0]),
        )
    return output.sample


def transformer_of(run: TrainingRun) -> ACEStepTransformer2DModel:
    return load_base(run.base, components=("transformer",)).transformer


def trained(run: TrainingRun) -> ACEStepTransformer2DModel:
    """The transformer as it was in memory when the run ended."""
    transformer = transformer_of(run)
    parameters = adapters.add_lora(transformer, run.lora, seed=0)
    optimizer = torch.optim.AdamW(list(parameters.values()))
    resume.restore_state(resume_point(run.checkpoints_dir), parameters=parameters, optimizer=optimizer)
    return transformer


def test_every_reader_applies_the_trained_strength(make_run: MakeRun) -> None:
    run = make_run(learning_rate=1e-2)
    assert run.lora.scale == 16.0
    train(run, say=quiet)
    folder = run.checkpoints_dir / checkpoint_id(6)
    expected = velocity(trained(run), run)
    by_diffusers = transformer_of(run)
    untrained = velocity(by_diffusers, run)
    by_diffusers.load_lora_adapter(folder, weight_name=DIFFUSERS_WEIGHTS, prefix=None)
    by_peft = PeftModel.from_pretrained(transformer_of(run), folder)
    moved = (expected - untrained).abs().max()
    assert moved > 1e-3
    assert (velocity(by_diffusers, run) - expected).abs().max() < 1e-5 * moved
    assert (velocity(by_peft, run) - expected).abs().max() < 1e-5 * moved


def test_the_shipped_adapter_fits_the_published_model() -> None:
    with torch.device("meta"):
        transformer = ACEStepTransformer2DModel(drop_dead_projections=True, build_projectors=False)
        parameters = adapters.add_lora(transformer, load_lora_settings(LORA_CONFIG), seed=0)
    assert len(parameters) == 2 * 211
    assert sum(parameter.numel() for parameter in parameters.values()) == 261_881_856


def test_a_batch_has_the_gradient_of_its_items_one_by_one(make_run: MakeRun) -> None:
    batched = make_run("batched", batch_size=4, max_steps=1, checkpoint_interval=1, gradient_clip=1e9)
    single = make_run("single", accumulate=4, max_steps=1, checkpoint_interval=1, gradient_clip=1e9)
    for run in (batched, single):
        train(run, say=quiet)
    lines = [next(line for line in logged(run) if "loss" in line) for run in (batched, single)]
    assert lines[0]["items"] == lines[1]["items"] and len({item.split("@")[0] for item in lines[0]["items"]}) == 2
    assert lines[0]["loss"] == pytest.approx(lines[1]["loss"], rel=1e-5)
    assert lines[0]["grad_norm"] == pytest.approx(lines[1]["grad_norm"], rel=1e-4)


def test_the_validation_loss_is_that_of_the_tracks_one_by_one(make_run: MakeRun) -> None:
    losses = []
    for size in (1, 3):
        run = make_run(f"by-{size}", batch_size=size, max_steps=1, checkpoint_interval=2)
        heldout = [t.model_copy(update={"split": "validation", "track_id": f"{t.track_id}-v"}) for t in run.tracks[:2]]
        run = run.model_copy(update={"tracks": (*run.tracks, *heldout)})
        train(run, say=quiet)
        losses += [line["validation_by_timestep"] for line in read_log(log_path(run)) if "validation_loss" in line]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5) and len(losses[0]) == 5


def test_gradient_checkpointing_changes_memory_and_nothing_else(make_run: MakeRun) -> None:
    plain, frugal = make_run("plain"), make_run("frugal", gradient_checkpointing=True)
    for run in (plain, frugal):
        train(run, say=quiet)
    assert digests(plain) == digests(frugal)


def test_mixed_precision_keeps_the_adapter_in_float32(make_run: MakeRun) -> None:
    run = make_run(precision="bf16-mixed", max_steps=3)
    train(run, say=quiet)
    assert is_valid(run.checkpoints_dir / checkpoint_id(3))
    assert {tensor.dtype for tensor in adapters_of(run).values()} == {torch.float32}


def adapters_of(run: TrainingRun) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(run.checkpoints_dir / checkpoint_id(3) / DIFFUSERS_WEIGHTS)


def test_a_loss_that_is_no_number_stops_the_run_and_names_step_and_track(make_run: MakeRun) -> None:
    run = make_run(learning_rate=1e30, max_steps=50, checkpoint_interval=50, warmup_steps=0)
    with pytest.raises(TrainingDiverged, match=r"step \d+: .*(one|two)@\d+") as caught:
        train(run, say=quiet)
    assert "learning_rate" in str(caught.value)
    assert resume_point(run.checkpoints_dir).step == 0


def test_the_learning_rate_warms_up_and_then_stays_or_decays() -> None:
    constant = TrainingSettings(warmup_steps=10, max_steps=100)
    assert [learning_rate(constant, step) for step in (1, 5, 10, 100)] == pytest.approx([1e-5, 5e-5, 1e-4, 1e-4])
    linear = TrainingSettings(warmup_steps=10, max_steps=100, schedule="linear")
    rates = [learning_rate(linear, step) for step in range(10, 102)]
    assert rates[0] == pytest.approx(1e-4) and rates[-2] > 0 and rates[-1] == 0
    assert all(later < earlier for earlier, later in itertools.pairwise(rates))


@pytest.mark.parametrize(("spoil", "code"), [("config", CONFIGURATION), ("base", CONFIGURATION), ("features", FILES)])
def test_what_is_wrong_decides_the_exit_code(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: str, code: int
) -> None:
    from lofi_assets.training.__main__ import main

    run = make_run()
    changes: dict[str, dict[str, object]] = {
        "config": {},
        "base": {"base_fingerprint": "0" * 64},
        "features": {"features_dir": tmp_path / "nowhere"},
    }
    save_run(tmp_path / "run.json", run.model_copy(update=changes[spoil]))
    if spoil == "config":
        (tmp_path / "run.json").write_text("{}")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        assert main(["--config", str(tmp_path / "run.json")]) == code
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert "error: " in capsys.readouterr().err
    assert code != DIVERGED


def test_a_run_started_by_dagster_reports_its_materialization(make_run: MakeRun, tmp_path: Path) -> None:
    from dagster_pipes import encode_param

    run = make_run(max_steps=3)
    train(run, say=quiet)
    save_run(tmp_path / "run.json", run)
    (tmp_path / "messages").touch()
    absent = dict.fromkeys(("partition_key", "partition_key_range", "partition_time_window"))
    empty: dict[str, dict[str, str]] = {
        name: {} for name in ("provenance_by_asset_key", "code_version_by_asset_key", "extras")
    }
    context = {"asset_keys": ["lora_checkpoints"], "run_id": "r", "job_name": "j", "retry_number": 0, **absent, **empty}
    environment = {
        **os.environ,
        "DAGSTER_PIPES_CONTEXT": encode_param({"data": context}),
        "DAGSTER_PIPES_MESSAGES": encode_param({"path": str(tmp_path / "messages")}),
    }
    command = [sys.executable, "-m", "lofi_assets.training", "--config", str(tmp_path / "run.json")]
    assert subprocess.run(command, env=environment, capture_output=True).returncode == DONE
    messages = [json.loads(line) for line in (tmp_path / "messages").read_text().splitlines()]
    reported = [message["params"] for message in messages if message["method"] == "report_asset_materialization"]
    assert len(reported) == 1
    assert reported[0]["metadata"]["step"]["raw_value"] == 3
    assert reported[0]["metadata"]["path"]["type"] == "path"
