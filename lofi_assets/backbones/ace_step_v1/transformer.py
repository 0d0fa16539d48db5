"""`ACEStepTransformer2DModel`: the diffusion transformer of ACE-Step v1 (3.5B), with upstream's tensor names.

Conditions -> context (`encode`), noisy latents -> velocity (`decode`), both with the SSL losses (`forward`). Noise
schedule and guidance are in `flow_matching`, the loop over steps in `sampler`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.loaders.peft import PeftAdapterMixin
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from lofi_assets.backbones.ace_step_v1.blocks import (
    FINITE_MASK_FILL,
    FinalLayer,
    PatchEmbed,
    Rotary,
    TransformerBlock,
    rotary_tables,
)
from lofi_assets.backbones.ace_step_v1.lyric_encoder import LyricEncoder

TIMESTEP_CHANNELS = 256
DEAD_PROJECTIONS = r"cross_attn\.(add_[qkv]_proj|to_add_out)\."
PROJECTORS = r"^projectors\."
DEAD_WEIGHTS = re.compile(DEAD_PROJECTIONS)
"""Names of the tensors that no forward pass reads."""


@dataclass(frozen=True)
class TransformerOutput:
    """Velocity (B, 8, 16, T), and one scalar per SSL encoder that targets were given for."""

    sample: Tensor
    projection_losses: dict[str, Tensor]


class ACEStepTransformer2DModel(ModelMixin, ConfigMixin, PeftAdapterMixin):  # type: ignore[misc]
    """The transformer, readable by `from_pretrained` from the Hub's `ace_step_transformer` folder unchanged.

    Every field the published config lacks defaults to what upstream hard-codes.

    Args:
        inner_dim: accepted and ignored, as upstream: the width is heads * head dim.
        lyric_num_blocks, lyric_attention_heads, lyric_linear_units, lyric_output_size: sizes of the lyric encoder.
        patch_embed_mult: channels of the patch embedding per latent channel.
        drop_dead_projections: leave out the cross-attention projections that no forward pass reads (19 % of weights).
        build_projectors: the SSL projection heads, needed for the SSL losses only.
        mask_aware_padding: True makes a padded item equal to the same item alone (group norm statistics from real
            frames only, padding zeroed before the depthwise convolution, padded text not counted in positions).
            False is upstream's behaviour, where padding leaks. Without padding the two are the same.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules: Any = ("TransformerBlock",)
    _keys_to_ignore_on_load_unexpected: Any = (DEAD_PROJECTIONS, PROJECTORS)
    config: Any

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        in_channels: int = 8,
        num_layers: int = 24,
        inner_dim: int = 2560,
        attention_head_dim: int = 128,
        num_attention_heads: int = 20,
        mlp_ratio: float = 2.5,
        out_channels: int = 8,
        max_position: int = 32768,
        rope_theta: float = 1000000.0,
        speaker_embedding_dim: int = 512,
        text_embedding_dim: int = 768,
        ssl_encoder_depths: Sequence[int] = (8, 8),
        ssl_names: Sequence[str] = ("mert", "m-hubert"),
        ssl_latent_dims: Sequence[int] = (1024, 768),
        lyric_encoder_vocab_size: int = 6693,
        lyric_hidden_size: int = 1024,
        patch_size: Sequence[int] = (16, 1),
        max_height: int = 16,
        max_width: int = 32768,
        lyric_num_blocks: int = 6,
        lyric_attention_heads: int = 16,
        lyric_linear_units: int = 4096,
        lyric_output_size: int = 1024,
        patch_embed_mult: int = 256,
        drop_dead_projections: bool = False,
        build_projectors: bool = True,
        mask_aware_padding: bool = True,
    ) -> None:
        super().__init__()
        width = num_attention_heads * attention_head_dim
        patch = (int(patch_size[0]), int(patch_size[1]))
        self.width = width
        self.gradient_checkpointing = False
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(
                width, num_attention_heads, mlp_ratio=mlp_ratio, dead_projections=not drop_dead_projections
            )
            for _ in range(num_layers)
        )
        self.time_proj = Timesteps(TIMESTEP_CHANNELS, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.timestep_embedder = TimestepEmbedding(TIMESTEP_CHANNELS, width)
        self.t_block = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        self.speaker_embedder = nn.Linear(speaker_embedding_dim, width)
        self.genre_embedder = nn.Linear(text_embedding_dim, width)
        self.lyric_embs = nn.Embedding(lyric_encoder_vocab_size, lyric_hidden_size)
        self.lyric_encoder = LyricEncoder(
            lyric_hidden_size,
            lyric_output_size,
            heads=lyric_attention_heads,
            hidden=lyric_linear_units,
            blocks=lyric_num_blocks,
        )
        self.lyric_proj = nn.Linear(lyric_output_size, width)
        self.proj_in = PatchEmbed(in_channels, width, patch=patch, mult=patch_embed_mult)
        self.final_layer = FinalLayer(width, out_channels, patch=patch)
        if build_projectors:
            self.projectors = nn.ModuleList(_projector(width, dim) for dim in ssl_latent_dims)
        self.set_attention_constants(mask_fill=FINITE_MASK_FILL if mask_aware_padding else float("-inf"))

    def set_attention_constants(self, *, linear_eps: float | None = None, mask_fill: float | None = None) -> None:
        """Set the linear attention's epsilon and the cross-attention's mask fill in every block.

        The ONNX exporter folds upstream's 1e-15 away and a fully masked row of -inf becomes NaN in ONNX Runtime, so an
        export sets `linear_eps=1e-6` and a finite fill (the default fill unless `mask_aware_padding` is off).
        """
        if mask_fill is not None:
            self.mask_fill = mask_fill
        for block in self.transformer_blocks:
            assert isinstance(block, TransformerBlock)
            if linear_eps is not None:
                block.attn.eps = linear_eps

    def recompute_blocks(self, *, same_chance: bool = True) -> None:
        """Keep the blocks' inputs only, and compute the rest again in the backward pass.

        Args:
            same_chance: what a block draws is drawn again. A CUDA graph cannot hold that; these blocks draw nothing, an
                adapter's dropout would.
        """
        self.enable_gradient_checkpointing(partial(checkpoint, use_reentrant=False, preserve_rng_state=same_chance))

    def encode(
        self,
        *,
        text_hidden_states: Tensor,
        text_attention_mask: Tensor,
        speaker_embeds: Tensor,
        lyric_token_ids: Tensor,
        lyric_mask: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Conditions -> context, the sequence [speaker | text | lyrics].

        Args:
            text_hidden_states: (B, Tt, text width), from the text encoder.
            text_attention_mask: (B, Tt), 1 for a token.
            speaker_embeds: (B, speaker width); zeros for the published weights.
            lyric_token_ids: (B, Tl) integers.
            lyric_mask: (B, Tl), 1 for a token.
        Returns:
            Context (B, 1 + Tt + Tl, width) and its mask (B, 1 + Tt + Tl), 1 where it counts.
        """
        speaker = self.speaker_embedder(speaker_embeds)[:, None]
        text = self.genre_embedder(text_hidden_states)
        lyrics = self.lyric_proj(self.lyric_encoder(self.lyric_embs(lyric_token_ids), lyric_mask))
        speaker_mask = torch.ones_like(text_attention_mask[:, :1])
        mask = torch.cat([speaker_mask, text_attention_mask, lyric_mask.to(text_attention_mask.dtype)], dim=1)
        return torch.cat([speaker, text, lyrics], dim=1), mask

    def decode(
        self,
        *,
        hidden_states: Tensor,
        attention_mask: Tensor | None,
        encoder_hidden_states: Tensor,
        encoder_hidden_mask: Tensor | None,
        timestep: Tensor,
        output_length: int | None = None,
    ) -> Tensor:
        """Velocity of the flow at `timestep`.

        Args:
            hidden_states: noisy latents (B, 8, 16, T).
            attention_mask: (B, T), 1 for a frame and 0 for padding at the end; None when nothing is padded.
            encoder_hidden_states, encoder_hidden_mask: what `encode` returned; a None mask means every token counts.
            timestep: (B,) in [0, 1000].
            output_length: cut or zero-pad the frames to this many.
        Returns:
            (B, 8, 16, T or output_length). Values at padded frames mean nothing.
        """
        hidden, embedded, _ = self._run(
            hidden_states, attention_mask, encoder_hidden_states, encoder_hidden_mask, timestep, keep=frozenset()
        )
        sample: Tensor = self.final_layer(hidden, embedded)
        if output_length is None or output_length == sample.shape[-1]:
            return sample
        return F.pad(sample, (0, output_length - sample.shape[-1]))

    def forward(
        self,
        *,
        hidden_states: Tensor,
        attention_mask: Tensor | None,
        text_hidden_states: Tensor,
        text_attention_mask: Tensor,
        speaker_embeds: Tensor,
        lyric_token_ids: Tensor,
        lyric_mask: Tensor,
        timestep: Tensor,
        ssl_targets: dict[str, Sequence[Tensor]] | None = None,
    ) -> TransformerOutput:
        """`encode`, then `decode`, then the SSL projection losses for the targets given.

        Args:
            ssl_targets: encoder name (as in the config's `ssl_names`) -> per item (SSL frames, SSL width).
        Raises:
            ValueError: targets for an unknown encoder, or projectors that were not built.
        """
        context, context_mask = self.encode(
            text_hidden_states=text_hidden_states,
            text_attention_mask=text_attention_mask,
            speaker_embeds=speaker_embeds,
            lyric_token_ids=lyric_token_ids,
            lyric_mask=lyric_mask,
        )
        targets = ssl_targets or {}
        self._check_targets(targets)
        depths = dict(zip(self.config.ssl_names, self.config.ssl_encoder_depths, strict=True))
        keep = frozenset(depths[name] for name in targets)
        hidden, embedded, kept = self._run(hidden_states, attention_mask, context, context_mask, timestep, keep=keep)
        losses = {
            name: self._projection_loss(name, kept[depths[name]], target, attention_mask)
            for name, target in targets.items()
        }
        return TransformerOutput(self.final_layer(hidden, embedded), losses)

    def _run(
        self,
        latents: Tensor,
        mask: Tensor | None,
        context: Tensor,
        context_mask: Tensor | None,
        timestep: Tensor,
        *,
        keep: frozenset[int],
    ) -> tuple[Tensor, Tensor, dict[int, Tensor]]:
        """Tokens after the last block, the embedded timestep, and the tokens after each block index in `keep`."""
        exact = self.config.mask_aware_padding
        x = self.proj_in(latents, mask=mask if exact else None)
        embedded = self.timestep_embedder(self.time_proj(timestep).to(x.dtype))
        modulation = self.t_block(embedded)
        rotary, context_rotary = self._rotary(x, context, context_mask)
        allowed = None if context_mask is None else context_mask[:, None].bool()
        if mask is not None and allowed is not None and not exact:
            allowed = allowed & mask[:, :, None].bool()
        bias = None
        if allowed is not None:
            bias = torch.zeros_like(allowed, dtype=x.dtype).masked_fill(~allowed, self.mask_fill)[:, None]
        kept: dict[int, Tensor] = {}
        for index, block in enumerate(self.transformer_blocks):
            arguments = (x, context, modulation, rotary, context_rotary, mask, bias, exact)
            if self.gradient_checkpointing and torch.is_grad_enabled():
                x = self._gradient_checkpointing_func(block, *arguments)
            else:
                x = block(*arguments)
            if index in keep:
                kept[index] = x
        return x, embedded, kept

    def _rotary(self, x: Tensor, context: Tensor, context_mask: Tensor | None) -> tuple[Rotary, Rotary]:
        """Tables for the frames and for the context.

        Padded text sits between text and lyrics; counted, it would move the lyrics with the batch's longest prompt.
        """
        head_dim, theta = self.config.attention_head_dim, self.config.rope_theta
        positions = torch.arange(context.shape[1], device=x.device)
        if context_mask is not None and self.config.mask_aware_padding:
            positions = context_mask.long().cumsum(dim=1)[:, None] - 1
        frames = torch.arange(x.shape[1], device=x.device)
        return rotary_tables(frames, head_dim, theta), rotary_tables(positions, head_dim, theta)

    def _check_targets(self, targets: dict[str, Sequence[Tensor]]) -> None:
        unknown = sorted(set(targets) - set(self.config.ssl_names))
        if unknown:
            raise ValueError(
                f"SSL targets for unknown encoders {unknown}; this model has {list(self.config.ssl_names)}"
            )
        if targets and not self.config.build_projectors:
            raise ValueError(
                "SSL targets were given but the model was built without projectors: load with build_projectors"
            )

    def _projection_loss(self, name: str, hidden: Tensor, targets: Sequence[Tensor], mask: Tensor | None) -> Tensor:
        """Mean over the items of the cosine distance between projected frames, stretched in time, and SSL frames."""
        projected = self.projectors[list(self.config.ssl_names).index(name)](hidden)
        losses = []
        for index, target in enumerate(targets):
            frames = projected[index]
            if mask is not None and self.config.mask_aware_padding:
                frames = frames[mask[index].bool()]
            stretched = _stretched(frames, len(target))
            losses.append((1 - F.cosine_similarity(stretched.float(), target.float(), dim=-1)).mean())
        return torch.stack(losses).mean()


def _stretched(frames: Tensor, count: int) -> Tensor:
    """Frames (n, width) -> (count, width), linear in time, half a frame beyond the ends held.

    `F.interpolate` gives the same numbers; its backward pass on CUDA has no deterministic kernel.
    """
    places = (torch.arange(count, device=frames.device, dtype=torch.float32) + 0.5) * (len(frames) / count) - 0.5
    places = places.clamp(0, len(frames) - 1)
    before = places.long()
    after = (before + 1).clamp(max=len(frames) - 1)
    share = (places - before)[:, None].to(frames.dtype)
    return torch.lerp(frames.index_select(0, before), frames.index_select(0, after), share)


def _projector(width: int, outputs: int) -> nn.Sequential:
    hidden = 2 * width
    return nn.Sequential(
        nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, outputs)
    )
