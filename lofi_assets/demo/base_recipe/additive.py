"""A vocoder that starts as an additive synthesiser of tones, written into its own weights.

A vocoder trained for an hour does not learn tones: a bass has to hold its phase over many frames, and what tells the
frames apart (`codec.marked`) is faint among 128 bands; of an overtone it makes noise. So the part below 4.4 kHz is
built, not learnt, out of the modules that are there (decision 011):

    stem            log-mel and marks, centred; two large constants, so that no norm takes its scale from the music
    first block     features of neighbouring bands; least squares reads each oscillator's amplitude off them
    second block    an amplitude below 1.3 kHz passes only in its own frame of the period, as the grain that the
                    oscillator has there, at a sixteenth of the rate; above, all that is not silent passes
    head            grains and tones overlap into a waveform at a quarter of the rate, which is interpolated
                    (`additive_head`)

Those entries stay as they are; everything else learns around them (`codec`). The oscillators are in `oscillators`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lofi_assets.backbones.ace_step_v1.frame_rates import HOP, MEL_RATE
from lofi_assets.backbones.ace_step_v1.vocoder import ADaMoSHiFiGANV1, ConvNeXtBlock
from lofi_assets.demo.base_recipe.additive_head import write_head
from lofi_assets.demo.base_recipe.additive_layout import (
    CONSTANTS,
    FIRST_MARK,
    LOUDNESS,
    MEL_BANDS,
    OPEN,
    REFERENCE,
    Fixed,
    Layout,
    fade,
    fix,
)
from lofi_assets.demo.base_recipe.oscillators import amplitudes, oscillators
from lofi_assets.demo.base_recipe.settings import MARKS

SPREAD = 2.0
"""Nats of log-mel that make 1 in the stem."""
SHARPNESS = 2.0
LOW_BANDS, MIDDLE_BANDS, HIGH_BANDS = range(24), range(22, 47), range(41, 88)
LOW_KNEES, MIDDLE_KNEES, HIGH_KNEES = (-0.5, 0.8), (-1.0, 0.2, 1.1), (-5.5, -4.0, -2.5)
"""Nats above which a feature rises: of basses it hears loud bands only, of overtones all above silence."""
RIDGE = 1e-4
AT_ONCE = 16
LOW_UNIT, HIGH_UNIT = 4.0, 1.0
"""Amplitudes that make 1, in root mean squares of all below 1.3 kHz, and above it in each oscillator's own."""
SLOW = 0.1
"""Strength of the blocks on the synthesiser's channels: what they add to them learns at a tenth of the rate."""
SHUT = 24.0
"""How far a shut gate is pushed below zero."""

Shape = tuple[float, float, float]
"""Weights of a band, the one above it and the one below."""


def _peaks(*sharpness: float) -> list[Shape]:
    """A band that stands out from the one above, or from the one below."""
    return [shape for k in sharpness for shape in ((1 + k, -k, 0.0), (1 + k, 0.0, -k))]


LOW_SHAPES: list[Shape] = [(1.0, 0.0, 0.0), *_peaks(0.5, 1.0, 2.0), *((1.0, k, -k) for k in (0.7, -0.7, 1.6))]
MIDDLE_SHAPES: list[Shape] = _peaks(1.0)
HIGH_SHAPES: list[Shape] = [(1.0, 0.0, 0.0), *_peaks(1.0)]


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
    layout = Layout(oscillators(), centres, scales, heard=HIGH_BANDS.stop + 1, width=vocoder.config.dims[0])
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
        fix(fixed, block.pwconv1.weight)[:own] = True
        fix(fixed, block.pwconv1.bias)[:own] = True
    for block, slow in ((first, layout.amplitudes), (second, layout.played)):
        fix(fixed, block.pwconv2.weight)[slow] = False
        fix(fixed, block.pwconv2.bias)[slow] = False
    _keep_scale(backbone.norm, layout, fixed)
    backbone.norm.weight[CONSTANTS] = 1.0
    write_head(head, layout, levels, rates, fixed)
    return fixed


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
    fix(fixed, conv.weight)[layout.held] = True
    fix(fixed, conv.bias)[layout.held] = True
    _keep_scale(norm, layout, fixed)


def _keep_scale(norm: nn.Module, layout: Layout, fixed: Fixed) -> None:
    """A norm that gives back what it divides by."""
    assert isinstance(norm.weight, nn.Parameter) and isinstance(norm.bias, nn.Parameter)
    norm.weight.fill_(layout.gain)
    norm.bias.zero_()
    fix(fixed, norm.weight)[layout.held] = True
    fix(fixed, norm.bias)[layout.held] = True


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
        fix(fixed, parameter)[layout.made] = True
    block.gamma[layout.made] = SLOW
    for parameter in (depthwise.weight, depthwise.bias):
        fix(fixed, parameter)[layout.held] = True
    fix(fixed, block.gamma)[layout.made] = True
    fix(fixed, block.pwconv1.weight)[:, CONSTANTS] = True
    _keep_scale(block.norm, layout, fixed)


def _unit(row: Tensor, weights: Mapping[int, float]) -> None:
    """Weights of a hidden unit; through the constants it is blind to what all channels share, a norm's mean."""
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
        loudness = LOUDNESS * levels[oscillator] / OPEN * fade(places)
        for frame in range(period):
            marks = {layout.marks.start + mark: SHUT for mark in range(frame, MARKS, period)}
            row = block.pwconv1.weight[unit]
            _unit(row, {layout.amplitudes.start + oscillator: OPEN} | marks)
            row[CONSTANTS] -= torch.tensor([SHUT, -SHUT]) / (2 * REFERENCE)
            block.pwconv1.bias[unit] = 0
            tone = bank.sound((HOP * (frame + 0.5) + places) / MEL_RATE)[oscillator]
            block.pwconv2.weight[:, unit] = 0
            block.pwconv2.weight[layout.grains, unit] = loudness * tone / SLOW
            unit += 1
    for oscillator in range(bank.low, len(bank)):
        _unit(block.pwconv1.weight[unit], {layout.amplitudes.start + oscillator: OPEN})
        block.pwconv1.bias[unit] = 0
        block.pwconv2.weight[:, unit] = 0
        block.pwconv2.weight[layout.tones.start + oscillator - bank.low, unit] = 1 / SLOW
        unit += 1
    return unit
