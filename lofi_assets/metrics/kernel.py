"""Kernel audio distance: 100 times the unbiased squared MMD with a Gaussian kernel (KAD, arXiv 2502.15602), of clips.

Needs no Gaussian shape and settles with about a fifth of the windows FAD wants. Unbiased: near zero it may be negative.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lofi_assets.metrics.errors import MetricError
from lofi_assets.metrics.frechet import Float64Array, WindowsByClip, checked_windows, clips_in_order
from lofi_assets.metrics.jackknife import FEWEST_CLIPS, Interval, two_sample_interval

SCALE = 100.0
MAX_FOR_MEDIAN = 2000
"""Of a larger reference every k-th window counts: pairs grow with the square, their median hardly moves."""

SMALLEST_BANDWIDTH = 1e-5
"""Relative to the largest value; below it windows differ by rounding, and the kernel would measure that."""


def median_distance(reference: npt.ArrayLike) -> float:
    """Median pairwise Euclidean distance of the reference's windows (n, d): the kernel's bandwidth.

    Raises:
        MetricError: most pairs of windows are identical, so that the median is zero.
    """
    windows = checked_windows(reference, name="reference")
    least = SMALLEST_BANDWIDTH * float(np.abs(windows).max())
    windows = windows - windows.mean(axis=0)
    some = windows[:: -(-len(windows) // MAX_FOR_MEDIAN)]
    pairs = np.triu_indices(len(some), k=1)
    median = float(np.sqrt(np.median(_squared_distances(some, some)[pairs])))
    if median <= least:
        raise MetricError("reference: most windows are identical, so KAD has no bandwidth; look for silence or copies")
    return median


@dataclass(frozen=True)
class ClipKernels:
    """Mean kernel of the windows of each two clips: whatever KAD and its spread need."""

    reference: Float64Array
    """(R, R)."""
    generated: Float64Array
    """(n, n)."""
    across: Float64Array
    """(R, n)."""

    @property
    def value(self) -> float:
        """KAD."""
        return between_clips(self.reference, self.generated, self.across)

    def interval(self, *, level: float = 0.95) -> Interval:
        """Of the KAD that endless clips would have at this bandwidth; jackknife over clips.

        Where there is nothing to find it covers zero more often than it says.

        Raises:
            MetricError: fewer than three clips on a side.
        """
        if min(self.across.shape) < FEWEST_CLIPS:
            n, m = self.across.shape
            raise MetricError(f"{m} and {n} clips; an interval needs {FEWEST_CLIPS} on each side")
        theirs, ours = (
            SCALE * (_off_diagonal_without(within) + _off_diagonal(other) - 2.0 * _mean_without(across))
            for within, other, across in (
                (self.reference, self.generated, self.across),
                (self.generated, self.reference, self.across.T),
            )
        )
        return two_sample_interval(self.value, theirs, ours, positive=False, level=level)


def clip_kernels(
    reference_by_clip: WindowsByClip, generated_by_clip: WindowsByClip, *, bandwidth: float | None = None
) -> ClipKernels:
    """KAD of clips: the U-statistic over pairs of different clips, each pair by the mean kernel of its windows.

    Windows of one clip resemble each other in any set. Counting their pairs, as a U-statistic over windows does, reads
    the resemblance as distance: 3 to 7 points at 8 against 5 clips where there is none. Leaving them out, the mean over
    sets of one population is zero however much the windows of a clip resemble each other.

    Args:
        bandwidth: of the Gaussian kernel; the median distance of the reference's windows unless given.
    Raises:
        MetricError: fewer than two clips on a side, unequal dimensions, or see `checked_windows` and `median_distance`.
    """
    x, y = (
        clips_in_order(side, name=name)
        for side, name in ((reference_by_clip, "reference"), (generated_by_clip, "generated"))
    )
    if x[0].shape[1] != y[0].shape[1]:
        raise MetricError(f"embeddings have {x[0].shape[1]} and {y[0].shape[1]} dimensions: two encoders were mixed")
    centre = np.concatenate(x).mean(axis=0)
    sigma = median_distance(np.concatenate(x)) if bandwidth is None else bandwidth
    x, y = ([clip - centre for clip in side] for side in (x, y))  # near the origin the expanded squares lose nothing
    return ClipKernels(*(_mean_kernels(a, b, sigma) for a, b in ((x, x), (y, y), (x, y))))


def between_clips(reference: Float64Array, generated: Float64Array, across: Float64Array) -> float:
    """KAD from the mean kernels of clips, (R, R), (n, n) and (R, n); two clips at least on each side."""
    return SCALE * (_off_diagonal(reference) + _off_diagonal(generated) - 2.0 * float(across.mean()))


def _off_diagonal(kernels: Float64Array) -> float:
    n = len(kernels)
    return float(kernels.sum() - np.trace(kernels)) / (n * (n - 1))


def _off_diagonal_without(kernels: Float64Array) -> Float64Array:
    """(n,): `_off_diagonal` without each clip in turn."""
    n = len(kernels)
    own = np.diag(kernels)
    found: Float64Array = (kernels.sum() - own.sum() - 2.0 * (kernels.sum(axis=1) - own)) / ((n - 1) * (n - 2))
    return found


def _mean_without(across: Float64Array) -> Float64Array:
    """(n,): the mean of (n, m) without each row in turn."""
    n, m = across.shape
    found: Float64Array = (across.sum() - across.sum(axis=1)) / ((n - 1) * m)
    return found


def _mean_kernels(x: Sequence[Float64Array], y: Sequence[Float64Array], sigma: float) -> Float64Array:
    """(len(x), len(y)): the mean Gaussian kernel of the windows of each two clips."""
    columns = np.concatenate(y)
    starts = np.cumsum([0, *map(len, y)])[:-1]
    sizes = np.array([len(clip) for clip in y], dtype=np.float64)
    rows = [
        np.add.reduceat(np.exp(-0.5 / sigma**2 * _squared_distances(clip, columns)).sum(axis=0), starts) for clip in x
    ]
    means: Float64Array = np.array(rows) / sizes / np.array([len(clip) for clip in x], dtype=np.float64)[:, None]
    return means


def _squared_distances(x: Float64Array, y: Float64Array) -> Float64Array:
    """(n, m), from one matrix product; ten times faster than subtracting rows."""
    squares = np.square(x).sum(axis=1)[:, None] + np.square(y).sum(axis=1)
    distances: Float64Array = np.maximum(squares - 2.0 * x @ y.T, 0.0)
    return distances
