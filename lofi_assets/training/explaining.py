"""An error of the trainer as its `Ending`: the exit code, and a sentence that says what to do.

What belongs here: which error is which end. What does not: the file that keeps it (`ending`), an end that no process
could see coming (`death`). Imports without torch.
"""

import errno
import traceback
from pathlib import Path

from lofi_assets.backbones import BaseModelError
from lofi_assets.errors import LofiError, explanation
from lofi_assets.training.checkpoints.runs import current_run
from lofi_assets.training.checkpoints.state import resume_point
from lofi_assets.training.config import ConfigError, TrainingRun
from lofi_assets.training.ending import CONFIGURATION, CRASHED, DIVERGED, FILES, Ending
from lofi_assets.training.trainer.diverged import TrainingDiverged

FULL = (errno.ENOSPC, errno.EDQUOT)
MEMORY_WORDS = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
"""How libraries say that memory is used up, in errors that have no class of their own."""


def ending_of(error: Exception, run: TrainingRun | None) -> Ending:
    """How an error ends the trainer.

    Args:
        run: None where the error is that it could not be read.
    """
    ending = _ending(error, run)
    return Ending(ending.code, ending.message.rstrip(".") + _kept(run), ending.kind)


def _ending(error: Exception, run: TrainingRun | None) -> Ending:
    if isinstance(error, TrainingDiverged):
        return Ending(DIVERGED, f"training diverged: {error}", "diverged")
    if _out_of_memory(error):
        return Ending(CONFIGURATION, f"out of memory ({_first_line(error)}); {_relief(run)}", "out of memory")
    if isinstance(error, ConfigError):
        return Ending(CONFIGURATION, str(error), "configuration")
    if isinstance(error, BaseModelError):
        return Ending(CONFIGURATION, f"base: {error}", "configuration")
    sentence = explanation(error)
    if sentence is not None:
        return Ending(FILES, sentence, "disk full" if _disk_full(error) else "files")
    what = f"{type(error).__name__}: {_first_line(error)}"
    return Ending(CRASHED, f"an error that nothing explains, {what} ({_where(error)}); the output has more", "unknown")


def _kept(run: TrainingRun | None) -> str:
    """What is not lost."""
    try:
        point = resume_point(run.checkpoints_dir) if run and current_run(run.checkpoints_dir) == run.run_id else None
    except LofiError:
        return "."  # the error says already what is broken
    return f". The state of step {point.step} is saved." if point else "."


def _out_of_memory(error: BaseException) -> bool:
    """Of the device or of the host; torch is not imported for it."""
    named = any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__)
    said = isinstance(error, RuntimeError) and not isinstance(error, LofiError)
    return named or isinstance(error, MemoryError) or (said and any(words in str(error) for words in MEMORY_WORDS))


def _relief(run: TrainingRun | None) -> str:
    """What to change, cheapest first."""
    from lofi_assets.training.planning.limits import relief

    try:
        change = relief(run) if run else ""
    except Exception:  # the memory may be too short even for this, and its want is what has to be said
        change = ""
    return f"{change}`lofi train --plan` prints the arithmetic"


def _disk_full(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        error = error.__cause__
    return False


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0]


def _where(error: Exception) -> str:
    """File and line that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else "before the run began"
