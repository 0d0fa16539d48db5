"""`lofi`: the platform from the command line. Every command says what it did and exits non-zero when it failed."""

import gc
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from lofi_assets.cli.alerts import alerts
from lofi_assets.cli.base_models import tiny_base, verify_reference, verify_weights
from lofi_assets.cli.bundle import generate, tiers
from lofi_assets.cli.constitution import constitution, docs, schemas
from lofi_assets.cli.dataset import dataset
from lofi_assets.cli.demo import demo, demo_corpus
from lofi_assets.cli.dev import dev
from lofi_assets.cli.features import features
from lofi_assets.cli.inspect import inspect
from lofi_assets.cli.listen import listen
from lofi_assets.cli.lora import lora
from lofi_assets.cli.measure import clap, compare, convert_clap, copies, fad, kad
from lofi_assets.cli.pages import pages
from lofi_assets.cli.release import approve_card, release
from lofi_assets.cli.report import report
from lofi_assets.cli.reproduce import reproduce
from lofi_assets.cli.review import review
from lofi_assets.cli.sources import sources
from lofi_assets.cli.train import train
from lofi_assets.cli.train_base import train_base
from lofi_assets.cli.verify import verify
from lofi_assets.errors import explanation
from lofi_assets.store import data_root, require_config


class Explaining(click.Group):
    """Commands whose errors are explained (`errors.explanation`) end in one sentence and exit status 1."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """The command of a process, which ends with it. Python would then search all objects for garbage several times:
        three to seven seconds where torch and Dagster were imported."""
        try:
            return super().__call__(*arguments, **options)
        finally:
            gc.freeze()

    def invoke(self, context: click.Context) -> Any:
        """Run the command; a defect keeps its traceback."""
        try:
            with _progress_on_stderr():
                return super().invoke(context)
        except Exception as error:
            sentence = explanation(error)
            if sentence is None:
                raise
            raise click.ClickException(sentence) from error


@contextmanager
def _progress_on_stderr() -> Iterator[None]:
    """Without a terminal there is no bar, so what the package logs goes to standard error."""
    if sys.stderr.isatty():
        yield
        return
    log, handler = logging.getLogger("lofi_assets"), logging.StreamHandler(sys.stderr)
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(logging.NOTSET)


@click.group(cls=Explaining)
def main() -> None:
    """Licensed lofi tracks to a released, gated ACE-Step LoRA."""
    require_config()
    data_root()


GROUPS = (
    *(dev, demo, demo_corpus, pages, listen),
    *(sources, inspect, review, dataset, features, train, lora, report, reproduce, approve_card, release, verify),
    *(generate, tiers),
    *(fad, kad, clap, copies, compare, convert_clap),
    *(constitution, alerts, schemas, docs),
    *(train_base, tiny_base, verify_weights, verify_reference),
)
for command in GROUPS:
    main.add_command(command)


if __name__ == "__main__":
    main()
