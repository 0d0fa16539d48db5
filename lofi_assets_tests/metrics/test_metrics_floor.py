"""What a distance is read against: floors at equal numbers of clips, intervals, endless clips, clips one by one."""

import math
from functools import partial
from typing import Any

import numpy as np
import pytest

from lofi_assets.metrics.clip_moments import FixedSide, Moments, leave_one_out, spanned
from lofi_assets.metrics.distances import (
    distances_by_clip,
    frechet_interval,
    measure_distances,
    real_distances_by_clip,
)
from lofi_assets.metrics.errors import MetricError, attempt
from lofi_assets.metrics.frechet import frechet_distance, frechet_statistics
from lofi_assets.metrics.frechet_infinity import frechet_infinity
from lofi_assets.metrics.jackknife import ratio_bounds, two_sample_interval
from lofi_assets.metrics.kernel import clip_kernels
from lofi_assets.metrics.reference_floor import frechet_floor, kernel_floor
from lofi_assets_tests.metrics.clip_populations import Clips, clips_of, stacked


def population(seed: int, n: int, **options: Any) -> Clips:
    return clips_of(np.random.default_rng(seed), n, **options)


# --- moments ---------------------------------------------------------------------------------------------------------


def test_a_clip_left_out_gives_the_moments_of_the_others() -> None:
    clips = [*population(0, 6, shift=3.0).values()]
    for index, found in enumerate(leave_one_out(clips)):
        others = np.concatenate([clip for i, clip in enumerate(clips) if i != index])
        np.testing.assert_allclose(found.mean, others.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(found.covariance, np.cov(others.T), atol=1e-12)


@pytest.mark.parametrize("d", [8, 100])
def test_distance_of_moments_is_the_distance_also_with_fewer_windows_than_dimensions(d: int) -> None:
    ours, theirs = population(0, 5, d=d, windows=6, shift=0.5), population(1, 7, d=d, windows=6)
    (a, b) = spanned([*ours.values()], [*theirs.values()])
    found = FixedSide.of(Moments.of(b)).distance(Moments.of(a))
    assert found == pytest.approx(frechet_distance(stacked(ours), stacked(theirs)), rel=1e-6)


# --- floors ----------------------------------------------------------------------------------------------------------


def test_floor_is_near_what_as_many_clips_of_the_same_kind_read() -> None:
    """At halves of the reference, as it is usually taken, the floor would be twice that."""
    reference = population(0, 40)
    null = np.mean([frechet_distance(stacked(population(seed, 40)), stacked(reference)) for seed in range(1, 25)])
    floor = frechet_floor(reference, n_clips=40, windows_per_clip=12, seed=0)
    assert 0.7 < floor / null < 1.3
    halves = frechet_floor(reference, n_clips=20, windows_per_clip=12, seed=0)
    assert halves == pytest.approx(1.5 * floor, rel=1e-9), "1/20 + 1/40 against 1/40 + 1/40, of the same splits"
    assert floor == frechet_floor(dict(reversed(reference.items())), n_clips=40, windows_per_clip=12, seed=0)


def test_floor_is_that_of_clips_as_long_as_the_generated_ones() -> None:
    reference = population(0, 20, icc=0.0, windows=40)
    short, whole = (frechet_floor(reference, n_clips=8, windows_per_clip=w, seed=0) for w in (10, 40))
    assert short > 1.5 * whole


def test_kernel_floor_is_passed_by_few_sets_of_the_same_kind() -> None:
    above = 0
    for seed in range(60):
        kernels = clip_kernels(population(2 * seed, 12), population(2 * seed + 1, 10), bandwidth=2.0)
        above += kernels.value > kernel_floor(kernels.reference, n_clips=10, seed=0)
    assert above <= 10, "one in 20 is meant, one in ten is seen with few clips"


def test_a_floor_needs_four_reference_clips() -> None:
    few = population(0, 3)
    with pytest.raises(MetricError, match="at least 4"):
        frechet_floor(few, n_clips=8, windows_per_clip=12, seed=0)
    with pytest.raises(MetricError, match="floor needs 2 against 4"):
        kernel_floor(clip_kernels(few, few).reference, n_clips=8, seed=0)
    with pytest.raises(MetricError, match="two windows"):
        frechet_floor(population(0, 8), n_clips=1, windows_per_clip=1, seed=0)


# --- intervals -------------------------------------------------------------------------------------------------------


def test_interval_holds_the_estimate_narrows_with_clips_and_does_not_depend_on_listing_order() -> None:
    reference = population(0, 40)
    few, many = population(1, 8, shift=0.8), population(1, 64, shift=0.8)
    wide, narrow = (frechet_interval(side, reference) for side in (few, many))
    assert wide.low < frechet_distance(stacked(few), stacked(reference)) < wide.high
    assert narrow.high - narrow.low < wide.high - wide.low
    assert frechet_interval(dict(reversed(few.items())), reference) == wide


def test_windows_of_one_clip_do_not_pass_for_independent_evidence() -> None:
    """Copying every window tenfold adds no clip, so the interval must not shrink."""
    reference, generated = population(0, 20), population(1, 10, shift=0.8)
    copied = {key: np.repeat(value, 10, axis=0) for key, value in generated.items()}
    plain, inflated = (frechet_interval(side, reference) for side in (generated, copied))
    assert inflated.high - inflated.low == pytest.approx(plain.high - plain.low, rel=0.15)


def test_interval_is_the_same_in_a_space_wider_than_the_windows() -> None:
    reference, generated = population(0, 6, d=5, windows=4), population(1, 5, d=5, windows=4, shift=0.8)
    basis = np.linalg.qr(np.random.default_rng(2).normal(size=(64, 5)))[0].T
    wide = [{key: value @ basis for key, value in side.items()} for side in (generated, reference)]
    assert frechet_interval(*wide) == pytest.approx(frechet_interval(generated, reference), rel=1e-5)


def test_an_interval_of_too_few_clips_or_of_nothing_is_refused() -> None:
    with pytest.raises(MetricError, match="at least 3"):
        frechet_interval(population(0, 2), population(1, 9))
    with pytest.raises(MetricError, match="fewer than two windows"):
        frechet_interval({"a": np.ones((5, 2)), "b": np.zeros((1, 2)), "c": np.zeros((0, 2))}, population(1, 9, d=2))
    with pytest.raises(MetricError, match="3 on each side"):
        two_sample_interval(1.0, [1.0, 1.1], [1.0, 1.2, 0.9], positive=True)
    with pytest.raises(MetricError, match="zero"):
        two_sample_interval(1.0, [1.0, 0.0, 1.1], [1.0, 1.2, 0.9], positive=True)


def test_a_ratio_of_means_is_bounded_on_both_sides_and_not_at_all_by_an_uncertain_denominator() -> None:
    random = np.random.default_rng(0)
    x = random.normal(1.0, 0.2, 60)
    bounds = ratio_bounds(0.5 * x + random.normal(0.0, 0.05, 60), x)
    assert bounds is not None and 0.4 < bounds.low < 0.5 < bounds.high < 0.6
    assert ratio_bounds(2.0 * x, x) == pytest.approx((2.0, 2.0))
    assert ratio_bounds(x, random.normal(0.0, 1.0, 60)) is None and ratio_bounds(x, -x) is None


# --- endless clips ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("icc", [0.0, 0.3, 0.6])
def test_endless_clips_of_one_population_are_about_zero_however_alike_their_windows(icc: float) -> None:
    """From windows, and with the reference as it is, it read up to 52 where the truth is zero."""
    biased, endless = [], []
    for seed in range(8):
        ours, theirs = population(2 * seed, 96, d=16, icc=icc), population(2 * seed + 1, 80, d=16, icc=icc)
        found, _ = attempt(partial(frechet_infinity, ours, theirs, seed=0))
        if found is not None:
            biased.append(frechet_distance(stacked(ours), stacked(theirs)))
            endless.append(found)
    assert len(endless) >= 3 and abs(np.mean(endless)) < 0.15 * np.mean(biased)


def test_a_bias_that_does_not_fall_as_one_over_n_gives_no_number() -> None:
    """As many dimensions as clips, and clips of one kind throughout: the quarter is past any extrapolation."""
    with pytest.raises(MetricError, match="does not fall as 1/n"):
        frechet_infinity(population(0, 40, d=64, icc=0.8), population(1, 40, d=64, icc=0.8), seed=0)
    with pytest.raises(MetricError, match="32 clips on each side, got 40 and 31"):
        frechet_infinity(population(0, 40), population(1, 31), seed=0)


# --- clips one by one ------------------------------------------------------------------------------------------------


def test_the_clip_that_is_unlike_the_reference_comes_first() -> None:
    reference, made = population(0, 20), population(1, 6)
    made["odd"] = made.pop("clip0003") + 4.0
    found = distances_by_clip(made, frechet_statistics(stacked(reference)))
    assert next(iter(found)) == "odd" and [*found.values()] == sorted(found.values(), reverse=True)
    median, highest = real_distances_by_clip(reference, windows=12)
    assert median < highest < found["odd"]
    with pytest.raises(MetricError, match="alone it needs 8"):
        distances_by_clip({"short": reference["clip0000"][:7]}, frechet_statistics(stacked(reference)))


# --- all of it -------------------------------------------------------------------------------------------------------


def test_real_clips_read_about_their_floor_and_others_above_it() -> None:
    reference = population(0, 16)
    real, other = (measure_distances(population(1, 16, shift=s), reference, seed=0) for s in (0.0, 1.0))
    assert real.value is not None and real.floor is not None and real.interval is not None
    assert real.over_floor is not None and 0.5 < real.over_floor < 2.0
    assert other.over_floor is not None and other.over_floor > 4.0
    assert real.kad is not None and other.kad is not None and other.kad_floor is not None
    assert real.kad < other.kad_floor < other.kad
    assert real.kad_interval is not None and real.kad_interval[0] is not None and real.kad_interval[0] < 0.0
    assert real.infinity is None and "32 clips" in real.infinity_note and not real.note
    assert len(real.by_clip) == 16 and (real.n_clips, real.n_windows) == (16, 192)


def test_what_cannot_be_measured_is_none_with_a_note_and_takes_nothing_with_it() -> None:
    reference = population(0, 3)
    few = measure_distances(population(1, 2), reference, seed=0)
    assert few.value is not None and few.kad is not None
    assert (few.floor, few.over_floor, few.interval, few.kad_interval, few.kad_floor) == (None,) * 5
    assert all(f"{name}: " in few.note for name in ("floor", "interval", "kad_interval", "kad_floor"))
    alike = {key: np.ones((4, 8)) for key in reference}
    copies = measure_distances(population(1, 5), alike, seed=0)
    assert copies.kad is None and "kad: reference: most windows are identical" in copies.note
    assert copies.value is not None and math.isfinite(copies.value)
    assert measure_distances({}, reference, seed=0).note == "no samples were generated"
