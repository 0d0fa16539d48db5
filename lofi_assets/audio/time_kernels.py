"""Convolutions over time alone, of windows that overlap: what windows share is computed once.

What belongs here: the kernels of MusiCNN that are one band wide, and how they are multiplied. What does not: the other
branches of the network and what is done with the result (`audio/musicnn.py`).

The whole image is convolved once. Near its ends a window has zeros where the image goes on, so what the frames beyond
its ends have added is taken off for each window. Of a kernel of 128 taps and windows of 187 frames, one second apart,
that is two thirds of the products.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# Frames that are multiplied at once, and windows whose frames are held at once: both for the sake of the cache.
BLOCK, HELD = 16, 16


@dataclass(frozen=True)
class TimeKernel:
    """Filters over time, the same for every band, in the forms in which they are multiplied.

    Attributes:
        block: (BLOCK filters, BLOCK + taps - 1): times those frames it is BLOCK frames of the result.
        start: (before filters, before): what the frames before a window add to its first ones.
        end: (after filters, after): what the frames after it add to its last ones.
        bias: (filters,).
    """

    block: Tensor
    start: Tensor
    end: Tensor
    bias: Tensor

    @property
    def filters(self) -> int:
        return len(self.bias)

    @property
    def before(self) -> int:
        """Frames before its own place that a filter reaches."""
        return self.start.shape[1]

    @property
    def after(self) -> int:
        """Frames after its own place that a filter reaches."""
        return self.end.shape[1]

    @property
    def taps(self) -> int:
        return self.before + 1 + self.after


def time_kernel(kernel: Tensor, bias: Tensor) -> TimeKernel:
    """From (filters, taps) and (filters,); of an even number of taps the odd one looks ahead, as in TensorFlow."""
    taps = kernel.shape[1]
    before = (taps - 1) // 2
    after = taps - 1 - before
    return TimeKernel(
        block=_toeplitz(kernel, BLOCK, BLOCK + taps - 1, 0),
        start=_toeplitz(kernel, before, before, 0),
        end=_toeplitz(kernel, after, after, taps - 1),
        bias=bias,
    )


def _toeplitz(kernel: Tensor, results: int, frames: int, first: int) -> Tensor:
    """(results filters, frames): row (i, filter) has tap `first + j - i` in column j, and zero where there is none."""
    import torch

    tap = first + torch.arange(frames) - torch.arange(results)[:, None]
    inside = (tap >= 0) & (tap < kernel.shape[1])
    matrix = kernel[:, tap.clamp(0, kernel.shape[1] - 1)] * inside
    return matrix.transpose(0, 1).flatten(0, 1).contiguous()


def largest_over_bands(kernel: TimeKernel, image: Tensor, starts: list[int], length: int) -> Tensor:
    """The convolution's largest value over bands in each window, (frames, bands) -> (windows, filters, length).

    Args:
        image: (frames, bands).
        starts: first frame of each window, at equal distances.
        length: frames of a window, more than the kernel has taps.
    """
    import torch

    if len(starts) > 1 and starts[1] - starts[0] <= length // 2:
        groups = [starts[at : at + HELD] for at in range(0, len(starts), HELD)]
        found = torch.cat([_overlapping(kernel, image, group, length) for group in groups])
    else:
        found = torch.stack([_alone(kernel, image[start : start + length]) for start in starts])
    return found + kernel.bias[:, None]


def _alone(kernel: TimeKernel, window: Tensor) -> Tensor:
    """(length, bands) -> (filters, length), without the bias."""
    return _convolved(kernel, _seen(kernel, window, 0, len(window)))[: len(window)].amax(2).T


def _overlapping(kernel: TimeKernel, image: Tensor, starts: list[int], length: int) -> Tensor:
    """(frames, bands) -> (windows, filters, length), without the bias."""
    import torch

    bands = image.shape[1]
    rows = _seen(kernel, image, starts[0], starts[-1] + length)
    whole = _convolved(kernel, rows)
    largest = whole.amax(2)

    def less(matrix: Tensor, frames: Tensor, sums: Tensor) -> Tensor:
        return torch.addmm(sums.flatten(0, 1), matrix, frames, alpha=-1).view(-1, kernel.filters, bands).amax(2)

    windows = []
    for start in (start - starts[0] for start in starts):
        stop = start + length
        first = less(kernel.start, rows[start : start + kernel.before], whole[start : start + kernel.before])
        beyond = rows[stop + kernel.before : stop + kernel.before + kernel.after]
        last = less(kernel.end, beyond, whole[stop - kernel.after : stop])
        windows.append(torch.cat([first, largest[start + kernel.before : stop - kernel.after], last]).T)
    return torch.stack(windows)


def _seen(kernel: TimeKernel, image: Tensor, first: int, stop: int) -> Tensor:
    """The frames that whole blocks from `first` to at least `stop` see, zeros where the image has none."""
    from torch.nn import functional

    blocks = -(-(stop - first) // BLOCK)
    low, high = first - kernel.before, first + blocks * BLOCK + kernel.after
    return functional.pad(image[max(0, low) : high], (0, 0, max(0, -low), max(0, high - len(image))))


def _convolved(kernel: TimeKernel, rows: Tensor) -> Tensor:
    """(frames + taps - 1, bands) -> (frames, filters, bands); frames is a multiple of BLOCK."""
    import torch

    bands = rows.shape[1]
    blocks = (len(rows) - kernel.taps + 1) // BLOCK
    spans = rows.as_strided((blocks, kernel.block.shape[1], bands), (BLOCK * bands, bands, 1))
    return torch.matmul(kernel.block, spans).view(-1, kernel.filters, bands)
