"""Blocks of the DCAE over long signals in parts, with the numbers that they give the whole.

Nearly all of a block sees neighbours only and takes parts that overlap by what it sees. The exception is attention,
which is linear: what it takes of the whole is one sum over all places, a small matrix for each head (Katharopoulos et
al. 2020, arXiv 2006.16236). The parts are summed first and answered from the sum.
"""

from functools import reduce
from math import prod

import torch
from diffusers.models.attention_processor import SanaMultiscaleLinearAttention
from diffusers.models.autoencoders.autoencoder_dc import DCUpBlock2d, EfficientViTBlock, ResBlock
from diffusers.models.transformers.sana_transformer import GLUMBConv
from torch import Tensor, nn
from torch.nn import functional as F

from lofi_assets.backbones.ace_step_v1.parts import in_parts

LOCAL = (ResBlock, DCUpBlock2d, GLUMBConv)
"""Blocks that see neighbours only."""


def block_in_parts(block: nn.Module, hidden: Tensor, part: int) -> Tensor:
    """A block of a stage that attends; one that is of no known kind takes everything at once."""
    if isinstance(block, EfficientViTBlock):
        hidden, block = _attention_in_parts(block.attn, hidden, part), block.conv_out
    if not isinstance(block, LOCAL):
        whole: Tensor = block(hidden)
        return whole
    ratio, reach = ratio_and_reach(block)
    return in_parts(block, hidden, part=part, reach=reach, ratio=ratio)


def _attention_in_parts(attention: SanaMultiscaleLinearAttention, hidden: Tensor, part: int) -> Tensor:
    """`attention(hidden)` for hidden (B, channels, height, frames), as `SanaMultiscaleAttnProcessor2_0` computes it."""
    height, frames = hidden.shape[-2:]
    if frames <= part or height * frames <= attention.attention_head_dim:  # there it is not linear
        whole: Tensor = attention(hidden)
        return whole
    reach = ratio_and_reach(attention)[1]

    def projected(x: Tensor) -> Tensor:
        x = x.movedim(1, -1)
        x = torch.cat([attention.to_q(x), attention.to_k(x), attention.to_v(x)], dim=-1).movedim(-1, 1)
        return torch.cat([x, *(block(x) for block in attention.to_qkv_multiscale)], dim=1)

    def heads(start: int) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value (B, heads, head width, places) of the part that begins at `start`."""
        stop, first = min(start + part, frames), max(0, start - reach)
        x = projected(hidden[..., first : min(frames, stop + reach)])[..., start - first : stop - first].float()
        query, key, value = x.reshape(len(x), -1, 3 * attention.attention_head_dim, x[0, 0].numel()).chunk(3, dim=2)
        return attention.nonlinearity(query), attention.nonlinearity(key), value

    def sums(start: int) -> Tensor:
        """Over the places of a part: value x key, and in a last row the keys alone."""
        _, key, value = heads(start)
        return F.pad(value, (0, 0, 0, 1), value=1.0) @ key.transpose(-1, -2)

    scores = reduce(torch.add, map(sums, range(0, frames, part)))
    attended = torch.empty_like(hidden)
    for start in range(0, frames, part):
        mixed = scores @ heads(start)[0]
        mixed = (mixed[:, :, :-1] / (mixed[:, :, -1:] + attention.eps)).to(hidden.dtype)
        out = attention.to_out(mixed.reshape(len(hidden), -1, height, mixed.shape[-1] // height).movedim(1, -1))
        own = slice(start, start + part)
        attended[..., own] = _normed(attention, out)
        if attention.residual_connection:
            attended[..., own] += hidden[..., own]
    return attended


def _normed(attention: SanaMultiscaleLinearAttention, out: Tensor) -> Tensor:
    """What comes out of the attention (B, height, frames, channels) under its norm, channels second."""
    if attention.norm_type == "rms_norm":
        return attention.norm_out(out).movedim(-1, 1)  # type: ignore[no-any-return]
    return attention.norm_out(out.movedim(-1, 1))  # type: ignore[no-any-return]


def ratio_and_reach(*modules: nn.Module) -> tuple[int, int]:
    """Frames that one becomes, and how many frames to each side of it those come from: never less."""
    inner = [inner for module in modules for inner in module.modules()]
    ratio = prod(module.factor for module in inner if isinstance(module, DCUpBlock2d))
    first, last = 0, ratio - 1  # of what frame 0 becomes
    for module in reversed(inner):
        if isinstance(module, nn.Conv2d):
            first, last = first - module.kernel_size[1] // 2, last + module.kernel_size[1] // 2
        if isinstance(module, DCUpBlock2d):
            first, last = first // module.factor, last // module.factor
            if not module.interpolate:  # its convolution, which comes after it in this order, is at the coarser rate
                first, last = first - 1, last + 1
    return ratio, max(-first, last)
