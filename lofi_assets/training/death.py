"""How a trainer ended that could not say so itself: what is known of it, and nothing that is guessed.

What belongs here: exit code and signal, the last line it wrote, and whether the kernel ended a process for want of
memory. What does not: an end in the trainer's own words (`ending`). Imports without torch.
"""

import contextlib
import os
import re
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

MOST_CHARACTERS = 300
"""Of the last line that is shown."""
_KILLS = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


@dataclass
class Watch:
    """What is observed while the trainer runs."""

    kills_before: int | None = field(default_factory=lambda: memory_kills())
    """`memory_kills` at its start."""
    lines: deque[str] | None = field(default_factory=lambda: deque(maxlen=20))
    """The last lines of its standard error; None where a person reads it on the terminal."""

    def account(self, code: int | None) -> str:
        """One sentence or two: how it ended, what the kernel says, its last line.

        Args:
            code: as `subprocess` has it, negative for a signal; None if it is not known.
        """
        words = "" if self.lines is None else f"; {_last_words(self.lines)}"
        return f"the trainer {_ended(code)}; {self._memory(code)}{words}"

    def _memory(self, code: int | None) -> str:
        after = memory_kills()
        if self.kills_before is None or after is None:
            return "whether the kernel ended it for want of memory cannot be read here (see `dmesg`)"
        if after > self.kills_before:
            ended = "the kernel ended a process for want of memory meanwhile"
            return f"{ended}: `lofi train --plan` says what the run needs and what to lower"
        return "the kernel ended no process for want of memory meanwhile"


def _last_words(lines: Sequence[str]) -> str:
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f"its last line was: {last[-MOST_CHARACTERS:]}" if last else "it wrote nothing to its standard error"


def memory_kills() -> int | None:
    """Processes that the kernel has ended for want of memory since it was started, None where it does not say.

    Of this process's cgroup where that is version 2, else of the machine, which counts other containers too.
    """
    for path in (_cgroup_events(), Path("/proc/vmstat")):
        with contextlib.suppress(OSError):
            found = _KILLS.search(path.read_text(encoding="ascii")) if path else None
            if found:
                return int(found[1])
    return None


def _cgroup_events() -> Path | None:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            if line.startswith("0::"):
                return Path("/sys/fs/cgroup") / line.removeprefix("0::").lstrip("/") / "memory.events"
    return None


def _ended(code: int | None) -> str:
    if code is None:
        return "ended without a word"
    if code >= 0:
        return f"ended without a word, with exit code {code}"
    with contextlib.suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"


@contextlib.contextmanager
def watched() -> Iterator[Watch]:
    """Within the block, what processes started here write to standard error is read along, and passed on.

    On a terminal it is left alone: the bar would be none through a pipe, and whoever sits there reads it.
    """
    if os.isatty(2):
        yield Watch(lines=None)
        return
    watch, lines = Watch(), deque[str](maxlen=20)
    watch.lines = lines
    reading, writing = os.pipe()
    outside = os.dup(2)
    reader = threading.Thread(target=_pass_on, args=(reading, outside, lines), daemon=True)
    reader.start()
    os.dup2(writing, 2)
    os.close(writing)
    try:
        yield watch
    finally:
        os.dup2(outside, 2)  # closes the last end to write to, so that the reader ends
        reader.join(timeout=5.0)


def _pass_on(reading: int, outside: int, lines: deque[str]) -> None:
    with os.fdopen(reading, "rb") as source, os.fdopen(outside, "wb", buffering=0) as target:
        for line in source:
            lines.append(line.decode("utf-8", errors="replace"))
            with contextlib.suppress(OSError):
                target.write(line)
