"""The head of a synthesising vocoder: grains and tones of a frame become samples at a low rate, and these a waveform.

This is what `additive` writes into convolutions and upsamplings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lofi_assets.backbones.ace_step_v1.frame_rates import HOP, MEL_RATE
from lofi_assets.backbones.ace_step_v1.vocoder import HiFiGANGenerator, ResidualStack, WeightNormed
from lofi_assets.demo.base_recipe.additive_layout import CONSTANTS, GRAIN_STEP, LOUDNESS, OPEN, Fixed, Layout, fade, fix

HALO = 3
"""Samples on either side that the last upsampling interpolates from."""
LIFT = 14.0
"""A signal passes a SiLU unchanged as x + 14, at eight times its level in the waveform: it stays above 6, and half
precision still has steps of 1/1000 of full scale."""
QUIET_START = 0.1
"""Of the usual level for what is learnt, so that it does not cover the tones at first."""
SLIGHT = 1e-7
"""In place of kernels of nothing, which have no direction."""


def write_head(head: HiFiGANGenerator, layout: Layout, levels: Tensor, rates: Sequence[int], fixed: Fixed) -> None:
    """Grains and tones -> the samples of a frame, halved and halved again into one sample and its neighbours -> the
    full rate."""
    samples = HOP // rates[-1]
    _write_frame(head.conv_pre, layout, levels, rates[-1], fixed)
    for upsample, rate in zip(head.ups[:-1], rates[:-1], strict=True):
        samples //= rate
        _write_upsample(upsample, _parts(samples, rate), fixed)
    _write_upsample(head.ups[-1], _interpolation(rates[-1]), fixed)
    last_bias = head.ups[-1].bias
    assert isinstance(last_bias, nn.Parameter)
    last_bias[:2] = torch.tensor([-LIFT, LIFT])
    for upsample, stack in zip(head.ups, head.resblocks, strict=True):
        assert isinstance(upsample, WeightNormed) and isinstance(stack, ResidualStack)
        _silence(stack, int(fixed[upsample.bias].sum()), fixed)
    last = head.conv_post.kernel() * QUIET_START
    last[0, :2] = 0
    last[0, :2, last.shape[-1] // 2] = torch.tensor([1.0, -1.0]) / LOUDNESS
    _set(head.conv_post, last)


def _write_frame(conv: WeightNormed, layout: Layout, levels: Tensor, step: int, fixed: Fixed) -> None:
    """One channel per sample of a frame at the low rate, and `HALO` of its neighbours' on either side."""
    places = (torch.arange(-HALO, HOP // step + HALO) + 0.5) * step - HOP / 2
    kernel = conv.kernel().clone()
    count, middle = len(places), kernel.shape[-1] // 2
    kernel[:count] = 0
    kernel[:, CONSTANTS] = 0
    kernel[count:, layout.played] = 0
    for frame in (-1, 0, 1):
        taps = _overlap(layout, levels, places - HOP * frame)
        kernel[:count, layout.played, middle + frame] = taps
        # Blind to what all channels share; the constants would do it too, but not in half precision.
        kernel[:count, layout.still, middle + frame] = -taps.sum(dim=1)
    _set(conv, kernel)
    conv.bias[:count] = LIFT
    for parameter in (conv.weight_v, conv.weight_g, conv.bias):
        fix(fixed, parameter)[:count] = True
    fix(fixed, conv.weight_v)[:, CONSTANTS] = True


def _parts(samples: int, rate: int) -> Tensor:
    """(inputs, outputs, rate) taps that share out a position's samples, and those beside them, over `rate` positions
    of `samples` each."""
    outputs = samples + 2 * HALO
    taps = torch.zeros(samples * rate + 2 * HALO, outputs, rate)
    for place in range(outputs):
        for part in range(rate):
            taps[samples * part + place, place, part] = 1
    return taps


def _silence(stack: ResidualStack, own: int, fixed: Fixed) -> None:
    """A stack adds nothing to the synthesiser's channels, the first `own`."""
    for conv in stack.convs2:
        assert isinstance(conv, WeightNormed)
        conv.weight_g[:own] = 0
        for parameter in (conv.weight_v, conv.weight_g, conv.bias):
            fix(fixed, parameter)[:own] = True


def _overlap(layout: Layout, levels: Tensor, places: Tensor) -> Tensor:
    """(places, played) what grains and tones of a frame are worth so many samples from its middle."""
    bank = layout.bank
    grains = torch.sinc((places[:, None] - layout.grain_places) / GRAIN_STEP)
    loudness = LOUDNESS * levels[bank.low :, None] / OPEN * fade(places)
    tones = loudness * bank.sound((HOP / 2 + places) / MEL_RATE)[bank.low :]
    return torch.cat([grains, tones.T], dim=1)


def _write_upsample(conv: nn.Module, taps: Tensor, fixed: Fixed) -> None:
    """Taps (inputs, outputs, rate) of the samples that each input becomes; its channels read no others."""
    assert isinstance(conv, WeightNormed)
    inputs, outputs, rate = taps.shape
    kernel = conv.kernel().clone()
    kernel[:inputs] = 0
    kernel[:, :outputs] = 0
    start = (kernel.shape[-1] - rate) // 2
    kernel[:inputs, :outputs, start : start + rate] = taps
    _set(conv, kernel)
    fix(fixed, conv.weight_v)[:inputs] = True
    fix(fixed, conv.weight_v)[:, :outputs] = True
    fix(fixed, conv.weight_g)[:inputs] = True
    fix(fixed, conv.bias)[:outputs] = True


def _interpolation(rate: int) -> Tensor:
    """(7, 2, rate) windowed sincs of seven neighbours, once upright, once upside down: silu(x) - silu(-x) is x."""
    places = (torch.arange(rate) - rate // 2) / rate
    distance = places - torch.arange(-HALO, HALO + 1)[:, None]
    taps = torch.sinc(distance) * torch.cos(math.pi / 2 * distance / (HALO + 1)).square()
    taps /= taps.sum(dim=0)
    return torch.stack([taps, -taps], dim=1)


def _set(conv: WeightNormed, kernel: Tensor) -> None:
    kernel = kernel + SLIGHT * torch.randn(kernel.shape, generator=torch.Generator().manual_seed(0))
    conv.weight_v.copy_(kernel)
    conv.weight_g.copy_(kernel.norm(dim=(1, 2), keepdim=True))
