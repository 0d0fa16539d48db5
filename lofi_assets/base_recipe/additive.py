"""A vocoder that starts as an additive synthesiser of tones, written into its own weights.

A vocoder trained for an hour does not learn tones: a bass has to hold its phase over many frames, and what tells the
frames apart (`codec.marked`) is faint among 128 bands; of an overtone it makes noise. So the part below 4.4 kHz is
built, not learnt, out of the modules that are there (decision 011):

    stem            log-mel and marks, centred; two large constants, so that no norm takes its scale from the music
    first block     features of neighbouring bands; least squares reads each oscillator's amplitude off them
    second block    an amplitude below 1.3 kHz passes only in its own frame of the period, as the grain that the
                    oscillator has there, at a sixteenth of the rate; above, all that is not silent passes
    head            grains and tones overlap into a waveform at a quarter of the rate, which is interpolated

Those entries stay as they are; everything else learns around them. Not here: what is learnt (`codec`), the
oscillators themselves (`oscillators`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lofi_assets.ace_step.music_dcae import HOP, MEL_RATE
from lofi_assets.ace_step.vocoder import (
    ADaMoSHiFiGANV1,
    ConvNeXtBlock,
    HiFiGANGenerator,
    ResidualStack,
    WeightNormed,
)
from lofi_assets.base_recipe.oscillators import Oscillators, amplitudes, oscillators
from lofi_assets.base_recipe.settings import MARKS

MEL_BANDS = 128
FIRST_MARK = MEL_BANDS - MARKS
CONSTANTS = slice(MEL_BANDS, MEL_BANDS + 2)
REFERENCE = 128.0
"""The constants, plus and minus: so far above all else that a norm over channels divides by them alone."""
SPREAD = 2.0
"""Nats of log-mel that make 1 in the stem."""
SHARPNESS = 2.0
LOW_BANDS, MIDDLE_BANDS, HIGH_BANDS = range(24), range(22, 47), range(41, 88)
LOW_KNEES, MIDDLE_KNEES, HIGH_KNEES = (-0.5, 0.8), (-1.0, 0.2, 1.1), (-5.5, -4.0, -2.5)
"""Nats above which a feature rises: it hears loud bands only."""
FIXED_BANDS = HIGH_BANDS.stop + 1
RIDGE = 1e-4
AT_ONCE = 16
LOW_UNIT, HIGH_UNIT = 4.0, 1.0
"""Amplitudes that make 1, in root mean squares of all below 1.3 kHz, and above it in each oscillator's own."""
GRAIN_STEP = 16
"""Samples of the waveform for one of a grain: 2756 Hz."""
SLOW = 0.1
"""Strength of the blocks on the synthesiser's channels: what they add to them learns at a tenth of the rate."""
SHUT, OPEN = 24.0, 1.5
"""How far a shut gate is pushed below zero, and the slope of an open one."""
HALO = 3
"""Samples on either side that the last upsampling interpolates from."""
LIFT, LOUDNESS = 14.0, 8.0
"""A signal passes a SiLU unchanged as x + 14, at eight times its level in the waveform: it stays above 6, and half
precision still has steps of 1/1000 of full scale."""
QUIET_START = 0.1
"""Of the usual level for what is learnt, so that it does not cover the tones at first."""
SLIGHT = 1e-7
"""In place of kernels of nothing, which have no direction."""

Fixed = dict[Tensor, Tensor]
"""Parameter -> which of its entries stay."""
Shape = tuple[float, float, float]
"""Weights of a band, the one above it and the one below."""


def _peaks(*sharpness: float) -> list[Shape]:
    """A band that stands out from the one above, or from the one below."""
    return [shape for k in sharpness for shape in ((1 + k, -k, 0.0), (1 + k, 0.0, -k))]


LOW_SHAPES: list[Shape] = [(1.0, 0.0, 0.0), *_peaks(0.5, 1.0, 2.0), *((1.0, k, -k) for k in (0.7, -0.7, 1.6))]
MIDDLE_SHAPES: list[Shape] = _peaks(1.0)
HIGH_SHAPES: list[Shape] = [(1.0, 0.0, 0.0), *_peaks(1.0)]


@dataclass(frozen=True)
class Layout:
    """Which channel of the backbone holds what, and in what units."""

    bank: Oscillators
    centres: Tensor
    """(128,) log-mel that is 0."""
    scales: Tensor
    """(128,) nats that are 1."""
    width: int
    grain: int = 2 * HOP // GRAIN_STEP
    """Samples of a grain, two mel frames at the low rate."""

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
        return slice(self.marks.stop, self.marks.stop + self.grain)

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
        return self.played.stop

    @property
    def used(self) -> int:
        """Channels that are not free."""
        return self.still + 1

    @property
    def grain_places(self) -> Tensor:
        """(grain,) full-rate samples from the grain's middle."""
        return (torch.arange(self.grain) + 0.5 - self.grain / 2) * GRAIN_STEP

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
        mask[:FIXED_BANDS] = True
        return mask


@torch.no_grad()
def start_as_synthesiser(vocoder: ADaMoSHiFiGANV1, waves: Tensor, mels: Tensor, *, marks: tuple[float, float]) -> Fixed:
    """Write the oscillators into a vocoder of one stage and at least two blocks; returns what is not to be trained.

    Args:
        waves: (B, n) at 44.1 kHz, from which amplitudes are learnt.
        mels: (B, 128, n // 512) what the vocoder is given for them, with marks.
        marks: log-mel of a mark, raised and not.
    Raises:
        ValueError: the vocoder is too narrow.
    """
    backbone, head = vocoder.backbone, vocoder.head
    rates = vocoder.config.upsample_rates
    centres, scales = _units(mels.mean(dim=(0, 2)), marks)
    layout = Layout(oscillators(), centres, scales, width=vocoder.config.dims[0])
    if layout.used > layout.width:
        raise ValueError(f"the oscillators need {layout.used} channels, and the vocoder has {layout.width}")
    fixed: Fixed = {}
    _write_stem(backbone.channel_layers[0], layout, fixed)
    blocks = [block for block in backbone.stages.modules() if isinstance(block, ConvNeXtBlock)]
    first, second = blocks[:2]
    for block in blocks:
        _pass_through(block, layout, fixed)
    units = _write_features(first, layout)
    levels = _fit_amplitudes(first, layout, units, backbone.channel_layers[0], waves, mels)
    gates = _write_gates(second, layout, levels)
    for block, own in ((first, units), (second, gates)):
        _fix(fixed, block.pwconv1.weight)[:own] = True
        _fix(fixed, block.pwconv1.bias)[:own] = True
    for block, slow in ((first, layout.amplitudes), (second, layout.played)):
        _fix(fixed, block.pwconv2.weight)[slow] = False
        _fix(fixed, block.pwconv2.bias)[slow] = False
    _keep_scale(backbone.norm, layout, fixed)
    backbone.norm.weight[CONSTANTS] = 1.0
    _write_head(head, layout, levels, rates, fixed)
    return fixed


def _fix(fixed: Fixed, parameter: Tensor) -> Tensor:
    return fixed.setdefault(parameter, torch.zeros_like(parameter, dtype=torch.bool))


def _units(means: Tensor, marks: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Centres and scales of the bands, every other one upside down, so that their mean stays near zero whatever is
    played."""
    high, low = marks
    centres, scales = means.clone(), SPREAD * (1 - 2.0 * (torch.arange(MEL_BANDS) % 2))
    centres[FIRST_MARK:], scales[FIRST_MARK:] = low + (high - low) / MARKS, (high - low) / 2
    return centres, scales


def _write_stem(stem: nn.Module, layout: Layout, fixed: Fixed) -> None:
    assert isinstance(stem, nn.Sequential)
    conv, norm = stem
    assert isinstance(conv, nn.Conv1d) and conv.bias is not None
    bands, middle = torch.arange(MEL_BANDS), conv.kernel_size[0] // 2
    conv.weight[: layout.used] = 0
    conv.bias[: layout.used] = 0
    conv.weight[bands, bands, middle] = 1 / layout.scales
    conv.bias[:MEL_BANDS] = -layout.centres / layout.scales
    conv.bias[CONSTANTS] = torch.tensor([REFERENCE, -REFERENCE])
    free = conv.weight[layout.used :]
    free /= SPREAD
    conv.bias[layout.used :] = -free.sum(dim=-1) @ layout.centres
    _fix(fixed, conv.weight)[layout.held] = True
    _fix(fixed, conv.bias)[layout.held] = True
    _keep_scale(norm, layout, fixed)


def _keep_scale(norm: nn.Module, layout: Layout, fixed: Fixed) -> None:
    """A norm that gives back what it divides by."""
    assert isinstance(norm.weight, nn.Parameter) and isinstance(norm.bias, nn.Parameter)
    norm.weight.fill_(layout.gain)
    norm.bias.zero_()
    _fix(fixed, norm.weight)[layout.held] = True
    _fix(fixed, norm.bias)[layout.held] = True


def _pass_through(block: ConvNeXtBlock, layout: Layout, fixed: Fixed) -> None:
    """A block that hears every channel as it is and leaves the synthesiser's alone."""
    depthwise, middle = block.dwconv, block.dwconv.kernel_size[0] // 2
    assert depthwise.bias is not None
    depthwise.weight.normal_(0, 0.02)
    depthwise.weight[layout.held] = 0
    depthwise.weight[:, 0, middle] = 1
    depthwise.bias.zero_()
    block.pwconv1.weight[:, CONSTANTS] = 0
    for parameter in (block.pwconv2.weight, block.pwconv2.bias):
        parameter[layout.made] = 0
        _fix(fixed, parameter)[layout.made] = True
    block.gamma[layout.made] = SLOW
    for parameter in (depthwise.weight, depthwise.bias):
        _fix(fixed, parameter)[layout.held] = True
    _fix(fixed, block.gamma)[layout.made] = True
    _fix(fixed, block.pwconv1.weight)[:, CONSTANTS] = True
    _keep_scale(block.norm, layout, fixed)


def _unit(row: Tensor, weights: Mapping[int, float]) -> None:
    """Weights of a hidden unit; through the constants it is blind to what all channels have in common, a norm's mean."""
    row.zero_()
    for channel, weight in weights.items():
        row[channel] += weight
    row[CONSTANTS] -= row.sum() / 2


def _write_features(block: ConvNeXtBlock, layout: Layout) -> int:
    """Hidden units that rise with a band, with a band above its neighbours, and with a mark; returns how many."""
    rows, biases = block.pwconv1.weight, block.pwconv1.bias
    scales, centres = layout.scales.tolist(), layout.centres.tolist()
    unit = 0
    for knee, shape, band in _features():
        hearing = [(band, shape[0]), (band + 1, shape[1]), (max(0, band - 1), shape[2])]
        weights: dict[int, float] = {}
        for place, weight in hearing:
            weights[place] = weights.get(place, 0.0) + SHARPNESS * weight * scales[place]
        _unit(rows[unit], weights)
        biases[unit] = SHARPNESS * (sum(weight * centres[place] for place, weight in hearing) - knee)
        unit += 1
    block.pwconv2.weight[:, : unit + 2 * MARKS] = 0
    for mark in range(MARKS):  # a step from 0 to 1, flat at both ends: marks come blurred
        for offset, sign in ((-2.5, 0.1), (-12.5, -0.1)):
            _unit(rows[unit], {FIRST_MARK + mark: 10.0})
            biases[unit] = offset
            block.pwconv2.weight[layout.marks.start + mark, unit] = sign / SLOW
            unit += 1
    return unit


def _features() -> Iterator[tuple[float, Shape, int]]:
    for bands, knees, shapes in (
        (LOW_BANDS, LOW_KNEES, LOW_SHAPES),
        (MIDDLE_BANDS, MIDDLE_KNEES, MIDDLE_SHAPES),
        (HIGH_BANDS, HIGH_KNEES, HIGH_SHAPES),
    ):
        yield from ((knee, shape, band) for band in bands for knee in knees for shape in shapes)


def _fit_amplitudes(
    block: ConvNeXtBlock, layout: Layout, units: int, stem: nn.Module, waves: Tensor, mels: Tensor
) -> Tensor:
    """Least squares from features to amplitudes; returns each oscillator's amplitude that is 1."""
    known = units - 2 * MARKS
    heard = [_hidden(block, stem(part))[..., :known].flatten(0, 1) for part in mels.split(AT_ONCE)]
    features = F.pad(torch.cat(heard), (0, 1), value=1.0)
    true = amplitudes(layout.bank, waves)
    levels = HIGH_UNIT * true.square().mean(dim=(0, 2)).sqrt()
    levels[: layout.bank.low] = LOW_UNIT * true[:, : layout.bank.low].square().mean().sqrt()
    gram = features.T @ features
    ridge = RIDGE * gram.diagonal().mean() * torch.eye(len(gram))
    solved = torch.linalg.solve(gram + ridge, features.T @ (true.transpose(1, 2).flatten(0, 1) / levels))
    block.pwconv2.weight[layout.amplitudes, :known] = solved[:-1].T / SLOW
    block.pwconv2.bias[layout.amplitudes] = solved[-1] / SLOW
    return levels


def _hidden(block: ConvNeXtBlock, x: Tensor) -> Tensor:
    return F.gelu(block.pwconv1(block.norm(block.dwconv(x).transpose(1, 2))))


def _write_gates(block: ConvNeXtBlock, layout: Layout, levels: Tensor) -> int:
    """A hidden unit per oscillator and frame of its period, and what it sets off: a grain, or the tone; returns how
    many."""
    bank, unit = layout.bank, 0
    places = layout.grain_places
    for oscillator, period in enumerate(bank.frames[: bank.low]):
        fade = LOUDNESS * levels[oscillator] / OPEN * _fade(places)
        for frame in range(period):
            marks = {layout.marks.start + mark: SHUT for mark in range(frame, MARKS, period)}
            row = block.pwconv1.weight[unit]
            _unit(row, {layout.amplitudes.start + oscillator: OPEN} | marks)
            row[CONSTANTS] -= torch.tensor([SHUT, -SHUT]) / (2 * REFERENCE)
            block.pwconv1.bias[unit] = 0
            tone = bank.sound((HOP * (frame + 0.5) + places) / MEL_RATE)[oscillator]
            block.pwconv2.weight[:, unit] = 0
            block.pwconv2.weight[layout.grains, unit] = fade * tone / SLOW
            unit += 1
    for oscillator in range(bank.low, len(bank)):
        _unit(block.pwconv1.weight[unit], {layout.amplitudes.start + oscillator: OPEN})
        block.pwconv1.bias[unit] = 0
        block.pwconv2.weight[:, unit] = 0
        block.pwconv2.weight[layout.tones.start + oscillator - bank.low, unit] = 1 / SLOW
        unit += 1
    return unit


def _fade(places: Tensor) -> Tensor:
    """How loud a frame's sound is so many samples from its middle: two frames overlap to 1."""
    return torch.cos(math.pi / 2 * (places / HOP).clamp(-1, 1)).square()


def _write_head(
    head: HiFiGANGenerator, layout: Layout, levels: Tensor, rates: Sequence[int], fixed: Fixed
) -> None:
    """Grains and tones -> the samples of a frame, halved and halved again into one sample and its neighbours -> the
    full rate."""
    step = rates[-1]
    samples = HOP // step
    count = samples + 2 * HALO
    kernel = head.conv_pre.kernel().clone()
    middle = kernel.shape[-1] // 2
    kernel[:count] = 0
    kernel[:, CONSTANTS] = 0
    kernel[count:, layout.played] = 0
    places = (torch.arange(count) - HALO + 0.5) * step - HOP / 2
    for frame in (-1, 0, 1):
        taps = _overlap(layout, levels, places - HOP * frame)
        kernel[:count, layout.played, middle + frame] = taps
        # Blind to what all channels have in common; the constants would do it too, but not in half precision.
        kernel[:count, layout.still, middle + frame] = -taps.sum(dim=1)
    _set(head.conv_pre, kernel)
    head.conv_pre.bias[:count] = LIFT
    for parameter in (head.conv_pre.weight_v, head.conv_pre.weight_g, head.conv_pre.bias):
        _fix(fixed, parameter)[:count] = True
    _fix(fixed, head.conv_pre.weight_v)[:, CONSTANTS] = True
    for upsample, rate in zip(head.ups[:-1], rates[:-1], strict=True):
        samples //= rate
        wanted = samples + 2 * HALO
        taps = torch.zeros(count, wanted, rate)
        for place in range(wanted):
            for part in range(rate):
                taps[samples * part + place, place, part] = 1
        _write_upsample(upsample, taps, fixed)
        count = wanted
    _write_upsample(head.ups[-1], _interpolation(rates[-1]), fixed)
    last_bias = head.ups[-1].bias
    assert isinstance(last_bias, nn.Parameter)
    last_bias[:2] = torch.tensor([-LIFT, LIFT])
    for upsample, stack in zip(head.ups, head.resblocks, strict=True):
        assert isinstance(upsample, WeightNormed) and isinstance(stack, ResidualStack)
        own = int(fixed[upsample.bias].sum())
        for conv in stack.convs2:
            assert isinstance(conv, WeightNormed)
            conv.weight_g[:own] = 0
            for parameter in (conv.weight_v, conv.weight_g, conv.bias):
                _fix(fixed, parameter)[:own] = True
    last = head.conv_post.kernel() * QUIET_START
    last[0, :2] = 0
    last[0, :2, last.shape[-1] // 2] = torch.tensor([1.0, -1.0]) / LOUDNESS
    _set(head.conv_post, last)


def _overlap(layout: Layout, levels: Tensor, places: Tensor) -> Tensor:
    """(places, played) what grains and tones of a frame are worth so many samples from its middle."""
    bank = layout.bank
    grains = torch.sinc((places[:, None] - layout.grain_places) / GRAIN_STEP)
    loudness = LOUDNESS * levels[bank.low :, None] / OPEN * _fade(places)
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
    _fix(fixed, conv.weight_v)[:inputs] = True
    _fix(fixed, conv.weight_v)[:, :outputs] = True
    _fix(fixed, conv.weight_g)[:inputs] = True
    _fix(fixed, conv.bias)[:outputs] = True


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
