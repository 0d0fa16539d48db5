"""Intervals from leaving out one clip at a time (Quenouille 1956, Tukey 1958; Efron & Stein 1981 for two samples).

A clip bootstrap of few clips is too narrow, since its spread is that of n - 1 degrees of freedom read as normal; the
jackknife with Student's t is not. What each interval here covers, and how well, is simulated in
`lofi_assets_tests/metrics/test_metrics_coverage.py`.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from lofi_assets.metrics.errors import MetricError
from lofi_assets.metrics.frechet import Float64Array

FEWEST_CLIPS = 3
"""Of each side; leaving one of two out leaves no spread."""


class Interval(NamedTuple):
    """A two-sided confidence interval."""

    low: float
    high: float


def two_sample_interval(
    value: float, first: npt.ArrayLike, second: npt.ArrayLike, *, positive: bool, level: float = 0.95
) -> Interval:
    """Interval of the expectation of a statistic of two independent samples of clips, at these numbers of clips.

    Args:
        value: of both whole samples.
        first, second: the statistic without each clip of the first sample, then of the second.
        positive: take the interval of the logarithm, which keeps a distance above zero.
    Raises:
        MetricError: fewer than three clips on a side; a statistic of zero that has to be positive.
    """
    sides = [np.asarray(side, dtype=np.float64) for side in (first, second)]
    if min(map(len, sides)) < FEWEST_CLIPS:
        raise MetricError(f"{len(sides[0])} and {len(sides[1])} clips; an interval needs {FEWEST_CLIPS} on each side")
    if positive:
        if min(value, *map(np.min, sides)) <= 0.0:
            raise MetricError("the distance is zero, or becomes zero without one clip, so it has no interval")
        value, sides = math.log(value), [np.log(side) for side in sides]
    parts = [(len(side) - 1) / len(side) * float(np.square(side - side.mean()).sum()) for side in sides]
    variance = sum(parts)
    if variance == 0.0:
        half = 0.0
    else:  # Welch's degrees of freedom
        freedom = variance**2 / sum(part**2 / (len(side) - 1) for part, side in zip(parts, sides, strict=True))
        half = float(stdtrit(freedom, (1.0 + level) / 2.0)) * math.sqrt(variance)
    low, high = value - half, value + half
    return Interval(math.exp(low), math.exp(high)) if positive else Interval(low, high)


def pseudo_values(value: float, without: npt.ArrayLike) -> Float64Array:
    """n value - (n - 1) without: their mean is the statistic without its bias of order 1 / n."""
    others = np.asarray(without, dtype=np.float64)
    pseudo: Float64Array = len(others) * value - (len(others) - 1) * others
    return pseudo


def ratio_bounds(
    numerator: npt.ArrayLike,
    denominator: npt.ArrayLike,
    *,
    at: tuple[float, float] | None = None,
    freedom: int | None = None,
    level: float = 0.95,
) -> Interval | None:
    """One-sided lower and upper bounds, each at `level`, of mean(numerator) / mean(denominator) (Fieller 1954).

    The ratios r that a paired t test of numerator - r denominator does not refuse. Nothing is divided, so that an
    uncertain denominator makes the bounds wide, not wrong.

    Args:
        numerator, denominator: (n,) paired observations, as pseudo values.
        at: the two means, where better ones than those of the observations are known.
        freedom: degrees of freedom, n - 1 unless given.
    Returns:
        None where the denominator is not above zero with certainty: every ratio is then possible.
    """
    pairs = np.stack([np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)])
    n = pairs.shape[1]
    a, b = at or (float(pairs[0].mean()), float(pairs[1].mean()))
    (aa, ab), (_, bb) = (np.cov(pairs) / n).tolist()
    t = float(stdtrit((n - 1) if freedom is None else freedom, level))
    square = b * b - t * t * bb
    if b <= 0.0 or square <= 0.0:
        return None
    middle, rest = a * b - t * t * ab, a * a - t * t * aa
    root = math.sqrt(max(0.0, middle * middle - square * rest))
    return Interval((middle - root) / square, (middle + root) / square)
