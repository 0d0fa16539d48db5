"""A measured budget, and the table of them."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Row:
    """One figure beside what it may be."""

    what: str
    measured: float
    unit: Literal["s", "CPU-s", "x", "MB", ""]
    limit: float | None = None
    """None: told for orientation, without a budget."""
    at: Literal["most", "least"] = "most"
    note: str = ""
    """How it was measured, and where it goes; printed below the table."""

    @property
    def holds(self) -> bool | None:
        """Whether the budget is kept; None without one."""
        if self.limit is None:
            return None
        return self.measured <= self.limit if self.at == "most" else self.measured >= self.limit

    @property
    def verdict(self) -> str:
        """For people."""
        return {True: "[green]ok[/]", False: "[red]OVER[/]", None: "-"}[self.holds]


def interleaved(
    *sides: Callable[[], object], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Median seconds of each side, taken in turns after one warm-up each, so that a busy machine slows all alike."""
    for side in sides:
        side()
    seconds: list[list[float]] = [[] for _ in sides]
    for _ in range(repeats):
        for index, side in enumerate(sides):
            started = clock()
            side()
            seconds[index].append(clock() - started)
    return [statistics.median(taken) for taken in seconds]


def print_rows(console: Console, rows: Sequence[Row]) -> None:
    """The table, then the notes."""
    table = Table(title="Budgets", title_justify="left")
    table.add_column("what", overflow="fold")
    for column in ("measured", "budget", "ratio"):
        table.add_column(column, justify="right")
    table.add_column("verdict")
    for number, row in enumerate(rows, start=1):
        budget = "-" if row.limit is None else f"{'<=' if row.at == 'most' else '>='} {row.limit:g} {row.unit}".rstrip()
        ratio = f"{row.measured / row.limit:.2f}" if row.limit else "-"
        table.add_row(f"{number}. {row.what}", f"{row.measured:.3g} {row.unit}".rstrip(), budget, ratio, row.verdict)
    console.print(table)
    for number, row in enumerate(rows, start=1):
        if row.note:
            console.print(f"{number}. {row.note}", highlight=False, markup=False, soft_wrap=True)
