"""A checkpoint is made again from what it recorded, with the same bits, or it is said what differs first."""

import json
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from safetensors.torch import load_file

from lofi_assets.backbones.ace_step_v1.tiny import write_tiny_base
from lofi_assets.cli.reproduce import DIFFERENT, IDENTICAL, IMPOSSIBLE, INTERRUPTED, reproduce
from lofi_assets.files.documents import read_json, write_json
from lofi_assets.files.hashing import sha256_folder
from lofi_assets.training.__main__ import main as trainer
from lofi_assets.training.checkpoints.description import Provenance
from lofi_assets.training.checkpoints.files import DESCRIPTION, PEFT_WEIGHTS, RUN_CONFIG, checkpoint_id
from lofi_assets.training.checkpoints.runs import ARCHIVE
from lofi_assets.training.config import TrainingRun, TrainingSettings
from lofi_assets.training.features.files import write_features
from lofi_assets.training.launch import STOPPING
from lofi_assets.training.reproduction.comparison import find_checkpoint, provenance_changes
from lofi_assets.training.trainer.log import read_log
from lofi_assets.training.trainer.loop import train
from lofi_assets.training.trainer.randomness import randomness
from lofi_assets_tests.feature_material import read
from lofi_assets_tests.training.fixtures import MakeRun
from lofi_assets_tests.training.started import STARTED, Started, lofi
from lofi_assets_tests.training.test_training_runs import digests, quiet

Trained = Callable[..., TrainingRun]
"""A run with these settings of its training section, trained."""


@pytest.fixture
def made(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Trained:
    """Runs that were trained below a data root that `lofi` finds."""

    def make(**training: Any) -> TrainingRun:
        run = make_run("data", **training)
        train(run, say=quiet)
        return run

    monkeypatch.setenv("LOFI_DATA_DIR", str(tmp_path / "data"))
    return make


def folder_of(run: TrainingRun, step: int) -> Path:
    return run.checkpoints_dir / checkpoint_id(step)


def work_folders(run: TrainingRun) -> list[Path]:
    return list((run.checkpoints_dir.parent / "cache" / "reproduce").glob("*"))


def reproduced(*arguments: object) -> Result:
    return CliRunner().invoke(reproduce, [str(argument) for argument in arguments])


class InThisProcess:
    """In place of the trainer's process, where the rule is not about processes: seven CPU-seconds to import less."""

    exitcode: int | None = None

    def __init__(self, target: object, args: tuple[str, int, object]) -> None:
        self.config, self.until, _ = args

    def start(self) -> None:
        self.exitcode = trainer(["--config", self.config, "--until", str(self.until)])

    def is_alive(self) -> bool:
        return False

    def join(self) -> None:
        pass


@pytest.fixture
def trained_here(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Reproductions train in this process; the trainer's handlers of signals go again with the test."""
    handlers = {number: signal.getsignal(number) for number in STOPPING}
    context = SimpleNamespace(Process=InThisProcess)
    monkeypatch.setattr("lofi_assets.training.reproduction.rerun.multiprocessing.get_context", lambda how: context)
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def start(run: TrainingRun, step: int) -> Started:
    """`lofi reproduce`, once it has written its first checkpoint."""
    process = Started(lofi, ["reproduce", checkpoint_id(step)])
    deadline = time.monotonic() + 120
    while not [state for folder in work_folders(run) for state in folder.glob("checkpoints/.resume/step=[1-9]*")]:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return process


def test_a_checkpoint_is_made_again_with_the_same_bits_and_the_original_is_left_alone(
    made: Trained,
) -> None:
    run = made()
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in run.checkpoints_dir.rglob("*")}
    result = reproduced(checkpoint_id(6))
    assert result.exit_code == IDENTICAL, result.output
    assert "step 3: the same bits" in result.output and "identical: step 6" in result.output
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in before} == before
    assert work_folders(run) == []


@pytest.mark.usefixtures("trained_here")
def test_an_earlier_checkpoint_of_a_decaying_schedule_is_made_again(made: Trained) -> None:
    run = made(schedule="linear", max_steps=9)
    result = reproduced(folder_of(run, 3))
    assert result.exit_code == IDENTICAL, result.output


@pytest.mark.xdist_group(STARTED)
def test_a_killed_reproduction_goes_on_and_leaves_no_process_behind(
    made: Trained, request: pytest.FixtureRequest
) -> None:
    run = made(max_steps=48, checkpoint_interval=6)
    process = start(run, 48)
    process.kill()
    process.communicate()
    request.getfixturevalue("trained_here")
    result = reproduced(checkpoint_id(48))
    assert result.exit_code == IDENTICAL, result.output
    assert "going on after step" in result.output


@pytest.mark.xdist_group(STARTED)
def test_an_interrupted_reproduction_says_that_it_is_saved(made: Trained) -> None:
    run = made(max_steps=60, checkpoint_interval=10)
    process = start(run, 60)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED, errors
    assert "the same command goes on" in errors
    assert [path for folder in work_folders(run) for path in folder.glob("checkpoints/.resume/step=*")]


def change_features(run: TrainingRun) -> None:
    """Other latents in sound files, as another machine may compute them."""
    for track in run.of_split("train"):
        path = run.features_dir / "latents" / f"{track.key.partition('.')[0]}.safetensors"
        write_features(path, read(run.features_dir).latents(track.key).numpy() * np.float32(1.001), shape=(8, 16, None))


def with_own_features(run: TrainingRun, folder: Path) -> Path:
    return Path(shutil.copytree(run.features_dir, folder))


@pytest.mark.usefixtures("trained_here")
def test_other_bits_are_found_at_the_first_checkpoint_with_what_differs_and_what_is_not_as_it_was(
    made: Trained, tmp_path: Path
) -> None:
    run = made()
    description = read_json(folder_of(run, 6) / DESCRIPTION)
    description["provenance"]["packages"]["torch"] = "2.0.0"
    description["provenance"]["git_commit"] = "f00d"
    write_json(folder_of(run, 6) / DESCRIPTION, description)
    features = with_own_features(run, tmp_path / "features")
    change_features(run.model_copy(update={"features_dir": features}))
    result = reproduced(checkpoint_id(6), "--features", features)
    assert result.exit_code == DIFFERENT, result.output
    told = [line for line in result.output.splitlines() if line.startswith("not as it was")]
    assert "packages.torch: 2.0.0 recorded" in told[0] and "commit of the code: f00d recorded" in told[1]
    assert "step 3: other bits" in result.output and "different: step 3" in result.output
    assert "first difference in the log: step 1: loss" in result.output
    assert "likeliest cause first: packages.torch" in result.output
    assert "lora_" in result.output and work_folders(run)


def test_differences_come_in_the_order_of_their_likelihood() -> None:
    recorded = Provenance(device="cuda:0", packages={"torch": "1", "numpy": "1"}, machine="a", command="x")
    here = Provenance(device="cpu", packages={"torch": "2", "numpy": "1"}, machine="b", command="y")
    assert [line.partition(":")[0] for line in provenance_changes(recorded, here)] == [
        "packages.torch",
        "machine",
        "device",
    ]


@pytest.mark.parametrize("wrong", ["base gone", "base other", "features gone", "weights changed", "settings unknown"])
def test_what_stands_in_the_way_is_named_with_the_remedy(made: Trained, tmp_path: Path, wrong: str) -> None:
    run = made(max_steps=3)
    folder, options, reason = folder_of(run, 3), [], ""
    if wrong == "base gone":
        options, reason = ["--base", tmp_path / "nowhere"], "the base model is gone; put it back"
    elif wrong == "base other":
        write_tiny_base(tmp_path / "other", seed=1)
        options, reason = ["--base", tmp_path / "other"], "another base model"
    elif wrong == "features gone":
        features = with_own_features(run, tmp_path / "features")
        next((features / "text").iterdir()).unlink()
        options, reason = ["--features", features], "materialise feature_cache again"
    elif wrong == "weights changed":
        other = made(max_steps=3, seed=1)
        shutil.copytree(folder_of(other, 3), tmp_path / "mixed")
        shutil.copy(other.checkpoints_dir / ARCHIVE / run.run_id / checkpoint_id(3) / DESCRIPTION, tmp_path / "mixed")
        folder, reason = tmp_path / "mixed", "changed since, restore them"
    else:
        write_json(folder / RUN_CONFIG, read_json(folder / RUN_CONFIG) | {"novelty": 1})
        reason = "check that out"
    result = reproduced(folder, *options)
    assert result.exit_code == IMPOSSIBLE, result.output
    assert reason in result.output and not work_folders(run)


def test_an_unknown_checkpoint_is_refused_with_those_that_are_known(made: Trained) -> None:
    run = made(max_steps=3)
    result = reproduced(checkpoint_id(7))
    assert result.exit_code == IMPOSSIBLE and checkpoint_id(3) in result.output
    assert not work_folders(run)


def test_a_checkpoint_of_an_archived_run_is_found_by_its_id_unless_two_have_one(tmp_path: Path) -> None:
    first = tmp_path / ARCHIVE / "one" / checkpoint_id(5)
    first.mkdir(parents=True)
    assert find_checkpoint(tmp_path, checkpoint_id(5)) == first
    (tmp_path / ARCHIVE / "two" / checkpoint_id(5)).mkdir(parents=True)
    with pytest.raises(RuntimeError, match="several archived runs"):
        find_checkpoint(tmp_path, checkpoint_id(5))


def test_a_checkpoint_says_where_its_sampler_stands(made: Trained) -> None:
    run = made(max_steps=6, batch_size=2, accumulate=2)
    recorded = read_json(folder_of(run, 3) / DESCRIPTION)["randomness"]
    assert recorded == randomness(run, step=3)
    assert (recorded["next_position"], recorded["next_pass"], recorded["next_place"]) == (12, 6, 0)
    lines = [line for line in read_log(Path(read_json(folder_of(run, 3) / DESCRIPTION)["log"])) if "items" in line]
    assert sum(len(line["items"]) for line in lines[:3]) == recorded["next_position"]


def test_a_checkpoint_records_where_and_with_what_it_was_made(made: Trained) -> None:
    run = made(max_steps=3)
    provenance = json.loads((folder_of(run, 3) / DESCRIPTION).read_text())["provenance"]
    assert {"git_commit", "git_diff_sha256", "packages", "command", "kernels", "threads"} <= provenance.keys()
    assert provenance["kernels"]["cpu"] and {"accelerate", "bitsandbytes"} <= provenance["packages"].keys()


def test_the_global_generators_do_not_touch_a_weight(make_run: MakeRun) -> None:
    """What a checkpoint says of its randomness: their state is not part of it, since nothing reads them."""
    import random

    import torch

    found = []
    for seed in (1, 2):
        run = make_run(f"run-{seed}", max_steps=3)
        random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)
        train(run, say=quiet)
        found.append(digests(run))
    assert found[0] == found[1]


def test_a_run_goes_on_exactly_from_a_checkpoint_alone(make_run: MakeRun) -> None:
    whole, alone = make_run("whole", max_steps=9), make_run("alone", max_steps=6)
    train(whole, say=quiet)
    train(alone, say=quiet)
    shutil.rmtree(alone.checkpoints_dir / ".resume")
    longer = alone.model_copy(update={"training": TrainingSettings(**alone.training.model_dump() | {"max_steps": 9})})
    assert train(longer, say=quiet).steps_now == 3
    assert digests(longer) == digests(whole)


def test_each_kept_checkpoint_holds_its_own_state(make_run: MakeRun) -> None:
    run = make_run()
    train(run, say=quiet)
    states = [folder_of(run, step) / "state" for step in (3, 6)]
    assert [read_json(state / "state.json")["step"] for state in states] == [3, 6]
    # the two generations in .resume are the same files
    assert [(state / "tensors.safetensors").stat().st_nlink for state in states] == [2, 2]
    assert sha256_folder(states[0]) != sha256_folder(states[1])
    weights = {name.rpartition("/")[0] for name in load_file(states[0] / "tensors.safetensors")}
    assert len(weights) == len(load_file(folder_of(run, 3) / PEFT_WEIGHTS))
