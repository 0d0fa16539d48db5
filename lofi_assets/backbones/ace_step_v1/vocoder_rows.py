"""The vocoder's head as a CPU computes it fastest: a row for each moment, a column for each channel.

A convolution is then a matrix product for each tap, of rows that are as far apart as the tap reaches, and a transposed
convolution one with a column for each channel and phase. The work goes stretch by stretch, so that activations and sums
find their rows in the cache. oneDNN takes half as long again for few channels and few taps, as the demo's vocoder has,
and a tenth less for up to 13 taps, as the published one has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from lofi_assets.backbones.ace_step_v1.vocoder import HiFiGANGenerator, NormedConv, NormedUpsample, ResidualStack

MOST_TAPS = 3
"""Of the kernels that come at the full rate, with which rows are faster."""
STRETCH = 2**19
"""Numbers of a stretch, 2 MB."""


@dataclass(frozen=True)
class Taps:
    """A convolution over rows: row t of the result is made of the rows t + offset.

    Attributes:
        weights: (taps, inputs, outputs).
        bias: (outputs,).
    """

    weights: Tensor
    bias: Tensor
    offsets: Sequence[int]

    @property
    def reach(self) -> int:
        """Rows to either side that a result is made of."""
        return max(map(abs, self.offsets))


def waveform(head: HiFiGANGenerator, features: Tensor) -> Tensor:
    """What `head` makes of features (B, channels, T): (B, 1, samples) in [-1, 1]; no gradient goes through."""
    return torch.stack([_waveform(head, item.T) for item in features])[:, None]


def _waveform(head: HiFiGANGenerator, rows: Tensor) -> Tensor:
    rows = _convolved(_taps(head.conv_pre), rows)
    for upsample, stacks in head.stages():
        rows = _upsampled(upsample, rows)
        found = [_residual(stack, rows) for stack in stacks]
        rows = found[0] if len(found) == 1 else torch.stack(found).mean(dim=0)
    return _samples(head.conv_post, rows)


def _taps(layer: NormedConv) -> Taps:
    kernel = layer.kernel()
    offsets = [index * layer.dilation - layer.padding for index in range(kernel.shape[2])]
    return Taps(kernel.permute(2, 1, 0).contiguous(), layer.bias, offsets)


def _stretches(total: int, *, width: int) -> Iterator[range]:
    rows = max(1, STRETCH // width)
    return (range(start, min(start + rows, total)) for start in range(0, total, rows))


def _around(span: range, reach: int, *, total: int) -> range:
    return range(max(0, span.start - reach), min(total, span.stop + reach))


def _products(taps: Taps, rows: Tensor, *, first: int, span: range, total: int) -> Tensor:
    """Rows `span` of the result; beyond its ends a signal is zero.

    Args:
        rows: those of the signal from `first` on, as far as the taps reach.
        total: rows of the signal.
    """
    found = taps.bias.repeat(len(span), 1)
    for weight, offset in zip(taps.weights, taps.offsets, strict=True):
        start, stop = max(span.start, -offset), min(span.stop, total - offset)
        if start < stop:
            read = rows[start + offset - first : stop + offset - first]
            found[start - span.start : stop - span.start].addmm_(read, weight)
    return found


def _convolved(taps: Taps, rows: Tensor) -> Tensor:
    total = len(rows)
    spans = _stretches(total, width=taps.weights.shape[2])
    return torch.cat([_products(taps, rows, first=0, span=span, total=total) for span in spans])


def _upsampled(layer: NormedUpsample, rows: Tensor) -> Tensor:
    """SiLU and transposed convolution: each row makes `rate` rows, whose kernels depend on their place."""
    kernel, total = layer.kernel(), len(rows)
    frames = -(-kernel.shape[2] // layer.rate)
    phases = F.pad(kernel, (0, frames * layer.rate - kernel.shape[2])).unflatten(2, (frames, layer.rate))
    weights = phases.permute(2, 0, 3, 1).flatten(2)  # (frames, inputs, rate * outputs)
    taps = Taps(weights, layer.bias.repeat(layer.rate), [-index for index in range(frames)])
    made = rows.new_empty(total + taps.reach, weights.shape[2])
    for span in _stretches(len(made), width=weights.shape[2]):
        read = _around(span, taps.reach, total=total)
        active = F.silu(rows[read.start : read.stop])
        made[span.start : span.stop] = _products(taps, active, first=read.start, span=span, total=total)
    return made.view(-1, kernel.shape[1])[layer.padding : layer.padding + total * layer.rate]


def _residual(stack: ResidualStack, rows: Tensor) -> Tensor:
    total, width = rows.shape
    for dilated, plain in ((_taps(one), _taps(other)) for one, other in stack.pairs()):
        found = torch.empty_like(rows)
        for span in _stretches(total, width=width):
            inner = _around(span, plain.reach, total=total)
            outer = _around(inner, dilated.reach, total=total)
            active = F.silu(rows[outer.start : outer.stop])
            hidden = F.silu(_products(dilated, active, first=outer.start, span=inner, total=total), inplace=True)
            made = _products(plain, hidden, first=inner.start, span=span, total=total)
            torch.add(made, rows[span.start : span.stop], out=found[span.start : span.stop])
        rows = found
    return rows


def _samples(layer: NormedConv, rows: Tensor) -> Tensor:
    """SiLU, the convolution to one channel, tanh: a product of each row with all taps, then sums along diagonals."""
    kernel, total = layer.kernel()[0], len(rows)  # (inputs, taps)
    taps = kernel.shape[1]
    found = rows.new_empty(total)
    for span in _stretches(total, width=rows.shape[1]):
        read = _around(span, layer.padding, total=total)
        shares = rows.new_zeros(len(span) + taps - 1, taps)
        at = read.start - (span.start - layer.padding)
        torch.mm(F.silu(rows[read.start : read.stop]), kernel, out=shares[at : at + len(read)])
        sums = shares.as_strided((len(span), taps), (taps, taps + 1)).sum(dim=1)
        torch.tanh(sums + layer.bias, out=found[span.start : span.stop])
    return found
