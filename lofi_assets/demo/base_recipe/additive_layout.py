"""Which channel of a synthesising vocoder holds what, and the units that its parts share.

`additive` (stem and blocks) and `additive_head` (head) have to agree on these.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lofi_assets.backbones.ace_step_v1.frame_rates import HOP
from lofi_assets.demo.base_recipe.oscillators import Oscillators
from lofi_assets.demo.base_recipe.settings import MARKS

MEL_BANDS = 128
FIRST_MARK = MEL_BANDS - MARKS
CONSTANTS = slice(MEL_BANDS, MEL_BANDS + 2)
REFERENCE = 128.0
"""The constants, plus and minus: so far above all else that a norm over channels divides by them alone."""
GRAIN_STEP = 16
"""Samples of the waveform for one of a grain: 2756 Hz."""
GRAIN = 2 * HOP // GRAIN_STEP
"""Samples of a grain, two mel frames at that rate."""
OPEN = 1.5
"""Slope of an open gate."""
LOUDNESS = 8.0
"""Level of a signal in the head, of the waveform's."""

Fixed = dict[Tensor, Tensor]
"""Parameter -> which of its entries stay."""


@dataclass(frozen=True)
class Layout:
    """Which channel of the backbone holds what, and in what units."""

    bank: Oscillators
    centres: Tensor
    """(128,) log-mel that is 0."""
    scales: Tensor
    """(128,) nats that are 1."""
    heard: int
    """Bands, from the lowest, that features are read off."""
    width: int

    @property
    def gain(self) -> float:
        """What a norm divides by: two constants among `width` channels."""
        return math.sqrt(2 * REFERENCE**2 / self.width)

    @property
    def amplitudes(self) -> slice:
        """One channel per oscillator."""
        return slice(CONSTANTS.stop, CONSTANTS.stop + len(self.bank))

    @property
    def marks(self) -> slice:
        """Each 1 in its frame of the period, else 0."""
        return slice(self.amplitudes.stop, self.amplitudes.stop + MARKS)

    @property
    def grains(self) -> slice:
        """One channel per sample of a grain."""
        return slice(self.marks.stop, self.marks.stop + GRAIN)

    @property
    def tones(self) -> slice:
        """One channel per oscillator above `LOW_HZ`: how loud it is played."""
        return slice(self.grains.stop, self.grains.stop + len(self.bank) - self.bank.low)

    @property
    def played(self) -> slice:
        """Grains and tones, which the head makes the waveform of."""
        return slice(self.grains.start, self.tones.stop)

    @property
    def still(self) -> int:
        """A channel of nothing, which shows by how much a norm moves all."""
        channel: int = self.played.stop
        return channel

    @property
    def used(self) -> int:
        """Channels that are not free."""
        return self.still + 1

    @property
    def grain_places(self) -> Tensor:
        """(GRAIN,) full-rate samples from the grain's middle."""
        return (torch.arange(GRAIN) + 0.5 - GRAIN / 2) * GRAIN_STEP

    @property
    def made(self) -> Tensor:
        """(width,) of channels that blocks leave alone: marks, constants, and what is made of them."""
        mask = torch.zeros(self.width, dtype=torch.bool)
        mask[FIRST_MARK : self.used] = True
        return mask

    @property
    def held(self) -> Tensor:
        """(width,) of channels that come through stem and norms as they are: those, and the bands of the features."""
        mask = self.made
        mask[: self.heard] = True
        return mask


def fix(fixed: Fixed, parameter: Tensor) -> Tensor:
    """Which entries of a parameter are fixed, none at first; to be written to."""
    return fixed.setdefault(parameter, torch.zeros_like(parameter, dtype=torch.bool))


def fade(places: Tensor) -> Tensor:
    """How loud a frame's sound is so many samples from its middle: two frames overlap to 1."""
    return torch.cos(math.pi / 2 * (places / HOP).clamp(-1, 1)).square()
