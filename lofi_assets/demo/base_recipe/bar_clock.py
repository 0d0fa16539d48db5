"""The heads of the first block's cross-attention as a clock of the bar, written in closed form.

A frame t attends to the mark at place 1 of the context with a score that rises and falls once a bar,

    rotated(q, t) . rotated(k, 1) / sqrt(head size) = amplitude * cos(2 pi t / bar - phase),

and to all else with the score 0. The query is the same in every frame, so that turned by t it holds a cosine and a sine
of each rotary frequency, and the key is the combination of these that is nearest to the bar's. With a rotary base of 8
nothing is left over for any bar of lofi; with larger ones much is (decision 011). Keys and values are read off the
context by least squares: off the tempo's code in the mark (`tempo_code`), and 0 off all else. What the heads find they
write into directions in which the first block has no variance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lofi_assets.backbones.ace_step_v1.blocks import CrossAttention, rotary_tables, rotate
from lofi_assets.backbones.ace_step_v1.transformer import ACEStepTransformer2DModel
from lofi_assets.demo.base_recipe.genres import bar_of

AMPLITUDE = 4.5
"""Of the score, in nats."""
GAIN = 2.0
"""Root mean square over all channels of what a head writes when it hears the mark alone."""
FRAMES = 334
"""Latent frames over which a bar is fitted: 31 s."""
MARK = 1
"""Place of the mark in the context, behind the speaker."""
RIDGE = 1e-4
FIT_RIDGE = 1e-3
MARK_WEIGHT = 4.0
"""Of a mark's error in least squares, in that of any other token."""


def bar_keys(bars: Sequence[float], *, phase: float, head_size: int, theta: float) -> tuple[Tensor, Tensor]:
    """The query (head size,) of every frame and the key (bars, head size) of each bar, before rotation; float64.

    Args:
        bars: lengths in latent frames.
        phase: in radians.
        theta: the rotary base.
    """
    quarter = head_size // 4
    query = torch.tensor([1.0, 0.0] * quarter + [0.0, 1.0] * quarter)
    frames = torch.arange(FRAMES)
    turned = rotate(query.expand(1, 1, FRAMES, -1), rotary_tables(frames, head_size, theta))[0, 0].double()
    at_mark = rotary_tables(torch.full((head_size,), MARK), head_size, theta)
    turn = rotate(torch.eye(head_size)[None, None], at_mark)[0, 0].double()  # a key times it is the key as it is met
    waves = torch.cos(2 * math.pi * frames.double() / torch.tensor(bars).double()[:, None] - phase)
    wanted = AMPLITUDE * math.sqrt(head_size) * waves
    gram = turned.T @ turned + RIDGE * FRAMES * torch.eye(head_size, dtype=torch.float64)
    met = torch.linalg.solve(gram, turned.T @ wanted.T).T
    return query.double(), torch.linalg.solve(turn.T, met.T).T


@torch.no_grad()
def write_clock(
    transformer: ACEStepTransformer2DModel, *, marks: Tensor, tempi: Sequence[float], others: Tensor, quiet: Tensor
) -> None:
    """Make every head of the first cross-attention a clock, at evenly spread phases.

    Args:
        marks: (n, width) the mark in the contexts of prompts that name a tempo.
        tempi: their BPM.
        others: (m, width) all other tokens of contexts, and marks of prompts without a tempo.
        quiet: (width, heads) unit vectors that the heads write into.
    """
    config = transformer.config
    attention, size = first_cross_attention(transformer), config.attention_head_dim
    out = _linear(attention.to_out[0]).weight
    bars = [bar_of(bpm) for bpm in tempi]
    heard = torch.zeros(len(bars), size, dtype=torch.float64)
    heard[:, 0] = 1.0
    for head in range(config.num_attention_heads):
        rows = slice(head * size, (head + 1) * size)
        phase = 2 * math.pi * head / max(3, config.num_attention_heads)
        query, keys = bar_keys(bars, phase=phase, head_size=size, theta=config.rope_theta)
        _set(attention.to_q, rows, torch.zeros(size, len(out)), query.float())
        _set(attention.to_k, rows, *_fitted(marks, keys, others))
        _set(attention.to_v, rows, *_fitted(marks, heard, others))
        out[:, rows] = 0.0
        out[:, rows.start] = GAIN * math.sqrt(len(out)) * quiet[:, head]


def first_cross_attention(transformer: ACEStepTransformer2DModel) -> CrossAttention:
    """That of the first block."""
    attention = transformer.transformer_blocks[0].cross_attn
    assert isinstance(attention, CrossAttention)
    return attention


def _set(layer: nn.Linear, rows: slice, weight: Tensor, bias: Tensor) -> None:
    layer.weight[rows] = weight
    layer.bias[rows] = bias


def _linear(layer: nn.Module) -> nn.Linear:
    assert isinstance(layer, nn.Linear)
    return layer


def _fitted(marks: Tensor, targets: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Weight (size, width) and bias (size,) of the linear layer nearest to `targets` at marks and to 0 at others."""
    rows = torch.cat([marks, others]).double()
    rows = torch.cat([rows, torch.ones(len(rows), 1, dtype=torch.float64)], dim=1)
    weights = torch.ones(len(rows), 1, dtype=torch.float64)
    weights[: len(marks)] = MARK_WEIGHT
    gram = rows.T @ (weights * rows) + FIT_RIDGE * torch.eye(rows.shape[1], dtype=torch.float64)
    solved = torch.linalg.solve(gram, MARK_WEIGHT * rows[: len(marks)].T @ targets)
    return solved[:-1].T.float(), solved[-1].float()
