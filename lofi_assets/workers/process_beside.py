"""One more process that takes part in the work of this one: for work that holds the interpreter, where threads wait.

What belongs here: our own work on files that are trusted. What does not: work outside the interpreter, which threads
do as well (`side_by_side`), and files of strangers (`process_pool`).
"""

from __future__ import annotations

import logging
import multiprocessing
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from threading import Event, Lock
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from lofi_assets.workers.child_process import start_beside, without_interrupts
from lofi_assets.workers.process_pool import START_S, TICK_S, start_tracker
from lofi_assets.workers.side_by_side import processors

if TYPE_CHECKING:
    from pebble import ProcessFuture, ProcessPool

T = TypeVar("T")
R = TypeVar("R")

LOG = logging.getLogger(__name__)


class _Died(Exception):
    """The process beside is no more, or never was."""


class ProcessBeside:
    """Shares work with a second process, which starts with the first work to share and ends with the `with` block.

    Where `OMP_NUM_THREADS` or the processors that this process may use are 1, and after the second process died, all
    is done here.
    """

    def __init__(self) -> None:
        self._pool: ProcessPool | None = None
        self._alone = processors() < 2

    def __enter__(self) -> ProcessBeside:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._end()

    def share(self, work: Callable[[T], R], items: Sequence[T], *, done: Callable[[R], None]) -> list[R]:
        """`work` of every item, in their order: this process takes them from the first on, the other from the last.

        What the other process died of is done here, and its death is a warning in the log.

        Args:
            work: importable by name in a new process; the items and the results can be pickled.
            done: is told of each result as it comes, of one at a time.
        Raises:
            Whatever `work` raises, here or there.
        """
        waiting, found, one_at_a_time = deque(enumerate(items)), dict[int, R](), Lock()

        def keep(index: int, result: R) -> None:
            with one_at_a_time:
                found[index] = result
                done(result)

        if self._alone or len(items) < 2:
            _here(work, waiting, keep)
        else:
            self._here_and_there(work, waiting, keep)
        return [found[index] for index in range(len(items))]

    def _here_and_there(
        self, work: Callable[[T], R], waiting: deque[tuple[int, T]], keep: Callable[[int, R], None]
    ) -> None:
        asked, failed = partial(self._running().schedule, work), Event()
        with ThreadPoolExecutor(1) as thread:
            try:
                there = thread.submit(self._there, lambda item: _answer(asked([item]), failed), waiting, keep)
                _here(work, waiting, keep)
                there.result()
                _here(work, waiting, keep)  # what the other process died of
            except BaseException:
                waiting.clear()
                failed.set()
                self._end()
                raise

    def _there(self, answer: Callable[[T], R], waiting: deque[tuple[int, T]], keep: Callable[[int, R], None]) -> None:
        """Give the other process one item after the other, the last first."""
        while (taken := _taken(waiting.pop)) is not None:
            index, item = taken
            try:
                result = answer(item)
            except CancelledError:
                return  # this process has failed
            except _Died as died:
                LOG.warning("the process beside this one %s; its work is done here", died)
                self._alone = True
                self._end()
                waiting.append(taken)
                return
            except BaseException:
                waiting.clear()
                raise
            keep(index, result)

    def _running(self) -> ProcessPool:
        """The other process, started by the thread that asks: with the end of that thread it would be killed."""
        from pebble import ProcessPool

        if self._pool is None:
            # Forking copies the locks of threads that do not exist in the child; torch and Dagster both have threads.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPool(max_workers=1, initializer=start_beside, context=context)
            start_tracker()
            with without_interrupts():
                assert self._pool.active  # asking starts it
        return self._pool

    def _end(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            with without_interrupts():
                pool.stop()
                pool.join()


def _here(work: Callable[[T], R], waiting: deque[tuple[int, T]], keep: Callable[[int, R], None]) -> None:
    while (taken := _taken(waiting.popleft)) is not None:
        index, item = taken
        keep(index, work(item))


def _taken(take: Callable[[], tuple[int, T]]) -> tuple[int, T] | None:
    """What was taken of what waits; None where nothing does, which another thread may have seen to just now."""
    try:
        return take()
    except IndexError:
        return None


def _answer(future: ProcessFuture[R], failed: Event) -> R:
    """What the other process gives back, while this one has not failed."""
    from pebble import ProcessExpired

    asked = time.monotonic()
    while not wait([future], timeout=TICK_S).done:
        if failed.is_set():
            raise CancelledError
        if not future.running() and time.monotonic() - asked > START_S:
            raise _Died("does not start")
    try:
        return future.result()
    except ProcessExpired as error:
        raise _Died(f"died (exit status {error.exitcode})") from error
    except BrokenProcessPool as error:
        raise _Died("died") from error
