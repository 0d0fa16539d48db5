"""FAD and KAD: closed forms, invariances, singular sets, intervals by clip, and what must be refused."""

import math
import warnings

import numpy as np
import pytest
from scipy import linalg

from lofi_assets.metrics import frechet
from lofi_assets.metrics.errors import MetricError
from lofi_assets.metrics.frechet import (
    FrechetStatistics,
    frechet_distance,
    frechet_infinity,
    frechet_interval,
    frechet_statistics,
    paired_tier_ratio,
    split_half_floor,
)
from lofi_assets.metrics.kernel import kernel_distance

Moments = tuple[list[float], list[list[float]]]


def with_moments(mean: list[float], covariance: list[list[float]]) -> np.ndarray:
    """Windows whose sample mean and unbiased covariance are exactly these."""
    d = len(mean)
    signs = np.concatenate([np.eye(d), -np.eye(d)]) * math.sqrt((2 * d - 1) / 2)
    return signs @ np.linalg.cholesky(np.array(covariance)).T + mean


def normal(seed: int, n: int, d: int, *, scale: float = 1.0, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)) * scale + shift


def clips(seed: int, n: int, *, windows: int = 12, d: int = 6, shift: float = 0.0) -> dict[str, np.ndarray]:
    """Clips whose windows resemble each other."""
    r = np.random.default_rng(seed)
    return {f"clip{i:03d}": r.normal(size=(windows, d)) + 0.7 * r.normal(size=d) + shift for i in range(n)}


def stacked(by_clip: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([*by_clip.values()])


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
    for call in (frechet_distance, kernel_distance):
        with pytest.raises(MetricError, match=message):
            call(x, normal(0, 9, 4))


def test_a_value_far_below_zero_is_an_error_not_a_zero() -> None:
    inflated = FrechetStatistics(mean=np.zeros(2), centred=np.eye(2))
    object.__setattr__(inflated, "factor", 2.0 * np.eye(2))
    with pytest.raises(MetricError, match="rounding cannot explain"):
        frechet_distance(inflated, inflated)


def test_few_windows_bias_the_distance_upwards_and_extrapolation_takes_most_of_it_away() -> None:
    reference = frechet_statistics(normal(0, 5000, 128))
    few = normal(1, 500, 128)
    biased = frechet_distance(few, reference)
    assert biased == pytest.approx(9.4, abs=0.5)
    by_clip = {f"{i:02d}": few[i * 10 : i * 10 + 10] for i in range(50)}
    infinity, fit = frechet_infinity(by_clip, reference, seed=0)
    assert abs(infinity) < 0.5 * biased and fit > 0.9
    with pytest.raises(MetricError, match="500"):
        frechet_infinity({"a": few[:50], "b": few[50:100]}, reference, seed=0)


def test_floor_is_what_a_set_reads_against_itself() -> None:
    one, other = clips(0, 30), clips(1, 30, shift=1.0)
    floor = split_half_floor(one, seed=0)
    assert floor == split_half_floor(dict(reversed(one.items())), seed=0)
    assert 0 < floor < 0.5 * frechet_distance(stacked(one), stacked(other))
    with pytest.raises(MetricError, match="at least 2"):
        split_half_floor({"a": normal(0, 50, 6)}, seed=0)


def test_interval_holds_the_estimate_narrows_with_clips_and_does_not_depend_on_listing_order() -> None:
    reference = clips(0, 40)
    few, many = clips(1, 8, shift=0.8), clips(1, 64, shift=0.8)
    wide, narrow = (frechet_interval(side, reference, seed=3, n_resamples=200) for side in (few, many))
    assert wide.low < frechet_distance(stacked(few), stacked(reference)) < wide.high
    assert narrow.high - narrow.low < wide.high - wide.low
    assert frechet_interval(dict(reversed(few.items())), reference, seed=3, n_resamples=200) == wide


def test_windows_of_one_clip_do_not_pass_for_independent_evidence() -> None:
    """Copying every window tenfold adds no clip, so the interval must not shrink."""
    reference, generated = clips(0, 20), clips(1, 10, shift=0.8)
    copied = {key: np.repeat(value, 10, axis=0) for key, value in generated.items()}
    plain, inflated = (frechet_interval(side, reference, seed=0, n_resamples=200) for side in (generated, copied))
    assert inflated.high - inflated.low == pytest.approx(plain.high - plain.low, rel=0.15)


def test_interval_is_the_same_in_a_space_wider_than_the_windows() -> None:
    reference, generated = clips(0, 6, windows=4, d=5), clips(1, 5, windows=4, d=5, shift=0.8)
    basis = np.linalg.qr(normal(2, 64, 5))[0].T
    wide = [{key: value @ basis for key, value in side.items()} for side in (generated, reference)]
    assert frechet_interval(*wide, seed=0, n_resamples=50) == pytest.approx(
        frechet_interval(generated, reference, seed=0, n_resamples=50), rel=1e-5
    )


def test_an_identical_tier_has_ratio_zero_and_upper_bound_zero() -> None:
    base = clips(1, 12, shift=0.5)
    ratio = paired_tier_ratio(base, base, stacked(clips(0, 30)), n_resamples=100)
    assert ratio.ratio == 0.0 and ratio.upper == pytest.approx(0.0, abs=1e-9)


def test_a_worse_tier_shows_and_a_few_clips_cannot_prove_five_percent() -> None:
    reference = stacked(clips(0, 60))
    base = clips(1, 60, shift=0.8)
    r = np.random.default_rng(5)
    slightly = {key: value + 0.01 * r.normal(size=value.shape) for key, value in base.items()}
    badly = {key: value + 0.3 * r.normal(size=value.shape) + 0.2 for key, value in base.items()}
    good = paired_tier_ratio(base, slightly, reference, n_resamples=300)
    bad = paired_tier_ratio(base, badly, reference, n_resamples=300)
    assert good.ratio <= good.upper < 0.05
    assert bad.ratio > 0.15 and bad.upper > bad.ratio
    keys = sorted(base)[:3]
    noisy = {key: base[key] + 0.2 * r.normal(size=base[key].shape[1]) for key in keys}
    assert paired_tier_ratio({k: base[k] for k in keys}, noisy, reference, n_resamples=300).upper > 0.05


def test_unpaired_tiers_are_refused_and_a_perfect_fp32_gives_no_ratio() -> None:
    base = clips(1, 4)
    with pytest.raises(MetricError, match="pairs"):
        paired_tier_ratio(base, {**clips(1, 3), "other": base["clip000"]}, stacked(base))
    assert paired_tier_ratio(base, clips(2, 4), stacked(base)).upper == math.inf


def test_kernel_distance_takes_its_bandwidth_from_the_reference() -> None:
    assert kernel_distance([[0.0], [1.0]], [[0.0], [2.0]]) == pytest.approx(-43.23323583816936, abs=1e-12)
    assert kernel_distance([[0.0], [1.0]], [[0.0], [2.0]], bandwidth=2.0) == pytest.approx(-19.67346701436834)
    far = kernel_distance([[0.0], [1.0], [3.0]], [[10.0], [11.0], [14.0]])
    assert far == pytest.approx(105.14835580655834, abs=1e-10)


def test_kernel_distance_is_near_zero_for_one_population_and_grows_with_the_shift() -> None:
    x = normal(0, 300, 8)
    same, near, far = (kernel_distance(x, normal(1, 250, 8, shift=s)) for s in (0.0, 0.3, 1.0))
    assert abs(same) < 0.5 < near < far


def test_kernel_distance_refuses_a_reference_of_copies() -> None:
    with pytest.raises(MetricError, match="identical"):
        kernel_distance(np.repeat(normal(1, 1, 3), 7, axis=0), normal(0, 5, 3))
