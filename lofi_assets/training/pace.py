"""Where a run stands and when it will be done, in a line now and then.

What belongs here: a line a minute for logs that people read later; the bar in a terminal is tqdm's (`loop`).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

INTERVAL_S = 60.0


@dataclass
class Pace:
    """Tells of progress at most once per interval; the rate is that of this call, checkpoints included."""

    total: int
    """Steps of the run."""
    first: int
    """Steps done before this call."""
    say: Callable[[str], None]
    interval_s: float = INTERVAL_S
    clock: Callable[[], float] = time.monotonic
    _started: float = field(init=False)
    _told: float = field(init=False)

    def __post_init__(self) -> None:
        self._started = self._told = self.clock()

    def observe(self, step: int, *, loss: float | None) -> None:
        """Take note of a finished step."""
        now = self.clock()
        if now - self._told < self.interval_s:
            return
        self._told = now
        per_hour = 3600 * (step - self.first) / (now - self._started)
        level = f", loss {loss:.4f}" if loss is not None else ""
        left = duration(3600 * (self.total - step) / per_hour)
        self.say(f"step {step} of {self.total} ({step / self.total:.1%}){level}, {per_hour:,.0f} steps/h, {left} left")


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
