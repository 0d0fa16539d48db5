"""The same work on several clips at once, in threads: the arrays of one clip are too small for processors to share.

What belongs here: work that spends its time outside the interpreter (numpy, torch, codecs) on files that are trusted so
far. What does not: files of strangers, which may hang or kill whoever reads them (`process_pool`); arrays of 64 MB and
more, for which glibc gives no thread but the first a heap: encoding or decoding a long track takes longer side by side.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import TypeVar

from lofi_assets.progress import Progress

T = TypeVar("T")
R = TypeVar("R")

AT_ONCE = 4
"""Most clips at once: each holds its own arrays, and of torch's threads each has its share."""


def side_by_side(
    work: Callable[[T], R], items: Sequence[T], *, label: str | None = None, most: int = AT_ONCE
) -> list[R]:
    """`work` of every item, in their order, in several threads at once.

    One after the other in this thread where `OMP_NUM_THREADS` or the processors that this process may use are 1.

    Args:
        label: what progress is told as; None tells nothing.
        most: items at once, where their memory allows fewer than `AT_ONCE`.
    Raises:
        Whatever `work` raises, of the first item in order that fails; those that have not begun by then are left.
    """
    workers = at_once(len(items), most=most)
    with Progress(label, total=len(items), unit="clip") if label else nullcontext() as progress:
        found = []
        for result in map(work, items) if workers <= 1 else _in_threads(work, items, workers):
            found.append(result)
            if progress:
                progress.advance()
        return found


def _in_threads(work: Callable[[T], R], items: Sequence[T], workers: int) -> Iterator[R]:
    with _torch_shared_by(workers) as prepare, ThreadPoolExecutor(workers, initializer=prepare) as pool:
        yield from pool.map(work, items)


@contextmanager
def _torch_shared_by(workers: int) -> Iterator[Callable[[], None]]:
    """What each thread calls first, so that they share the threads that torch would use for one."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield lambda: None
        return
    threads = torch.get_num_threads()
    try:
        yield lambda: torch.set_num_threads(max(1, threads // workers))
    finally:
        torch.set_num_threads(threads)  # what a thread sets is also what later threads begin with


def at_once(count: int, *, most: int = AT_ONCE) -> int:
    """How many of `count` items are worked on at once."""
    return max(1, min(most, processors(), count))


def processors() -> int:
    """How many this process may use: `OMP_NUM_THREADS`, or those that the system lets it have."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked):
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
