"""Training through Dagster: cancelled, diverged, grown, started anew; what the UI is told."""

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest
import soundfile
import yaml
from click.testing import CliRunner
from dagster._core.errors import DagsterPipesExecutionError
from dagster._core.instance_for_test import instance_for_test
from dagster._core.pipes.client import PipesClientCompletedInvocation
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import ModuleTarget
from dagster_graphql.test.utils import execute_dagster_graphql

from lofi_assets.backbones.ace_step_v1.identity import base_fingerprint
from lofi_assets.backbones.features import FeatureError, FeatureJob
from lofi_assets.cli.main import main
from lofi_assets.defs import resources, training
from lofi_assets.defs.resources import Platform
from lofi_assets.defs.training import TRAINER, lora_checkpoints
from lofi_assets.files.documents import read_json, write_json
from lofi_assets.files.hashing import sha256_file
from lofi_assets.profiles import Profile, load_profile
from lofi_assets.store import CONFIG_DIR, Store
from lofi_assets.training import death
from lofi_assets.training.__main__ import main as trainer
from lofi_assets.training.checkpoints.runs import ARCHIVE, current_run, log_path
from lofi_assets.training.checkpoints.state import resume_point
from lofi_assets.training.config import load_run
from lofi_assets.training.ending import CONFIGURATION, INTERRUPTED, read_ending
from lofi_assets.training.feature_cache import FEATURES
from lofi_assets.training.launch import PARENT, STOPPING
from lofi_assets.training.lora_checkpoints import plan_training
from lofi_assets.training.planning import profile_plan as training_plan
from lofi_assets.training.planning.cards import Card
from lofi_assets.training.stopping import Stop
from lofi_assets.training.trainer.log import read_log
from lofi_assets_tests.dataset.stand_in_version import deliver
from lofi_assets_tests.feature_material import encoded
from lofi_assets_tests.training.fixtures import TrainWith

RATE = 48_000
LAUNCH = """
mutation($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}
"""
TERMINATE = "mutation($runId: String!) { terminateRun(runId: $runId) { __typename } }"
"""What the UI sends for Materialize and for Terminate."""


@pytest.fixture(scope="module")
def prepared(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A tiny base and the cached features of three tracks, as `feature_cache` leaves them."""
    root = tmp_path_factory.mktemp("prepared")
    jobs = []
    for index, name in enumerate(("one", "two", "held-out")):
        path = root / f"{name}.wav"
        soundfile.write(path, np.random.default_rng(index).uniform(-0.5, 0.5, (RATE, 2)), RATE)
        jobs.append(FeatureJob(name, path, sha256_file(path), f"lofi, {name}"))
    identity = base_fingerprint(tiny_base)
    rows = encoded(jobs, tiny_base, root / "features", base_fingerprint=identity)
    splits = {"held-out": "validation"}
    tracks = [{"track_id": row.track_id, "key": row.key, "split": splits.get(row.track_id, "train")} for row in rows]
    return {"root": root, "base": str(tiny_base), "base_fingerprint": identity, "tracks": tracks}


class Place:
    """A data root with features, on a Dagster instance."""

    def __init__(self, root: Path, prepared: dict[str, Any], instance: dg.DagsterInstance) -> None:
        self.store, self.instance = Store(root), instance
        self.store.cache.mkdir(parents=True)
        self.store.features.symlink_to(prepared["root"] / "features")
        self.features = {name: prepared[name] for name in ("base", "base_fingerprint", "tracks")}
        self.deliver("d" * 64)
        self.cache("d" * 64)

    def deliver(self, content: str) -> None:
        """Another version of the dataset."""
        deliver(self.store, f"ds-{content[0]}", digest=content)

    def cache(self, content: str) -> None:
        """Its features."""
        of = {"dataset_id": f"ds-{content[0]}", "dataset_hash": content}
        write_json(self.store.metadata(FEATURES), self.features | of)

    def materialize(self, pipes: dg.PipesSubprocessClient = TRAINER) -> dg.ExecuteInProcessResult:
        return dg.materialize(
            [lora_checkpoints],
            instance=self.instance,
            resources={"platform": Platform(data_dir=str(self.store.root), profile_name="demo"), "pipes": pipes},
            raise_on_error=False,
        )

    @property
    def config(self) -> Path:
        return self.store.metadata("training_run.json")


@pytest.fixture
def place(tmp_path: Path, prepared: dict[str, Any]) -> Iterator[Place]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Place(tmp_path / "data", prepared, instance)


@pytest.fixture
def train_with(monkeypatch: pytest.MonkeyPatch) -> TrainWith:
    """Set the profile's training section."""

    def use(**changes: Any) -> Profile:
        settings = {"precision": "32", "preview_count": 0, "gradient_checkpointing": False, **changes}
        profile = load_profile("demo").model_copy(update={"training": settings})
        monkeypatch.setattr(resources, "load_profile", lambda name: profile)
        return profile

    return use


def metadata_of(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    (event,) = result.asset_materializations_for_node("lora_checkpoints")
    return {name: value.value for name, value in event.metadata.items()}


def failure_of(result: dg.ExecuteInProcessResult) -> Any:
    (event,) = [event for event in result.all_events if event.is_step_failure]
    return event.step_failure_data


def test_the_ui_shows_curves_previews_and_where_to_listen(place: Place, train_with: TrainWith) -> None:
    train_with(max_steps=4, checkpoint_interval=2, preview_count=1, preview_seconds=1.0)
    result = place.materialize()
    shown = metadata_of(result)
    for title in ("loss", "validation loss", "learning rate", "preview step 2", "preview step 4"):
        assert shown[title].startswith(f"![{title}](data:image/png;base64,")
    assert shown["steps_per_hour"] > 0 and shown["tensorboard"].startswith("tensorboard --logdir")
    assert next(iter(shown)) == "summary" and shown["summary"].startswith("Step 4 of 4")
    assert "/previews/index.html" in shown["open"] and not {"log", "config", "listen", "clips"} & shown.keys()
    assert shown["recomputed"] == 4 and shown["dagster/row_count"] == 2
    told = [event.message for event in place.instance.all_logs(result.run_id)]
    assert sum("epoch=0-step=" in message and "validation loss" in message for message in told) == 2


@pytest.mark.slow
def test_more_steps_continue_and_a_new_dataset_starts_anew_beside_the_old_records(
    place: Place, train_with: TrainWith
) -> None:
    train_with(max_steps=4, checkpoint_interval=2)
    first = place.materialize()
    assert first.success and metadata_of(first)["steps"] == 4
    started = current_run(place.store.checkpoints)

    train_with(max_steps=6, checkpoint_interval=2)
    grown = metadata_of(place.materialize())
    assert (grown["steps"], grown["recomputed"], grown["checkpoints"]) == (6, 2, 3)
    assert current_run(place.store.checkpoints) == started

    place.deliver("e" * 64)
    place.cache("e" * 64)
    anew = metadata_of(place.materialize())
    assert (anew["steps"], anew["recomputed"]) == (6, 6)
    archive = place.store.checkpoints / ARCHIVE / str(started)
    assert len(read_json(archive / "manifest.json")) == 3
    assert (place.store.logs / f"train-{started}.jsonl").is_file()


def test_the_command_trains_without_dagster(
    place: Place, train_with: TrainWith, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = train_with(max_steps=2, checkpoint_interval=2)
    monkeypatch.setenv("LOFI_DATA_DIR", str(place.store.root))
    monkeypatch.setattr("lofi_assets.cli.train.load_profile", lambda name: profile)
    only = CliRunner().invoke(main, ["train", "--only-config"])
    assert only.output.strip() == str(place.config) and not place.store.checkpoints.exists()
    assert load_run(place.config).training.max_steps == 2
    assert CliRunner().invoke(main, ["train"]).exit_code == 0
    assert [record["step"] for record in read_json(place.store.checkpoints / "manifest.json")] == [2]


def test_a_run_that_does_not_fit_is_not_started_unless_forced(
    place: Place, train_with: TrainWith, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    planned = plan_training(place.store, train_with(max_steps=1, checkpoint_interval=1))
    monkeypatch.setattr(training_plan, "_card", lambda device, *, asked: Card("a full card", 1e5, 100.0))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        assert trainer(["--config", str(planned.config)]) == CONFIGURATION
        assert "a full card has 0.0 GB free" in capsys.readouterr().err
        assert "--force" in read_ending(planned.config).message
        assert trainer(["--config", str(planned.config), "--force"]) == 0
        assert (read_ending(planned.config).code, read_ending(planned.config).kind) == (0, "complete")
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def test_an_interrupt_that_comes_twice_at_once_still_saves() -> None:
    """Ctrl-C reaches the trainer and Dagster, and Dagster sends it on."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        stop = Stop()
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert stop()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def test_a_diverged_run_fails_with_the_trainers_diagnosis_and_is_not_tried_again(
    place: Place, train_with: TrainWith
) -> None:
    train_with(max_steps=200, checkpoint_interval=100, learning_rate=1e18, gradient_clip=1e30)
    result = place.materialize()
    assert not result.success
    description = failure_of(result).user_failure_data.description
    assert "training diverged: step" in description and "training.learning_rate" in description
    assert not [event for event in result.all_events if event.is_step_restarted or event.is_step_up_for_retry]


def wait_until(condition: Callable[[], Any], *, seconds: float = 180.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return found


def logged_steps(place: Place) -> int:
    if not place.config.is_file():
        return 0
    return max((line["step"] for line in read_log(log_path(load_run(place.config)))), default=0)


@pytest.mark.slow
def test_terminating_a_run_in_the_ui_saves_it_and_the_next_goes_on(
    tmp_path: Path, prepared: dict[str, Any], monkeypatch: pytest.MonkeyPatch, train_with: TrainWith
) -> None:
    """The UI's own requests, the default launcher, the location's executor, the real trainer."""
    shutil.copytree(CONFIG_DIR, tmp_path / "config")
    path = tmp_path / "config" / "profiles" / "demo.yaml"
    demo = yaml.safe_load(path.read_text(encoding="utf-8"))
    settings = {"precision": "32", "preview_count": 0, "max_steps": 100_000, "checkpoint_interval": 50_000}
    path.write_text(yaml.safe_dump({**demo, "training": settings}), encoding="utf-8")
    monkeypatch.setenv("LOFI_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("LOFI_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("LOFI_PROFILE", "demo")
    coordinator = {"module": "dagster._core.run_coordinator", "class": "DefaultRunCoordinator"}
    target = ModuleTarget("lofi_assets.definitions", None, str(CONFIG_DIR.parent), "lofi_assets")
    with (
        instance_for_test(overrides={"run_coordinator": coordinator}) as instance,
        WorkspaceProcessContext(instance, target) as process,
    ):
        place = Place(tmp_path / "data", prepared, instance)
        selector = {"repositoryLocationName": "lofi_assets", "repositoryName": "__repository__"}
        selection = {"assetSelection": [{"path": ["lora_checkpoints"]}], "assetCheckSelection": []}
        params = {"selector": {**selector, "jobName": "__ASSET_JOB", **selection}, "mode": "default"}
        workspace = process.create_request_context()
        launched = execute_dagster_graphql(workspace, LAUNCH, {"params": params}).data["launchRun"]
        run_id = launched["run"]["runId"]
        wait_until(lambda: logged_steps(place) >= 5)
        asked = time.monotonic()
        execute_dagster_graphql(workspace, TERMINATE, {"runId": run_id})
        wait_until(lambda: instance.get_run_by_id(run_id).is_finished)
        assert time.monotonic() - asked < 60
        assert instance.get_run_by_id(run_id).status == dg.DagsterRunStatus.CANCELED
        assert instance.get_latest_materialization_event(lora_checkpoints.key) is None
        assert read_ending(place.config).code == INTERRUPTED
        saved = resume_point(place.store.checkpoints).step
        assert saved == logged_steps(place) >= 5

        train_with(**{**settings, "gradient_checkpointing": True, "max_steps": saved + 2})
        result = place.materialize()
        assert result.success and metadata_of(result)["recomputed"] == 2


class Fragile(dg.PipesSubprocessClient):
    """A trainer that is killed before it can say a word, so many times."""

    def __init__(self, kills: int) -> None:
        super().__init__()
        self.kills = kills

    # asks for a command, as dagster's own client does
    def run(self, *, command: Sequence[str], **options: Any) -> PipesClientCompletedInvocation:  # type: ignore[override]
        self.kills -= 1
        assert options["env"] == {PARENT: str(os.getpid())}, "a trainer that outlives its step saves and ends"
        die = [
            sys.executable,
            "-c",
            "import os, signal; os.write(2, b'CUDA is gone'); os.kill(os.getpid(), signal.SIGKILL)",
        ]
        return super().run(command=die if self.kills >= 0 else command, **options)


def test_a_killed_trainer_is_started_once_more(
    place: Place, train_with: TrainWith, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_with(max_steps=1, checkpoint_interval=1)
    monkeypatch.setattr(training, "RETRY_AFTER_S", 0)
    assert metadata_of(place.materialize(Fragile(1)))["steps"] == 1

    train_with(max_steps=2, checkpoint_interval=1)
    kills = iter([7, 7, 8, 9])
    monkeypatch.setattr(death, "memory_kills", lambda: next(kills))
    result = place.materialize(Fragile(2))
    description = failure_of(result).user_failure_data.description
    assert "was ended by SIGKILL; the kernel ended a process for want of memory meanwhile" in description
    assert "its last line was: CUDA is gone. Materialise lora_checkpoints again" in description
    (told,) = [log.message for log in place.instance.all_logs(result.run_id) if "started once more" in log.message]
    assert "SIGKILL; the kernel ended no process for want of memory" in told


def test_features_of_another_version_are_to_be_made_again(
    place: Place, train_with: TrainWith, prepared: dict[str, Any]
) -> None:
    train_with(max_steps=2, checkpoint_interval=2)
    features = read_json(place.store.metadata(FEATURES))
    features["tracks"][0]["key"] = f"{'0' * 32}.{'0' * 32}"
    write_json(place.store.metadata(FEATURES), features)
    with pytest.raises(FeatureError, match="materialise feature_cache again"):
        plan_training(place.store, load_profile("demo"))


def test_features_of_another_dataset_are_never_trained_on(
    place: Place, train_with: TrainWith, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A track that was rejected since would be trained on, under the name of a dataset that lacks it."""
    profile = train_with(max_steps=2, checkpoint_interval=2)
    place.deliver("e" * 64)
    description = failure_of(place.materialize()).error_display_string
    assert "the features are of ds-d, the current dataset is ds-e: materialise feature_cache" in description
    monkeypatch.setenv("LOFI_DATA_DIR", str(place.store.root))
    monkeypatch.setattr("lofi_assets.cli.train.load_profile", lambda name: profile)
    asked = CliRunner().invoke(main, ["train"])
    assert asked.exit_code == 1 and "Error: " in asked.output and "the current dataset is ds-e" in asked.output
    assert not place.config.exists() and not place.store.checkpoints.exists()


def test_features_that_do_not_say_of_which_dataset_they_are_are_never_trained_on(
    place: Place, train_with: TrainWith
) -> None:
    train_with(max_steps=2, checkpoint_interval=2)
    write_json(place.store.metadata(FEATURES), place.features)
    with pytest.raises(FeatureError, match="current dataset is ds-d: materialise feature_cache"):
        plan_training(place.store, load_profile("demo"))


class InThisProcess(dg.PipesSubprocessClient):
    """The trainer without a process of its own, which takes seven CPU-seconds to import it."""

    def run(self, *, command: Sequence[str], **options: Any) -> PipesClientCompletedInvocation:  # type: ignore[override]
        handlers = {number: signal.getsignal(number) for number in STOPPING}
        try:
            code = trainer(command[command.index("--config") :])
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        raise DagsterPipesExecutionError(f"External execution process failed with code {code}")


def test_a_damaged_feature_fails_with_its_file(place: Place, train_with: TrainWith, prepared: dict[str, Any]) -> None:
    train_with(max_steps=2, checkpoint_interval=2)
    features = read_json(place.store.metadata(FEATURES))
    features["tracks"][0]["key"] = "0" * 32 + features["tracks"][0]["key"][32:]
    write_json(place.store.metadata(FEATURES), features)
    description = failure_of(place.materialize(InThisProcess())).user_failure_data.description
    assert "0" * 32 in description and "materialise feature_cache again" in description
