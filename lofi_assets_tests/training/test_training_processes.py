"""How many processes train, and that a step which they share out is the step of one."""

from pathlib import Path

import pytest
import torch

from lofi_assets.files.documents import read_json, write_json
from lofi_assets.profiles import load_profile
from lofi_assets.training.checkpoints.begun import as_begun
from lofi_assets.training.checkpoints.runs import ARCHIVE, RunIdentity
from lofi_assets.training.config import TrainingRun, TrainingSettings, load_run, save_run
from lofi_assets.training.process_count import counted
from lofi_assets.training.settings import training_settings
from lofi_assets_tests.training.test_training_config import a_run

FORMER = {(1, 2): "cfb9ace67e59", (3, 2): "2744116070a7"}
"""accumulate and processes -> the id that the version before gave such a run."""


def split(accumulate: int, processes: int, **changes: object) -> TrainingRun:
    return a_run(training=TrainingSettings(accumulate=accumulate, processes=processes), **changes)


def test_the_same_passes_shared_out_otherwise_are_the_same_run() -> None:
    assert split(2, 1).run_id == split(1, 2).run_id == "ee108752bef6"
    assert split(6, 1).run_id == split(3, 2).run_id == split(2, 3).run_id == split(1, 6).run_id == "936fae3e2a61"
    assert split(1, 1).run_id == "528464d39c1a", "as before"
    assert split(1, 4).run_id != split(1, 2).run_id
    wider = a_run(training=TrainingSettings(batch_size=2))
    assert wider.run_id != split(2, 1).run_id, "other forward passes round otherwise"


@pytest.mark.parametrize(("parts", "former"), list(FORMER.items()))
def test_a_file_of_the_version_before_keeps_its_id(tmp_path: Path, parts: tuple[int, int], former: str) -> None:
    path = tmp_path / "run.json"
    save_run(path, split(*parts))
    assert load_run(path).run_id == split(*parts).run_id
    write_json(path, {key: value for key, value in read_json(path).items() if key != "split_identifies"})
    assert load_run(path).run_id == former
    save_run(path, load_run(path))
    assert load_run(path).run_id == former


def test_a_run_that_was_begun_before_goes_on_under_its_id(tmp_path: Path) -> None:
    run = split(1, 2, checkpoints_dir=tmp_path)
    former = run.model_copy(update={"split_identifies": True})
    assert former.run_id == FORMER[1, 2]
    assert as_begun(run).run_id == run.run_id, "nothing is on record"
    RunIdentity.of(former).write(tmp_path / ARCHIVE / former.run_id)
    assert as_begun(run).run_id == former.run_id, "it is in the archive"
    RunIdentity.of(run).write(tmp_path)
    assert as_begun(run).run_id == run.run_id, "the one that is being trained is gone on with"
    RunIdentity.of(former).write(tmp_path)
    assert as_begun(run).run_id == former.run_id
    assert as_begun(split(2, 1, checkpoints_dir=tmp_path)).run_id == run.run_id, "that one is a run of another id"


@pytest.mark.parametrize(
    ("device", "gpus", "count"), [("auto", 4, 4), ("cuda", 2, 2), ("auto", 0, 1), ("cpu", 4, 1), ("cuda:1", 4, 1)]
)
def test_auto_is_one_process_for_each_visible_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, gpus: int, count: int
) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    profile = load_profile("demo").model_copy(update={"training": {"processes": "auto", "device": device}})
    assert training_settings(profile).processes == count
    save_run(tmp_path / "run.json", a_run(device=device))
    data = read_json(tmp_path / "run.json")
    data["training"]["processes"] = "auto"
    write_json(tmp_path / "run.json", data)
    assert load_run(tmp_path / "run.json").training.processes == count


def test_auto_is_what_a_launcher_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "16")
    assert counted("auto", device="cpu") == 16 and counted(2, device="cpu") == 2
