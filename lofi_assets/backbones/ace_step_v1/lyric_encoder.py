"""The lyric encoder: pre-norm self-attention blocks with relative positions (Transformer-XL, in ESPnet's writing).

There is no convolution module and no dropout: the encoder stays frozen, and dropout in a frozen part is noise on the
conditions. Lyrics become token ids in `lofi_assets.lyrics.tokenizer`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lofi_assets.backbones.ace_step_v1.projections import project

# a finite fill: a lyric that is padding throughout (dropped conditions) must not make NaN, forwards or backwards
MASK_FILL = -1e4


def relative_positions(length: int, width: int, device: torch.device) -> Tensor:
    """Sinusoids (1, 2 * length - 1, width) for the distances length - 1 down to 1 - length, in float32."""
    distance = torch.arange(length - 1, -length, -1, device=device, dtype=torch.float32)
    rate = torch.exp(torch.arange(0, width, 2, device=device, dtype=torch.float32) * (-math.log(10000.0) / width))
    angles = distance[:, None] * rate
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)[None]


def shift_relative(scores: Tensor, length: int) -> Tensor:
    """Scores by distance (B, heads, length, 2 * length - 1) -> scores by key position (B, heads, length, length)."""
    padded = F.pad(scores, (1, 0)).flatten(-2)
    by_position: Tensor = padded[..., length:].unflatten(-1, (length, 2 * length - 1))[..., :length]
    return by_position


class RelativeSelfAttention(nn.Module):
    """Multi-head attention whose scores add content and distance terms, each with its own learnt bias."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.linear_q = nn.Linear(width, width)
        self.linear_k = nn.Linear(width, width)
        self.linear_v = nn.Linear(width, width)
        self.linear_out = nn.Linear(width, width)
        self.linear_pos = nn.Linear(width, width, bias=False)
        self.pos_bias_u = nn.Parameter(torch.empty(heads, width // heads))
        self.pos_bias_v = nn.Parameter(torch.empty(heads, width // heads))
        nn.init.xavier_uniform_(self.pos_bias_u)
        nn.init.xavier_uniform_(self.pos_bias_v)

    def _split(self, x: Tensor) -> Tensor:
        heads: Tensor = x.unflatten(-1, (self.heads, -1))
        return heads.transpose(1, 2)

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        """x (B, L, width), positions (1, 2L - 1, width), mask (B, L) true for a token."""
        query, key, value = project(x, self.linear_q, self.linear_k, self.linear_v)
        query, key, value = query.unflatten(-1, (self.heads, -1)), self._split(key), self._split(value)
        distance = self._split(self.linear_pos(positions))
        by_content = (query + self.pos_bias_u).transpose(1, 2) @ key.transpose(-1, -2)
        by_distance = (query + self.pos_bias_v).transpose(1, 2) @ distance.transpose(-1, -2)
        scores = (by_content + shift_relative(by_distance, x.shape[1])) / math.sqrt(key.shape[-1])
        hidden = ~mask[:, None, None]
        weights = scores.masked_fill(hidden, MASK_FILL).softmax(dim=-1).masked_fill(hidden, 0.0)
        attended: Tensor = self.linear_out((weights @ value).transpose(1, 2).flatten(-2))
        return attended


class FeedForward(nn.Module):
    """Two linear layers with a SiLU between."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w_1 = nn.Linear(width, hidden)
        self.w_2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        narrow: Tensor = self.w_2(F.silu(self.w_1(x)))
        return narrow


class EncoderBlock(nn.Module):
    """Attention, then feed-forward, each behind its layer norm and added to its input."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.self_attn = RelativeSelfAttention(width, heads)
        self.feed_forward = FeedForward(width, hidden)
        self.norm_ff = nn.LayerNorm(width)
        self.norm_mha = nn.LayerNorm(width)

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        x = x + self.self_attn(self.norm_mha(x), positions, mask)
        fed: Tensor = x + self.feed_forward(self.norm_ff(x))
        return fed


class LyricEmbed(nn.Module):
    """Linear and layer norm, under the names of the published weights."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.out = nn.Sequential(nn.Linear(inputs, width), nn.LayerNorm(width))

    def forward(self, x: Tensor) -> Tensor:
        embedded: Tensor = self.out(x)
        return embedded


class LyricEncoder(nn.Module):
    """Embedded lyric tokens (B, L, inputs) and mask (B, L) -> states (B, L, width)."""

    def __init__(self, inputs: int, width: int, *, heads: int, hidden: int, blocks: int) -> None:
        super().__init__()
        self.width = width
        self.embed = LyricEmbed(inputs, width)
        self.encoders = nn.ModuleList(EncoderBlock(width, heads, hidden) for _ in range(blocks))
        self.after_norm = nn.LayerNorm(width)

    def forward(self, embedded: Tensor, mask: Tensor) -> Tensor:
        x = self.embed(embedded) * math.sqrt(self.width)
        positions = relative_positions(x.shape[1], self.width, x.device).to(x.dtype)
        for block in self.encoders:
            x = block(x, positions, mask.bool())
        states: Tensor = self.after_norm(x)
        return states
