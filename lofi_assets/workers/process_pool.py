"""The one way in which work on many tracks is done: a pool of processes that no file can end.

A function runs over jobs in parallel and survives what the jobs do; the child's side is in `child_process`, what stands
for a lost result in `mapping`. Threads would be as fast (decoders and encoders release the lock) but one abort in a C
library would end them all. A cluster takes its place with another `MapTracks`.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import queue
import signal
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice
from multiprocessing import resource_tracker
from typing import Any, Generic

from lofi_assets.errors import LofiError, explanation
from lofi_assets.progress import Progress
from lofi_assets.workers.child_process import start_worker, without_interrupts
from lofi_assets.workers.mapping import R, T, WorkerFailure, raised, run_here

Watch = Callable[[str], None]
"""Told once a second what takes long, or "" when nothing does."""

TASKS_PER_WORKER = 200
"""A worker is replaced after this many tracks, so that leaks in C libraries do not add up over a night."""
SLOW_SHARE = 0.1
"""A job that has taken this share of its time is named beside the progress bar: it may hang."""
TICK_S = 1.0
"""Seconds between two looks at what is running."""
START_S = 120.0
"""No worker takes up work for so long: they die before they can, and the pool would replace them for ever."""
NOT_STARTING = (
    "worker processes end before they take up work; what ended them stands above. Workers import the script that "
    "started this process: one without `if __name__ == '__main__':` around its work starts itself in every worker. "
    "Otherwise look at the machine's memory and at its limit on processes"
)


class WorkersDoNotStart(LofiError, RuntimeError):
    """Worker processes end before they take up work, which is no file's fault; the message says what to look at."""


@dataclass(frozen=True)
class _Died(Generic[T]):
    """A job whose worker died or ran out of time: worth a second try alone."""

    job: T
    reason: str
    pool_broke: bool = False
    """It was not this job's worker that died."""


@dataclass(frozen=True)
class LocalProcesses:
    """`MapTracks` over processes of this machine.

    A job that kills its worker or exceeds the time is tried once more after all others, alone; then it is a
    `WorkerFailure`. A job that raises is a `WorkerFailure` at once.

    Attributes:
        workers: processes; 0 runs everything in this process without any protection (tests and debuggers).
        timeout_s: per job, from the moment it starts.
        memory_gb: data that one worker may allocate (Linux). It is the writable memory that is limited (RLIMIT_DATA)
            and not the address space: torch maps gigabytes of libraries that it never touches.
    """

    workers: int
    timeout_s: float
    memory_gb: float

    def __call__(
        self, function: Callable[[T], R], jobs: Sequence[T], *, label: str
    ) -> Generator[tuple[T, R | WorkerFailure], None, None]:
        """As `MapTracks`, with a bar on a terminal and lines in the log.

        Raises:
            WorkersDoNotStart: no worker took up work for two minutes, or the pool broke again over a single job.
            OSError: the machine refuses (a full disk); what was yielded before is sound.
        """
        with Progress(label, total=len(jobs), unit="track") as progress:
            run = run_here(function, jobs) if self.workers == 0 else _run_pooled(function, jobs, self, progress.remark)
            with contextlib.closing(run):
                for job, result in run:
                    progress.advance()
                    yield job, result


def _run_pooled(
    function: Callable[[T], R], jobs: Sequence[T], settings: LocalProcesses, watch: Watch
) -> Generator[tuple[T, R | WorkerFailure], None, None]:
    died: list[_Died[T]] = []
    for outcome in _run_once(function, jobs, settings, watch):
        if isinstance(outcome, _Died):
            died.append(outcome)
        else:
            yield outcome
    for first in died:
        for second in _run_once(function, [first.job], settings, watch):
            if isinstance(second, _Died) and second.pool_broke:
                raise WorkersDoNotStart(NOT_STARTING)
            if isinstance(second, _Died):
                yield first.job, WorkerFailure(f"{first.reason}; tried again alone: {second.reason}", retried=True)
            else:
                yield second


def _run_once(
    function: Callable[[T], R], jobs: Sequence[T], settings: LocalProcesses, watch: Watch
) -> Generator[tuple[T, R | WorkerFailure] | _Died[T], None, None]:
    from pebble import ProcessPool

    if not jobs:
        return
    pool = ProcessPool(
        max_workers=min(settings.workers, len(jobs)),
        max_tasks=TASKS_PER_WORKER,
        initializer=start_worker,
        initargs=(settings.memory_gb,),
        # Forking copies the locks of threads that do not exist in the child; torch and Dagster both have threads.
        context=multiprocessing.get_context("spawn"),
    )
    done: queue.SimpleQueue[Future[R]] = queue.SimpleQueue()
    waiting: dict[Future[R], T] = {}
    started: dict[Future[R], float] = {}
    looked = alive = time.monotonic()
    try:
        start_tracker()
        with without_interrupts():
            for job in jobs:
                future: Future[R] = pool.schedule(function, args=[job], timeout=settings.timeout_s)
                waiting[future] = job
                future.add_done_callback(done.put)
        while waiting:
            with contextlib.suppress(queue.Empty):
                future = done.get(timeout=TICK_S)
                started.pop(future, None)
                yield _outcome(future, waiting.pop(future), settings.timeout_s)
                alive = time.monotonic()
            if time.monotonic() - looked >= TICK_S:
                looked = time.monotonic()
                watch(_slow(waiting, started, settings))
                alive = looked if _running(waiting, settings) else alive
            if waiting and looked - alive > START_S:
                raise WorkersDoNotStart(NOT_STARTING)
    finally:
        # Left in the middle, it would forget a worker that is only just starting, which then looks for what is gone.
        with without_interrupts():
            pool.stop()
            pool.join()


def start_tracker() -> None:
    """Python's tracker of shared resources lets the thread that starts it see Ctrl-C from then on, blocked or not.

    Left to the first worker, that would be the pool's thread, and all its workers would inherit it.
    """
    if sys.platform != "win32":
        resource_tracker.ensure_running()


def _slow(waiting: Mapping[Future[Any], Any], started: dict[Future[Any], float], settings: LocalProcesses) -> str:
    """The job that has run longest, if that is long; "" otherwise. Jobs start in order, so the first ones run."""
    now = time.monotonic()
    running = _running(waiting, settings)
    if not running:
        return ""
    oldest = min(running, key=lambda future: started.setdefault(future, now))
    seconds = now - started[oldest]
    if seconds < SLOW_SHARE * settings.timeout_s:
        return ""
    name = getattr(waiting[oldest], "track_id", waiting[oldest])
    return f"{str(name)[:60]!r} takes {seconds:.0f} s of {settings.timeout_s:g} s"


def _running(waiting: Mapping[Future[Any], Any], settings: LocalProcesses) -> list[Future[Any]]:
    return [future for future in islice(waiting, settings.workers) if future.running()]


def _outcome(future: Future[Any], job: T, timeout_s: float) -> tuple[T, Any] | _Died[T]:
    from concurrent.futures.process import BrokenProcessPool

    from pebble import ProcessExpired

    error = future.exception()
    if error is None:
        return job, future.result()
    if isinstance(error, OSError) and explanation(error):
        raise error  # the machine's fault and not the job's: every other job would meet it too
    if isinstance(error, ProcessExpired):
        return _Died(job, f"its worker died ({_exit(error.exitcode)})")
    if isinstance(error, BrokenProcessPool):
        return _Died(job, "the pool broke while it waited", pool_broke=True)
    if isinstance(error, TimeoutError):
        return _Died(job, f"it did not end within {timeout_s:g} s")
    return job, WorkerFailure(raised(error))


def _exit(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit status {code}"
