"""Where a long recording is cut into parts that are tracks of their own, and the cutting.

Whether a recording is too long is for the gates.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

from lofi_assets.audio.arrays import FloatArray
from lofi_assets.audio.measure import window_levels

SHORTEST_S, LONGEST_S = 60.0, 120.0
"""Length of a part: long enough for a song's structure, short enough for one training example."""
STEP_S = 0.1
"""Cuts lie on this grid; a rest between two phrases lasts longer."""
FADE_S = 0.01
"""A cut through a sounding note clicks; ten milliseconds hide it and no beat."""


def cut_points(samples: FloatArray, *, sample_rate: int) -> list[int]:
    """Frames at which to cut so that every part lasts 60 to 120 s and the cuts are, together, the quietest possible.

    The number of parts is fixed first, for a mean of about 90 s; dynamic programming then finds the quietest cuts. The
    same samples give the same cuts.

    Args:
        samples: (channels, frames) float32.
    Returns:
        Ascending frames, none if the recording cannot be cut into parts of that length.
    """
    levels = window_levels(samples, sample_rate=sample_rate, window_s=STEP_S)
    step = round(STEP_S * sample_rate)
    # One step less than the longest: the last part also holds what does not fill a step.
    shortest, longest = round(SHORTEST_S / STEP_S), round(LONGEST_S / STEP_S) - 1
    total = len(levels)
    fewest, most = math.ceil(total / longest), total // shortest
    if most < max(2, fewest):
        return []
    parts = min(most, max(2, fewest, round(2 * total / (shortest + longest))))
    loudness = np.full(total + 1, np.inf)
    loudness[1:-1] = np.maximum(levels[:-1], levels[1:])
    return [step * cut for cut in _quietest(loudness, parts, shortest, longest)]


def _quietest(cost: NDArray[np.float64], parts: int, shortest: int, longest: int) -> list[int]:
    """Indices of `parts - 1` cuts with the least sum of costs, `shortest` to `longest` apart and from both ends."""
    total = len(cost) - 1
    best = np.full(total + 1, np.inf)
    best[0] = 0.0
    chosen: list[NDArray[np.int64]] = []
    price = cost.copy()
    for part in range(parts):
        if part == parts - 1:
            price = np.zeros(total + 1)
        padded = np.concatenate([np.full(longest, np.inf), best])
        # Row i holds the best totals from i - longest to i - shortest.
        reachable = np.lib.stride_tricks.sliding_window_view(padded, longest + 1)[:, : longest - shortest + 1]
        before = reachable.argmin(axis=1)
        best = reachable.min(axis=1) + price
        chosen.append(np.arange(total + 1) - longest + before)
    cuts = [total]
    for before in reversed(chosen):
        cuts.append(int(before[cuts[-1]]))
    return cuts[-2:0:-1]


def cut(samples: FloatArray, *, at: list[int], sample_rate: int) -> list[FloatArray]:
    """The parts between the cuts, each a copy, faded over 10 ms where it was cut."""
    edges = [0, *at, samples.shape[1]]
    length = round(FADE_S * sample_rate)
    ramp = np.sin(np.linspace(0.0, np.pi / 2, length, dtype=np.float32)) ** 2
    parts = []
    for start, end in itertools.pairwise(edges):
        part = samples[:, start:end].copy()
        if start > 0:
            part[:, :length] *= ramp
        if end < samples.shape[1]:
            part[:, -length:] *= ramp[::-1]
        parts.append(part)
    return parts
