"""`python -m lofi_assets.training --config run.json`: train, alone or under Dagster Pipes, in one process or several.

Exit codes:
    0   reached `max_steps`, now or in an earlier call
    2   the configuration, the base or the device is not as the run says
    3   the loss diverged; the message names step and track
    4   a file that the run needs is missing or damaged, or cannot be written; the message names it
    75  stopped by SIGTERM or SIGINT; the state is saved, and the same command goes on from it. 0 where torchrun or
        `accelerate launch` started the process, which take anything else for a failure
Other than for a run that is complete, the message is also in `<config>.ending.json` (`ending`).
"""

import argparse
import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from lofi_assets.errors import DiskError, LofiError, explanation
from lofi_assets.files.hashing import hash_of
from lofi_assets.training.agreement import Peers, Place, withdraw
from lofi_assets.training.checkpoints.files import checkpoint_id
from lofi_assets.training.checkpoints.runs import TrainingSummary, finished
from lofi_assets.training.config import ConfigError, TrainingRun, load_run
from lofi_assets.training.ending import (
    CONFIGURATION,
    DIVERGED,
    DONE,
    FILES,
    INTERRUPTED,
    Ending,
    forget_ending,
    write_ending,
)
from lofi_assets.training.launch import launch, orphaned
from lofi_assets.wording import counted

SAME_REQUEST_S = 2.0
"""Ctrl-C reaches the whole process group, and Dagster and `accelerate launch` then forward it once more."""
ELASTIC = "TORCHELASTIC_RUN_ID"
"""Set by torchrun, and by `accelerate launch`, which is built on it."""

Say = Callable[[str], None]


class Stop:
    """Whether SIGTERM or SIGINT came. The first asks the loop to save and end; one more, after 2 s, ends at once."""

    def __init__(self) -> None:
        self.asked = False
        self._first = 0.0
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def __call__(self) -> bool:
        return self.asked or orphaned()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.asked and now - self._first >= SAME_REQUEST_S:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        elif not self.asked:
            self.asked, self._first = True, now


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m lofi_assets.training", description="Train a LoRA.")
    parser.add_argument("--config", type=Path, required=True, help="the TrainingRun as JSON")
    parser.add_argument("--fresh", action="store_true", help="archive what this run already has, and start over")
    parser.add_argument("--until", type=int, metavar="STEP", help="stop once the checkpoint of this step is written")
    parser.add_argument("--force", action="store_true", help="start although the plan does not fit the free memory")
    options = parser.parse_args(arguments)
    if _main_process():
        forget_ending(options.config)
    asked = Stop()
    if processes := _processes_to_start(options.config, fresh=options.fresh):
        return launch(sys.argv[1:] if arguments is None else arguments, processes=processes, stop=asked)
    with _pipes() as pipes:
        say: Say = (pipes.log.info if pipes else print) if _main_process() else _say_nothing
        try:
            run = _load(options.config)
            stop = until(run, options.until, otherwise=asked) if options.until else asked
            # of several, the main one alone may see that there is nothing to do
            summary = None if options.fresh or Place.here().count > 1 else finished(run)
            summary = summary or _train(run, fresh=options.fresh, force=options.force, stop=stop, say=say)
        except Ended as ended:
            return _fail(ended.ending, options.config, pipes)
        except Exception as error:
            sentence = explanation(error)
            if sentence is None:
                raise
            code = CONFIGURATION if isinstance(error, ConfigError) else FILES
            return _fail(Ending(code, sentence), options.config, pipes)
        sentence = _sentence(run, summary)
        say(sentence)
        if summary.interrupted:
            write_ending(options.config, Ending(INTERRUPTED, sentence))
            return DONE if ELASTIC in os.environ else INTERRUPTED
        if pipes:
            _report(pipes, run, summary)
    return DONE


def until(run: TrainingRun, step: int, *, otherwise: Callable[[], bool]) -> Callable[[], bool]:
    """When to stop: once the checkpoint of `step` is there, which leaves `max_steps` and its schedule as they are."""
    checkpoint = run.checkpoints_dir / checkpoint_id(step)
    return lambda: checkpoint.is_dir() or otherwise()


def _processes_to_start(config: Path, *, fresh: bool) -> int:
    """How many processes the run names, 0 if this is the only one or one of them, or if nothing is left to train."""
    if "WORLD_SIZE" in os.environ:
        return 0
    try:
        run = load_run(config)
        waiting = run.training.processes > 1 and (fresh or finished(run) is None)
    except LofiError:
        return 0  # this process reports it
    return run.training.processes if waiting else 0


def _load(config: Path) -> TrainingRun:
    """The run; where it cannot be read, the other processes hear of it."""
    try:
        return load_run(config)
    except LofiError as error:
        with suppress(ConfigError):  # they cannot be reached: this error is the one to tell
            if (place := Place.here()).count > 1:
                withdraw(Peers(place), error)
        raise


def _main_process() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _say_nothing(message: str) -> None:
    """What only the main process says."""


class Ended(Exception):
    """The run cannot go on, for a reason that has an exit code of its own."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending.message)
        self.ending = ending


def _train(run: TrainingRun, *, fresh: bool, force: bool, stop: Callable[[], bool], say: Say) -> TrainingSummary:
    gc.disable()  # what is imported stays; looking through it again and again takes a sixth of the start
    import torch

    from lofi_assets.backbones import BaseModelError
    from lofi_assets.training.planning.profile_plan import obstacle
    from lofi_assets.training.trainer.loop import TrainingDiverged, train

    gc.enable()
    gc.freeze()

    def check() -> None:
        reason = None if force else obstacle(run)
        if reason:
            raise ConfigError(reason)

    try:
        return train(run, fresh=fresh, stop=stop, say=say, check=check)
    except TrainingDiverged as error:
        raise Ended(Ending(DIVERGED, f"training diverged: {error}")) from error
    except torch.OutOfMemoryError as error:
        raise ConfigError(f"out of memory ({error}); `lofi train --plan` says what to change") from error
    except BaseModelError as error:
        raise ConfigError(f"base: {error}") from error


def _fail(ending: Ending, config: Path, pipes: Any) -> int:
    who = "" if _main_process() else f"process {os.environ['RANK']}: "
    print(f"{who}error: {ending.message}", file=sys.stderr)
    with suppress(DiskError):  # the same full disk; the sentence is in the log
        write_ending(config, ending)
    if pipes:
        pipes.log.error(ending.message)
    return ending.code


def _sentence(run: TrainingRun, summary: TrainingSummary) -> str:
    complete = "complete (ended early)" if summary.ended_early else "complete"
    where = f"run {summary.run_id}, step {summary.step} of {run.training.max_steps}"
    if not summary.steps_now:
        state = "stopped before the first step" if summary.interrupted else f"already {complete}, nothing to do"
        return f"{where}: {state}; checkpoints in {run.checkpoints_dir}"
    state = "interrupted and saved; the same command goes on from here" if summary.interrupted else complete
    speed = f", {summary.seconds_per_step:.3g} s per step" if summary.seconds_per_step else ""
    loss = f"mean loss {summary.mean_loss:.4f}" if summary.mean_loss is not None else "no loss"
    left = f", {counted(summary.skipped_items, 'item')} of the run skipped" if summary.skipped_items else ""
    return f"{where}: {state}; {summary.steps_now} steps now{speed}, {loss}{left}; checkpoints in {run.checkpoints_dir}"


def _report(pipes: Any, run: TrainingRun, summary: TrainingSummary) -> None:
    path = {"raw_value": str(run.checkpoints_dir), "type": "path"}
    pipes.report_asset_materialization(
        metadata={**summary.as_metadata(), "path": path, "dataset_id": run.dataset_id, "config_hash": run.config_hash},
        data_version=hash_of(summary.run_id, summary.step),
    )


@contextmanager
def _pipes() -> Iterator[Any]:
    """The Dagster Pipes context when Dagster started this process, for the main one of several; else None."""
    if "DAGSTER_PIPES_CONTEXT" not in os.environ or not _main_process():
        yield None
        return
    from dagster_pipes import open_dagster_pipes

    with open_dagster_pipes() as context:
        yield context


if __name__ == "__main__":
    sys.exit(main())
