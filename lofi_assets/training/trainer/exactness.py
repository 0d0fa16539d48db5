"""Proof before the first step that a pass gives the same bits twice, on the device that trains.

Strict determinism makes torch refuse what it knows to differ from call to call. What a library does behind it is known
by comparison only: on CUDA an attention kernel of cuDNN gave other gradients each time, and only on long contexts.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from lofi_assets.backbones.training import Item
from lofi_assets.training.config import ConfigError
from lofi_assets.training.trainer.passes import Passes

REFUSED = re.compile(r"(\S+) does not have a deterministic implementation")


def prove_exact(passes: Passes, items: Sequence[Item], parameters: Mapping[str, torch.nn.Parameter]) -> None:
    """Take the gradients of one pass twice and compare them bit by bit; leaves none behind.

    Of passes that are recorded the first is a plain one and the second the first replay: the graph is proven too.

    Args:
        items: the longest that training sees, since kernels are chosen by size.
    Raises:
        ConfigError: an operation has no deterministic kernel (it is named), or gradients differ (they are named).
    """
    device = passes.objective.device
    try:
        first, second = (_gradients(passes, items, parameters) for _ in range(2))
    except RuntimeError as error:
        refused = REFUSED.search(str(error))
        if not refused:
            raise
        raise ConfigError(
            f"device: {device} has no deterministic kernel for {refused[1]}, so that a run could not be "
            "repeated; choose settings that do without it (ssl_weight 0, base_quantization none), or device 'cpu'"
        ) from error
    differing = [name for name in parameters if not torch.equal(first[name], second[name])]
    if differing:
        raise ConfigError(
            f"device: on {device} two passes over {', '.join(item.track_id for item in items)} gave other "
            f"bits in {len(differing)} of {len(first)} gradients, first in {differing[0]}; a run could not be "
            "repeated. Set compile or cuda_graphs to false or crop_frames lower, or report torch's version and the card"
        )


def _gradients(
    passes: Passes, items: Sequence[Item], parameters: Mapping[str, torch.nn.Parameter]
) -> dict[str, torch.Tensor]:
    passes(items, last=True)
    found = {}
    for name, parameter in parameters.items():
        gradient: Any = parameter.grad
        here = None if gradient is None else getattr(gradient, "to_local", lambda g=gradient: g)()
        found[name] = torch.zeros(()) if here is None else here.clone()
    passes.clear()
    return found
