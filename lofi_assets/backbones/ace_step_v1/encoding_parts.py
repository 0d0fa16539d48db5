"""The DCAE's encoder over a long track in parts, with the numbers that it gives the whole.

The first stages see a few neighbours only: they take parts that overlap by what they see. The last stages, an eighth
as long, attend to the whole track (`stage_parts`).
"""

from fractions import Fraction
from typing import Any

from diffusers.models.autoencoders.autoencoder_dc import DCDownBlock2d, Encoder, ResBlock
from torch import Tensor, nn

from lofi_assets.backbones.ace_step_v1.parts import in_parts
from lofi_assets.backbones.ace_step_v1.stage_parts import block_in_parts

PART_FRAMES = 4096
"""Mel frames of a part, 48 s. A whole track takes 34 MB for each second (measured on an H200): 1.6 GB for a part."""


def encode_in_parts(encoder: Encoder, image: Tensor, *, part_frames: int = PART_FRAMES) -> Tensor:
    """`encoder(image)` for image (B, 2, bands, frames), frames a multiple of its compression: equal to rounding, to
    the bit where one part holds all.

    Args:
        part_frames: mel frames of a part; rounded up to the compression of the first stages.
    """
    local, rest = _split(encoder)
    ratio, seen = _compression_and_reach(local)
    part, margin = (-(-frames // ratio) * ratio for frames in (part_frames, seen))
    hidden = in_parts(nn.Sequential(*local), image, part=part, reach=margin, ratio=Fraction(1, ratio))
    for block in (block for stage in rest for block in stage.children()):
        hidden = block_in_parts(block, hidden, part // ratio)
    encoded: Tensor = encoder.conv_out(hidden)
    if encoder.out_shortcut:
        encoded = encoded + hidden.unflatten(1, (-1, encoder.out_shortcut_average_group_size)).mean(dim=2)
    return encoded


def _split(encoder: Encoder) -> tuple[list[nn.Module], list[nn.Module]]:
    """The stages that see neighbours only, and those from the first that attends to everything."""
    stages: list[Any] = [encoder.conv_in, *encoder.down_blocks]
    known = (ResBlock, DCDownBlock2d)
    place = 1
    while place < len(stages) and all(isinstance(block, known) for block in stages[place]):
        place += 1
    return stages[:place], stages[place:]


def _compression_and_reach(stages: list[nn.Module]) -> tuple[int, int]:
    """Frames that become one, and how far to each side a frame that comes out has seen, in frames that went in."""
    ratio, reach = 1, 0
    for module in (module for stage in stages for module in stage.modules()):
        if isinstance(module, nn.Conv2d):
            reach += module.kernel_size[1] // 2 * ratio
        if isinstance(module, DCDownBlock2d):
            # its own convolution comes after it in this order, at the finer rate or counted at the coarser: never less
            ratio *= 2
    return ratio, reach
