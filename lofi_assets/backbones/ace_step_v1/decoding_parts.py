"""From latents to sound in parts: the DCAE's decoder and the vocoder with the numbers that they give the whole.

Nearly all of it sees neighbours only and takes parts that overlap by what it sees. The exception is the attention of
the decoder's first stage, which is linear: what it takes of the whole clip is one sum over all places, a small matrix
for each head (Katharopoulos et al. 2020, arXiv 2006.16236). The parts are summed first and answered from the sum.
"""

from functools import reduce
from math import prod
from typing import Any

import torch
from diffusers.models.attention_processor import SanaMultiscaleLinearAttention
from diffusers.models.autoencoders.autoencoder_dc import DCUpBlock2d, Decoder, EfficientViTBlock, ResBlock
from diffusers.models.transformers.sana_transformer import GLUMBConv
from torch import Tensor, nn
from torch.nn import functional as F

from lofi_assets.backbones.ace_step_v1.parts import in_parts
from lofi_assets.backbones.ace_step_v1.vocoder import ADaMoSHiFiGANV1

PART_FRAMES = 256
"""Latent frames of a part, 23.8 s. Decoder and vocoder each take 26 MB for a second (counted): 0.7 GB for a part."""
MEL_FRAMES = 8
"""Mel frames of a latent frame."""
LOCAL = (ResBlock, DCUpBlock2d, GLUMBConv)


def decode_in_parts(decoder: Decoder, latents: Tensor, *, part_frames: int = PART_FRAMES) -> Tensor:
    """`decoder(latents)` for latents (B, 8, 16, frames): equal to rounding, to the bit where one part holds all.

    The first stage's result is kept whole, twice: 131 kB for each latent frame of the published decoder in float32.

    Args:
        part_frames: latent frames of a part.
    """
    blocks = [block for stage in reversed(decoder.up_blocks) for block in stage]
    first = max((place for place, block in enumerate(blocks, 1) if not isinstance(block, LOCAL)), default=0)
    tail = blocks[first:]

    def enter(x: Tensor) -> Tensor:
        hidden: Tensor = decoder.conv_in(x)
        return hidden + x.repeat_interleave(decoder.in_shortcut_repeats, dim=1) if decoder.in_shortcut else hidden

    def leave(hidden: Tensor) -> Tensor:
        for block in tail:
            hidden = block(hidden)
        hidden = decoder.norm_out(hidden.movedim(1, -1)).movedim(-1, 1)
        image: Tensor = decoder.conv_out(decoder.conv_act(hidden))
        return image

    hidden = in_parts(enter, latents, part=part_frames, reach=_ratio_and_reach(decoder.conv_in)[1])
    for block in blocks[:first]:
        hidden = _block_in_parts(block, hidden, part_frames)
    ratio, reach = _ratio_and_reach(*tail, decoder.conv_out)
    return in_parts(leave, hidden, part=part_frames, reach=reach, ratio=ratio)


def vocode_in_parts(vocoder: ADaMoSHiFiGANV1, mel: Tensor, *, part_frames: int = PART_FRAMES * MEL_FRAMES) -> Tensor:
    """`vocoder.decode(mel)` for mel (B, bands, frames): equal to rounding, to the bit where one part holds all.

    Args:
        part_frames: mel frames of a part.
    """
    ratio, reach = vocoder_ratio_and_reach(vocoder)
    return in_parts(vocoder.decode, mel, part=part_frames, reach=reach, ratio=ratio)


def vocoder_ratio_and_reach(vocoder: ADaMoSHiFiGANV1) -> tuple[int, int]:
    """Samples for each mel frame, and how many mel frames to each side a frame's samples come from."""
    head: Any = vocoder.head
    ratio = prod(upsample.rate for upsample in head.ups)
    first, last = -head.conv_post.padding, ratio - 1 + head.conv_post.padding  # of the samples that frame 0 becomes
    for place, upsample in reversed(list(enumerate(head.ups))):
        stacks = head.resblocks[place * head.stacks_per_stage : (place + 1) * head.stacks_per_stage]
        seen = max(sum(conv.padding for conv in (*stack.convs1, *stack.convs2)) for stack in stacks)
        # sample s is a sum over inputs i of kernel[s + padding - rate i], and the kernel has rate + 2 paddings
        first = -((upsample.rate + upsample.padding - 1 - first + seen) // upsample.rate)
        last = (last + seen + upsample.padding) // upsample.rate
    convolutions = [module for module in vocoder.backbone.modules() if isinstance(module, nn.Conv1d)]
    seen = head.conv_pre.padding + sum(conv.kernel_size[0] // 2 for conv in convolutions)
    return ratio, max(-first, last) + seen


def _block_in_parts(block: nn.Module, hidden: Tensor, part: int) -> Tensor:
    """A block of a stage that attends; one that is of no known kind takes everything at once."""
    if isinstance(block, EfficientViTBlock):
        hidden, block = _attention_in_parts(block.attn, hidden, part), block.conv_out
    if not isinstance(block, LOCAL):
        whole: Tensor = block(hidden)
        return whole
    ratio, reach = _ratio_and_reach(block)
    return in_parts(block, hidden, part=part, reach=reach, ratio=ratio)


def _attention_in_parts(attention: SanaMultiscaleLinearAttention, hidden: Tensor, part: int) -> Tensor:
    """`attention(hidden)` for hidden (B, channels, height, frames), as `SanaMultiscaleAttnProcessor2_0` computes it."""
    height, frames = hidden.shape[-2:]
    if frames <= part or height * frames <= attention.attention_head_dim:  # there it is not linear
        whole: Tensor = attention(hidden)
        return whole
    reach = _ratio_and_reach(attention)[1]

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


def _ratio_and_reach(*modules: nn.Module) -> tuple[int, int]:
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
