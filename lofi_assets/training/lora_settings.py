"""The adapter's settings (`config/lofi_lora_config.json`), with the constitution's defaults. Imports without torch."""

from typing import Annotated

from pydantic import Field, model_validator

from lofi_assets.training.hashed_settings import Positive, Settings
from lofi_assets.training.layer_patterns import LayerNumbers


class LoraSettings(Settings):
    """The adapter (`config/lofi_lora_config.json`)."""

    r: Positive = 256
    """Rank (constitution, Training Configuration)."""
    lora_alpha: Positive = 32
    """Numerator of the scale."""
    target_modules: Annotated[tuple[str, ...], Field(min_length=1)]
    """Module names, matched as suffixes: attention of transformer and lyric encoder, and the speaker embedder."""
    use_rslora: bool = True
    """Scale alpha / sqrt(r) instead of alpha / r."""
    use_dora: bool = False
    """Learn the magnitude of each output apart from its direction (DoRA, arXiv 2402.09353): often better at a small
    rank, and slower, since every forward pass takes the norm of the adapted weight."""
    rank_pattern: LayerNumbers = Field(default_factory=dict)
    """Pattern of layer names -> their rank, where it is not `r`: `to_out.0: 64`, `transformer_blocks.0.attn.*: 512`."""
    alpha_pattern: LayerNumbers = Field(default_factory=dict)
    """The same for `lora_alpha`."""
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of each adapter's inputs that is zeroed in training, against learning by heart. 0: none."""

    @model_validator(mode="after")
    def _magnitudes_see_all(self) -> "LoraSettings":
        if self.use_dora and self.lora_dropout:
            raise ValueError("use_dora takes no lora_dropout, since peft would leave it out: set one of them")
        return self

    @property
    def scale(self) -> float:
        """Factor on B A x in layers that no pattern matches (`layer_patterns.scale_of`)."""
        return self.lora_alpha / (self.r**0.5 if self.use_rslora else self.r)
