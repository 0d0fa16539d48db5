"""What every asset runs in: errors that a message explains as that message, and the package's log as the run's log.

This is the one place where errors become `dg.Failure`; which errors are explained is in `lofi_assets.errors`.
"""

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg

from lofi_assets.constitution.made_with import look_at_what_runs
from lofi_assets.errors import explanation

PACKAGE_LOG = logging.getLogger("lofi_assets")


def explained(compute: Callable[..., dg.MaterializeResult[Any]]) -> Callable[..., dg.MaterializeResult[Any]]:
    """An asset's body whose faults and progress people read in the UI; stands directly under `@dg.asset`."""

    @functools.wraps(compute)
    def run(context: dg.AssetExecutionContext, **resources: Any) -> dg.MaterializeResult[Any]:
        with explaining(), _into_run_log(context.log):
            look_at_what_runs()
            return compute(context, **resources)

    return run


@contextlib.contextmanager
def explaining() -> Iterator[None]:
    """Within the block, an explained error is one sentence, and nothing tries again what cannot go better.

    Raises:
        dg.Failure: with the sentence, without a traceback. Any other error passes with its own.
    """
    try:
        yield
    except Exception as error:
        sentence = explanation(error)
        if sentence is None:
            raise
        raise dg.Failure(sentence, allow_retries=False) from None


@contextlib.contextmanager
def _into_run_log(log: logging.Logger) -> Iterator[None]:
    """Within the block, what the package logs goes to the run's log, in place of wherever it went before."""
    before, level = PACKAGE_LOG.handlers, PACKAGE_LOG.level
    PACKAGE_LOG.handlers = [_Forward(log)]
    PACKAGE_LOG.setLevel(logging.INFO)
    try:
        yield
    finally:
        PACKAGE_LOG.handlers = before
        PACKAGE_LOG.setLevel(level)


class _Forward(logging.Handler):
    """Hands records to another logger."""

    def __init__(self, log: logging.Logger) -> None:
        super().__init__()
        self.log = log

    def emit(self, record: logging.LogRecord) -> None:
        self.log.log(record.levelno, record.getMessage())
