"""Whether the distance of a tier is known well enough for its tolerance, and how many pairs it would take."""

from __future__ import annotations

import math
from typing import NamedTuple

from lofi_assets.constitution.gates import load_gates
from lofi_assets.metrics.results import FEWEST_PAIRS, TierFidelity


class Judged(NamedTuple):
    """What a gate on a tier's distance is given: the upper bound, or None with a note."""

    value: float | None
    note: str


def tolerance(tier: str) -> float | None:
    """How much farther a tier may lie from the reference than FP32, as the constitution says; None if it does not."""
    limits = [gate.limit for gate in load_gates() if gate.measure == f"fad_increase_{tier}"]
    return float(limits[0]) if limits and isinstance(limits[0], int | float) else None


def judged(found: TierFidelity, limit: float | None) -> Judged:
    """The upper bound, unless the interval is wider than the tolerance and does not lie beyond it as a whole.

    An interval that is wider than what it is to decide on would call a tier good or bad by the clips that were drawn.
    """
    if found.upper is None or found.ratio is None or limit is None:
        return Judged(found.upper, found.note)
    width = found.upper - found.ratio
    if width <= limit or found.ratio - width > limit:
        return Judged(found.upper, found.note)
    return Judged(
        None,
        f"inconclusive: the bound lies {100 * width:.1f} % above the ratio, the tolerance is {100 * limit:g} %; about "
        f"{pairs_needed(found, limit)} pairs are needed, {found.n_pairs} were made",
    )


def pairs_needed(found: TierFidelity, limit: float | None) -> int | None:
    """Pairs at which the bound would lie no farther above the ratio than the tolerance: its distance goes with
    1 / sqrt(n). None where there is no bound to go by."""
    if found.upper is None or found.ratio is None or limit is None:
        return None
    share = (found.upper - found.ratio) / limit
    return max(FEWEST_PAIRS, math.ceil(found.n_pairs * share**2))
