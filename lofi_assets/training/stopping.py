"""Whether somebody asked the trainer to end: the state is then saved between two steps. Imports without torch."""

import contextlib
import os
import signal
import time
from types import FrameType

from lofi_assets.training.launch import STOPPING, orphaned

SAME_REQUEST_S = 2.0
"""Ctrl-C reaches the whole process group, and Dagster, `lofi train` and `accelerate launch` then pass it on once more;
SLURM signals every process of a step."""
AT_ONCE = (signal.SIGTERM, signal.SIGINT)
"""Signals that a person sends again to one that does not end. The others announce an end, often before one of these."""


class Stop:
    """Whether a signal of `STOPPING` came, or the process that started this one is gone.

    The first asks the loop to save and end; the same once more, after 2 s, ends at once if it is one of `AT_ONCE`.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        """What asked, None as long as nothing did."""
        self._asked: dict[int, float] = {}
        self._terminals = [handle for handle in (1, 2) if os.isatty(handle)]
        for number in STOPPING:
            if signal.getsignal(number) != signal.SIG_IGN:  # as SIGHUP is under `nohup`
                signal.signal(number, self._ask)

    def __call__(self) -> bool:
        if self.reason is None and orphaned():
            self.reason = "the process that started it is gone"
        return self.reason is not None

    def _ask(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        first = self._asked.setdefault(number, now)
        if number in AT_ONCE and now - first >= SAME_REQUEST_S:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        if number == signal.SIGHUP:
            self._leave_terminal()
        if self.reason is None:
            self.reason = signal.Signals(number).name

    def _leave_terminal(self) -> None:
        """A terminal that is gone takes no line more; an error from it must not come between a run and its state."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for handle in self._terminals:
            with contextlib.suppress(OSError):
                os.dup2(nowhere, handle)
        os.close(nowhere)
