"""Ratings with a hidden reference and anchors (MUSHRA, ITU-R BS.1534-3): post-screening, means, what an anchor says.

The scale is continuous quality, 0 to 100, in five bands: bad, poor, fair, good, excellent. The open reference is what
everything is compared with; among what is rated stand the same reference, hidden, and two low-passed anchors.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic.dataclasses import dataclass as stored
from scipy.special import stdtrit

from lofi_assets.files.typed import STORED
from lofi_assets.metrics.number import Number

REFERENCE, LOW_ANCHOR, MID_ANCHOR = "reference", "anchor_3500", "anchor_7000"
ANCHOR_HZ: Mapping[str, float] = {LOW_ANCHOR: 3500.0, MID_ANCHOR: 7000.0}
LEAST_REFERENCE = 90
MOST_MISSED = 0.15
"""BS.1534-3, 4.1.2: who rates the hidden reference below 90 for more than 15 % of the items is left out."""


@dataclass(frozen=True, kw_only=True)
class Rating:
    """What one listener gave one condition of one piece."""

    listener: str
    piece: str
    condition: str
    score: int


@stored(frozen=True, kw_only=True, config=STORED)
class ConditionScore:
    """One condition over the listeners who count."""

    mean: float
    interval: tuple[Number, Number] | None
    """95 %, Student's t over the listeners' means; None for fewer than two listeners."""
    median: float
    quartiles: tuple[float, float]
    below_reference: float
    """Mean of the listeners' differences to the hidden reference, in points."""
    below_interval: tuple[Number, Number] | None


@stored(frozen=True, kw_only=True, config=STORED)
class MushraResult:
    """A comparison so far."""

    listeners: tuple[str, ...]
    excluded: Mapping[str, str]
    """Left out by post-screening, each with the reason."""
    pieces: int
    conditions: Mapping[str, ConditionScore]
    notes: tuple[str, ...]


def post_screened(ratings: Iterable[Rating]) -> dict[str, str]:
    """Listeners who do not find the hidden reference (BS.1534-3, 4.1.2), each with the reason."""
    given: dict[str, list[int]] = defaultdict(list)
    for rating in ratings:
        if rating.condition == REFERENCE:
            given[rating.listener].append(rating.score)
    missed = {who: sum(score < LEAST_REFERENCE for score in scores) for who, scores in given.items()}
    return {
        who: f"rated the hidden reference below {LEAST_REFERENCE} in {count} of {len(given[who])} items"
        for who, count in missed.items()
        if count > MOST_MISSED * len(given[who])
    }


def mushra_result(ratings: Sequence[Rating]) -> MushraResult:
    """Statistics of the listeners who count; without conditions if nobody does."""
    excluded = post_screened(ratings)
    kept = [rating for rating in ratings if rating.listener not in excluded]
    listeners = sorted({rating.listener for rating in kept})
    names = sorted({rating.condition for rating in kept})
    scores = {name: _score(kept, name, listeners) for name in names}
    return MushraResult(
        listeners=tuple(listeners),
        excluded=excluded,
        pieces=len({rating.piece for rating in kept}),
        conditions=scores,
        notes=_notes(scores, listeners),
    )


def _score(ratings: Sequence[Rating], condition: str, listeners: Sequence[str]) -> ConditionScore:
    means = _by_listener(ratings, condition, listeners)
    differences = _by_listener(ratings, REFERENCE, listeners) - means
    scores = [rating.score for rating in ratings if rating.condition == condition]
    low, median, high = (float(value) for value in np.quantile(scores, [0.25, 0.5, 0.75]))
    return ConditionScore(
        mean=float(means.mean()),
        interval=_interval(means),
        median=median,
        quartiles=(low, high),
        below_reference=float(differences.mean()),
        below_interval=_interval(differences),
    )


def _by_listener(ratings: Sequence[Rating], condition: str, listeners: Sequence[str]) -> np.ndarray:
    return np.array(
        [np.mean([r.score for r in ratings if r.listener == who and r.condition == condition]) for who in listeners]
    )


def _interval(values: np.ndarray) -> tuple[float, float] | None:
    n = len(values)
    if n < 2:
        return None
    half = float(stdtrit(n - 1, 0.975)) * float(values.std(ddof=1)) / math.sqrt(n)
    return float(values.mean()) - half, float(values.mean()) + half


def _notes(scores: Mapping[str, ConditionScore], listeners: Sequence[str]) -> tuple[str, ...]:
    notes = [] if len(listeners) > 1 else [f"{len(listeners)} listeners count; ask more"]
    order = [scores[name].mean for name in (LOW_ANCHOR, MID_ANCHOR, REFERENCE) if name in scores]
    if order != sorted(order) or len(set(order)) < len(order):
        notes.append("the anchors are not rated in their order, so the scale was not understood")
    return tuple(notes)
