"""The processes of one machine: as many copies of the trainer's command as the run names, ended together.

What belongs here: starting, signalling and waiting. What does not: what they do together (`distributed`); several
machines (`accelerate launch` on each). Imports without torch.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from lofi_assets.training.ending import INTERRUPTED

PARENT = "LOFI_TRAINING_PARENT"
"""Environment variable of a copy: the process that started it."""
GRACE_SECONDS = 10.0
"""For the others to end by themselves after one has failed: they wait for it in vain."""
POLL_SECONDS = 0.1


def launch(arguments: Sequence[str], *, processes: int, stop: Callable[[], bool]) -> int:
    """Run `python -m lofi_assets.training` with `arguments` in so many processes; returns the exit code.

    Args:
        stop: once true, every process gets one SIGTERM, saves and ends.
    Returns:
        The code of the process that failed first, else of the main one.
    """
    command = [sys.executable, "-m", "lofi_assets.training", *arguments]
    shared = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    shared |= {"LOCAL_WORLD_SIZE": str(processes), PARENT: str(os.getpid())}
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


def orphaned() -> bool:
    """Whether the process that started this copy is gone: nobody would end it any more."""
    return PARENT in os.environ and os.environ[PARENT] != str(os.getppid())


def _watch(started: Sequence[subprocess.Popen[bytes]], stop: Callable[[], bool]) -> int:
    asked, deadline, failed = False, float("inf"), 0
    while any(process.poll() is None for process in started) and time.monotonic() < deadline:
        if stop() and not asked:
            asked = True
            for process in started:
                process.send_signal(signal.SIGTERM)
        codes = [process.returncode for process in started if process.returncode not in (None, 0, INTERRUPTED)]
        if codes and not failed:
            failed, deadline = codes[0], time.monotonic() + GRACE_SECONDS
        time.sleep(POLL_SECONDS)
    return failed or started[0].wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
