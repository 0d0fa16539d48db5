"""Budget: FAD of 1,000 x 512 against 1,000 x 512 is five times faster than by scipy's sqrtm, and the same to 1e-6."""

import warnings
from dataclasses import dataclass

import numpy as np
import scipy
from scipy import linalg
from threadpoolctl import threadpool_limits

from lofi_assets.metrics.frechet import frechet_distance
from lofi_assets_tests.bench.report import Row, interleaved

WINDOWS, DIMENSIONS = 1000, 512
LEAST_SPEEDUP = 5.0
MOST_DIFFERENCE = 1e-6
REPEATS = 7


def rows() -> list[Row]:
    """Both ways on the same sets, in turns: dimensions alike and independent, then as uneven as those of an encoder."""
    even, uneven = _faster(decay=0.0), _faster(decay=1.0)
    return [
        Row("FAD 1,000 x 512, times faster than sqrtm", even.speedup, "x", LEAST_SPEEDUP, "least", even.told),
        Row("the same, variances falling as 1/k^2", uneven.speedup, "x", LEAST_SPEEDUP, "least", uneven.told),
        Row("FAD, difference from sqrtm", max(even.difference, uneven.difference), "", MOST_DIFFERENCE),
    ]


@dataclass(frozen=True)
class Comparison:
    """Seconds and values of both ways."""

    usual_s: float
    ours_s: float
    usual: float
    ours: float

    @property
    def speedup(self) -> float:
        """How many times faster ours is."""
        return self.usual_s / self.ours_s

    @property
    def difference(self) -> float:
        """Absolute difference of the values."""
        return abs(self.usual - self.ours)

    @property
    def told(self) -> str:
        """For people."""
        times = f"sqrtm {self.usual_s:.3f} s, ours {self.ours_s:.3f} s"
        return f"one thread, scipy {scipy.__version__}: {times}; value {self.ours:.6f}"


def _faster(*, decay: float) -> Comparison:
    x, y = _windows(seed=1, decay=decay), _windows(seed=2, decay=decay)
    with threadpool_limits(1):  # numpy and scipy bring a pool each, which fight over few cores
        usual_s, ours_s = interleaved(lambda: by_square_root(x, y), lambda: frechet_distance(x, y), repeats=REPEATS)
    return Comparison(usual_s, ours_s, usual=by_square_root(x, y), ours=frechet_distance(x, y))


def by_square_root(x: np.ndarray, y: np.ndarray) -> float:
    """FAD as everybody computes it."""
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        root = linalg.sqrtm(a @ b)
    mean = np.square(x.mean(axis=0) - y.mean(axis=0)).sum()
    return float(mean + np.trace(a) + np.trace(b) - 2 * np.trace(root).real)


def _windows(*, seed: int, decay: float) -> np.ndarray:
    """Rotated normal windows whose k-th deviation is k to the power of `-decay`."""
    random = np.random.default_rng(seed)
    deviations = np.arange(1, DIMENSIONS + 1) ** -decay
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((DIMENSIONS, DIMENSIONS)))[0]
    return (random.standard_normal((WINDOWS, DIMENSIONS)) * deviations) @ rotation + 0.01 * seed
