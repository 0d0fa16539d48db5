"""Loading that accounts for every tensor: the libraries fill a missing one with random numbers, or leave it empty."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from lofi_assets.backbones import BaseModelError

SHOWN = 3
M = TypeVar("M")


def strict(loaded: tuple[M, Mapping[str, Any]], directory: Path) -> M:
    """The model of `from_pretrained(..., output_loading_info=True)`, if its files and its config.json fit.

    Raises:
        BaseModelError: naming tensors that are missing, unknown or of another shape.
    """
    model, report = loaded
    wrong = {kind: sorted(map(str, report[kind]))[:SHOWN] for kind in report if report[kind]}
    if wrong:
        raise BaseModelError(
            f"{directory}: the weights do not fit config.json, for example {wrong}. Fetch the folder again."
        )
    return model
