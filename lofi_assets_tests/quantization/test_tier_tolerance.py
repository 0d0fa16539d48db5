"""A tier is judged only by an interval that is narrower than the tolerance; how many pairs it takes is said."""

import numpy as np
import pytest

from lofi_assets.metrics.results import FEWEST_PAIRS
from lofi_assets.metrics.tier_fidelity import paired_tier_ratio
from lofi_assets.quantization.tier_tolerance import judged, pairs_needed, tolerance
from lofi_assets_tests.metrics.stand_in_results import fidelity


def test_the_tolerances_are_those_of_the_constitution() -> None:
    assert (tolerance("int8"), tolerance("int4"), tolerance("fp16")) == (0.05, 0.15, None)


@pytest.mark.parametrize(
    ("ratio", "upper", "value"),
    [
        (0.00, 0.04, 0.04),  # passes
        (0.03, 0.07, 0.07),  # fails: it cannot be said to be within
        (-0.05, 0.001, None),  # passes by luck of a wide interval
        (0.03, 0.09, None),
        (0.20, 0.30, 0.30),  # fails however it is drawn
        (0.00, None, None),
        (None, None, None),
    ],
)
def test_a_wide_interval_decides_nothing_unless_it_lies_beyond_the_tolerance(
    ratio: float | None, upper: float | None, value: float | None
) -> None:
    assert judged(fidelity(ratio=ratio, upper=upper, n_pairs=16), 0.05).value == value


def test_the_note_says_how_many_pairs_it_takes() -> None:
    wide = fidelity(ratio=0.0, upper=0.2, n_pairs=16, note="")
    assert judged(wide, 0.05).note == (
        "inconclusive: the bound lies 20.0 % above the ratio, the tolerance is 5 %; "
        "about 256 pairs are needed, 16 were made"
    )
    assert pairs_needed(fidelity(ratio=0.0, upper=0.001, n_pairs=16), 0.05) == FEWEST_PAIRS
    assert pairs_needed(fidelity(ratio=0.0, upper=None), 0.05) is None
    assert judged(fidelity(ratio=0.0, upper=None, note="too few"), 0.05).note == "too few"


def test_the_width_goes_with_the_square_root_of_the_pairs() -> None:
    """What `pairs_needed` rests on: four times the pairs, half the width, within a third."""
    random = np.random.default_rng(0)
    reference = random.standard_normal((400, 6))

    def width(pairs: int) -> float:
        found = []
        for _ in range(6):
            clips = {
                str(n): random.standard_normal((6, 6)) + 1.5 + random.standard_normal(6) * 0.4 for n in range(pairs)
            }
            tier = {name: clip * 1.01 + random.standard_normal(6) * 0.15 for name, clip in clips.items()}
            ratio = paired_tier_ratio(clips, tier, reference)
            found.append(ratio.upper - ratio.ratio)
        return float(np.median(found))

    assert width(32) / width(128) == pytest.approx(2, rel=1 / 3)
