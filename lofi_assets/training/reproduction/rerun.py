"""A recorded checkpoint made again, in a folder and a process of its own. The original checkpoints are only read."""

import contextlib
import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from lofi_assets.files.hashing import hash_of
from lofi_assets.training.checkpoints.description import CheckpointDescription
from lofi_assets.training.checkpoints.files import checkpoint_id
from lofi_assets.training.checkpoints.manifest import read_manifest
from lofi_assets.training.checkpoints.provenance import ENVIRONMENT, provenance
from lofi_assets.training.checkpoints.state import resume_point
from lofi_assets.training.config import TrainingRun, save_run
from lofi_assets.training.reproduction.comparison import Recorded, ReproductionError
from lofi_assets.workers.child_process import die_with_parent

CONFIG = "run.json"
POLL_S = 0.5

Say = Callable[[str], None]


class Interrupted(RuntimeError):
    """Stopped by a signal; the state is saved, and the same command goes on from it."""


@dataclass(frozen=True)
class Rerun:
    """Where a run is made again."""

    recorded: Recorded
    run: TrainingRun
    """The recorded run with other places: its weights at a step are the same."""
    folder: Path

    @property
    def done(self) -> int:
        """Steps that an earlier, interrupted call did."""
        point = resume_point(self.run.checkpoints_dir)
        return point.step if point else 0

    def checkpoint(self, step: int) -> Path:
        """The folder that step's checkpoint has here."""
        return self.run.checkpoints_dir / checkpoint_id(step)


def plan_rerun(
    recorded: Recorded,
    cache: Path,
    *,
    base: Path | None = None,
    features: Path | None = None,
    device: str | None = None,
) -> Rerun:
    """The recorded run, placed below `cache`; base, features and device as recorded unless given.

    The folder's name follows from run, step, code, packages and these choices, so that a killed reproduction is found
    again, and one after an update or with other features starts anew. Validation and previews are left out: they change
    no weight.
    """
    recorded_device = recorded.provenance.device
    here = provenance(device=device or recorded_device, threads=recorded.provenance.threads)
    code = hash_of(here.packages, here.git_commit, here.git_diff_sha256, features, device)[:8]
    folder = cache / f"{recorded.run.run_id}-step={recorded.step}-{code}"
    start, initial = Path(recorded.provenance.working_directory), recorded.run.initial
    run = recorded.run.model_copy(
        update={
            "base": base or start / recorded.run.base,
            "features_dir": features or start / recorded.run.features_dir,
            "initial": initial and initial.model_copy(update={"folder": start / initial.folder}),
            "checkpoints_dir": folder / "checkpoints",
            "logs_dir": folder / "logs",
            "device": device or recorded_device,
            "training": recorded.run.training.model_copy(update={"validation_limit": 0, "preview_count": 0}),
        }
    )
    return Rerun(recorded, run, folder)


def run_again(rerun: Rerun, *, say: Say) -> int:
    """Train up to the recorded step, going on where an earlier call stopped.

    Checkpoints on the way are compared with those of the original run that are still there, and removed.

    Returns:
        The step reached: the recorded one, or the first whose adapter differs.
    Raises:
        Interrupted: by SIGINT or SIGTERM, after the state was saved.
        ReproductionError: the process ended without the checkpoint; its own message is above.
    """
    rerun.folder.mkdir(parents=True, exist_ok=True)
    save_run(rerun.folder / CONFIG, rerun.run)
    target = rerun.recorded.step
    arguments = (str(rerun.folder / CONFIG), target, _environment(rerun.recorded))
    process = multiprocessing.get_context("spawn").Process(target=_train, args=arguments)
    watch = _Watch(rerun, say)
    with _interruptible():
        process.start()
        try:
            while process.is_alive() and watch.different is None:
                process.join(POLL_S)
                watch.look()
        except KeyboardInterrupt:
            raise Interrupted(f"interrupted and saved; the same command goes on from {rerun.folder}") from None
        finally:
            if process.is_alive():
                process.terminate()
            process.join()
    watch.look()
    if watch.different is not None:
        return watch.different
    if not rerun.checkpoint(target).is_dir():
        raise ReproductionError(
            f"the run ended with exit code {process.exitcode} at step {rerun.done}, before step {target}; its message "
            f"is above, and what it did is in {rerun.folder}"
        )
    return target


@dataclass
class _Watch:
    """Looks at the checkpoints that the process has written so far."""

    rerun: Rerun
    say: Say
    seen: int = 0
    different: int | None = None

    def look(self) -> None:
        """Compare what is new, up to the first difference; remove what is older than the newest."""
        for record in read_manifest(self.rerun.run.checkpoints_dir):
            here = self.rerun.checkpoint(record.step)
            if record.step <= self.seen or self.different is not None or not here.is_dir():
                continue
            shutil.rmtree(self.rerun.checkpoint(self.seen), ignore_errors=True)
            self.seen = record.step
            original = self.rerun.recorded.folder.parent / record.checkpoint_id
            if record.step < self.rerun.recorded.step and original.is_dir():
                digests = [CheckpointDescription.read(path).adapter_sha256 for path in (original, here)]
                self.say(f"step {record.step}: {'the same bits' if digests[0] == digests[1] else 'other bits'}")
                self.different = None if digests[0] == digests[1] else record.step


def _environment(recorded: Recorded) -> dict[str, str]:
    """Variables as they were, with as many threads as there were: both decide the last bits."""
    kept = {name: value for name, value in recorded.provenance.environment.items() if name in ENVIRONMENT}
    return {**kept, "OMP_NUM_THREADS": str(recorded.provenance.threads)}


def _train(config: str, until: int, environment: Mapping[str, str]) -> None:
    """The process: it dies with its parent, and a terminal's interrupt reaches it through the parent alone."""
    die_with_parent()
    os.setpgrp()
    for name in ENVIRONMENT:
        os.environ.pop(name, None)
    os.environ.update(environment)
    from lofi_assets.training.__main__ import main

    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        code = main(["--config", config, "--until", str(until)])
    sys.exit(code)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM as KeyboardInterrupt within the block."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
