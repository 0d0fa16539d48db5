"""Commands as processes of their own that need not import torch, peft and the models first: five CPU-seconds each.

They are forks of one server that has done so, one for each worker of the tests: tests that start them belong to the
group `STARTED`, which is one worker's.
"""

import multiprocessing
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext

STARTED = "started"
IMPORTED = ("trainer.loop", "trainer.opening", "__main__", "reproduction.rerun", "planning.model_size")


def server() -> ForkServerContext:
    """The context whose processes are forks of the server."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [
            *(f"lofi_assets.training.{name}" for name in IMPORTED),
            *("lofi_assets.backbones.ace_step_v1.objective", "lofi_assets.backbones.ace_step_v1.size"),
            *("lofi_assets.cli.main", "lofi_assets.cli.reproduce"),
        ]
    )
    return context


def lofi(arguments: Sequence[str]) -> None:
    """The command line, as a function that can be named to another process."""
    from lofi_assets.cli.main import main

    main(list(arguments), prog_name="lofi")


class Started:
    """What of `subprocess.Popen` the tests ask for, of a command's `main` in a process of its own."""

    def __init__(self, main: Callable[[Sequence[str]], int | None], arguments: Sequence[str]) -> None:
        context = server()
        pipes = [context.Pipe(duplex=False) for _ in range(2)]
        self._reading = [reader for reader, _ in pipes]
        writing = [writer for _, writer in pipes]
        self._process = context.Process(target=_run, args=(main, list(arguments), dict(os.environ), *writing))
        self._process.start()
        for writer in writing:
            writer.close()

    @property
    def returncode(self) -> int | None:
        """Exit code, -N after signal N; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """The same."""
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        """Send it to the process alone."""
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float = 120.0) -> tuple[str, str]:
        """Standard output and error to their end: until the process and whatever it started have ended."""
        deadline, told = time.monotonic() + timeout, {reader: b"" for reader in self._reading}
        with selectors.DefaultSelector() as waiting:
            for reader in told:
                waiting.register(reader, selectors.EVENT_READ)
            while waiting.get_map():
                assert time.monotonic() < deadline, f"still running: {told}"
                for key, _ in waiting.select(1.0):
                    found = os.read(key.fd, 65_536)
                    told[key.fileobj] += found  # type: ignore[index]
                    if not found:
                        waiting.unregister(key.fileobj)
        self._process.join(max(1.0, deadline - time.monotonic()))
        output, errors = (text.decode() for text in told.values())
        return output, errors


def _run(
    main: Callable[[Sequence[str]], int | None],
    arguments: list[str],
    variables: dict[str, str],
    output: Connection,
    errors: Connection,
) -> None:
    os.environ.clear()
    os.environ.update(variables)
    for number, pipe in ((1, output), (2, errors)):
        os.dup2(pipe.fileno(), number)
        pipe.close()
    sys.exit(main(arguments))
