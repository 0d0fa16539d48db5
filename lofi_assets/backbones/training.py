"""What a backbone is to the trainer: a frozen module that takes an adapter, the random draws of a step, and the loss.

What belongs here: the contract. What does not: optimiser, order of tracks and checkpoints (`training/trainer`).
Imports without torch.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from lofi_assets.backbones.features import Conditions

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

TIMESTEPS = 1000
"""Of pure noise, as people count them: a sigma of 0.25 is timestep 250."""


@dataclass(frozen=True)
class Item:
    """One training example."""

    track_id: str
    latents: "Tensor"
    """As `LatentShape` says, float32."""
    noise: "Tensor"
    """The same shape, float32, standard normal."""
    sigma: float
    """Share of noise, in [0, 1]."""
    conditions: Conditions
    """With what dropout left of them."""
    targets: "Mapping[str, Tensor]" = field(default_factory=dict)
    """Kind -> (frames of the crop, width), of further losses; empty unless they are asked for."""
    position: int = 0
    """In the run, counted from 0; what is random about a forward pass follows from that of its first item."""


class Objective(Protocol):
    """The loss of a model."""

    @property
    def model(self) -> "Callable[..., Any]":
        """What is trained, or what `training.distributed` wrapped around it."""
        ...

    @property
    def device(self) -> "torch.device":
        """Where the model is."""
        ...

    def losses(self, items: Sequence[Item]) -> "Tensor":
        """(B,) float32, each item's mean over its own frames: a long item weighs as much as a short one."""
        ...


@runtime_checkable
class RecordableObjective(Objective, Protocol):
    """An objective whose work on the device can be recorded: apart from what brings the items there."""

    def tensors(self, items: Sequence[Item]) -> "dict[str, Tensor | None]":
        """What the losses of the items are a function of, on the device.

        Raises:
            ValueError: the items carry what cannot be recorded.
        """
        ...

    def losses_of(self, tensors: "Mapping[str, Tensor | None]") -> "Tensor":
        """`losses`, of what `tensors` returned: no value decides which operations run, and none comes from the host."""
        ...


class ObjectiveSettings(Protocol):
    """The settings of a run that a backbone's objective depends on (`training.config.TrainingSettings`)."""

    @property
    def shift(self) -> float: ...
    @property
    def timestep_density(self) -> Literal["logit_normal", "uniform", "mode"]: ...
    @property
    def logit_mean(self) -> float: ...
    @property
    def logit_std(self) -> float: ...
    @property
    def mode_scale(self) -> float: ...
    @property
    def text_dropout(self) -> float: ...
    @property
    def speaker_dropout(self) -> float: ...
    @property
    def lyric_dropout(self) -> float: ...
    @property
    def ssl_weight(self) -> float: ...
    @property
    def compile(self) -> bool | Literal["auto"]: ...
    @property
    def gradient_checkpointing(self) -> bool: ...
    @property
    def cuda_graphs(self) -> bool: ...


class Trains(Protocol):
    """The part of a backbone that the trainer uses."""

    def dropout(self, settings: ObjectiveSettings) -> dict[str, float]:
        """Group of conditions -> chance that an item is trained without it, in the order in which chance decides."""
        ...

    def without(self, conditions: Conditions, groups: Collection[str]) -> Conditions:
        """The same with groups dropped, the way guidance later calls the model without them."""
        ...

    def draw_sigma(self, settings: ObjectiveSettings, random: "torch.Generator") -> float:
        """A share of noise to train at, from the density of the settings."""
        ...

    def validation_sigmas(self, settings: ObjectiveSettings, *, levels: int) -> dict[int, float]:
        """Shares of noise of the validation loss, rising, each under a number that its noise is drawn by."""
        ...

    def trainable(
        self, base: Path, settings: ObjectiveSettings, *, dtype: Literal["float32", "bfloat16"], device: str
    ) -> "nn.Module":
        """The module of a base that takes the adapter, in evaluation mode; activations are computed again in the
        backward pass if the settings say so.

        Raises:
            BaseModelError: the base cannot be read.
        """
        ...

    def blocks(self, model: "nn.Module") -> "Sequence[nn.Module]":
        """Its repeated blocks, which are compiled and shared out each by itself."""
        ...

    def quantizable(self, name: str) -> bool:
        """Whether a linear layer of it may be held in 8 or 4 bits while the adapter is trained; a convolution of one
        frame is asked for by the name that a linear layer in its place has."""
        ...

    def objective(
        self, model: "Callable[..., Any]", settings: ObjectiveSettings, *, dtype: "torch.dtype", device: "torch.device"
    ) -> Objective:
        """The loss of `model`, whose frozen weights are `dtype`; below float32 it runs under autocast."""
        ...
