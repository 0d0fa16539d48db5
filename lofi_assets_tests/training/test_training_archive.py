"""A process that is killed while runs are archived and brought back loses nothing, wherever it is killed."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lofi_assets.files.documents import write_json
from lofi_assets.training.checkpoints.files import CheckpointError, checkpoint_id
from lofi_assets.training.checkpoints.manifest import add_record, prune, pruned_records, read_manifest
from lofi_assets.training.checkpoints.moves import MOVES
from lofi_assets.training.checkpoints.runs import ARCHIVE, companion_folder, current_run, log_path, open_run
from lofi_assets.training.checkpoints.state import resume_point
from lofi_assets.training.config import TrainingRun
from lofi_assets_tests.training.test_training_checkpoints import a_record, with_state, write_weights
from lofi_assets_tests.training.test_training_config import a_run

MOST_CALLS = 60
"""More than a change of runs takes; a test that reaches it has not ended by itself."""


class KilledError(BaseException):
    """The process is gone: nothing below catches it, and nothing reaches the disk any more."""


class Killer:
    """Lets so many calls that change names happen, and none after."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, calls: int) -> None:
        self.left, self.happened = calls, 0
        for name in ("rename", "replace", "unlink", "rmdir", "mkdir"):
            monkeypatch.setattr(Path, name, self._counted(getattr(Path, name)))

    def _counted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            if self.happened >= self.left:
                raise KilledError
            self.happened += 1
            return call(*arguments, **options)

        return counted


def killed_after(calls: int, monkeypatch: pytest.MonkeyPatch, run: TrainingRun, *, fresh: bool = False) -> bool:
    """Open a run in a process that is killed after so many calls; False if it came to its end before."""
    with monkeypatch.context() as patched:
        Killer(patched, calls=calls)
        try:
            open_run(run, fresh=fresh)
        except KilledError:
            return True
    return False


Runs = tuple[TrainingRun, TrainingRun, TrainingRun]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `runs_in` copies."""
    root = tmp_path_factory.mktemp("template")
    fill(*runs_over(root)[:2])
    return root


def runs_in(root: Path, template: Path) -> Runs:
    """Three runs over one folder: the first is archived, the second is the folder's, the third never was there."""
    shutil.copytree(template, root)
    return runs_over(root)


def runs_over(root: Path) -> Runs:
    places = {"checkpoints_dir": root / "checkpoints", "logs_dir": root / "logs"}
    first, second, third = (a_run(**places, dataset_hash=letter * 64) for letter in "abc")
    return first, second, third


def fill(first: TrainingRun, second: TrainingRun) -> None:
    for run, steps in ((first, (5, 10, 15)), (second, (20, 25))):
        open_run(run)
        for step in steps:
            add_record(run.checkpoints_dir, a_record(step, float(step)))
            write_weights(run.checkpoints_dir / checkpoint_id(step))
        with_state(run.checkpoints_dir, run.run_id, steps[-1])
        prune(run.checkpoints_dir, keep_best=1)
        log_path(run).parent.mkdir(exist_ok=True)
        log_path(run).write_text(run.run_id)
        write_json(companion_folder(run) / "previews" / "clip.json", run.run_id)


def held(folder: Path) -> tuple[Any, ...]:
    """What a run has in its folder, current or archived."""
    steps = [record.step for record in read_manifest(folder)]
    there = [(folder / checkpoint_id(step)).is_dir() for step in steps]
    point = resume_point(folder)
    return current_run(folder), steps, [r.step for r in pruned_records(folder)], all(there), point and point.step


def place_of(run: TrainingRun) -> Path:
    folder = run.checkpoints_dir
    return folder if current_run(folder) == run.run_id else folder / ARCHIVE / run.run_id


@pytest.mark.parametrize("after", ["the first", "the second", "the third"])
def test_a_run_that_is_brought_back_is_whole_wherever_the_process_was_killed(
    tmp_path: Path, template: Path, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    first, second, _ = runs_in(tmp_path / "whole", template)
    expected = [held(place_of(run)) for run in (first, second)]
    for calls in range(MOST_CALLS):
        first, second, third = runs_in(tmp_path / f"{calls}", template)
        killed = killed_after(calls, monkeypatch, first)
        opened = {"the first": first, "the second": second, "the third": third}[after]
        open_run(opened)
        assert current_run(opened.checkpoints_dir) == opened.run_id
        assert [held(place_of(run)) for run in (first, second)] == expected, f"killed after {calls} calls"
        assert not (opened.checkpoints_dir / MOVES).exists()
        archives = {path.name for path in (opened.checkpoints_dir / ARCHIVE).iterdir()}
        assert archives == {first.run_id, second.run_id} - {opened.run_id}
        if not killed:
            assert calls > 15, "every rename is among the calls"
            return
    pytest.fail("never came to its end")


@pytest.mark.parametrize("fresh", [False, True])
def test_starting_over_loses_neither_checkpoints_nor_log_wherever_it_is_killed(
    tmp_path: Path, template: Path, monkeypatch: pytest.MonkeyPatch, fresh: bool
) -> None:
    for calls in range(MOST_CALLS):
        _, run, _ = runs_in(tmp_path / f"{calls}", template)
        before = held(run.checkpoints_dir)
        killed = killed_after(calls, monkeypatch, run, fresh=True)
        open_run(run, fresh=fresh)
        archive = run.checkpoints_dir / ARCHIVE / run.run_id
        kept = archive if (archive / "run.json").exists() else run.checkpoints_dir
        assert held(kept) == before, f"killed after {calls} calls"
        logs = [path for path in (archive / log_path(run).name, log_path(run)) if path.exists()]
        assert [path.read_text() for path in logs] == [run.run_id], f"killed after {calls} calls"
        if not killed:
            return
    pytest.fail("never came to its end")


def test_of_two_runs_of_one_id_the_one_that_was_left_last_is_brought_back(tmp_path: Path, template: Path) -> None:
    _, run, other = runs_in(tmp_path / "runs", template)
    open_run(run, fresh=True)
    with_state(run.checkpoints_dir, run.run_id, 2)
    open_run(other)
    open_run(run)
    assert held(run.checkpoints_dir) == (run.run_id, [], [], True, 2)
    assert read_manifest(run.checkpoints_dir / ARCHIVE / run.run_id)


def test_a_list_of_moves_that_does_not_fit_the_folder_overwrites_nothing(tmp_path: Path, template: Path) -> None:
    first, second, _ = runs_in(tmp_path / "runs", template)
    folder = first.checkpoints_dir
    write_json(folder / MOVES, {"pairs": [["manifest.json", f"archive/{first.run_id}/manifest.json"]]})
    before = held(place_of(first)), held(folder)
    with pytest.raises(CheckpointError, match=r"moving\.json: both .* are there; compare"):
        open_run(second)
    assert (held(place_of(first)), held(folder)) == before
