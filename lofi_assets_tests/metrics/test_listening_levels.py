"""What the verdict of a listening test is worth: its level with looks and clustered answers, its power, its attacks.

The tables are printed with `pytest -s -m slow`.
"""

from functools import cache

import numpy as np
import pytest
from scipy.special import ndtr, ndtri

from lofi_assets.metrics.listening_trials import Levels, Trial, evaluate_trials
from lofi_assets.metrics.sequential import Spending, nominal_levels, repeated_p

PUBLISHED: dict[Spending, tuple[float, ...]] = {
    "obrien_fleming": (4.8769, 3.3569, 2.6803, 2.2898, 2.0310),
    "pocock": (2.4380, 2.4268, 2.4101, 2.3966, 2.3859),
}
"""Bounds of five equal looks at .025, one-sided, as the R package ldbounds gives them."""


@pytest.mark.parametrize("spending", PUBLISHED)
def test_the_bounds_are_the_published_ones(spending: Spending) -> None:
    levels = nominal_levels([0.2, 0.4, 0.6, 0.8, 1.0], alpha=0.025, spending=spending)
    assert [-float(ndtri(level)) for level in levels] == pytest.approx(PUBLISHED[spending], abs=5e-4)


def test_one_look_at_everything_has_the_whole_level() -> None:
    for spending in PUBLISHED:
        assert nominal_levels([1.0], alpha=0.025, spending=spending) == pytest.approx((0.025,))
        assert repeated_p(0.03, [1.0], spending=spending) == pytest.approx(0.03, rel=1e-3)


def test_a_p_at_the_level_of_its_look_is_the_whole_level() -> None:
    looks = [0.5, 0.75, 1.0]
    levels = nominal_levels(looks, alpha=0.025, spending="obrien_fleming")
    for number, level in enumerate(levels, start=1):
        assert repeated_p(2 * level, looks[:number], spending="obrien_fleming") == pytest.approx(0.05, abs=1e-4)
    assert repeated_p(1.0, looks, spending="obrien_fleming") == 1.0


@pytest.mark.parametrize("fractions", [[], [0.0, 1.0], [0.5, 0.5], [0.6, 0.4], [0.5, 1.2]])
def test_looks_that_do_not_go_on_are_refused(fractions: list[float]) -> None:
    with pytest.raises(ValueError, match="rise"):
        nominal_levels(fractions, alpha=0.025, spending="pocock")


LOOKS, TRIALS = (15, 23, 30), 12
RUNS = 600


def panel(rng: np.random.Generator, accuracy: float, *, by_listener: float, by_clip: float) -> np.ndarray:
    """(listeners, trials) of right answers; the spread of listeners and clips is on the probit scale."""
    listeners, clips = LOOKS[-1], 24
    spread = np.sqrt(1.0 + by_listener**2 + by_clip**2)
    skill = by_listener * rng.standard_normal((listeners, 1))
    ease = by_clip * rng.standard_normal(clips)
    heard = np.stack([rng.permutation(clips)[:TRIALS] for _ in range(listeners)])
    chance = ndtr(ndtri(accuracy) * spread + skill + ease[heard])
    return np.stack([rng.random((listeners, TRIALS)) < chance, heard], axis=-1)


def trials_of(right: np.ndarray) -> list[Trial]:
    """Of the first listeners of a panel, pairs whose sides alternate."""
    made = []
    for listener, row in enumerate(right):
        for number, (correct, clip) in enumerate(row):
            truth, other = ("first", "second") if number % 2 else ("second", "first")
            answer = truth if correct else other
            made.append(Trial(listener=f"L{listener}", form="pair", clip=str(clip), truth=truth, answer=answer))  # type: ignore[arg-type]
    return made


@cache
def levels_of_looks(equivalence: float) -> tuple[Levels, ...]:
    fractions = [look / LOOKS[-1] for look in LOOKS]
    at_p, at_equivalence = (
        nominal_levels(fractions, alpha=alpha, spending="obrien_fleming") for alpha in (0.025, equivalence)
    )
    return tuple(Levels(p=2 * p, equivalence=eq) for p, eq in zip(at_p, at_equivalence, strict=True))


def verdict_with_looks(right: np.ndarray, *, equivalence: float = 0.025) -> str:
    for look, levels in zip(LOOKS, levels_of_looks(equivalence), strict=True):
        verdict = evaluate_trials(trials_of(right[:look]), levels=levels, date="2025-01-15", n_resamples=1).verdict
        if verdict != "inconclusive":
            return verdict
    return "inconclusive"


SPREADS = ((0.0, 0.0), (0.3, 0.0), (0.0, 0.3), (0.3, 0.3), (0.6, 0.3))


def rates(accuracy: float, spread: tuple[float, float]) -> dict[str, float]:
    rng = np.random.default_rng(round(1000 * accuracy) + round(100 * spread[0]) + round(10 * spread[1]))
    found = [verdict_with_looks(panel(rng, accuracy, by_listener=spread[0], by_clip=spread[1])) for _ in range(RUNS)]
    return {name: found.count(name) / RUNS for name in ("indistinguishable", "distinguishable", "inconclusive")}


@pytest.mark.slow
def test_three_looks_hold_the_level_of_both_tests_for_clustered_answers_too() -> None:
    """Nominal: .025 for equivalence at its limits, .05 for p where everybody guesses. Three standard errors allowed."""
    print("\nspread of listeners, clips   equivalence at .40, .60   p at .50   power at .50")
    for spread in SPREADS:
        low, high, middle = (rates(accuracy, spread) for accuracy in (0.4, 0.6, 0.5))
        print(
            f"{spread}   {low['indistinguishable']:.4f} {high['indistinguishable']:.4f}"
            f"   {middle['distinguishable']:.4f}   {middle['indistinguishable']:.3f}",
            flush=True,
        )
        assert max(low["indistinguishable"], high["indistinguishable"]) <= 0.025 + 3 * (0.025 * 0.975 / RUNS) ** 0.5
        if spread == (0.0, 0.0):
            assert middle["distinguishable"] <= 0.05 + 3 * (0.05 * 0.95 / RUNS) ** 0.5
            assert middle["indistinguishable"] > 0.7
