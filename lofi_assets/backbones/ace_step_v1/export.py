"""ACE-Step v1 as five components that ONNX can hold, and its runtime with onnxruntime.

What belongs here: what has to change in a module before it is exported, inputs and outputs. What does not: exporting
(`quantization/export.py`), fewer bits (`quantization/`). Inputs and outputs are float32 and int64 in every precision: a
caller sees no difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lofi_assets.backbones.ace_step_v1.loading import Base, load_base
from lofi_assets.backbones.export import Exportable

LINEAR_EPS = 1e-6
"""Replaces 1e-15 in linear attention, which the exporter folds away: 0/0 becomes NaN in ONNX Runtime."""
MASK_FILL = -1e4
LATENT_HEIGHT = 16
USED_PARTS = {"drop_dead_projections": True, "build_projectors": False}
"""What no forward pass of a finished model reads, 22 % of the published weights, stays behind."""
PATCHES = "early_conv_layers"
"""Of `PatchEmbed`."""
OVERFLOWS = ".wo"
"""T5's second feed-forward product overflows half precision."""


def pointwise_linear(conv: nn.Conv1d | nn.Conv2d) -> nn.Linear:
    """A convolution of one frame as the matrix product that it is, over (..., channels) and with the same weights,
    shared: quantizers skip convolutions, and the proof of precision a weight that is laid out anew."""
    linear = nn.Linear(conv.in_channels, conv.out_channels, bias=conv.bias is not None, device="meta")
    linear.weight = nn.Parameter(conv.weight.detach().flatten(1), requires_grad=False)
    if isinstance(conv.bias, nn.Parameter):
        linear.bias = conv.bias
    return linear


def swap_pointwise_convolutions(module: nn.Module) -> list[str]:
    """Replace, in place, every convolution of one frame in a `Convolution` or a `PatchEmbed` by its `pointwise_linear`;
    returns the names."""
    swapped = []
    for name, conv in list(module.named_modules()):
        pointwise = isinstance(conv, nn.Conv1d | nn.Conv2d) and math.prod(conv.kernel_size) == 1
        holder, _, kept = name.rpartition(".")
        if pointwise and (kept == "conv" or holder.endswith(PATCHES)):
            setattr(module.get_submodule(holder), kept, pointwise_linear(conv))
            swapped.append(name)
    return swapped


def steady_linear_attention(module: nn.Module) -> None:
    """Set every epsilon that float32 sums swallow (below 1e-12) to 1e-6, in place."""
    for child in module.modules():
        eps = getattr(child, "eps", None)
        if isinstance(eps, float) and eps < 1e-12:
            setattr(child, "eps", LINEAR_EPS)  # noqa: B010


class _Wrapped(nn.Module):
    """Holds a component under the name `model`, which `give_stable_names` cuts from every name."""

    model: Any

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def to_model(self, x: Tensor) -> Tensor:
        """Float input in the precision of the weights."""
        return x.to(next(self.model.parameters()).dtype)


class TextEncoder(_Wrapped):
    """Token ids and mask (B, tokens) -> states (B, tokens, width)."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        states: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state.float()
        return states


class ConditionEncoder(_Wrapped):
    """Text states, speaker and lyrics -> context (B, context, width) and its mask; masks are int64."""

    def forward(
        self,
        text_hidden_states: Tensor,
        text_attention_mask: Tensor,
        speaker_embeds: Tensor,
        lyric_token_ids: Tensor,
        lyric_mask: Tensor,
    ) -> tuple[Tensor, Tensor]:
        context, mask = self.model.encode(
            text_hidden_states=self.to_model(text_hidden_states),
            text_attention_mask=text_attention_mask,
            speaker_embeds=self.to_model(speaker_embeds),
            lyric_token_ids=lyric_token_ids,
            lyric_mask=lyric_mask,
        )
        return context.float(), mask.long()


class Transformer(_Wrapped):
    """Noisy latents (B, 8, 16, frames) -> velocity. There is no latent mask: a batch has one length, without
    padding."""

    def forward(
        self, hidden_states: Tensor, encoder_hidden_states: Tensor, encoder_hidden_mask: Tensor, timestep: Tensor
    ) -> Tensor:
        sample: Tensor = self.model.decode(
            hidden_states=self.to_model(hidden_states),
            attention_mask=None,
            encoder_hidden_states=self.to_model(encoder_hidden_states),
            encoder_hidden_mask=encoder_hidden_mask,
            timestep=timestep,
        )
        return sample.float()


class DcaeDecoder(_Wrapped):
    """Latents (B, 8, 16, frames) -> log-mel (B, 2, bands, 8 * frames), scaling included."""

    def __init__(self, model: nn.Module, *, scale: float, shift: float, low: float, high: float) -> None:
        super().__init__(model)
        self.scale, self.shift, self.low, self.high = scale, shift, low, high

    def forward(self, latents: Tensor) -> Tensor:
        image: Tensor = self.model(self.to_model(latents / self.scale + self.shift)).float()
        return (image + 1) / 2 * (self.high - self.low) + self.low


class Vocoder(_Wrapped):
    """Log-mel (B, bands, mel_frames) -> mono audio (B, 512 * mel_frames) at 44.1 kHz."""

    def forward(self, mel: Tensor) -> Tensor:
        audio: Tensor = self.model.decode(self.to_model(mel))[:, 0].float()
        return audio


def exportable(component: str, merged: Path) -> Exportable:
    """A component of a merged model, loaded anew."""
    part = needs(component)
    options = USED_PARTS if part == "transformer" else None
    return prepare(component, load_base(merged, components=[part], transformer_options=options))


def prepare(component: str, base: Base) -> Exportable:
    """Change a freshly loaded base's model, in place, into what gets exported as `component`.

    Args:
        base: loaded with `needs(component)`, and used for this component only.
    """
    made = _PREPARE[component](base)
    made.module.eval().requires_grad_(False)
    return made


def needs(component: str) -> str:
    """The part of a base model (as `load_base` names it) that a component is exported from."""
    return {"text_encoder": "text_encoder", "dcae_decoder": "music_dcae", "vocoder": "music_dcae"}.get(
        component, "transformer"
    )


def _text_encoder(base: Base) -> Exportable:
    assert base.text_encoder is not None
    tokens = {0: "batch", 1: "tokens"}
    ids = torch.ones(2, 7, dtype=torch.long)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return Exportable(
        TextEncoder(base.text_encoder),
        inputs,
        ("last_hidden_state",),
        dict.fromkeys(inputs, tokens),
        kept_in_float=OVERFLOWS,
    )


def _condition_encoder(base: Base) -> Exportable:
    assert base.transformer is not None
    config = base.transformer.config
    inputs = {
        "text_hidden_states": torch.zeros(2, 7, config.text_embedding_dim),
        "text_attention_mask": torch.ones(2, 7, dtype=torch.long),
        "speaker_embeds": torch.zeros(2, config.speaker_embedding_dim),
        "lyric_token_ids": torch.ones(2, 5, dtype=torch.long),
        "lyric_mask": torch.ones(2, 5, dtype=torch.long),
    }
    free = {name: {0: "batch"} for name in inputs}
    for name in ("text_hidden_states", "text_attention_mask"):
        free[name] = {0: "batch", 1: "tokens"}
    for name in ("lyric_token_ids", "lyric_mask"):
        free[name] = {0: "batch", 1: "lyrics"}
    outputs = ("encoder_hidden_states", "encoder_hidden_mask")
    return Exportable(ConditionEncoder(base.transformer), inputs, outputs, free)


def _transformer(base: Base) -> Exportable:
    assert base.transformer is not None
    transformer, config = base.transformer, base.transformer.config
    swap_pointwise_convolutions(transformer)
    transformer.set_attention_constants(linear_eps=LINEAR_EPS, mask_fill=MASK_FILL)
    inputs = {
        "hidden_states": torch.zeros(2, config.in_channels, config.max_height, 24),
        "encoder_hidden_states": torch.zeros(2, 9, transformer.width),
        "encoder_hidden_mask": torch.ones(2, 9, dtype=torch.long),
        "timestep": torch.tensor([900.0, 500.0]),
    }
    context = {0: "batch", 1: "context"}
    free = {
        "hidden_states": {0: "batch", 3: "frames"},
        "encoder_hidden_states": context,
        "encoder_hidden_mask": context,
        "timestep": {0: "batch"},
    }
    return Exportable(Transformer(transformer), inputs, ("sample",), free)


def _dcae_decoder(base: Base) -> Exportable:
    assert base.music_dcae is not None
    codec = base.music_dcae
    steady_linear_attention(codec.dcae.decoder)
    module = DcaeDecoder(
        codec.dcae.decoder, scale=codec.scale_factor, shift=codec.shift_factor, low=codec.min_mel, high=codec.max_mel
    )
    inputs = {"latents": torch.zeros(2, base.music_dcae.dcae.config["latent_channels"], LATENT_HEIGHT, 24)}
    return Exportable(module, inputs, ("mel",), {"latents": {0: "batch", 3: "frames"}})


def _vocoder(base: Base) -> Exportable:
    assert base.music_dcae is not None
    vocoder = base.music_dcae.vocoder
    vocoder.fold_weight_norm()
    inputs = {"mel": torch.zeros(2, vocoder.config.n_mels, 40)}
    return Exportable(Vocoder(vocoder), inputs, ("audio",), {"mel": {0: "batch", 2: "mel_frames"}})


_PREPARE: dict[str, Callable[[Base], Exportable]] = {
    "text_encoder": _text_encoder,
    "condition_encoder": _condition_encoder,
    "transformer": _transformer,
    "dcae_decoder": _dcae_decoder,
    "vocoder": _vocoder,
}
