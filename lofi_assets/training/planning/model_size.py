"""How large a model and its adapter are: names and shapes, never a weight."""

from pathlib import Path

from lofi_assets.backbones import Backbone
from lofi_assets.backbones.sizes import ModelSize
from lofi_assets.training.lora_settings import LoraSettings


def measure(backbone: Backbone, base: Path | None, lora: LoraSettings) -> ModelSize:
    """The model in `base` with the adapter on it; None counts the published one.

    Raises:
        BaseModelError: the folder holds no such model.
    """
    # Not within `size`, which works on the meta device: tables that bitsandbytes makes at its import would be empty.
    import peft  # noqa: F401

    from lofi_assets.training.trainer.adapters import add_lora

    return backbone.size(
        base,
        rank=lora.r,
        adapt=lambda model: sum(parameter.numel() for parameter in add_lora(model, lora, seed=0).values()),
    )
