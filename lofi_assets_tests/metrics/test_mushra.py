"""Ratings against a hidden reference: who is left out, and what the summary says."""

import pytest

from lofi_assets.metrics.mushra import Rating, mushra_result, post_screened

PIECES = [f"p{n}" for n in range(8)]
FAIR = {"reference": 100, "int8": 88, "int4": 70, "anchor_7000": 45, "anchor_3500": 20}


def ratings(listener: str, *, missed: int = 0, scores: dict[str, int] | None = None) -> list[Rating]:
    given = scores or FAIR
    return [
        Rating(
            listener=listener,
            piece=piece,
            condition=condition,
            score=80 if condition == "reference" and number < missed else score,
        )
        for number, piece in enumerate(PIECES)
        for condition, score in given.items()
    ]


@pytest.mark.parametrize(("missed", "left_out"), [(0, False), (1, False), (2, True), (8, True)])
def test_who_rates_the_hidden_reference_low_in_more_than_15_percent_is_left_out(missed: int, left_out: bool) -> None:
    assert bool(post_screened(ratings("L1", missed=missed))) is left_out


def test_the_summary_is_over_those_who_count() -> None:
    found = mushra_result([*ratings("L1"), *ratings("L2", scores=FAIR | {"int4": 60}), *ratings("L3", missed=8)])
    assert found.listeners == ("L1", "L2") and set(found.excluded) == {"L3"} and found.pieces == 8
    int4 = found.conditions["int4"]
    assert (int4.mean, int4.below_reference, int4.median) == (65.0, 35.0, 65.0)
    assert int4.interval is not None and int4.interval[0] == pytest.approx(65 - 12.706 * 5, abs=0.01)
    assert found.notes == ()


def test_anchors_out_of_order_and_a_single_listener_are_said() -> None:
    found = mushra_result(ratings("L1", scores=FAIR | {"anchor_3500": 60}))
    assert len(found.notes) == 2 and found.conditions["int8"].interval is None


def test_nobody_who_counts_is_no_summary() -> None:
    found = mushra_result(ratings("L1", missed=8))
    assert found.conditions == {} and found.listeners == ()
