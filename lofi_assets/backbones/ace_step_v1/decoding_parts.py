"""From latents to sound in parts: the DCAE's decoder and the vocoder with the numbers that they give the whole.

The decoder's first stage attends to the whole clip (`stage_parts`); all that comes after it, and the vocoder, see
neighbours only and take parts that overlap by what they see.
"""

from math import prod

from diffusers.models.autoencoders.autoencoder_dc import Decoder
from torch import Tensor, nn

from lofi_assets.backbones.ace_step_v1.frame_rates import COMPRESSION, PART_FRAMES
from lofi_assets.backbones.ace_step_v1.parts import in_parts
from lofi_assets.backbones.ace_step_v1.stage_parts import LOCAL, block_in_parts, ratio_and_reach
from lofi_assets.backbones.ace_step_v1.vocoder import ADaMoSHiFiGANV1


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

    hidden = in_parts(enter, latents, part=part_frames, reach=ratio_and_reach(decoder.conv_in)[1])
    for block in blocks[:first]:
        hidden = block_in_parts(block, hidden, part_frames)
    ratio, reach = ratio_and_reach(*tail, decoder.conv_out)
    return in_parts(leave, hidden, part=part_frames, reach=reach, ratio=ratio)


def vocode_in_parts(vocoder: ADaMoSHiFiGANV1, mel: Tensor, *, part_frames: int = PART_FRAMES * COMPRESSION) -> Tensor:
    """`vocoder.decode(mel)` for mel (B, bands, frames): equal to rounding, to the bit where one part holds all.

    Args:
        part_frames: mel frames of a part.
    """
    ratio, reach = vocoder_ratio_and_reach(vocoder)
    return in_parts(vocoder.decode, mel, part=part_frames, reach=reach, ratio=ratio)


def vocoder_ratio_and_reach(vocoder: ADaMoSHiFiGANV1) -> tuple[int, int]:
    """Samples for each mel frame, and how many mel frames to each side a frame's samples come from."""
    head = vocoder.head
    ratio = prod(upsample.rate for upsample, _ in head.stages())
    first, last = -head.conv_post.padding, ratio - 1 + head.conv_post.padding  # of the samples that frame 0 becomes
    for upsample, stacks in reversed(list(head.stages())):
        seen = max(sum(conv.padding for pair in stack.pairs() for conv in pair) for stack in stacks)
        # sample s is a sum over inputs i of kernel[s + padding - rate i], and the kernel has rate + 2 paddings
        first = -((upsample.rate + upsample.padding - 1 - first + seen) // upsample.rate)
        last = (last + seen + upsample.padding) // upsample.rate
    convolutions = [module for module in vocoder.backbone.modules() if isinstance(module, nn.Conv1d)]
    seen = head.conv_pre.padding + sum(conv.kernel_size[0] // 2 for conv in convolutions)
    return ratio, max(-first, last) + seen
