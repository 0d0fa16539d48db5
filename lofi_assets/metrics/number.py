"""A number as it is stored: None for what is no number, since JSON has neither NaN nor infinity."""

import math
from typing import Annotated

from pydantic import BeforeValidator


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


Number = Annotated[float | None, BeforeValidator(_finite)]
"""None for what is no number."""
