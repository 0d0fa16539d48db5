"""FAD and KAD: closed forms, invariances, singular sets, and what must be refused."""

import math
import warnings

import numpy as np
import numpy.typing as npt
import pytest
from scipy import linalg

from lofi_assets.metrics import frechet
from lofi_assets.metrics.errors import MetricError
from lofi_assets.metrics.frechet import FrechetStatistics, frechet_distance, frechet_statistics
from lofi_assets.metrics.jackknife import two_sample_interval
from lofi_assets.metrics.kernel import clip_kernels
from lofi_assets_tests.metrics.clip_populations import clips_of

Moments = tuple[list[float], list[list[float]]]


def with_moments(mean: list[float], covariance: list[list[float]]) -> np.ndarray:
    """Windows whose sample mean and unbiased covariance are exactly these."""
    d = len(mean)
    signs = np.concatenate([np.eye(d), -np.eye(d)]) * math.sqrt((2 * d - 1) / 2)
    return signs @ np.linalg.cholesky(np.array(covariance)).T + mean


def normal(seed: int, n: int, d: int, *, scale: float = 1.0, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)) * scale + shift


def single(windows: npt.ArrayLike) -> dict[str, np.ndarray]:
    """Each window a clip of its own."""
    return {f"{index:06d}": row[None] for index, row in enumerate(np.asarray(windows, dtype=np.float64))}


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (([0.0], [[1.0]]), ([2.0], [[9.0]]), 8.0),
        (([0.0, 0.0], [[1.0, 0.0], [0.0, 4.0]]), ([3.0, 4.0], [[9.0, 0.0], [0.0, 16.0]]), 33.0),
        (([0.0, 0.0], [[2.0, 0.5], [0.5, 1.0]]), ([0.0, 0.0], [[1.0, -0.3], [-0.3, 3.0]]), 0.9293118549677741),
        (([0.0, 0.0], [[2.0, 0.5], [0.5, 1.0]]), ([3.0, -4.0], [[2.0, 0.5], [0.5, 1.0]]), 25.0),
        (([0.0, 0.0], [[2.0, 0.5], [0.5, 1.0]]), ([0.0, 0.0], [[18.0, 4.5], [4.5, 9.0]]), 12.0),
    ],
)
def test_gaussians_have_the_distance_of_the_closed_form(a: Moments, b: Moments, expected: float) -> None:
    assert frechet_distance(with_moments(*a), with_moments(*b)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("n", "d"), [(20, 128), (300, 16)])
def test_distance_is_symmetric_rotation_invariant_quadratic_and_zero_to_itself(n: int, d: int) -> None:
    x, y = normal(0, n, d), normal(1, n + 7, d, scale=1.5, shift=0.2)
    distance = frechet_distance(x, y)
    rotation = np.linalg.qr(normal(2, d, d))[0]
    assert frechet_distance(x, x) <= 1e-6 * np.trace(np.cov(x.T))
    assert frechet_distance(y, x) == pytest.approx(distance, rel=1e-10)
    assert frechet_distance(x @ rotation + 3.0, y @ rotation + 3.0) == pytest.approx(distance, rel=1e-9)
    assert frechet_distance(5.0 * x, 5.0 * y) == pytest.approx(25.0 * distance, rel=1e-10)
    assert frechet_distance(x.astype(np.float32), y.astype(np.float32)) == pytest.approx(distance, rel=1e-5)


def test_duplicated_windows_leave_the_distance_but_for_the_unbiased_divisor() -> None:
    x, y = normal(0, 400, 8), normal(1, 400, 8, shift=1.0)
    assert frechet_distance(np.repeat(x, 2, axis=0), y) == pytest.approx(frechet_distance(x, y), rel=2e-3)


def test_distance_equals_the_matrix_square_root_where_that_is_sound() -> None:
    x, y = normal(0, 1000, 96), normal(1, 1000, 96, scale=1.3, shift=0.1)
    a, b = np.cov(x.T), np.cov(y.T)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        root = np.trace(linalg.sqrtm(a @ b)).real
    expected = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(a) + np.trace(b) - 2 * root
    assert frechet_distance(x, y) == pytest.approx(expected, abs=1e-6)


def test_fewer_windows_than_dimensions_give_the_exact_nuclear_norm_value() -> None:
    x, y = normal(0, 20, 512), normal(1, 20, 512)
    xc, yc = x - x.mean(0), y - y.mean(0)
    cross = np.linalg.svd(xc @ yc.T, compute_uv=False).sum() / 19
    expected = np.square(x.mean(0) - y.mean(0)).sum() + (np.square(xc).sum() + np.square(yc).sum()) / 19 - 2 * cross
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("decay", [1.0, 2.0, 3.0])
def test_the_fast_path_equals_the_exact_one_however_uneven_the_dimensions(
    decay: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    deviations = np.arange(1, 65) ** -decay
    x, y = (np.random.default_rng(seed).standard_normal((400, 64)) * deviations for seed in (1, 2))
    fast = frechet_distance(x, y)
    monkeypatch.setattr(frechet, "SMALLEST_EIGENVALUE", np.inf)
    assert fast == pytest.approx(frechet_distance(x, y), abs=1e-9)


def test_a_dimension_that_never_varies_takes_the_exact_path() -> None:
    x, y = normal(0, 200, 8), normal(1, 200, 8, shift=0.5)
    with_dead = [np.hstack([side, np.zeros((200, 3))]) for side in (x, y)]
    assert frechet_distance(*with_dead) == pytest.approx(frechet_distance(x, y), rel=1e-10)


def test_unit_length_embeddings_cannot_exceed_four() -> None:
    """Why FAD < 5 says nothing on CLAP's scale."""
    x = normal(0, 50, 32, scale=0.01) + np.eye(32)[0]
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    assert 3.9 < frechet_distance(x, -x) <= 4 * 50 / 49


def test_a_reference_reduced_once_gives_the_same_distance() -> None:
    x, y = normal(0, 60, 10), normal(1, 70, 10, shift=1.0)
    assert frechet_distance(x, frechet_statistics(y)) == frechet_distance(x, y)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((1, 4)), "at least 2"),
        (np.zeros((0, 4)), "at least 2"),
        (np.zeros(4), "shape"),
        (np.full((5, 4), np.nan), "NaN"),
        (np.array([[np.inf, 0, 0, 0], [0, 0, 0, 0]]), "NaN or infinity"),
        (np.ones((5, 3)), "dimensions"),
    ],
)
def test_what_cannot_be_measured_is_an_error_never_a_number(x: np.ndarray, message: str) -> None:
    with pytest.raises(MetricError, match=message):
        frechet_distance(x, normal(0, 9, 4))


def test_a_value_far_below_zero_is_an_error_not_a_zero() -> None:
    inflated = FrechetStatistics(mean=np.zeros(2), centred=np.eye(2))
    object.__setattr__(inflated, "factor", 2.0 * np.eye(2))
    with pytest.raises(MetricError, match="rounding cannot explain"):
        frechet_distance(inflated, inflated)


def test_kernel_distance_takes_its_bandwidth_from_the_reference() -> None:
    """Known answers of the paper's U-statistic over windows: each window is a clip by itself."""

    def kad(reference: list[float], generated: list[float], bandwidth: float | None = None) -> float:
        sides = [single(np.array(side)[:, None]) for side in (reference, generated)]
        return clip_kernels(sides[0], sides[1], bandwidth=bandwidth).value

    assert kad([0, 1], [0, 2]) == pytest.approx(-43.23323583816936, abs=1e-12)
    assert kad([0, 1], [0, 2], 2.0) == pytest.approx(-19.67346701436834)
    assert kad([0, 1, 3], [10, 11, 14]) == pytest.approx(105.14835580655834, abs=1e-10)


def test_kernel_distance_leaves_out_the_pairs_of_windows_of_one_clip() -> None:
    random = np.random.default_rng(0)
    x, y = clips_of(random, 5, windows=4), clips_of(random, 6, windows=7, shift=0.5)

    def mean_kernel(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.exp(-np.square(a[:, None] - b[None]).sum(-1) / (2 * 1.5**2)).mean())

    def within(side: dict[str, np.ndarray]) -> float:
        return float(np.mean([mean_kernel(side[a], side[b]) for a in side for b in side if a != b]))

    across = np.mean([mean_kernel(a, b) for a in x.values() for b in y.values()])
    expected = 100.0 * (within(x) + within(y) - 2.0 * across)
    assert clip_kernels(x, y, bandwidth=1.5).value == pytest.approx(expected, rel=1e-12)
    assert clip_kernels(dict(reversed(x.items())), y).value == clip_kernels(x, y).value


def test_kernel_distance_of_one_population_is_zero_on_average_however_alike_the_windows_of_a_clip() -> None:
    """8 against 5 clips of ICC .6: over windows it read 6.8 on average."""
    random = np.random.default_rng(1)
    found = [
        clip_kernels(clips_of(random, 5, icc=0.6), clips_of(random, 8, icc=0.6), bandwidth=2.0).value
        for _ in range(300)
    ]
    assert abs(np.mean(found)) < 3.0 * np.std(found) / math.sqrt(300) < 1.0
    near, far = (clip_kernels(clips_of(random, 9), clips_of(random, 9, shift=s)).value for s in (1.0, 3.0))
    assert 3.0 < near < far


def test_interval_of_the_kernel_distance_is_the_jackknife_over_clips() -> None:
    random = np.random.default_rng(2)
    x, y = clips_of(random, 5), clips_of(random, 6, shift=1.0)
    found = clip_kernels(x, y, bandwidth=2.0)
    theirs, ours = (
        [clip_kernels(*pair, bandwidth=2.0).value for pair in pairs]
        for pairs in (
            [({k: v for k, v in x.items() if k != left}, y) for left in x],
            [(x, {k: v for k, v in y.items() if k != left}) for left in y],
        )
    )
    assert found.interval() == pytest.approx(two_sample_interval(found.value, theirs, ours, positive=False))
    with pytest.raises(MetricError, match="3 on each side"):
        clip_kernels(x, {k: y[k] for k in list(y)[:2]}).interval()


def test_kernel_distance_refuses_a_reference_of_copies_and_two_encoders() -> None:
    with pytest.raises(MetricError, match="identical"):
        clip_kernels(single(np.repeat(normal(1, 1, 3), 7, axis=0)), single(normal(0, 5, 3)))
    with pytest.raises(MetricError, match="two encoders"):
        clip_kernels(single(normal(0, 5, 3)), single(normal(0, 5, 4)))
    with pytest.raises(MetricError, match="at least 2"):
        clip_kernels(single(normal(0, 5, 3)), {"one": normal(0, 5, 3)})
