"""How far a long step is, for people: a bar on a terminal, and a line a minute in the log.

The log is the run's log in the UI within an asset (`defs/faults.py`), and standard error where a command runs without a
terminal (`cli`).
"""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TypeVar

T = TypeVar("T")
Say = Callable[[str], None]
LOG = logging.getLogger(__name__)

INTERVAL_S = 60.0
"""Between two lines."""
WORTH_A_LINE_S = 1.0
"""A step that took less says nothing: most of the work was done before."""


@dataclass(frozen=True)
class Pace:
    """The words for where a step stands; knows neither clock nor output."""

    label: str
    total: int
    unit: str
    """Of one, as `track`."""
    first: int = 0
    """Units done before the step began; the rate leaves them out."""

    def line(self, done: int, *, seconds: float, note: str = "") -> str:
        """`processing: 23 of 81 tracks (28%), 11.5 tracks/min, 5 min left`, then the note.

        Args:
            seconds: since the step began.
        """
        made, more = done - self.first, f"; {note}" if note else ""
        if made <= 0:
            return f"{self._where(done)} after {duration(seconds)}{more}"
        left = duration(seconds / made * (self.total - done))
        return f"{self._where(done)} ({done / self.total:.0%}), {self._rate(made, seconds)}, {left} left{more}"

    def end(self, done: int, *, seconds: float) -> str:
        """`processing: 81 of 81 tracks in 7 min, 11.5 tracks/min`; says so if it did not get to the end."""
        stopped = "" if done >= self.total else ", stopped there"
        made = done - self.first
        rate = f", {self._rate(made, seconds)}" if made > 1 else ""
        return f"{self._where(done)} in {duration(seconds)}{rate}{stopped}"

    def _where(self, done: int) -> str:
        return f"{self.label}: {done} of {self.total} {self.unit if self.total == 1 else f'{self.unit}s'}"

    def _rate(self, made: int, seconds: float) -> str:
        for name, length in (("s", 1), ("min", 60)):
            if made * length >= seconds:
                return f"{made * length / seconds:.3g} {self.unit}s/{name}"
        return f"{made * 3600 / seconds:.3g} {self.unit}s/h"


class Progress:
    """A step under way: told of each unit done, it tells people, also while one unit takes long."""

    def __init__(self, label: str, *, total: int, unit: str, first: int = 0, say: Say = LOG.info) -> None:
        self.pace = Pace(label, total, unit, first)
        self.done, self.note = first, ""
        self._say = say
        self._over = threading.Event()

    def __enter__(self) -> "Progress":
        from tqdm import tqdm

        pace = self.pace
        # `disable=None`: only on a terminal
        self._bar = tqdm(
            desc=pace.label, total=pace.total, unit=pace.unit, initial=pace.first, file=sys.stderr, disable=None
        )
        self._started = time.monotonic()
        self._teller = threading.Thread(target=self._tell, daemon=True)
        if pace.total > pace.first:
            self._teller.start()
        return self

    def advance(self, units: int = 1, *, note: str | None = None) -> None:
        """So many units more are done."""
        self.done += units
        if note is not None:
            self.remark(note)
        self._bar.update(units)

    def remark(self, note: str) -> None:
        """What to say beside the numbers from now on."""
        self.note = note
        self._bar.set_postfix_str(note, refresh=False)

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._over.set()
        self._bar.close()
        if self._teller.is_alive():
            self._teller.join()
        seconds = self._seconds()
        if self.pace.total > self.pace.first and seconds >= WORTH_A_LINE_S:
            self._say(self.pace.end(self.done, seconds=seconds))

    def _tell(self) -> None:
        while not self._over.wait(INTERVAL_S):
            self._say(self.pace.line(self.done, seconds=self._seconds(), note=self.note))

    def _seconds(self) -> float:
        return time.monotonic() - self._started


def over(items: Sequence[T], label: str, *, unit: str) -> Iterator[T]:
    """The items one after the other; a unit is done when the next item is asked for."""
    with Progress(label, total=len(items), unit=unit) as progress:
        for item in items:
            yield item
            progress.advance()


def duration(seconds: float) -> str:
    """Seconds as people say them: `45 s`, `12 min`, `3 h 05 min`, `2 d 4 h`."""
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 60:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    if hours < 48:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{hours // 24} d {hours % 24} h"


@contextmanager
def transformers_bars_on_terminals() -> Iterator[None]:
    """Within the block transformers draws its bars, of reading and writing weights, on a terminal alone: in a log each
    would be two lines of noise."""
    from transformers.utils import logging as bars

    before = bars.set_tqdm_hook(lambda make, given, options: make(*given, **{**options, "disable": None}))
    try:
        yield
    finally:
        bars.set_tqdm_hook(before)
