"""Processes of the trainer on one machine, started, signalled and waited for: one in the foreground, or several.

What belongs here: starting, signalling and waiting. What does not: what they do together (`distributed`); several
machines (`accelerate launch` on each). Imports without torch.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from lofi_assets.training.ending import INTERRUPTED

PARENT = "LOFI_TRAINING_PARENT"
"""Environment variable of a started process: the one that started it."""
GRACE_SECONDS = 10.0
"""For the others to end by themselves after one has failed: they wait for it in vain."""
POLL_SECONDS = 0.1
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
"""What asks for an end: a scheduler or `kill`, Ctrl-C, a terminal that is gone, SLURM's warning before the time is
up."""

_STARTED_HERE = os.environ.get(PARENT) == str(os.getppid())
"""Whether the process that names itself is the one that started this one, and no wrapper stands between."""


@dataclass(frozen=True)
class Launched:
    """How processes ended."""

    code: int
    """As `subprocess` has it, negative for a signal: of the one that failed first, a killed one before others, else of
    the main one."""
    rank: int = 0
    """Of that process."""


def launch(arguments: Sequence[str], *, processes: int, stop: Callable[[], bool]) -> Launched:
    """Run `python -m lofi_assets.training` with `arguments` in so many processes.

    Args:
        stop: once true, every process gets one SIGTERM, saves and ends.
    """
    command = [sys.executable, "-m", "lofi_assets.training", *arguments]
    shared = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    shared |= {"LOCAL_WORLD_SIZE": str(processes), **started_by_this()}
    # without a number of their own, the processes would each start a thread for every core
    inherited = {"OMP_NUM_THREADS": "1", **os.environ, **shared}
    started = [
        # a session of its own: an interrupt at the terminal reaches this process, which passes it on once
        subprocess.Popen(command, env={**inherited, "RANK": str(rank), "LOCAL_RANK": str(rank)}, start_new_session=True)
        for rank in range(processes)
    ]
    try:
        return _watch(started, stop)
    finally:
        for process in started:
            process.kill()
            process.wait()


def run_in_foreground(command: Sequence[str]) -> int:
    """Run a trainer and pass on every signal that asks for an end; waits for it however often it is asked.

    It notices by itself if this process is killed (`orphaned`).

    Returns:
        Its exit code as `subprocess` has it.
    """
    with _passed_on() as passing:
        process = subprocess.Popen(command, env={**os.environ, **started_by_this()})
        passing.to(process)
        return process.wait()


def started_by_this() -> Mapping[str, str]:
    """Environment by which a process knows the one that started it."""
    return {PARENT: str(os.getpid())}


def orphaned() -> bool:
    """Whether the process that started this one is gone: nobody would end it any more."""
    return _STARTED_HERE and os.environ[PARENT] != str(os.getppid())


class _Passing:
    """Signals on their way to a process, kept until it is there."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.waiting: list[int] = []

    def to(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process
        for number in self.waiting:
            process.send_signal(number)

    def take(self, number: int, frame: FrameType | None) -> None:
        if self.process is None:
            self.waiting.append(number)
        else:
            self.process.send_signal(number)


@contextmanager
def _passed_on() -> Iterator[_Passing]:
    """Within the block signals are passed on; one that is ignored, as SIGHUP is under `nohup`, stays so."""
    passing = _Passing()
    before = {number: signal.getsignal(number) for number in STOPPING}
    taken = [number for number, handler in before.items() if handler != signal.SIG_IGN]
    for number in taken:
        signal.signal(number, passing.take)
    try:
        yield passing
    finally:
        for number in taken:
            signal.signal(number, before[number])


def _watch(started: Sequence[subprocess.Popen[bytes]], stop: Callable[[], bool]) -> Launched:
    asked, deadline, failed = False, float("inf"), None
    while None in [process.poll() for process in started] and time.monotonic() < deadline:  # each is asked
        if stop() and not asked:
            asked = True
            for process in started:
                process.send_signal(signal.SIGTERM)
        if failed is None and (failed := _failed(started)):
            deadline = time.monotonic() + GRACE_SECONDS
        time.sleep(POLL_SECONDS)
    return failed or _failed(started) or Launched(started[0].wait())


def _failed(started: Sequence[subprocess.Popen[bytes]]) -> Launched | None:
    """A process that has ended, and not as it should: one that was killed, since others then fail because of it."""
    failed = [
        Launched(process.returncode, rank)
        for rank, process in enumerate(started)
        if process.returncode not in (None, 0, INTERRUPTED)
    ]
    return min(failed, key=lambda ended: (ended.code > 0, ended.rank), default=None)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
