"""Building blocks of the ACE-Step v1 transformer: rotary positions, two attentions, the gated convolution, the block.

Module names are those of the published weights. Tensors are (batch, frames, width) unless said otherwise.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lofi_assets.backbones.ace_step_v1.convolution import Convolution
from lofi_assets.backbones.ace_step_v1.projections import project

NORM_EPS = 1e-6
LINEAR_ATTENTION_EPS = 1e-15
FINITE_MASK_FILL = -1e4
HALF_LIMIT = 65504.0

Rotary = tuple[Tensor, Tensor]


def rms_norm(x: Tensor) -> Tensor:
    """Root-mean-square norm over the last dimension, without a learnt scale, in the precision of x.

    The mean is taken in float32 in any case; autocast would also leave the result in it, twice as large as what the
    next matrix product reads.
    """
    with exact_products(x):
        return F.rms_norm(x, (x.shape[-1],), eps=NORM_EPS)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Adaptive layer norm: normalise, then scale and shift by the timestep's embedding (B, 1, width)."""
    return torch.addcmul(shift, rms_norm(x), 1 + scale)


def rotary_tables(positions: Tensor, head_dim: int, theta: float) -> Rotary:
    """Cosine and sine tables in float32 for positions (length,) or (B, 1, length): one more dimension, head_dim.

    The sines of the even places are negative, as `rotate` adds them. The tables hold the frequencies twice, one half
    after the other, while `rotate` turns interleaved pairs: the published weights were trained with this pairing, so it
    stays. They are computed for each call, hence no limit on the length.
    """
    exponents = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32) / head_dim
    angles = positions.float()[..., None] / theta**exponents
    angles = torch.cat([angles, angles], dim=-1)
    signs = torch.arange(head_dim, device=positions.device) % 2 * 2.0 - 1.0
    return angles.cos(), angles.sin() * signs


def rotate(x: Tensor, rotary: Rotary) -> Tensor:
    """Turn each interleaved pair of x (B, heads, length, head_dim) by its position's angle; float32 of any x."""
    cosine, sine = rotary
    swapped = torch.stack(x.unflatten(-1, (-1, 2)).unbind(-1)[::-1], dim=-1).flatten(-2)
    return x * cosine + swapped * sine


def exact_products(x: Tensor) -> AbstractContextManager[Any]:
    """Within the block float32 stays float32: autocast would take matrix products of it to the half precision of x."""
    if torch.is_autocast_enabled(x.device.type):
        return torch.autocast(x.device.type, enabled=False)
    return nullcontext()


class Attention(nn.Module):
    """The four projections that both kinds of attention share."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width)
        self.to_k = nn.Linear(width, width)
        self.to_v = nn.Linear(width, width)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def _split(self, x: Tensor) -> Tensor:
        heads: Tensor = x.unflatten(-1, (self.heads, -1))
        return heads.transpose(1, 2)

    def _project_out(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """Heads (B, heads, length, head_dim) side by side again, as `dtype`, through the last projection."""
        joined = x.transpose(1, 2).to(dtype, memory_format=torch.contiguous_format).flatten(-2)
        (projected,) = project(joined, self.to_out[0])
        return projected


class LinearSelfAttention(Attention):
    """ReLU-kernel linear attention over the frames (Sana's lite linear attention), cost linear in their number."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads)
        self.eps = LINEAR_ATTENTION_EPS

    def forward(self, x: Tensor, *, rotary: Rotary, mask: Tensor | None) -> Tensor:
        """x (B, T, width), mask (B, T) of 1 for a frame and 0 for padding."""
        query, key, value = (self._split(part) for part in project(x, self.to_q, self.to_k, self.to_v))
        # float32 throughout: sums over thousands of frames overflow half precision
        with exact_products(x):
            query, key, value = F.relu(rotate(query, rotary)), F.relu(rotate(key, rotary)), value.float()
            if mask is not None:
                # without its key a padded frame adds nothing to the sums; its own output is zero
                frames = mask[:, None, :, None].float()
                query, key = query * frames, key * frames
            weighted = key.transpose(-1, -2) @ value
            total = key.sum(dim=-2)[..., None]
            attended = (query @ weighted) / (query @ total + self.eps)
        if x.dtype == torch.float16:
            attended = attended.clamp(-HALF_LIMIT, HALF_LIMIT)
        return self._project_out(attended, x.dtype)


class CrossAttention(Attention):
    """Softmax attention of the frames on the context (speaker, text, lyrics)."""

    def __init__(self, width: int, heads: int, *, dead_projections: bool) -> None:
        super().__init__(width, heads)
        if dead_projections:
            # in the published weights, never read by the forward pass: kept only so that the file loads name by name
            self.add_q_proj = nn.Linear(width, width)
            self.add_k_proj = nn.Linear(width, width)
            self.add_v_proj = nn.Linear(width, width)
            self.to_add_out = nn.Linear(width, width)

    def forward(
        self, x: Tensor, context: Tensor, *, rotary: Rotary, context_rotary: Rotary, bias: Tensor | None
    ) -> Tensor:
        """x (B, T, width), context (B, S, width), bias (B, 1, 1 or T, S) low where a frame may not look."""
        (query,) = project(x, self.to_q)
        key, value = project(context, self.to_k, self.to_v)
        with exact_products(x):
            turned = rotate(self._split(query), rotary).to(query.dtype)
            context_turned = rotate(self._split(key), context_rotary).to(key.dtype)
        attended = F.scaled_dot_product_attention(turned, context_turned, self._split(value), attn_mask=bias)
        return self._project_out(attended, attended.dtype)


class GatedConvolution(nn.Module):
    """The feed-forward part: widen, mix three neighbouring frames per channel, gate, narrow."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.inverted_conv = Convolution(width, 2 * hidden)
        self.depth_conv = Convolution(2 * hidden, 2 * hidden, kernel=3, groups=2 * hidden)
        self.point_conv = Convolution(hidden, width, bias=False)

    def forward(self, x: Tensor, *, mask: Tensor | None) -> Tensor:
        """x (B, T, width). With a mask (B, T), padding is zeroed before the convolution that looks at neighbours."""
        wide = F.silu(self.inverted_conv(x))
        if mask is not None:
            wide = wide * mask[..., None].to(wide.dtype)
        kept, gate = self.depth_conv(wide).chunk(2, dim=-1)
        narrow: Tensor = self.point_conv(kept * F.silu(gate))
        return narrow


class TransformerBlock(nn.Module):
    """Linear self-attention, cross-attention and gated convolution, modulated by the timestep (adaLN-single)."""

    def __init__(self, width: int, heads: int, *, mlp_ratio: float, dead_projections: bool) -> None:
        super().__init__()
        self.attn = LinearSelfAttention(width, heads)
        self.cross_attn = CrossAttention(width, heads, dead_projections=dead_projections)
        self.ff = GatedConvolution(width, int(width * mlp_ratio))
        self.scale_shift_table = nn.Parameter(torch.randn(6, width) / width**0.5)

    def forward(
        self,
        x: Tensor,
        context: Tensor,
        modulation: Tensor,
        rotary: Rotary,
        context_rotary: Rotary,
        mask: Tensor | None,
        bias: Tensor | None,
        zero_padding: bool,
    ) -> Tensor:
        """x (B, T, width), context (B, S, width), modulation (B, 6 * width), mask (B, T), bias (B, 1, 1 or T, S)."""
        table = self.scale_shift_table + modulation.unflatten(-1, (6, -1))
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = table.chunk(6, dim=1)
        x = torch.addcmul(x, gate_a, self.attn(modulate(x, shift_a, scale_a), rotary=rotary, mask=mask))
        x = x + self.cross_attn(x, context, rotary=rotary, context_rotary=context_rotary, bias=bias)
        fed = self.ff(modulate(x, shift_f, scale_f), mask=mask if zero_padding else None)
        return torch.addcmul(x, gate_f, fed)


def masked_group_norm(x: Tensor, norm: nn.GroupNorm, mask: Tensor) -> Tensor:
    """Group norm of x (B, C, 1, T) whose statistics come from the frames where mask (B, T) is 1 only."""
    grouped: Tensor = x.float().unflatten(1, (norm.num_groups, -1)).flatten(2, 3)
    frames = mask[:, None, None].float()
    count = (frames.sum(dim=-1, keepdim=True) * grouped.shape[2]).clamp(min=1.0)
    mean = (grouped * frames).sum(dim=(2, 3), keepdim=True) / count
    centred = grouped - mean
    variance = ((centred * frames) ** 2).sum(dim=(2, 3), keepdim=True) / count
    normal = (centred * torch.rsqrt(variance + norm.eps)).reshape(x.shape)
    return (normal * norm.weight[:, None, None] + norm.bias[:, None, None]).to(x.dtype)


class PatchEmbed(nn.Module):
    """Latents (B, channels, 16, T) -> tokens (B, T, width): one token for each latent frame."""

    def __init__(self, channels: int, width: int, *, patch: tuple[int, int], mult: int) -> None:
        super().__init__()
        hidden = channels * mult
        self.early_conv_layers = nn.Sequential(
            nn.Conv2d(channels, hidden, kernel_size=patch, stride=patch),
            nn.GroupNorm(32, hidden, eps=NORM_EPS),
            nn.Conv2d(hidden, width, kernel_size=1),
        )

    def forward(self, latents: Tensor, *, mask: Tensor | None) -> Tensor:
        patches, norm, projection = self.early_conv_layers
        assert isinstance(norm, nn.GroupNorm) and isinstance(patches, nn.Conv2d)
        narrow = latents.dtype != torch.float32 or torch.is_autocast_enabled(latents.device.type)
        as_product = narrow and not torch.compiler.is_exporting()  # a file keeps the weight as it is stored
        hidden = _patches_as_product(latents, patches) if as_product else patches(latents)
        hidden = norm(hidden) if mask is None else masked_group_norm(hidden, norm, mask)
        tokens = hidden.flatten(2).transpose(1, 2).contiguous()
        if isinstance(projection, nn.Linear):  # what an export puts in place of a convolution of one patch
            return projection(tokens)  # type: ignore[no-any-return]
        assert isinstance(projection, nn.Conv2d)
        return F.linear(tokens, projection.weight.flatten(1), projection.bias)


def _patches_as_product(latents: Tensor, conv: nn.Conv2d) -> Tensor:
    """The convolution of latents (B, C, H, T) by patches (height, 1) that do not overlap, as one matrix product.

    oneDNN computes such a convolution wrongly in bfloat16 on processors with AMX (pytorch issue 169688).
    """
    rows = latents.unflatten(2, (-1, conv.kernel_size[0])).permute(0, 2, 4, 1, 3).flatten(3).contiguous()
    return F.linear(rows, conv.weight.flatten(1), conv.bias).permute(0, 3, 1, 2)


class FinalLayer(nn.Module):
    """Tokens (B, T, width) -> velocity (B, channels, 16, T)."""

    def __init__(self, width: int, channels: int, *, patch: tuple[int, int]) -> None:
        super().__init__()
        self.channels = channels
        self.patch = patch
        self.linear = nn.Linear(width, patch[0] * patch[1] * channels)
        self.scale_shift_table = nn.Parameter(torch.randn(2, width) / width**0.5)

    def forward(self, x: Tensor, embedded_timestep: Tensor) -> Tensor:
        shift, scale = (self.scale_shift_table + embedded_timestep[:, None]).chunk(2, dim=1)
        values: Tensor = self.linear(modulate(x, shift, scale)).unflatten(-1, (*self.patch, self.channels))
        return values.permute(0, 4, 2, 1, 3).flatten(-2)
