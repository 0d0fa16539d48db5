"""The one seam through which work on many tracks goes: a pool of processes that no file can take down.

Belongs here: running a function over jobs in parallel, surviving what the jobs do. Does not belong here: what a job
is. Threads would be as fast (decoders and encoders release the lock) but one abort in a C library would end them all.
A cluster takes this module's place by offering `map_tracks` with the same signature (docs: Ray).
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, as_completed
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

RULE = "audio.worker"
TASKS_PER_WORKER = 200
"""A worker is replaced after this many tracks, so that leaks in C libraries do not add up over a night."""
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


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


@dataclass(frozen=True)
class _Died(Generic[T]):
    """A job whose worker died or ran out of time: worth a second try alone."""

    job: T
    reason: str


def map_tracks(
    function: Callable[[T], R],
    jobs: Sequence[T],
    *,
    workers: int,
    timeout_s: float,
    memory_gb: float,
    label: str,
) -> Iterator[tuple[T, R | WorkerFailure]]:
    """Yield every job with its result, in the order in which they finish.

    A job that kills its worker or exceeds the time is tried once more after all others, alone; then it is a
    `WorkerFailure`. A job that raises is a `WorkerFailure` at once. The other jobs never notice. Closing the iterator
    or Ctrl-C ends all workers.

    Args:
        function: importable by name in a new process; jobs and results can be pickled.
        workers: processes; 0 runs everything in this process without any protection (tests and debuggers).
        timeout_s: per job, from the moment it starts.
        memory_gb: data that one worker may allocate (Linux). It is the writable memory that is limited (RLIMIT_DATA)
            and not the address space: torch maps gigabytes of libraries that it never touches.
        label: text in front of the progress bar, which is drawn on stderr if that is a terminal.
    """
    from tqdm import tqdm

    with tqdm(total=len(jobs), desc=label, unit="track", file=sys.stderr, disable=None) as bar:
        run = _run_here(function, jobs) if workers == 0 else _run_pooled(function, jobs, workers, timeout_s, memory_gb)
        with contextlib.closing(run):
            for job, result in run:
                bar.update()
                yield job, result


def _run_here(function: Callable[[T], R], jobs: Sequence[T]) -> Generator[tuple[T, R | WorkerFailure], None, None]:
    for job in jobs:
        try:
            yield job, function(job)
        except Exception as error:
            yield job, WorkerFailure(_raised(error))


def _run_pooled(
    function: Callable[[T], R], jobs: Sequence[T], workers: int, timeout_s: float, memory_gb: float
) -> Generator[tuple[T, R | WorkerFailure], None, None]:
    died: list[_Died[T]] = []
    for outcome in _run_once(function, jobs, min(workers, len(jobs)), timeout_s, memory_gb):
        if isinstance(outcome, _Died):
            died.append(outcome)
        else:
            yield outcome
    for first in died:
        for second in _run_once(function, [first.job], 1, timeout_s, memory_gb):
            if isinstance(second, _Died):
                yield first.job, WorkerFailure(f"{first.reason}; tried again alone: {second.reason}", retried=True)
            else:
                yield second


def _run_once(
    function: Callable[[T], R], jobs: Sequence[T], workers: int, timeout_s: float, memory_gb: float
) -> Generator[tuple[T, R | WorkerFailure] | _Died[T], None, None]:
    from pebble import ProcessPool

    if not jobs:
        return
    pool = ProcessPool(
        max_workers=workers,
        max_tasks=TASKS_PER_WORKER,
        initializer=_start_worker,
        initargs=(memory_gb,),
        # Forking copies the locks of threads that do not exist in the child; torch and Dagster both have threads.
        context=multiprocessing.get_context("spawn"),
    )
    try:
        waiting: dict[Future[R], T] = {pool.schedule(function, args=[job], timeout=timeout_s): job for job in jobs}
        for future in as_completed(list(waiting)):
            yield _outcome(future, waiting.pop(future), timeout_s)
    finally:
        pool.stop()
        pool.join()


def _outcome(future: Future[Any], job: T, timeout_s: float) -> tuple[T, Any] | _Died[T]:
    from pebble import ProcessExpired

    error = future.exception()
    if error is None:
        return job, future.result()
    if isinstance(error, ProcessExpired):
        return _Died(job, f"its worker died ({_exit(error.exitcode)})")
    if isinstance(error, TimeoutError):
        return _Died(job, f"it did not end within {timeout_s:g} s")
    return job, WorkerFailure(_raised(error))


def _exit(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit status {code}"


def _raised(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "it needs more memory than a worker may use; see memory_gb of the profile"
    return f"{type(error).__name__}: {error}"


def _start_worker(memory_gb: float) -> None:
    """Runs first in every worker: one thread, a memory limit, and no life beyond the parent's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for variable in _THREAD_VARIABLES:
        os.environ[variable] = "1"
    with contextlib.suppress(ImportError):
        # For libraries that were loaded, and had read the environment, before this ran.
        from threadpoolctl import threadpool_limits

        threadpool_limits(1)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    _limit_memory(memory_gb)


def _die_with_parent() -> None:
    """A killed parent cannot stop its workers; they notice that it is gone."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _limit_memory(memory_gb: float) -> None:
    if sys.platform != "linux":
        return
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = int(memory_gb * (1 << 30))
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
