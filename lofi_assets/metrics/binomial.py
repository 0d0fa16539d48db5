"""Exact binomial statistics of yes/no answers: two-sided test, equivalence test, interval and trials needed."""

from functools import cache

from scipy.special import bdtr, bdtrc, betaincinv


def two_sided_p(correct: int, n: int) -> float:
    """Exact two-sided p of `correct` out of `n` under guessing (one half, so the two tails are equal)."""
    more = max(correct, n - correct)
    return min(1.0, 2.0 * _at_least(more, n, 0.5))


def equivalence_p(correct: int, n: int, *, margin: float) -> float:
    """Exact TOST p: the larger of the two one-sided tests against 0.5 - margin and 0.5 + margin."""
    return max(_at_least(correct, n, 0.5 - margin), _at_most(correct, n, 0.5 + margin))


def clopper_pearson(correct: int, n: int, *, level: float = 0.95) -> tuple[float, float]:
    """Exact two-sided interval of a proportion."""
    tail = (1.0 - level) / 2.0
    low = float(betaincinv(correct, n - correct + 1, tail)) if correct else 0.0
    high = float(betaincinv(correct + 1, n - correct, 1.0 - tail)) if correct < n else 1.0
    return low, high


def acceptance(n: int, *, margin: float, alpha: float = 0.05) -> tuple[int, int] | None:
    """Smallest and largest count of correct answers out of `n` that prove equivalence; None when none does."""
    low = next((k for k in range(n // 2 + 1) if _at_least(k, n, 0.5 - margin) < alpha), None)
    if low is None or _at_most(low, n, 0.5 + margin) >= alpha:
        return None
    return low, n - low


@cache
def trials_needed(*, margin: float, alpha: float = 0.05, power: float = 0.8) -> int:
    """Fewest independent trials with which true guessing is proven equivalent with this power.

    Searched one by one, since exact power rises in steps and falls a little after each.

    Raises:
        ValueError: a margin outside (0, 0.5).
    """
    if not 0.0 < margin < 0.5:
        raise ValueError(f"an equivalence margin lies between 0 and 0.5, got {margin}")
    n = 1
    while (accepted := acceptance(n, margin=margin, alpha=alpha)) is None or mass(accepted, n) < power:
        n += 1
    return n


def mass(accepted: tuple[int, int], n: int) -> float:
    """Probability that guessing gives a count within symmetric limits, both counted in."""
    return 1.0 - 2.0 * _at_most(accepted[0] - 1, n, 0.5)


def _at_most(k: int, n: int, p: float) -> float:
    return float(bdtr(k, n, p)) if k >= 0 else 0.0


def _at_least(k: int, n: int, p: float) -> float:
    return float(bdtrc(k - 1, n, p)) if k > 0 else 1.0
