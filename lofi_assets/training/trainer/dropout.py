"""Dropout of the adapter's inputs (`lora_dropout`), with masks that follow from seed and position.

peft draws them from torch's global generator in training mode, so that they would depend on every draw before, and the
trainer runs the model in evaluation mode. Here a forward pass with gradients draws them from a generator that is seeded
with the position of its first item, and gives the global one back as it was: a resumed run, and a step that is shared
out among processes, has the same bits. A block that is computed again finds its masks, since checkpointing keeps the
state that it was computed at.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lofi_assets.backbones.training import Item, Objective
from lofi_assets.files.hashing import hash_of


class GradientDropout(nn.Module):
    """Zeros a share of x and scales the rest up while gradients are taken; gives x back otherwise."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.share, training=torch.is_grad_enabled())

    def extra_repr(self) -> str:
        return f"{self.share:g}"


def drop_inputs(model: nn.Module, share: float, *, adapter: str) -> None:
    """Let the adapter's layers drop a share of what they are given; nothing for a share of 0."""
    from peft.tuners.lora import LoraLayer

    for layer in model.modules() if share else ():
        if isinstance(layer, LoraLayer) and adapter in layer.lora_dropout:
            layer.lora_dropout[adapter] = GradientDropout(share)


@dataclass(frozen=True)
class MaskedObjective:
    """An objective whose passes with gradients draw their masks from seed and position."""

    objective: Objective
    seed: int

    @property
    def model(self) -> Callable[..., Any]:
        """What is trained."""
        return self.objective.model

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.objective.device

    def losses(self, items: Sequence[Item]) -> Tensor:
        """(B,) float32, each item's mean over its own frames."""
        if not torch.is_grad_enabled():
            return self.objective.losses(items)
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(int(hash_of(self.seed, "dropout", items[0].position)[:15], 16))
            return self.objective.losses(items)


def masked(objective: Objective, *, share: float, seed: int) -> Objective:
    """The objective of a run whose adapter drops a share of its inputs; itself for a share of 0."""
    return MaskedObjective(objective, seed) if share else objective
