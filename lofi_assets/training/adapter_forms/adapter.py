"""What a LoRA file comes to: pairs of matrices on layers of the base, and how strongly each is applied."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lofi_assets.errors import LofiError

if TYPE_CHECKING:
    from torch import Tensor

Form = Literal["ace_step", "diffusers", "peft", "comfyui"]
Layers = Mapping[str, tuple[int, ...]]
"""Layer of the base that can be adapted -> shape of its weight, (outputs, inputs) or (outputs, inputs, kernel)."""


class AdapterError(LofiError, ValueError):
    """A LoRA file that cannot be read as what it claims to be; the message names file and tensor, and what to do."""


@dataclass(frozen=True)
class Pair:
    """The adapter of one layer: W becomes W + `scale` * up @ down, both flattened to two dimensions."""

    down: "Tensor"
    """(rank, inputs) or (rank, inputs, kernel), float32; PEFT's lora_A."""
    up: "Tensor"
    """(outputs, rank) or (outputs, rank, 1), float32; PEFT's lora_B."""
    scale: float
    magnitude: "Tensor | None" = None
    """(outputs,) of a DoRA."""

    @property
    def rank(self) -> int:
        """Inner dimension."""
        return int(self.down.shape[0])


@dataclass(frozen=True)
class Adapter:
    """A LoRA as its readers apply it."""

    form: Form
    pairs: Mapping[str, Pair]
    """By layer of the base, sorted."""
    strength: str
    """Where the scales come from, for people."""
    sha256: str
    """Of the file, or of weights and configuration together."""
    files: tuple[Path, ...]
    said: Mapping[str, str] = field(default_factory=dict)
    """What the file says of itself: unproven."""

    @property
    def is_dora(self) -> bool:
        """Whether a layer has a magnitude."""
        return any(pair.magnitude is not None for pair in self.pairs.values())

    @property
    def ranks(self) -> dict[str, int]:
        """Layer -> rank."""
        return {name: pair.rank for name, pair in self.pairs.items()}


Settings = Mapping[str, Any]
"""A LoraConfig as JSON."""
