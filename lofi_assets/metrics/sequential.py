"""Looking at a test more than once at one level: alpha spending (Lan and DeMets, Biometrika 70, 1983).

A test that is looked at after each group of listeners, each time at .05, is wrong more often than .05. Spending says
how much of the level each look may use; the levels of the looks follow from the joint distribution of the statistics,
which is that of a Brownian motion at the looks' shares of the information (Jennison and Turnbull, Group Sequential
Methods, chapters 7 and 9).
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy.integrate import simpson
from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtr, ndtri

Spending = Literal["obrien_fleming", "pocock"]
"""obrien_fleming: little at first, so that the last look is nearly at the whole level; pocock: about alike at each."""

_LOWEST = -9.0
_POINTS = 601
_HIGHEST = 9.0


def spent(fraction: float, *, alpha: float, spending: Spending) -> float:
    """How much of a one-sided level may be used by the time that this share of the information, in (0, 1], is in."""
    if spending == "pocock":
        return alpha * math.log(1.0 + (math.e - 1.0) * fraction)
    return 2.0 * math.exp(float(log_ndtr(ndtri(alpha / 2.0) / math.sqrt(fraction))))


def nominal_levels(fractions: Sequence[float], *, alpha: float, spending: Spending) -> tuple[float, ...]:
    """At which level each look is tested so that all looks together hold `alpha`, one-sided.

    Args:
        fractions: share of the information at each look, rising; the last is 1 if the whole level is to be used.
    Raises:
        ValueError: fractions that do not rise within (0, 1], or a level outside (0, 0.5).
    """
    if not 0.0 < alpha < 0.5:
        raise ValueError(f"a one-sided level lies between 0 and 0.5, got {alpha}")
    if not fractions or any(b <= a for a, b in zip((0.0, *fractions), fractions, strict=False)) or fractions[-1] > 1.0:
        raise ValueError(f"shares of the information rise within (0, 1], got {list(fractions)}")
    bounds: list[float] = []
    before, used = 0.0, 0.0
    grid, density = np.zeros(1), np.ones(1)
    for fraction in fractions:
        step = math.sqrt(fraction - before)
        allowed = spent(fraction, alpha=alpha, spending=spending)
        bound = _bound(grid, density, step, allowed - used) if bounds else step * -float(ndtri(allowed))
        bounds.append(bound / math.sqrt(fraction))
        grid, density = _carried(grid, density, step, bound)
        before, used = fraction, allowed
    return tuple(float(ndtr(-bound)) for bound in bounds)


def repeated_p(p: float, fractions: Sequence[float], *, spending: Spending) -> float:
    """The p-value that accounts for the looks: the smallest two-sided level at which the last look would reject.

    Args:
        p: two-sided p-value of the data at the last of `fractions`, as if it had been the only look.
    """

    def excess(alpha: float) -> float:
        return 2.0 * nominal_levels(fractions, alpha=alpha / 2.0, spending=spending)[-1] - p

    low, high = 1e-9, 1.0 - 1e-9
    if excess(low) >= 0.0:
        return low
    if excess(high) <= 0.0:
        return 1.0
    return max(p, float(brentq(excess, low, high, xtol=1e-6)))


def _bound(grid: np.ndarray, density: np.ndarray, step: float, mass: float) -> float:
    """The bound that the motion crosses with this probability in a step of this size."""

    def excess(bound: float) -> float:
        return float(simpson(density * ndtr((grid - bound) / step), x=grid)) - mass

    return float(brentq(excess, _LOWEST, _HIGHEST, xtol=1e-9)) if excess(_HIGHEST) < 0.0 else _HIGHEST


def _carried(grid: np.ndarray, density: np.ndarray, step: float, bound: float) -> tuple[np.ndarray, np.ndarray]:
    """Density of the motion after a step, where it has not crossed the bound."""
    reached = np.linspace(_LOWEST, bound, _POINTS)
    kernel = np.exp(-0.5 * ((reached[:, None] - grid[None, :]) / step) ** 2) / (step * math.sqrt(2.0 * math.pi))
    if len(grid) == 1:
        return reached, kernel[:, 0] * density[0]
    return reached, simpson(kernel * density[None, :], x=grid, axis=1)
