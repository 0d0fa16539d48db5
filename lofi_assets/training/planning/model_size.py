"""How large a model and its adapter are, counted on the meta device: names and shapes, never a weight.

What belongs here: numbers of parameters and the widths that activations depend on. What does not: bytes (`memory`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lofi_assets.files.documents import read_json
from lofi_assets.training.config import LoraSettings

if TYPE_CHECKING:
    from lofi_assets.backbones.ace_step_v1.transformer import ACEStepTransformer2DModel

DECODER = {"music_dcae_f8c8": 156_812_426, "music_vocoder": 103_005_138}
"""Parameters of the published autoencoder and vocoder, by folder: for a base that is not on this machine."""
ATTENTION = ".attn."
CROSS_ATTENTION = ".cross_attn."


@dataclass(frozen=True)
class ModelSize:
    """A transformer as training loads it (dead projections and SSL projectors left out), with its adapter."""

    parts: Mapping[str, int]
    """Frozen parameters by part; "attention" are the blocks' attention layers, which quantization reaches."""
    adapter: int
    """Trained parameters."""
    decoder: int
    """Parameters of autoencoder and vocoder, loaded to hear a preview."""
    layers: int
    width: int
    hidden: int
    """Channels inside the gated convolution, of which it holds twice as many before the gate."""
    head_dim: int
    text_width: int
    lyric_layers: int
    lyric_width: int
    lyric_heads: int
    lyric_hidden: int
    rank: int
    published: bool
    """Sizes of the published model, since the base itself is not on this machine."""

    @property
    def frozen(self) -> int:
        """Parameters of the frozen transformer."""
        return sum(self.parts.values())

    @property
    def largest_block(self) -> int:
        """Frozen parameters of one transformer block."""
        return (self.parts["attention"] + self.parts["feed-forward"]) // self.layers


def measure(base: Path | None, lora: LoraSettings) -> ModelSize:
    """Count the transformer in `base` with the adapter on it; None counts the published 3.5B model.

    Raises:
        BaseModelError: the folder holds no transformer.
    """
    from lofi_assets.backbones.ace_step_v1.loading import TRANSFORMER
    from lofi_assets.backbones.ace_step_v1.strict import BaseModelError

    config = read_json(base / TRANSFORMER / "config.json") if base else {}
    if config is None:
        raise BaseModelError(f"{base}: no {TRANSFORMER}/config.json, so this is no base model")
    transformer, adapter = _on_meta(config, lora)
    settings = transformer.config
    return ModelSize(
        parts=_parts(transformer),
        adapter=adapter,
        decoder=sum(_stored(base / folder) if base else count for folder, count in DECODER.items()),
        layers=settings.num_layers,
        width=transformer.width,
        hidden=int(transformer.width * settings.mlp_ratio),
        head_dim=settings.attention_head_dim,
        text_width=settings.text_embedding_dim,
        lyric_layers=settings.lyric_num_blocks,
        lyric_width=settings.lyric_output_size,
        lyric_heads=settings.lyric_attention_heads,
        lyric_hidden=settings.lyric_linear_units,
        rank=lora.r,
        published=base is None,
    )


def _on_meta(config: Mapping[str, object], lora: LoraSettings) -> "tuple[ACEStepTransformer2DModel, int]":
    import torch

    from lofi_assets.backbones.ace_step_v1.transformer import ACEStepTransformer2DModel
    from lofi_assets.training.trainer.adapters import add_lora

    with torch.device("meta"):
        transformer = ACEStepTransformer2DModel.from_config(
            dict(config), drop_dead_projections=True, build_projectors=False
        )
        trained = add_lora(transformer, lora, seed=0)
    return transformer, sum(parameter.numel() for parameter in trained.values())


def _parts(transformer: "ACEStepTransformer2DModel") -> dict[str, int]:
    """Frozen parameters of the blocks (attention, the rest), of the lyric encoder with its embeddings, of all else."""
    parts = {"attention": 0, "feed-forward": 0, "lyric encoder": 0, "other": 0}
    for name, parameter in transformer.named_parameters():
        if parameter.requires_grad:
            continue
        in_attention = ATTENTION in name or CROSS_ATTENTION in name
        if name.startswith("transformer_blocks."):
            part = "attention" if in_attention else "feed-forward"
        else:
            part = "lyric encoder" if name.startswith("lyric_") else "other"
        parts[part] += parameter.numel()
    return parts


def _stored(folder: Path) -> int:
    """Numbers in a folder's safetensors files, from their headers."""
    from math import prod

    from safetensors import safe_open

    total = 0
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="numpy") as file:
            total += sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 (not a mapping)
    return total
