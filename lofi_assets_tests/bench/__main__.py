"""`python -m lofi_assets_tests.bench [--only NAME]... [--profile]`: measure the budgets and print them."""

import argparse
import importlib
import os
import sys
import time
import warnings
from dataclasses import dataclass

import psutil
from rich.console import Console

from lofi_assets_tests.bench.report import Row, print_rows

BUDGETS = (
    "location",
    "frechet",
    "distances",
    "refresh",
    "audio",
    "transformer",
    "features",
    "training",
    "quantization",
)
"""Modules of this package with a function `rows`; lighter ones first, so that none finds the memory full."""
ON_REQUEST = ("throughput", "export_memory")
"""Measured only when named: minutes each."""


@dataclass(frozen=True)
class Usage:
    """Seconds so far: of the clock, of every process on the machine, of this one and its children."""

    clock: float
    machine: float
    own: float

    @classmethod
    def now(cls) -> "Usage":
        """Read all three."""
        cores, own = psutil.cpu_times(), os.times()
        return cls(time.perf_counter(), cores.user + cores.nice + cores.system, sum(own[:4]))

    def since(self, before: "Usage") -> str:
        """How long, and how far others were in the way: figures taken beside a busy neighbour say little."""
        took = self.clock - before.clock
        others = max(0.0, (self.machine - before.machine) - (self.own - before.own)) / took
        return f"took {took:.0f} s; other processes kept {others:.1f} of {os.cpu_count()} cores busy"


def main() -> int:
    """Measure what was asked for; nothing is asserted, and what cannot be measured does not hide the rest."""
    parser = argparse.ArgumentParser(prog="python -m lofi_assets_tests.bench", description=main.__doc__)
    names = (*BUDGETS, *ON_REQUEST)
    parser.add_argument("--only", action="append", choices=names, help="a budget to measure; may be repeated")
    parser.add_argument("--profile", action="store_true", help="also print where an unchanged refresh spends its time")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    console = Console()
    console.print(f"{os.cpu_count()} cores; ratios hold within this run", highlight=False)
    rows: list[Row] = []
    failed: list[str] = []
    for name in arguments.only or BUDGETS:
        before = Usage.now()
        try:
            rows += importlib.import_module(f"lofi_assets_tests.bench.{name}").rows()
        except Exception as error:
            failed.append(f"{name} ({type(error).__name__}: {error})")
        console.print(f"{name}: {Usage.now().since(before)}", highlight=False)
    print_rows(console, rows)
    if arguments.profile:
        refresh = importlib.import_module("lofi_assets_tests.bench.refresh")
        path = refresh.write_profile()
        console.print(f"Where an unchanged refresh spends its time ({path}):", highlight=False)
        console.print(path.read_text(encoding="utf-8"), highlight=False, markup=False)
    if failed:
        console.print(f"NOT MEASURED: {'; '.join(failed)}", style="red", markup=False)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
