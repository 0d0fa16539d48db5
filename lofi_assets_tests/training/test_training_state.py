"""The state that a run goes on from: two generations, each with its digest, and what is done about a damaged one."""

import hashlib
import multiprocessing
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lofi_assets.files.documents import read_json, write_json
from lofi_assets.training.checkpoints import tensor_file
from lofi_assets.training.checkpoints.files import CheckpointError, checkpoint_id
from lofi_assets.training.checkpoints.manifest import expect, prune, pruned_records, read_manifest, update_record
from lofi_assets.training.checkpoints.runs import open_run
from lofi_assets.training.checkpoints.state import (
    DAMAGED,
    FOLDER,
    STATE,
    TENSORS,
    keep_beside_checkpoint,
    resume_point,
    save_state,
)
from lofi_assets.training.checkpoints.tensor_file import write_hashed
from lofi_assets.training.config import TrainingRun
from lofi_assets_tests.training.test_training_checkpoints import a_folder_with, a_record, with_state
from lofi_assets_tests.training.test_training_config import a_run


@pytest.fixture
def run(tmp_path: Path) -> TrainingRun:
    opened = a_run(checkpoints_dir=tmp_path / "checkpoints")
    open_run(opened)
    return opened


def save(run: TrainingRun, step: int) -> Path:
    tensors = {"x.lora_A.weight/weight": torch.full((8,), float(step)), "x.lora_A.weight/step": torch.tensor(step)}
    save_state(run.checkpoints_dir, run_id=run.run_id, step=step, tensors=tensors, extra={"smoothed": 0.5 * step})
    return run.checkpoints_dir / FOLDER / f"step={step}"


def states(run: TrainingRun) -> list[str]:
    return sorted(path.name for path in (run.checkpoints_dir / FOLDER).iterdir())


def flip(path: Path, *, byte: int, bit: int = 0) -> None:
    """One bit of a file, its time of writing as it was."""
    content = bytearray(path.read_bytes())
    content[byte] ^= 1 << bit
    path.write_bytes(content)


def opened(run: TrainingRun) -> list[str]:
    said: list[str] = []
    open_run(run, say=said.append)
    return said


KINDS = (torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.float16)


@pytest.mark.parametrize("block", [16, 1 << 24])
def test_a_file_that_is_hashed_while_it_is_written_is_the_librarys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(tensor_file, "BLOCK", block)
    tensors = {f"{kind}/é": torch.arange(35).reshape(5, 7).to(kind) for kind in KINDS}
    tensors |= {"scalar": torch.tensor(3), "empty": torch.zeros(0, 4)}
    digest = write_hashed(tensors, tmp_path / "one")
    assert digest == hashlib.sha256((tmp_path / "one").read_bytes()).hexdigest()
    found = load_file(tmp_path / "one")
    assert found.keys() == tensors.keys()
    assert all(found[name].dtype == tensors[name].dtype and torch.equal(found[name], tensors[name]) for name in found)
    assert write_hashed(dict(reversed(tensors.items())), tmp_path / "two") == digest


def test_the_last_two_states_are_kept(run: TrainingRun) -> None:
    for step in (0, 3, 7, 9):
        save(run, step)
    assert states(run) == ["step=7", "step=9"]
    save(run, 9)
    assert states(run) == ["step=7", "step=9"] and resume_point(run.checkpoints_dir).step == 9


@pytest.mark.parametrize("byte", [-1, -40, -80])
def test_a_flipped_bit_in_the_tensors_is_named_and_the_older_state_gone_on_from(run: TrainingRun, byte: int) -> None:
    save(run, 3)
    state = save(run, 7)
    assert opened(run) == []
    flip(state / TENSORS, byte=byte)
    (said,) = opened(run)
    assert str(state / TENSORS) in said and said.endswith("goes on from step 3, and what came after is done again")
    assert resume_point(run.checkpoints_dir).step == 3
    assert states(run) == [f"{DAMAGED}step=7", "step=3"] and opened(run) == []
    save(run, 5)
    assert f"{DAMAGED}step=7" in states(run), "until the run has passed it"
    save(run, 7)
    assert states(run) == ["step=5", "step=7"]


def test_a_flipped_bit_of_a_states_record_is_seen_or_leaves_the_values(run: TrainingRun) -> None:
    save(run, 3)
    path = save(run, 7) / STATE
    whole, point = path.read_bytes(), resume_point(run.checkpoints_dir)
    for byte in range(0, len(whole), 3):
        flip(path, byte=byte, bit=byte % 8)
        found = resume_point(run.checkpoints_dir)
        assert found == point or found.step == 3, whole[max(0, byte - 10) : byte + 10]
        path.write_bytes(whole)
    assert resume_point(run.checkpoints_dir) == point


def test_with_both_generations_damaged_a_checkpoints_own_state_is_gone_on_from(run: TrainingRun) -> None:
    a_folder_with(run.checkpoints_dir, a_record(3))
    save(run, 3)
    keep_beside_checkpoint(run.checkpoints_dir)
    damaged = [save(run, step) for step in (5, 7)]
    for folder in damaged:
        flip(folder / TENSORS, byte=-1)
    said = opened(run)
    assert len(said) == 2 and all("goes on from step 3" in line for line in said)
    assert resume_point(run.checkpoints_dir).step == 3


def test_with_every_state_damaged_all_are_named_and_nothing_starts_from_zero(run: TrainingRun) -> None:
    a_folder_with(run.checkpoints_dir, a_record(3))
    folders = [save(run, 3)]
    keep_beside_checkpoint(run.checkpoints_dir)
    folders.append(save(run, 5))
    for folder in folders:
        flip(folder / TENSORS, byte=-1)
    with pytest.raises(CheckpointError) as caught:
        open_run(run)
    assert all(str(folder / TENSORS) in str(caught.value) for folder in folders) and "--fresh" in str(caught.value)
    assert states(run) == ["step=3", "step=5"]


def test_a_state_of_an_earlier_version_is_gone_on_from_and_said_to_be_unchecked(run: TrainingRun) -> None:
    with_state(run.checkpoints_dir, run.run_id, 5)
    (said,) = opened(run)
    assert "step=5" in said and "without a digest, so its tensors are not checked" in said
    assert resume_point(run.checkpoints_dir).step == 5


def test_a_state_whose_digests_were_taken_out_of_its_record_alone_is_not_an_earlier_versions(run: TrainingRun) -> None:
    save(run, 3)
    path = save(run, 7) / STATE
    record = read_json(path)
    write_json(path, {name: value for name, value in record.items() if name != "tensors_sha256"})
    assert resume_point(run.checkpoints_dir).step == 3
    write_json(path, {name: value for name, value in record.items() if name != "sha256"})
    assert resume_point(run.checkpoints_dir).step == 3


def test_old_optimiser_states_go_while_the_run_goes_on(run: TrainingRun) -> None:
    for step in (5, 10, 15, 20):
        a_folder_with(run.checkpoints_dir, a_record(step))
        save(run, step)
        keep_beside_checkpoint(run.checkpoints_dir)
    beside = [step for step in (5, 10, 15, 20) if (run.checkpoints_dir / checkpoint_id(step) / "state").is_dir()]
    assert beside == [15, 20] and states(run) == ["step=15", "step=20"]
    files = {path.stat().st_ino for path in run.checkpoints_dir.rglob(TENSORS)}
    assert len(files) == 2, "those beside checkpoints are links to the two of the run"


def _score(folder: Path, steps: list[int]) -> None:
    for step in steps:
        update_record(folder, checkpoint_id(step), fad_score=float(step))


def test_two_writers_of_the_manifest_lose_nothing(tmp_path: Path) -> None:
    steps = list(range(1, 21))
    a_folder_with(tmp_path, *(a_record(step) for step in steps))
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_score, args=(tmp_path, steps[half::2])) for half in (0, 1)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert [record.fad_score for record in read_manifest(tmp_path)] == [float(step) for step in steps]


def test_retention_does_not_remove_a_checkpoint_that_is_being_written_again(tmp_path: Path) -> None:
    a_folder_with(tmp_path, a_record(5, 4.0), a_record(10, 1.0))
    prune(tmp_path, keep_best=1)
    expect(tmp_path, checkpoint_id(5))
    (tmp_path / checkpoint_id(5)).mkdir()  # written, its record not yet entered
    prune(tmp_path, keep_best=1)
    assert (tmp_path / checkpoint_id(5)).is_dir() and pruned_records(tmp_path) == []
