"""Frechet audio distance between two sets of embedding windows.

FAD = |m1 - m2|^2 + Tr S1 + Tr S2 - 2 Tr sqrt(S1 S2) (Kilgour et al. 2019), with the unbiased covariance, in float64.
No matrix square root, complex number or regularisation is needed: the last trace is the sum of the roots of the
eigenvalues of S1 S2, a symmetric-definite problem, and for factors S = F'F it is the nuclear norm of F1 F2', which
stays exact for singular covariances (fewer windows than dimensions).
What belongs here: the distance. What does not: what it is read against (`distances`), and tiers (`tier_fidelity`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import linalg

from lofi_assets.metrics.errors import MetricError

Float64Array = npt.NDArray[np.float64]
WindowsByClip = Mapping[str, npt.NDArray[np.floating]]

NEGATIVE_TOLERANCE = 1e-6
"""Rounding may leave FAD below zero by this share of the total variance; more than that is an error, not a zero."""

SMALLEST_EIGENVALUE = 1e-13
"""Relative to the largest. Eigenvalues are known to 2e-16 of the largest, so above this a root is good to 4e-10 of the
largest root; below, the exact path is taken."""


@dataclass(frozen=True)
class FrechetStatistics:
    """What FAD needs of one set, so that a reference is reduced once and compared often.

    Attributes:
        mean: (d,) mean of the windows.
        centred: (n, d) windows less their mean.
    """

    mean: Float64Array
    centred: Float64Array

    @property
    def n(self) -> int:
        """Number of windows."""
        return len(self.centred)

    @cached_property
    def covariance(self) -> Float64Array:
        """(d, d), unbiased."""
        return self.centred.T @ self.centred / (self.n - 1)

    @cached_property
    def factor(self) -> Float64Array:
        """(min(n, d), d) with factor' factor = covariance."""
        n, d = self.centred.shape
        root: Float64Array = self.centred if n <= d else np.asarray(np.linalg.qr(self.centred, mode="r"))
        return root / math.sqrt(n - 1)

    @property
    def total_variance(self) -> float:
        """Trace of the covariance."""
        return float(np.vdot(self.centred, self.centred)) / (self.n - 1)


def checked_windows(windows: npt.ArrayLike, *, name: str) -> Float64Array:
    """The windows as float64 (n, d); MetricError for another rank, fewer than two windows, NaN or infinity."""
    array = np.asarray(windows, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] == 0:
        raise MetricError(f"{name}: embeddings must be (windows, dimensions), got shape {array.shape}")
    if len(array) < 2:
        raise MetricError(f"{name}: {len(array)} window(s); a covariance needs at least 2: give more or longer audio")
    if not np.isfinite(array).all():
        raise MetricError(f"{name}: embeddings hold NaN or infinity; find the clip and look at its audio")
    return array


def frechet_statistics(windows: npt.ArrayLike, *, name: str = "windows") -> FrechetStatistics:
    """Mean and spread of (n, d) windows, in float64 whatever the input type."""
    array = checked_windows(windows, name=name)
    mean = array.mean(axis=0)
    return FrechetStatistics(mean=mean, centred=array - mean)


def frechet_distance(x: npt.ArrayLike | FrechetStatistics, y: npt.ArrayLike | FrechetStatistics) -> float:
    """FAD between two sets of windows (n, d), or statistics computed before; symmetric and never negative.

    Raises:
        MetricError: unequal dimensions, fewer than two windows, NaN or infinity, or below zero by more than rounding.
    """
    a = x if isinstance(x, FrechetStatistics) else frechet_statistics(x, name="first set")
    b = y if isinstance(y, FrechetStatistics) else frechet_statistics(y, name="second set")
    if a.mean.shape != b.mean.shape:
        raise MetricError(f"embeddings have {len(a.mean)} and {len(b.mean)} dimensions: two encoders were mixed")
    variance = a.total_variance + b.total_variance
    value = float(np.square(a.mean - b.mean).sum()) + variance - 2.0 * _cross_trace(a, b)
    return _clamped(value, variance=variance)


def clips_in_order(windows_by_clip: WindowsByClip, *, name: str, least: int = 2) -> list[Float64Array]:
    """The clips in the order of their names, so that no result depends on how a directory was listed.

    Raises:
        MetricError: fewer than `least` clips, or windows that `checked_windows` refuses.
    """
    if len(windows_by_clip) < least:
        raise MetricError(f"{name}: {len(windows_by_clip)} clip(s); resampling by clip needs at least {least}")
    clips = [np.asarray(windows_by_clip[key], dtype=np.float64) for key in sorted(windows_by_clip)]
    checked_windows(np.concatenate(clips), name=name)
    return clips


def _cross_trace(a: FrechetStatistics, b: FrechetStatistics) -> float:
    """Tr sqrt(S1 S2)."""
    if min(a.n, b.n) > len(a.mean):
        try:
            eigenvalues = linalg.eigh(
                a.covariance, b.covariance, type=2, driver="gv", eigvals_only=True, check_finite=False
            )
        except linalg.LinAlgError:
            pass  # a dimension that never varies, e.g. a dead unit of the encoder
        else:
            if eigenvalues[0] > SMALLEST_EIGENVALUE * eigenvalues[-1]:
                return float(np.sqrt(eigenvalues).sum())
    return float(np.linalg.svd(a.factor @ b.factor.T, compute_uv=False).sum())


def _clamped(value: float, *, variance: float) -> float:
    if value >= 0.0:
        return value
    if -value < NEGATIVE_TOLERANCE * max(variance, np.finfo(np.float64).tiny):
        return 0.0
    raise MetricError(f"FAD came out at {value:.6g}, which rounding cannot explain (total variance {variance:.6g})")
