"""A function over jobs, and what stands in the place of a result that there is none of."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from lofi_assets.errors import explanation

T = TypeVar("T")
R = TypeVar("R")

RULE = "audio.worker"
"""Under which a job without a result is rejected."""


@dataclass(frozen=True)
class WorkerFailure:
    """A job that gave no result.

    Attributes:
        rule: always "audio.worker".
        reason: what happened, in words.
        retried: whether it was tried a second time, alone.
    """

    reason: str
    retried: bool = False
    rule: str = RULE


class MapTracks(Protocol):
    """How work on many tracks is done, and where: handed to a stage, which knows neither.

    `process_pool.LocalProcesses` is the one for this machine. A cluster's keeps the same promises.
    """

    def __call__(
        self, function: Callable[[T], R], jobs: Sequence[T], *, label: str
    ) -> Generator[tuple[T, R | WorkerFailure], None, None]:
        """Yield every job with its result, each once, in the order in which they finish.

        A job that raises, dies or takes too long is yielded with a `WorkerFailure`; the other jobs never notice.
        Closing the generator ends the work: do so before the process ends.

        Args:
            function: importable by name in a new process; jobs and results can be pickled.
            label: what is done, for people who wait.
        Raises:
            OSError: the machine refuses (a full disk); what was yielded before is sound.
        """
        ...


def run_here(function: Callable[[T], R], jobs: Sequence[T]) -> Generator[tuple[T, R | WorkerFailure], None, None]:
    """Every job with its result or failure, one after the other in this process; OSError when the machine refuses."""
    for job in jobs:
        try:
            result: R | WorkerFailure = function(job)
        except Exception as error:
            if isinstance(error, OSError) and explanation(error):
                raise
            result = WorkerFailure(raised(error))
        yield job, result


def raised(error: BaseException) -> str:
    """What a job raised, as the reason of its `WorkerFailure`; raises nothing."""
    if isinstance(error, MemoryError):
        return "it needs more memory than a worker may use; see memory_gb of the profile"
    return f"{type(error).__name__}: {error}"
