"""Which checkpoints are kept, which are sound, and whose they are."""

import json
import shutil
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from lofi_assets.errors import LofiError
from lofi_assets.files.documents import write_json
from lofi_assets.records import Checkpoint, dump
from lofi_assets.training.checkpoints.files import (
    ADAPTER_METADATA,
    COMFYUI_WEIGHTS,
    DIFFUSERS_WEIGHTS,
    PEFT_CONFIG,
    PEFT_PREFIX,
    PEFT_WEIGHTS,
    CheckpointError,
    checkpoint_id,
)
from lofi_assets.training.checkpoints.manifest import add_record, best, prune, read_manifest, retention, update_record
from lofi_assets.training.checkpoints.runs import ARCHIVE, current_run, exclusive, finished, open_run
from lofi_assets.training.checkpoints.soundness import fault, is_valid
from lofi_assets.training.checkpoints.state import keep_beside_checkpoint, resume_point
from lofi_assets_tests.training.test_training_config import a_run

UNSCALED = (DIFFUSERS_WEIGHTS, COMFYUI_WEIGHTS)


def a_record(step: int, fad: float | None = None, *, valid: bool = True) -> Checkpoint:
    return Checkpoint(
        checkpoint_id=checkpoint_id(step),
        step=step,
        path=f"checkpoints/{checkpoint_id(step)}",
        timestamp=datetime(2025, 1, 1, tzinfo=UTC),
        fad_score=fad,
        is_valid=valid,
        config_hash="c" * 64,
        dataset_hash="d" * 64,
    )


def steps_of(records: Iterable[Checkpoint]) -> list[int]:
    return [record.step for record in records]


def write_weights(folder: Path, *, rank: int = 2) -> Path:
    """A sound checkpoint at scale 3 without training one: B is three times as large where no reader scales."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"r": rank, "lora_alpha": 3 * rank, "use_rslora": False, "target_modules": ["to_q"]}
    write_json(folder / PEFT_CONFIG, settings)
    write_form(folder / PEFT_WEIGHTS, pair(rank), prefix=PEFT_PREFIX)
    for name in UNSCALED:
        write_form(folder / name, pair(rank, scale=3.0), said=settings | {"lora_alpha": rank})
    return folder


def pair(rank: int, *, scale: float = 1.0) -> dict[str, np.ndarray]:
    return {
        "x.to_q.lora_A.weight": np.ones((rank, 4), np.float32),
        "x.to_q.lora_B.weight": np.full((3, rank), scale, np.float32),
    }


def write_form(path: Path, tensors: dict[str, np.ndarray], *, prefix: str = "", said: dict | None = None) -> None:
    metadata = {ADAPTER_METADATA: json.dumps(said)} if said else None
    save_file({prefix + name: tensor for name, tensor in tensors.items()}, path, metadata=metadata)


def a_folder_with(tmp_path: Path, *records: Checkpoint) -> Path:
    for record in records:
        add_record(tmp_path, record)
        write_weights(tmp_path / record.checkpoint_id)
    return tmp_path


def test_the_best_three_by_fad_and_the_latest_are_kept() -> None:
    manifest = [a_record(step, fad) for step, fad in [(5, 4.0), (10, 1.0), (15, 3.0), (20, 2.0), (25, 9.0)]]
    kept, given_up = retention(manifest)
    assert steps_of(kept) == [10, 15, 20, 25]
    assert steps_of(given_up) == [5]


def test_what_was_not_evaluated_is_never_given_up() -> None:
    manifest = [a_record(5), a_record(10, 1.0), a_record(15, 2.0), a_record(20, 3.0), a_record(25, 4.0), a_record(30)]
    assert steps_of(retention(manifest)[1]) == [25]


def test_a_later_checkpoint_wins_a_tie_and_the_earlier_one_of_many_equals_goes() -> None:
    manifest = [a_record(step, 2.0) for step in (5, 10, 15, 20)]
    assert best(manifest) == manifest[-1]
    assert steps_of(retention(manifest, keep_best=3)[1]) == [5]


def test_a_checkpoint_that_broke_before_it_was_evaluated_is_not_given_up() -> None:
    manifest = [a_record(5, valid=False), a_record(10, 1.0), a_record(15, 2.0)]
    assert steps_of(retention(manifest, keep_best=1)[1]) == []


def test_the_first_pruning_before_any_evaluation_removes_nothing(tmp_path: Path) -> None:
    folder = a_folder_with(tmp_path, a_record(5), a_record(10), a_record(15), a_record(20), a_record(25))
    assert prune(folder, keep_best=1) == ()
    assert all((folder / checkpoint_id(step)).is_dir() for step in (5, 10, 15, 20, 25))


def test_a_checkpoint_that_does_not_load_is_not_among_the_best() -> None:
    manifest = [
        a_record(5, 1.0, valid=False),
        a_record(10, 2.0),
        a_record(15, 3.0),
        a_record(20, 4.0),
        a_record(25, 5.0),
    ]
    assert steps_of(retention(manifest)[1]) == [5]
    assert best(manifest) == manifest[1]


def test_nothing_is_best_before_any_evaluation() -> None:
    assert best([a_record(5)]) is None
    assert retention([]) == ((), ())


def test_pruning_removes_folders_and_keeps_their_records(tmp_path: Path) -> None:
    records = [a_record(step, fad) for step, fad in [(5, 4.0), (10, 1.0), (15, 2.0)]]
    folder = a_folder_with(tmp_path, *records)
    assert steps_of(prune(folder, keep_best=1)) == [5]
    assert steps_of(read_manifest(folder)) == [10, 15]
    assert not (folder / checkpoint_id(5)).exists()
    assert (folder / checkpoint_id(10)).exists()
    assert checkpoint_id(5) in (folder / "pruned.json").read_text()


def test_a_pruning_that_was_killed_half_way_is_finished_by_the_next(tmp_path: Path) -> None:
    folder = a_folder_with(tmp_path, a_record(5, 4.0), a_record(10, 1.0))
    prune(folder, keep_best=1)
    write_weights(folder / checkpoint_id(5))
    prune(folder, keep_best=1)
    assert not (folder / checkpoint_id(5)).exists()


def test_scores_are_entered_into_the_manifest(tmp_path: Path) -> None:
    folder = a_folder_with(tmp_path, a_record(5), a_record(10))
    update_record(folder, checkpoint_id(5), fad_score=3.5, samples_generated=True)
    assert [record.fad_score for record in read_manifest(folder)] == [3.5, None]
    with pytest.raises(CheckpointError, match="step=7"):
        update_record(folder, checkpoint_id(7), fad_score=1.0)


def test_a_sound_checkpoint_is_valid(tmp_path: Path) -> None:
    assert is_valid(write_weights(tmp_path))


@pytest.mark.parametrize("name", [PEFT_WEIGHTS, *UNSCALED])
def test_a_form_that_is_cut_short_or_absent_is_not_valid(tmp_path: Path, name: str) -> None:
    path = write_weights(tmp_path) / name
    path.write_bytes(path.read_bytes()[:-1])
    assert "does not load" in str(fault(tmp_path))
    path.unlink()
    assert "does not load" in str(fault(tmp_path))


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("x.to_q.lora_B.weight", np.full((3, 2), np.nan, np.float32), "not finite"),
        ("x.to_q.lora_A.weight", np.ones((1, 4), np.float32), "rank"),
        ("x.to_k.lora_B.weight", np.ones((3, 2), np.float32), "no half"),
        ("x.to_q.lora_magnitude_vector", np.ones(4, np.float32), "does not fit its lora_B"),
    ],
)
def test_a_damaged_adapter_is_not_valid_and_says_why(tmp_path: Path, name: str, value: np.ndarray, reason: str) -> None:
    write_form(write_weights(tmp_path) / PEFT_WEIGHTS, pair(2) | {name: value}, prefix=PEFT_PREFIX)
    assert reason in str(fault(tmp_path))


@pytest.mark.parametrize("name", UNSCALED)
def test_a_form_that_would_be_applied_at_another_strength_is_not_valid(tmp_path: Path, name: str) -> None:
    said = {"r": 2, "lora_alpha": 2, "use_rslora": False}
    folder = write_weights(tmp_path)
    write_form(folder / name, pair(2), said=said)
    assert "not the trained strength" in str(fault(folder))
    write_form(folder / name, pair(2, scale=3.0), said=said | {"lora_alpha": 6})
    assert "applied at 1.0" in str(fault(folder))
    write_form(folder / name, pair(2, scale=3.0) | {"x.to_q.alpha": np.ones((), np.float32)}, said=said)
    assert "different adapters" in str(fault(folder))


def test_names_that_peft_would_not_find_are_not_valid(tmp_path: Path) -> None:
    write_form(write_weights(tmp_path) / PEFT_WEIGHTS, pair(2))
    assert "prefix" in str(fault(tmp_path))


def with_state(folder: Path, run_id: str, step: int) -> Path:
    state = folder / ".resume" / f"step={step}"
    write_json(state / "state.json", {"run_id": run_id, "step": step, "extra": {}})
    save_file({"x.to_q.lora_A.weight/weight": np.ones(2, np.float32)}, state / "tensors.safetensors")
    return state


def test_a_checkpoint_holds_the_state_to_go_on_from_without_a_second_copy(tmp_path: Path) -> None:
    run = a_run(checkpoints_dir=tmp_path)
    open_run(run)
    a_folder_with(tmp_path, a_record(5))
    state = with_state(tmp_path, run.run_id, 5)
    keep_beside_checkpoint(tmp_path)
    keep_beside_checkpoint(tmp_path)
    beside = tmp_path / checkpoint_id(5) / "state"
    assert {path.name for path in beside.iterdir()} == {path.name for path in state.iterdir()}
    assert all(path.samefile(state / path.name) for path in beside.iterdir())


def test_a_run_that_lost_its_state_goes_on_from_the_furthest_checkpoint(tmp_path: Path) -> None:
    run = a_run(checkpoints_dir=tmp_path)
    open_run(run)
    for step in (5, 10):
        a_folder_with(tmp_path, a_record(step))
        with_state(tmp_path, run.run_id, step)
        keep_beside_checkpoint(tmp_path)
        shutil.rmtree(tmp_path / ".resume")
    open_run(run)
    assert resume_point(tmp_path).step == 10


def test_the_state_of_another_run_is_not_gone_on_from(tmp_path: Path) -> None:
    run = a_run(checkpoints_dir=tmp_path)
    open_run(run)
    a_folder_with(tmp_path, a_record(5))
    with_state(tmp_path, "another", 5)
    keep_beside_checkpoint(tmp_path)
    shutil.rmtree(tmp_path / ".resume")
    with pytest.raises(CheckpointError, match="--fresh"):
        open_run(run)


def test_a_state_that_a_killed_process_had_not_put_beside_its_checkpoint_is_put_there(tmp_path: Path) -> None:
    run = a_run(checkpoints_dir=tmp_path)
    open_run(run)
    a_folder_with(tmp_path, a_record(5))
    with_state(tmp_path, run.run_id, 5)
    open_run(run)
    assert (tmp_path / checkpoint_id(5) / "state" / "tensors.safetensors").is_file()


def test_retention_frees_the_state_with_the_checkpoint(tmp_path: Path) -> None:
    run = a_run(checkpoints_dir=tmp_path)
    open_run(run)
    for step, fad in ((5, 4.0), (10, 1.0)):
        a_folder_with(tmp_path, a_record(step, fad))
        with_state(tmp_path, run.run_id, step)
        keep_beside_checkpoint(tmp_path)
    shutil.rmtree(tmp_path / ".resume" / "step=5")
    assert (tmp_path / checkpoint_id(5) / "state" / "tensors.safetensors").stat().st_nlink == 1
    prune(tmp_path, keep_best=1)
    assert not (tmp_path / checkpoint_id(5)).exists()
    assert (tmp_path / checkpoint_id(10) / "state").is_dir() and resume_point(tmp_path).step == 10


def test_a_changed_dataset_archives_the_run_and_its_return_brings_it_back(tmp_path: Path) -> None:
    first = a_run(checkpoints_dir=tmp_path)
    second = a_run(checkpoints_dir=tmp_path, dataset_hash="e" * 64)
    open_run(first)
    a_folder_with(tmp_path, a_record(5, 1.0))
    with_state(tmp_path, first.run_id, 5)
    assert open_run(second) == first.run_id
    assert read_manifest(tmp_path) == []
    assert steps_of(read_manifest(tmp_path / ARCHIVE / first.run_id)) == [5]
    assert is_valid(tmp_path / ARCHIVE / first.run_id / checkpoint_id(5))
    assert open_run(first) == second.run_id
    assert steps_of(read_manifest(tmp_path)) == [5]
    assert current_run(tmp_path) == first.run_id


def test_starting_over_archives_the_same_run_each_time_anew(tmp_path: Path) -> None:
    run = a_run(checkpoints_dir=tmp_path / "checkpoints", logs_dir=tmp_path / "logs")
    for _ in range(2):
        open_run(run, fresh=True)
        a_folder_with(tmp_path / "checkpoints", a_record(5))
        with_state(tmp_path / "checkpoints", run.run_id, 5)
    open_run(run, fresh=True)
    assert sorted(path.name for path in (tmp_path / "checkpoints" / ARCHIVE).iterdir()) == [
        run.run_id,
        f"{run.run_id}-2",
    ]
    assert read_manifest(tmp_path / "checkpoints") == []


def test_checkpoints_of_an_unknown_run_are_archived_too(tmp_path: Path) -> None:
    a_folder_with(tmp_path, a_record(5))
    open_run(a_run(checkpoints_dir=tmp_path))
    assert steps_of(read_manifest(tmp_path / ARCHIVE / "unidentified")) == [5]


def test_checkpoints_without_their_state_are_not_silently_trained_again(tmp_path: Path) -> None:
    run = a_run(checkpoints_dir=tmp_path)
    open_run(run)
    a_folder_with(tmp_path, a_record(5))
    with pytest.raises(CheckpointError, match="--fresh"):
        open_run(run)


def test_a_run_that_reached_its_steps_is_finished_until_more_are_asked_for(tmp_path: Path) -> None:
    run = a_run(checkpoints_dir=tmp_path, training={"max_steps": 7})
    open_run(run)
    assert finished(run) is None
    with_state(tmp_path, run.run_id, 7)
    assert finished(run).step == 7
    assert finished(a_run(checkpoints_dir=tmp_path, training={"max_steps": 8})) is None


def test_what_a_killed_process_left_half_written_is_swept_up(tmp_path: Path) -> None:
    left = [tmp_path / ".epoch=0-step=5_lora.0a1b2c3d.part", tmp_path / ".resume" / ".step=5.0a1b2c3d.part"]
    for folder in left:
        write_weights(folder)
    open_run(a_run(checkpoints_dir=tmp_path))
    assert not any(folder.exists() for folder in left)


def test_two_processes_never_train_into_one_folder(tmp_path: Path) -> None:
    with exclusive(tmp_path), pytest.raises(CheckpointError, match="another process"), exclusive(tmp_path):
        pass
    with exclusive(tmp_path):
        pass


@pytest.mark.parametrize("name", ["state.json", "tensors.safetensors"])
@pytest.mark.parametrize("keep", [0, 0.5])
def test_a_run_goes_on_from_an_earlier_state_when_the_last_is_cut_short(tmp_path: Path, name: str, keep: float) -> None:
    run = a_run(checkpoints_dir=tmp_path)
    open_run(run)
    a_folder_with(tmp_path, a_record(5), a_record(10))
    for step in (5, 10):
        state = with_state(tmp_path, run.run_id, step)
        keep_beside_checkpoint(tmp_path)
    shutil.rmtree(tmp_path / ".resume" / "step=5")
    cut(state / name, keep)
    said: list[str] = []
    open_run(run, say=said.append)
    assert str(state / name) in said[0]
    assert resume_point(tmp_path).step == 5


@pytest.mark.parametrize("name", ["state.json", "tensors.safetensors"])
def test_a_run_whose_only_state_is_cut_short_names_it_and_never_starts_from_zero(tmp_path: Path, name: str) -> None:
    run = a_run(checkpoints_dir=tmp_path)
    open_run(run)
    state = with_state(tmp_path, run.run_id, 3)
    cut(state / name, 0.5)
    with pytest.raises(CheckpointError, match=f"{name}.*restore either, or start over with `lofi train --fresh`"):
        open_run(run)
    open_run(run, fresh=True)
    assert resume_point(tmp_path) is None and (tmp_path / ARCHIVE / run.run_id / ".resume" / state.name / name).exists()


def cut(path: Path, keep: float) -> None:
    """What a crash of the machine leaves: the first part of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])


@pytest.mark.parametrize("content", ["{", '[{"checkpoint', "{}", '"text"'])
def test_a_broken_manifest_is_named_and_may_be_removed_as_it_says(tmp_path: Path, content: str) -> None:
    a_folder_with(tmp_path, a_record(5), a_record(10))
    for record in read_manifest(tmp_path):
        write_json(tmp_path / record.checkpoint_id / "checkpoint.json", {"record": dump(record)})
    before = read_manifest(tmp_path)
    manifest = tmp_path / "manifest.json"
    manifest.write_text(content, encoding="utf-8")
    with pytest.raises(LofiError, match=r"manifest\.json: .*mend it or remove it"):
        read_manifest(tmp_path)
    manifest.unlink()
    assert read_manifest(tmp_path) == before
    update_record(tmp_path, checkpoint_id(10), fad_score=2.0)
    assert steps_of(read_manifest(tmp_path)) == [5, 10] and best(read_manifest(tmp_path)).step == 10


@pytest.mark.parametrize("content", ["[]", "{}", '{"run_id": 3}'])
def test_a_broken_name_of_the_run_is_named_with_where_to_find_it(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"run\.json: is of another version .*; write .*checkpoint\.json"):
        current_run(tmp_path)
