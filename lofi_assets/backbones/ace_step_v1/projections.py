"""Linear layers of one input, with the low-rank adapters that peft put on them, in as few kernels as there can be.

peft's own layer casts its input to the adapter's float32, takes the two products apart, scales the large one and adds
it: eight kernels a layer under autocast. Here q, k and v share the input's cast and one product with their A matrices,
the scale goes on the narrow side, and the product with B adds itself to the frozen layer's output. The sum is rounded
once instead of three times. What peft offers beyond plain LoRA goes through peft's layer.
"""

from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class LowRank:
    """A frozen linear layer and its adapter: base(x) + scale * B A x."""

    base: nn.Linear
    first: Tensor
    """A (rank, inputs)."""
    second: Tensor
    """B (outputs, rank)."""
    scale: float


def project(x: Tensor, *layers: nn.Module) -> list[Tensor]:
    """Each layer's output for x (..., inputs): (..., outputs)."""
    parts = [part for part in map(_plain_adapter, layers) if part]
    if len(parts) < len(layers) or len({(part.scale, part.base.weight.dtype) for part in parts}) > 1:
        return [layer(x) for layer in layers]
    dtype, scale = parts[0].base.weight.dtype, parts[0].scale
    flat = x.flatten(0, -2).to(dtype)
    first = parts[0].first if len(parts) == 1 else torch.cat([part.first for part in parts])
    narrow = F.linear(flat, first.to(dtype)) * scale
    outputs = []
    for part, share in zip(parts, narrow.split([len(part.first) for part in parts], dim=-1), strict=True):
        base: Tensor = part.base(flat)
        # autocast may have taken a float32 layer's output to half precision, and leaves an addition in place alone
        second = part.second.to(base.dtype).t()
        outputs.append(base.addmm_(share.to(base.dtype), second).unflatten(0, x.shape[:-1]))
    return outputs


def _plain_adapter(layer: nn.Module) -> LowRank | None:
    """The parts of a layer with one active, unmerged, plain LoRA on an unquantized base; None of any other."""
    if type(layer) is not LoraLinear or layer.disable_adapters or layer.merged or layer.fan_in_fan_out:
        return None
    active = [name for name in layer.active_adapters if name in layer.lora_A]
    base: Any = layer.base_layer
    if len(active) != 1 or type(base) is not nn.Linear:
        return None
    (name,) = active
    plain = name not in layer.lora_variant and not layer.lora_bias[name]
    if not plain or not isinstance(layer.lora_dropout[name], nn.Identity):
        return None
    first: Any = layer.lora_A[name]
    second: Any = layer.lora_B[name]
    return LowRank(base, first.weight, second.weight, layer.scaling[name])
