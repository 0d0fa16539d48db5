"""What overflows half precision: found from what the modules of a component answer, and kept in float32.

Half precision ends at 65,504. ONNX Runtime's CPU provider computes a graph in half precision in float32 when it is left
to optimize it, and so hides what a GPU would turn into infinity. So ranges are measured on the float32 module, and the
smallest module whose inside passes the limit while its answer does not becomes an island: its input is widened, its
answer narrowed. Its weights may be stored in half all the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lofi_assets.quantization.tier_manifest import HalfRange

LARGEST_HALF = 65504.0
MARGIN = 2.0
"""Beside the inputs, which are twice as large as any seen: a value that comes within half of the limit overflows."""
LISTED = 8


def measure(module: nn.Module, calls: Sequence[Mapping[str, NDArray[Any]]], *, inputs: Sequence[str]) -> HalfRange:
    """The largest answers of a float32 component's modules over some calls, and the islands that follow from them.

    Args:
        module: holds the component under the name `model`.
        inputs: names of the arguments, in their order.
    """
    largest: dict[str, float] = {}

    def note(name: str) -> Any:
        def hook(_module: nn.Module, _given: Any, answer: Any) -> None:
            values = [value for value in (answer if isinstance(answer, tuple) else (answer,)) if _is_float(value)]
            found = max((float(value.abs().max()) for value in values if value.numel()), default=0.0)
            largest[name] = max(largest.get(name, 0.0), found)

        return hook

    handles = [child.register_forward_hook(note(name)) for name, child in module.named_modules() if name]
    try:
        with torch.no_grad():
            for call in calls:
                module(*(torch.from_numpy(call[name]) for name in inputs))
    finally:
        for handle in handles:
            handle.remove()
    worst = sorted(largest.items(), key=lambda item: (-item[1], item[0]))[:LISTED]
    return HalfRange(largest={name: float(f"{value:.4g}") for name, value in worst}, islands=islands(largest))


def islands(largest: Mapping[str, float]) -> tuple[str, ...]:
    """The smallest modules that hold every answer beyond the limit and give none themselves; none inside another.

    Args:
        largest: module -> largest absolute value of its answers.
    """

    def over(name: str) -> bool:
        return not largest[name] * MARGIN <= LARGEST_HALF

    found = set()
    for name in largest:
        while name and (name not in largest or over(name)):
            name = name.rpartition(".")[0]
            if name in largest and not over(name):
                found.add(name)
    for name in largest:
        if over(name) and not any(name.startswith(f"{island}.") for island in found):
            raise OverflowError(
                f"{name} answers {largest[name]:.3g}, and so does all that holds it: half precision ends"
            )
    return tuple(sorted(name for name in found if not any(name.startswith(f"{other}.") for other in found)))


def keep_in_float(module: nn.Module, names: Sequence[str]) -> None:
    """Make islands of modules of a component in half precision, in place."""
    for name in names:
        child = module.get_submodule(name).float()
        child.register_forward_pre_hook(_widen)
        child.register_forward_hook(_narrow)


def _widen(_module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(value.float() if _is_float(value) else value for value in given)


def _narrow(_module: nn.Module, _given: Any, answer: Any) -> Any:
    if isinstance(answer, tuple):
        return tuple(value.half() if _is_float(value) else value for value in answer)
    return answer.half() if _is_float(answer) else answer


def _is_float(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()
