"""What the transformer is told of a track besides its latents, and the groups of it that are dropped together.

Imports nothing but torch: whoever only reads cached features waits for no model class.
"""

from collections.abc import Collection

import torch
from torch import Tensor

from lofi_assets.backbones.features import Conditions

DROPPED = {"text": ("text",), "speaker": ("speaker",), "lyrics": ("lyric_ids", "lyric_mask")}
"""Group of conditions -> those that are zeros without it."""


def conditions_of(text: Tensor, lyric_ids: Tensor, speaker: Tensor) -> dict[str, Tensor]:
    """The conditions of a track.

    Args:
        text: (tokens, text width) float32.
        lyric_ids: (lyric tokens,), integers.
        speaker: (speaker width,) float32; zeros unless the track has a speaker file.
    Returns:
        The same, and `lyric_mask` (lyric tokens,), 1 where they count.
    """
    mask = torch.ones(len(lyric_ids), dtype=torch.long)
    return {"text": text, "lyric_ids": lyric_ids.long(), "lyric_mask": mask, "speaker": speaker}


def without(conditions: Conditions, groups: Collection[str]) -> dict[str, Tensor]:
    """The conditions with groups dropped: zeros, as the unconditional branch of sampling has them."""
    dropped = {name for group in groups for name in DROPPED[group]}
    return {name: tensor * 0 if name in dropped else tensor for name, tensor in conditions.items()}
