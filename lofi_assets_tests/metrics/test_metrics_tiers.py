"""The tolerance of a tier: what a paired comparison can prove, and what it cannot."""

import math
from typing import Any

import numpy as np
import pytest

from lofi_assets.metrics.errors import MetricError
from lofi_assets.metrics.tier_fidelity import paired_tier_ratio
from lofi_assets_tests.metrics.clip_populations import Clips, clips_of, stacked


def population(seed: int, n: int, **options: Any) -> Clips:
    return clips_of(np.random.default_rng(seed), n, **options)


REFERENCE = stacked(population(0, 60))


def test_an_identical_tier_has_ratio_zero_and_upper_bound_zero() -> None:
    base = population(1, 16, shift=0.8)
    found = paired_tier_ratio(base, base, REFERENCE)
    assert found.ratio == 0.0 and found.upper == pytest.approx(0.0, abs=1e-9)


def test_a_worse_tier_shows_and_a_slightly_worse_one_passes() -> None:
    base, random = population(1, 60, shift=0.8), np.random.default_rng(5)
    slightly = {key: value + 0.01 * random.normal(size=value.shape) for key, value in base.items()}
    badly = {key: value + 0.3 * random.normal(size=value.shape) + 0.2 for key, value in base.items()}
    good, bad = (paired_tier_ratio(base, tier, REFERENCE) for tier in (slightly, badly))
    assert good.ratio <= good.upper < 0.05
    assert bad.ratio > 0.15 and bad.upper > bad.ratio


def test_the_bound_never_lies_below_the_ratio_as_measured() -> None:
    for seed in range(60):
        random = np.random.default_rng(seed)
        base = clips_of(random, 6, shift=0.8)
        noisy = {key: value + 0.2 * random.normal(size=value.shape[1]) for key, value in base.items()}
        found = paired_tier_ratio(base, noisy, REFERENCE)
        assert found.upper >= found.ratio


def test_an_fp32_that_is_not_certainly_away_from_the_reference_has_no_bound() -> None:
    assert paired_tier_ratio(population(2, 16), population(3, 16), REFERENCE).upper == math.inf
    base = population(1, 4)
    assert paired_tier_ratio(base, population(2, 4), stacked(base)).upper == math.inf


def test_unpaired_or_too_few_tiers_are_refused() -> None:
    base = population(1, 4)
    with pytest.raises(MetricError, match="pairs"):
        paired_tier_ratio(base, {**population(1, 3), "other": base["clip0000"]}, REFERENCE)
    with pytest.raises(MetricError, match="at least 3"):
        paired_tier_ratio(population(1, 2), population(1, 2), REFERENCE)
