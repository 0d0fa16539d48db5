"""`python -m lofi_assets.training --config run.json`: train, alone or under Dagster Pipes, in one process or several.

Exit codes:
    0   reached `max_steps`, now or in an earlier call
    1   an error that nothing explains; its traceback is on standard error
    2   the configuration, the base or the device is not as the run says, or memory ran out
    3   the loss diverged; the message names step and track
    4   a file that the run needs is missing or damaged, or cannot be written, or the disk is full: the message names it
    75  stopped by SIGTERM, SIGINT, SIGHUP or SIGUSR1, or since the process that started it is gone; the state is saved,
        and the same command goes on from it. 0 where torchrun or `accelerate launch` started the process, which take
        anything else for a failure
However it ends, `<config>.ending.json` says so (`ending`).
"""

import argparse
import gc
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

from lofi_assets.errors import DiskError, LofiError
from lofi_assets.files.hashing import hash_of
from lofi_assets.training.agreement import Peers, Place, withdraw
from lofi_assets.training.checkpoints.files import checkpoint_id
from lofi_assets.training.checkpoints.runs import TrainingSummary, finished
from lofi_assets.training.config import ConfigError, TrainingRun, load_run
from lofi_assets.training.death import watched
from lofi_assets.training.ending import (
    DONE,
    INTERRUPTED,
    SAID,
    Ending,
    begin,
    killed,
    read_ending,
    write_ending,
)
from lofi_assets.training.explaining import ending_of
from lofi_assets.training.launch import launch
from lofi_assets.training.stopping import Stop
from lofi_assets.wording import counted

ELASTIC = "TORCHELASTIC_RUN_ID"
"""Set by torchrun, and by `accelerate launch`, which is built on it."""

Say = Callable[[str], None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(given)
    if _main_process():
        begin(options.config)
    asked = Stop()
    if processes := _processes_to_start(options.config, fresh=options.fresh):
        return _launch(given, options.config, processes=processes, stop=asked)
    with _pipes() as pipes:
        say: Say = _told(pipes) if _main_process() else _say_nothing
        run = None
        try:
            run = _load(options.config)
            stop = until(run, options.until, otherwise=asked) if options.until else asked
            # of several, the main one alone may see that there is nothing to do
            summary = None if options.fresh or Place.here().count > 1 else finished(run)
            summary = summary or _train(run, options, stop=stop, say=say)
        except Exception as error:
            ending = ending_of(error, run)
            _fail(ending, options.config, pipes)
            if ending.kind == "unknown":
                raise
            return ending.code
        sentence = _sentence(run, summary, why=asked.reason)
        say(sentence)
        if _main_process():
            complete, interrupted = Ending(DONE, sentence, "complete"), Ending(INTERRUPTED, sentence, "interrupted")
            _keep(interrupted if summary.interrupted else complete, options.config)
        if summary.interrupted:
            return DONE if ELASTIC in os.environ else INTERRUPTED
        if pipes:
            _report(pipes, run, summary)
    return DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lofi_assets.training", description="Train a LoRA.")
    parser.add_argument("--config", type=Path, required=True, help="the TrainingRun as JSON")
    parser.add_argument("--fresh", action="store_true", help="archive what this run already has, and start over")
    parser.add_argument("--until", type=int, metavar="STEP", help="stop once the checkpoint of this step is written")
    parser.add_argument(
        "--force", action="store_true", help="start although the plan does not fit the free memory, or the disk"
    )
    return parser


def _launch(arguments: Sequence[str], config: Path, *, processes: int, stop: Stop) -> int:
    """Train in several processes; one that was killed left no word, so this one says it."""
    with watched() as watch:
        launched = launch(arguments, processes=processes, stop=stop)
    if launched.code in SAID or (launched.code >= 0 and read_ending(config)):
        return launched.code
    ending = killed(launched.code, watch.account(launched.code), who=f"process {launched.rank} of {processes}: ")
    _fail(ending, config, None)
    return ending.code


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


def _train(run: TrainingRun, options: argparse.Namespace, *, stop: Callable[[], bool], say: Say) -> TrainingSummary:
    with _imports(run):
        from lofi_assets.training.trainer.loop import train

    def check() -> None:
        if not options.force:
            _require_room(run, fresh=options.fresh, all_steps=options.until is None)

    return train(run, fresh=options.fresh, stop=stop, say=say, check=check)


def _require_room(run: TrainingRun, *, fresh: bool, all_steps: bool) -> None:
    """Before a start: memory for a step, and disk for all that the run still writes.

    Args:
        all_steps: the run goes to `max_steps`. One that ends before is a reproduction, which removes checkpoints on
            its way; the disk is asked before each of them.
    Raises:
        ConfigError: too little memory.
        DiskError: too little disk.
    """
    with _imports(run):
        from lofi_assets.training.planning.limits import require_disk
        from lofi_assets.training.planning.profile_plan import obstacle

        reason = obstacle(run)  # imports the classes of the model, and peft
    if reason:
        raise ConfigError(reason)
    if all_steps and _main_process():  # the others write nothing
        require_disk(run, fresh=fresh)


@contextmanager
def _imports(run: TrainingRun) -> Iterator[None]:
    """What is imported within stays; looking through it for garbage again and again takes a sixth of the start.

    A fifth more is bitsandbytes and torch's compiler behind it: peft imports it wherever it is installed, for layers
    that only a quantized base has.
    """
    spared = run.training.base_quantization == "none" and "bitsandbytes" not in sys.modules
    if spared:
        cast("dict[str, Any]", sys.modules)["bitsandbytes"] = None  # so that it seems not to be installed
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()
        if spared:
            del sys.modules["bitsandbytes"]


def _told(pipes: Any) -> Say:
    """A line for people, where they are: a reader that is gone, or a full disk under the log, ends no run."""

    def say(message: str) -> None:
        with suppress(OSError):
            (pipes.log.info if pipes else print)(message)

    return say


def _fail(ending: Ending, config: Path, pipes: Any) -> None:
    who = "" if _main_process() else f"process {os.environ['RANK']}: "
    with suppress(OSError):
        print(f"{who}error: {ending.message}", file=sys.stderr)
    _keep(ending, config)
    if pipes:
        pipes.log.error(ending.message)


def _keep(ending: Ending, config: Path) -> None:
    with suppress(DiskError):  # the same full disk; the sentence is in the log
        write_ending(config, ending)


def _sentence(run: TrainingRun, summary: TrainingSummary, *, why: str | None) -> str:
    where = f"run {summary.run_id}, step {summary.step} of {run.training.max_steps}"
    asked = f" ({why})" if why else ""
    complete = "complete (ended early)" if summary.ended_early else "complete"
    if not summary.steps_now:
        state = f"stopped before the first step{asked}" if summary.interrupted else f"already {complete}, nothing to do"
        return f"{where}: {state}; checkpoints in {run.checkpoints_dir}"
    state = f"interrupted and saved{asked}; the same command goes on from here" if summary.interrupted else complete
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
