"""Frechet audio distance between two sets of embedding windows, its floor, its intervals and the tier ratio.

FAD = |m1 - m2|^2 + Tr S1 + Tr S2 - 2 Tr sqrt(S1 S2) (Kilgour et al. 2019), with the unbiased covariance, in float64.
No matrix square root, complex number or regularisation is needed: the last trace is the sum of the roots of the
eigenvalues of S1 S2, a symmetric-definite problem, and for factors S = F'F it is the nuclear norm of F1 F2', which
stays exact for singular covariances (fewer windows than dimensions).
Windows of one clip depend on each other, so everything random here draws whole clips.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

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

MIN_WINDOWS_FOR_INFINITY = 500
"""Below this many windows the 1/n line of `frechet_infinity` is not determined."""


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


def split_half_floor(windows_by_clip: WindowsByClip, *, seed: int, n_splits: int = 16) -> float:
    """Median FAD between random halves of one set, split by clip: what FAD reads when there is nothing to find.

    Raises:
        MetricError: fewer than two clips, or a half with fewer than two windows.
    """
    clips = _clips(windows_by_clip, name="reference")
    generator = np.random.default_rng(seed)
    floors = []
    for _ in range(n_splits):
        order = generator.permutation(len(clips))
        halves = order[: len(clips) // 2], order[len(clips) // 2 :]
        a, b = (np.concatenate([clips[i] for i in half]) for half in halves)
        floors.append(frechet_distance(a, b))
    return float(np.median(floors))


def frechet_infinity(
    windows_by_clip: WindowsByClip, reference: FrechetStatistics, *, seed: int, steps: int = 15
) -> tuple[float, float]:
    """FAD extrapolated to endless samples, and R^2 of the line FAD = a + b / n it is read from (Gui et al. 2024).

    Clips are drawn without replacement, since copies of a window would lower the rank of the covariance.

    Raises:
        MetricError: fewer than 500 windows, or fewer than eight clips.
    """
    clips = _clips(windows_by_clip, name="generated")
    total = sum(map(len, clips))
    if total < MIN_WINDOWS_FOR_INFINITY or len(clips) < 8:
        raise MetricError(
            f"FAD-inf needs {MIN_WINDOWS_FOR_INFINITY} windows in 8 clips, got {total} in {len(clips)}: generate more"
        )
    generator = np.random.default_rng(seed)
    inverse, values = [], []
    for count in np.linspace(len(clips) / 4, len(clips), steps).round().astype(int):
        drawn = np.concatenate([clips[i] for i in generator.permutation(len(clips))[:count]])
        inverse.append(1.0 / len(drawn))
        values.append(frechet_distance(drawn, reference))
    slope, intercept = np.polyfit(inverse, values, 1)
    residual = np.square(np.asarray(values) - (intercept + slope * np.asarray(inverse))).sum()
    spread = np.square(np.asarray(values) - np.mean(values)).sum()
    return float(intercept), float(1.0 - residual / spread) if spread > 0 else 1.0


class Interval(NamedTuple):
    """A two-sided confidence interval."""

    low: float
    high: float


def frechet_interval(
    generated_by_clip: WindowsByClip,
    reference_by_clip: WindowsByClip,
    *,
    seed: int,
    n_resamples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """Confidence interval of FAD from a bootstrap that draws the clips of both sets.

    Drawing with replacement biases FAD upwards, so the bootstrap gives the width and the estimate the place: the
    quantiles are taken about the bootstrap median and laid about the FAD of the whole sets.

    Raises:
        MetricError: fewer than two clips on a side, or windows that `frechet_distance` refuses.
    """
    generated = _clips(generated_by_clip, name="generated")
    reference = _clips(reference_by_clip, name="reference")
    point = frechet_distance(np.concatenate(generated), np.concatenate(reference))
    rotation = _Rotation.spanning([*generated, *reference])
    generator = np.random.default_rng(seed)
    draws = [
        _Moments.of(map(rotation.apply, side)).resample(_draw_counts(generator, n_resamples, len(side)))
        for side in (generated, reference)
    ]
    drawn = np.array([_bures(_root(cov), mean, *other) for (mean, cov), other in zip(*draws, strict=True)])
    low, middle, high = np.quantile(drawn, [(1 - level) / 2, 0.5, (1 + level) / 2])
    return Interval(low=max(0.0, float(point + low - middle)), high=float(point + high - middle))


class TierRatio(NamedTuple):
    """FAD of a tier over FAD of FP32, minus one, and its one-sided upper bound; infinite when FP32's FAD is zero."""

    ratio: float
    upper: float


def paired_tier_ratio(
    fp32_by_clip: WindowsByClip,
    tier_by_clip: WindowsByClip,
    reference: npt.ArrayLike | FrechetStatistics,
    *,
    seed: int = 0,
    n_resamples: int = 1000,
    level: float = 0.95,
) -> TierRatio:
    """How much farther from the reference a tier lies than FP32: the ratio, and the upper end of its clip bootstrap.

    Both arms draw the same clips, which were generated from the same prompts and seeds; the reference stays fixed. Each
    arm's draws are first moved to its own estimate: the upward bias of the bootstrap, common to both, would otherwise
    pull the ratio towards zero and let a worse tier pass.

    Raises:
        MetricError: the arms hold different clips, or fewer than two.
    """
    if set(fp32_by_clip) != set(tier_by_clip):
        odd = sorted(set(fp32_by_clip) ^ set(tier_by_clip))[:5]
        raise MetricError(f"the tier and FP32 were not generated in pairs, e.g. {odd}: use the same prompts and seeds")
    arms = [_clips(fp32_by_clip, name="fp32"), _clips(tier_by_clip, name="tier")]
    fixed = reference if isinstance(reference, FrechetStatistics) else frechet_statistics(reference, name="reference")
    points = [frechet_distance(np.concatenate(arm), fixed) for arm in arms]
    if points[0] <= 0.0:
        return TierRatio(math.inf, math.inf)
    counts = _draw_counts(np.random.default_rng(seed), n_resamples, len(arms[0]))
    base, tier = (
        point + draws - np.median(draws)
        for point, draws in zip(points, _draws_against(arms, fixed, counts), strict=True)
    )
    ratios = np.divide(tier, base, out=np.full_like(tier, math.inf), where=base > 0.0) - 1.0
    upper = float(np.quantile(ratios, level, method="higher"))
    return TierRatio(ratio=points[1] / points[0] - 1.0, upper=upper)


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


def _clips(windows_by_clip: WindowsByClip, *, name: str) -> list[Float64Array]:
    """The clips in the order of their names, so that no result depends on how a directory was listed."""
    if len(windows_by_clip) < 2:
        raise MetricError(f"{name}: {len(windows_by_clip)} clip(s); resampling by clip needs at least 2")
    clips = [np.asarray(windows_by_clip[key], dtype=np.float64) for key in sorted(windows_by_clip)]
    checked_windows(np.concatenate(clips), name=name)
    return clips


def _draw_counts(generator: np.random.Generator, n_resamples: int, n_clips: int) -> Float64Array:
    """(n_resamples, n_clips): how often each clip is drawn. A draw of one clip alone has no spread: drawn again."""
    counts = generator.multinomial(n_clips, np.full(n_clips, 1.0 / n_clips), size=n_resamples)
    while (lone := (counts > 0).sum(axis=1) < 2).any():
        counts[lone] = generator.multinomial(n_clips, np.full(n_clips, 1.0 / n_clips), size=int(lone.sum()))
    return counts.astype(np.float64)


def _draws_against(
    arms: Sequence[Sequence[Float64Array]], reference: FrechetStatistics, counts: Float64Array
) -> Iterator[Float64Array]:
    """For each arm the FAD of every draw of its clips against a fixed reference."""
    rotation = _Rotation.spanning([*(clip for arm in arms for clip in arm), reference.mean + reference.factor])
    mean = rotation.apply(reference.mean[None])[0]
    spread = reference.factor @ rotation.basis.T
    root = _root(spread.T @ spread)
    for arm in arms:
        moments = _Moments.of(rotation.apply(clip) for clip in arm)
        yield np.array([_bures(root, mean, *drawn) for drawn in moments.resample(counts)])


@dataclass(frozen=True)
class _Rotation:
    """A basis of the space the windows span: exact, and small when windows are fewer than dimensions."""

    centre: Float64Array
    basis: Float64Array

    @classmethod
    def spanning(cls, clips: Sequence[Float64Array]) -> "_Rotation":
        windows = np.concatenate(clips)
        n, d = windows.shape
        centre = windows.mean(axis=0)
        basis = np.linalg.svd(windows - centre, full_matrices=False)[2] if n < d else np.eye(d)
        return cls(centre=centre, basis=basis)

    def apply(self, windows: Float64Array) -> Float64Array:
        return (windows - self.centre) @ self.basis.T


@dataclass(frozen=True)
class _Moments:
    """Sums over each clip, from which the moments of any draw of clips are one matrix product away."""

    sizes: Float64Array
    sums: Float64Array
    products: Float64Array

    @classmethod
    def of(cls, clips: Iterable[Float64Array]) -> "_Moments":
        parts = [(float(len(clip)), clip.sum(axis=0), (clip.T @ clip).ravel()) for clip in clips]
        sizes, sums, products = (np.array(column) for column in zip(*parts, strict=True))
        return cls(sizes=sizes, sums=sums, products=products)

    def resample(self, counts: Float64Array, *, block: int = 32) -> Iterator[tuple[Float64Array, Float64Array]]:
        """Mean (d,) and covariance (d, d) of every row of `counts` (draws, clips)."""
        d = self.sums.shape[1]
        for start in range(0, len(counts), block):
            rows = counts[start : start + block]
            n = (rows @ self.sizes)[:, None]
            means = rows @ self.sums / n
            products = (rows @ self.products).reshape(-1, d, d)
            for size, mean, product in zip(n[:, 0], means, products, strict=True):
                yield mean, (product - size * np.outer(mean, mean)) / (size - 1)


def _root(covariance: Float64Array) -> Float64Array:
    weights, vectors = np.linalg.eigh(covariance)
    root: Float64Array = (vectors * np.sqrt(np.clip(weights, 0.0, None))) @ vectors.T
    return root


def _bures(root_a: Float64Array, mean_a: Float64Array, mean_b: Float64Array, cov_b: Float64Array) -> float:
    """FAD from moments, one side by the root of its covariance; good to 1e-8 of the variance, enough to resample."""
    inner = root_a @ cov_b @ root_a
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(inner), 0.0, None)).sum()
    variance = float(np.square(root_a).sum() + np.trace(cov_b))
    return max(0.0, float(np.square(mean_a - mean_b).sum()) + variance - 2.0 * float(cross))
