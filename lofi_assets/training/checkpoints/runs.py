"""Which run the checkpoints folder belongs to: a changed dataset or configuration starts a new one.

`checkpoints/run.json` says which; an earlier run keeps its manifest, checkpoints and resumable state in
`checkpoints/archive/<run id>/`. Nothing is deleted, and a run whose dataset and configuration come back goes on where
it stopped, also if a process was killed while its files were moved (`moves`). Imports without torch.
"""

import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic.dataclasses import dataclass as record

from lofi_assets.files.typed import STORED, read_typed, write_typed
from lofi_assets.files.writing import StoreError, locked
from lofi_assets.training.checkpoints.files import DESCRIPTION, MANIFEST, PRUNED, CheckpointError
from lofi_assets.training.checkpoints.manifest import changing, read_manifest
from lofi_assets.training.checkpoints.moves import finish_moves, move_all
from lofi_assets.training.checkpoints.state import FOLDER as RESUME
from lofi_assets.training.checkpoints.state import choose_state, keep_beside_checkpoint, resume_point
from lofi_assets.training.config import TrainingRun

RUN = "run.json"
ARCHIVE = "archive"
UNIDENTIFIED = "unidentified"

Say = Callable[[str], None]


@dataclass(frozen=True)
class TrainingSummary:
    """What a call of the trainer came to."""

    run_id: str
    """Hash of configuration, dataset and features."""
    step: int
    """Optimiser steps done in all."""
    steps_now: int
    """Of these, done by this call; 0 for a run that was complete."""
    last_loss: float | None
    """Mean training loss of the last step done."""
    mean_loss: float | None
    """Mean training loss of the last 50 steps of this call."""
    validation_loss: float | None
    """Fixed-noise loss on the validation tracks at the last checkpoint."""
    seconds_per_step: float | None
    """Mean wall time, checkpoints included."""
    checkpoints: tuple[str, ...]
    """Checkpoint ids in the manifest."""
    log: str
    """JSON-lines log of the run."""
    interrupted: bool = False
    """Stopped by a signal; the state is saved and the next call goes on."""
    ended_early: bool = False
    """Ended before `max_steps` since the validation loss no longer fell."""
    skipped_items: int = 0
    """Items of the whole run that were left out because their loss was no finite number."""

    def as_metadata(self) -> dict[str, Any]:
        """Plain JSON data without the values that are unknown."""
        data = {**asdict(self), "checkpoints": list(self.checkpoints)}
        return {name: value for name, value in data.items() if value is not None}


@record(frozen=True, kw_only=True, config=STORED)
class RunIdentity:
    """Which run a checkpoints folder belongs to: `run.json`. A person who mends it may write the id alone."""

    run_id: str
    config_hash: str = ""
    dataset_id: str = ""
    dataset_hash: str = ""

    @classmethod
    def of(cls, run: TrainingRun) -> "RunIdentity":
        """The identity of a run."""
        return cls(
            run_id=run.run_id, config_hash=run.config_hash, dataset_id=run.dataset_id, dataset_hash=run.dataset_hash
        )

    @classmethod
    def read(cls, checkpoints_dir: Path) -> "RunIdentity | None":
        """The run that a folder belongs to, None if it belongs to none.

        Raises:
            CheckpointError: the file that says so is broken.
        """
        remedy = f'write {{"run_id": "..."}} with the run_id of the checkpoints\' own {DESCRIPTION}'
        try:
            return read_typed(checkpoints_dir / RUN, cls, remedy=remedy)
        except StoreError as error:
            raise CheckpointError(str(error)) from error

    def write(self, checkpoints_dir: Path) -> None:
        """Make a folder this run's own."""
        write_typed(checkpoints_dir / RUN, self)


def log_path(run: TrainingRun) -> Path:
    """The run's JSON-lines log: another run writes another file."""
    return run.logs_dir / f"train-{run.run_id}.jsonl"


def companion_folder(run: TrainingRun) -> Path:
    """The folder beside the log, of the same name: TensorBoard's curves, and previews."""
    return log_path(run).with_suffix("")


def current_run(checkpoints_dir: Path) -> str | None:
    """Id of the run that the checkpoints folder belongs to, None if it belongs to none.

    Raises:
        CheckpointError: the file that says so is broken.
    """
    identity = RunIdentity.read(checkpoints_dir)
    return identity.run_id if identity else None


def finished(run: TrainingRun) -> TrainingSummary | None:
    """The summary of a run that already reached `max_steps`, None if there is something to do. Reads no tensors."""
    if current_run(run.checkpoints_dir) != run.run_id:
        return None
    point = resume_point(run.checkpoints_dir)
    manifest = read_manifest(run.checkpoints_dir)
    step = max([point.step if point else 0, *(record.step for record in manifest)])
    extra = point.extra if point else {}
    early = step < run.training.max_steps
    if early and not run.training.ends_early(step=point.step if point else 0, stale=extra.get("stale", 0)):
        return None
    return TrainingSummary(
        run_id=run.run_id,
        step=step,
        steps_now=0,
        last_loss=extra.get("last_loss"),
        mean_loss=None,
        validation_loss=extra.get("validation_loss"),
        seconds_per_step=None,
        checkpoints=tuple(record.checkpoint_id for record in manifest),
        log=str(log_path(run)),
        ended_early=early,
        skipped_items=extra.get("skipped", 0),
    )


def archived_run(checkpoints_dir: Path, run_id: str) -> Path | None:
    """Where the archive has a run, the latest of those with its id: `--fresh` leaves earlier ones there."""
    found = {}
    for path in (checkpoints_dir / ARCHIVE).glob(f"{run_id}*"):
        if (match := re.fullmatch(rf"{run_id}(?:-(\d+))?", path.name)) and (path / RUN).is_file():
            found[int(match[1] or 1)] = path
    return found[max(found)] if found else None


@contextmanager
def exclusive(checkpoints_dir: Path) -> Iterator[None]:
    """Keep the folder to this process for the block; the lock ends with the process, however it ends.

    Raises:
        CheckpointError: another process trains into it.
    """
    busy = CheckpointError(f"{checkpoints_dir}: another process trains into it; wait for it or stop it")
    with locked(checkpoints_dir, busy=busy):
        yield


def open_run(run: TrainingRun, *, fresh: bool = False, say: Say = lambda line: None) -> str | None:
    """Make the checkpoints folder this run's own; returns the id of the run that was archived, if one was.

    A process that was killed within an earlier call has lost nothing: what it had begun to move is moved first.

    Args:
        fresh: archive even the same run, and start over.
        say: told of damaged states, and where the run goes on from instead.
    Raises:
        CheckpointError: the run has done something, and neither `.resume` nor a checkpoint holds a sound state to go on
            from.
    """
    folder = run.checkpoints_dir
    _sweep(folder)
    with changing(folder):
        finish_moves(folder)
        here = current_run(folder)
        archived = None
        if here != run.run_id or fresh:
            archived = _archive(folder, here, log=_log(run) if fresh else [])
            if not fresh:
                _bring_back(folder, run.run_id)
        _remove_empty_archives(folder)
        RunIdentity.of(run).write(folder)
    faults = choose_state(folder, run_id=run.run_id, say=say)
    if faults or (resume_point(folder) is None and read_manifest(folder)):
        why = "; ".join(faults) or f"{folder / RESUME}: absent"
        raise CheckpointError(
            f"{why}, and no checkpoint holds a sound state/, so the run cannot go on (weights alone are not enough to "
            "continue exactly); restore either, or start over with `lofi train --fresh`, which archives what there is"
        )
    keep_beside_checkpoint(folder)
    return archived


def _sweep(folder: Path) -> None:
    """Remove what a killed process was writing: up to gigabytes, and no reader's name leads there."""
    for pattern in (".epoch=0-step=*.part", f"{RESUME}/.step=*.part"):
        for path in folder.glob(pattern):
            shutil.rmtree(path)


def _archive(folder: Path, run_id: str | None, *, log: Sequence[Path]) -> str | None:
    """Move what lies in `folder` into the archive, with the log that starting over would write anew."""
    moved = [*_contents(folder), *log]
    if not moved:
        return None
    target = _archive_folder(folder, run_id or UNIDENTIFIED, [path.name for path in moved])
    move_all(folder, [(path, target / path.name) for path in moved])
    return target.name


def _log(run: TrainingRun) -> list[Path]:
    return [path for path in (log_path(run), companion_folder(run)) if path.exists()]


def _bring_back(folder: Path, run_id: str) -> None:
    """Move a run out of the archive."""
    if archive := archived_run(folder, run_id):
        move_all(folder, [(path, folder / path.name) for path in _contents(archive)])


def _remove_empty_archives(folder: Path) -> None:
    """What a run that was brought back leaves behind."""
    for path in (folder / ARCHIVE).glob("*"):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _archive_folder(folder: Path, name: str, moved: Sequence[str]) -> Path:
    """`archive/<name>`, or with a number where another archive of that name exists.

    One without run.json is what a version without `moves` left of a killed move, and is filled up.
    """
    target, number = folder / ARCHIVE / name, 1
    while (
        (target / RUN).exists()
        or (name == UNIDENTIFIED and target.exists())
        or any((target / part).exists() for part in moved)
    ):
        number += 1
        target = folder / ARCHIVE / f"{name}-{number}"
    return target


def _contents(folder: Path) -> list[Path]:
    """What belongs to a run."""
    named = [folder / name for name in (RESUME, MANIFEST, PRUNED, RUN)]
    return [path for path in (*sorted(folder.glob("epoch=0-step=*_lora")), *named) if path.exists()]
