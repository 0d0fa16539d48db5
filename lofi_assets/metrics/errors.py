"""The one error of this sub-package, and how a measure that raises it becomes None with a note."""

from collections.abc import Callable
from typing import TypeVar

from lofi_assets.errors import LofiError

T = TypeVar("T")


class MetricError(LofiError, ValueError):
    """A metric that cannot be computed honestly; the message names the input and what to do next."""


def attempt(measure: Callable[[], T]) -> tuple[T | None, str]:
    """The result and no note, or None and why not. Any other error than MetricError is a defect and passes through."""
    try:
        return measure(), ""
    except MetricError as error:
        return None, str(error)
