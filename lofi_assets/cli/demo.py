"""`lofi demo`: the whole lineage on music of its own making, or only that music."""

import sys
import time

import click

from lofi_assets.cli.console import console
from lofi_assets.store import data_root


@click.command()
def demo() -> None:
    """The whole lineage on the demo corpus, in this process; then every gate's verdict."""
    from lofi_assets.defs.dagster_home import dagster_home
    from lofi_assets.demo.beginning import write_corpus

    started = time.monotonic()
    dagster_home()  # a home that cannot be used is told before a minute of work
    write_corpus(data_root())
    from lofi_assets.demo.run import run_demo  # Dagster, imported while the corpus was made

    sys.exit(run_demo(console, started=started))


@click.command("demo-corpus")
@click.option("--seed", default=0, show_default=True, help="Another seed, other music.")
def demo_corpus(seed: int) -> None:
    """Write synthesised lofi tracks, their licence records, and rejects that must be caught."""
    from lofi_assets.demo.corpus.files import write_demo_corpus

    console.print(write_demo_corpus(data_root(), seed=seed))
