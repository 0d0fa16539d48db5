"""What a backbone's model takes: the contract of the plan that is made before training starts.

What belongs here: the terms that depend on the architecture. What does not: how they add up to memory of a device,
settings, what to change (`training/planning`). Imports without torch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from lofi_assets.backbones.features import LatentShape

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class StepShape:
    """The largest that one forward pass of one process sees."""

    frames: int
    """Latent frames of one item."""
    tokens: Mapping[str, int]
    """Kind of condition -> tokens of one item."""
    batch_size: int
    precision: Literal["bf16-mixed", "32"]

    @property
    def element(self) -> int:
        """Bytes of a frozen number and of most activations."""
        return 2 if self.precision == "bf16-mixed" else 4


@dataclass(frozen=True)
class Amount:
    """Bytes, and the line that lets a person check them."""

    bytes: float
    arithmetic: str


class ModelSize(Protocol):
    """A model as training loads it, with its adapter."""

    @property
    def latents(self) -> LatentShape: ...
    @property
    def parts(self) -> Mapping[str, int]:
        """Frozen parameters by part; "attention" are the layers that quantization for training reaches."""
        ...

    @property
    def adapter(self) -> int:
        """Trained parameters."""
        ...

    @property
    def adapter_evened(self) -> int:
        """Numbers of the adapter where every layer is filled up to the largest rank, as some readers take it."""
        ...

    @property
    def rank(self) -> int: ...
    @property
    def decoder(self) -> int:
        """Parameters of what turns latents into audio, loaded to hear a preview."""
        ...

    @property
    def layers(self) -> int:
        """Blocks."""
        ...

    @property
    def largest_block(self) -> int:
        """Frozen parameters of one block."""
        ...

    @property
    def download_bytes(self) -> int:
        """Of a base that is not on this machine, whose published sizes these are; else 0."""
        ...

    def block_activations(self, step: StepShape) -> Amount:
        """What one block keeps for its backward pass."""
        ...

    def block_inputs(self, step: StepShape) -> Amount:
        """What all blocks keep if they are computed again in the backward pass."""
        ...

    def other_activations(self, step: StepShape) -> Amount:
        """What is kept before the first block and after the last."""
        ...

    def gradients_under_way(self, step: StepShape) -> float:
        """Bytes of the gradients of activations in the block that is going backward."""
        ...

    def decoding(self, seconds: float, *, on_gpu: bool) -> Amount:
        """What turning the latents of one clip into audio takes at its peak, besides the parameters."""
        ...

    def operations(self, step: StepShape, *, recomputed: bool) -> float:
        """Floating-point operations of one forward and backward pass (a multiply-add counts two).

        Args:
            recomputed: activations are computed again in the backward pass.
        """
        ...

    def cached_conditions(self, tokens: Mapping[str, int]) -> Amount:
        """What the conditions of a track take in the feature cache."""
        ...


class Sized(Protocol):
    """The part of a backbone that the plan uses."""

    @property
    def longest_tokens(self) -> Mapping[str, int]:
        """Kind of condition -> tokens to plan with before there is data: an instrumental track, the longest prompt."""
        ...

    def size(self, base: Path | None, *, rank: int, adapt: "Callable[[nn.Module], int]") -> ModelSize:
        """The model in a base's folder, counted without reading a weight; None counts the published model.

        Args:
            adapt: puts the adapter on a module and says how many parameters are trained.
        Raises:
            BaseModelError: the folder holds no such model.
        """
        ...
