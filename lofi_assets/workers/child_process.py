"""The child's side of a pool or of a process beside: ends with its parent, keeps quiet, keeps to its memory."""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


@contextlib.contextmanager
def without_interrupts() -> Iterator[None]:
    """Ctrl-C waits until the end of the block; threads and processes started inside never see it.

    Blocking the signal is what they inherit, before `start_worker` runs. It does not hold this thread: the kernel gives
    the signal to any thread that has it unblocked, and Python raises in the main one. So its handler waits as well.
    """
    asked: list[int] = []
    with contextlib.ExitStack() as afterwards:
        handler = signal.getsignal(signal.SIGINT)
        if callable(handler) and threading.current_thread() is threading.main_thread():
            afterwards.callback(lambda: signal.raise_signal(asked[0]) if asked else None)
            afterwards.callback(signal.signal, signal.SIGINT, handler)
            signal.signal(signal.SIGINT, lambda number, frame: asked.append(number))
        if hasattr(signal, "pthread_sigmask"):
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            afterwards.callback(signal.pthread_sigmask, signal.SIG_SETMASK, before)
        yield


def start_worker(memory_gb: float) -> None:
    """Runs first in every worker: one thread, a memory limit, silence, and no life beyond the parent's."""
    start_beside()
    for variable in _THREAD_VARIABLES:
        os.environ[variable] = "1"
    with contextlib.suppress(ImportError):
        # For libraries that were loaded, and had read the environment, before this ran.
        from threadpoolctl import threadpool_limits

        threadpool_limits(1)
    _limit_memory(memory_gb)


def start_beside() -> None:
    """Runs first in a process that takes part in its parent's work: silence, and no life beyond the parent's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()
    _be_quiet()
    _keep_bars_apart()


def die_with_parent() -> None:
    """End this process with the one that started it through multiprocessing, however that one ends.

    A killed parent cannot stop its workers: the kernel does (Linux), and a thread that notices elsewhere.

    The thread alone is not enough, for it needs the interpreter's lock, which a decoder that hangs may hold.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent.pid:
            os._exit(1)
    threading.Thread(target=_outlive, args=(parent,), daemon=True).start()


def _outlive(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _be_quiet() -> None:
    """C libraries write about damaged files to both streams, through the progress bar and into results."""
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        os.close(nowhere)


def _keep_bars_apart() -> None:
    """Bars of this process share no lock with those of others. tqdm's own is a semaphore, which a process that is
    killed at its end, as those of a pool are, leaves to the system and to a warning of Python's."""
    from tqdm import tqdm

    tqdm.set_lock(threading.RLock())


def _limit_memory(memory_gb: float) -> None:
    if sys.platform != "linux":
        return
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = int(memory_gb * (1 << 30))
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
