"""Statistics of a listening test: exact, clustered, and a verdict that few listeners cannot buy."""

import json
import math
from collections.abc import Callable

import numpy as np
import pytest

from lofi_assets.files.typed import plain
from lofi_assets.metrics import binomial
from lofi_assets.metrics.errors import MetricError
from lofi_assets.metrics.listener_screening import Form
from lofi_assets.metrics.listening_trials import Levels, Trial, design_effect, evaluate_trials
from lofi_assets.metrics.results import ListeningResult

Right = Callable[[int, int], bool]


def upper_tail(k: int, n: int, p: float) -> float:
    return sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))


@pytest.mark.parametrize(
    ("k", "n", "p"),
    [
        *((14, 20, 0.115), (15, 20, 0.0414), (32, 50, 0.0649), (60, 100, 0.0569)),
        *((61, 100, 0.0352), (114, 200, 0.0560), (115, 200, 0.0400)),
    ],
)
def test_binomial_p_is_exact(k: int, n: int, p: float) -> None:
    assert binomial.two_sided_p(k, n) == pytest.approx(min(1.0, 2 * upper_tail(k, n, 0.5)), rel=1e-12)
    assert binomial.two_sided_p(k, n) == pytest.approx(p, abs=5e-4)
    assert binomial.two_sided_p(n - k, n) == binomial.two_sided_p(k, n)


def test_binomial_p_of_an_even_split_is_one() -> None:
    assert binomial.two_sided_p(10, 20) == 1.0


def test_equivalence_p_is_the_larger_of_two_exact_tails() -> None:
    for k in (98, 107, 116, 120):
        tails = upper_tail(k, 214, 0.4), 1 - upper_tail(k + 1, 214, 0.6)
        assert binomial.equivalence_p(k, 214, margin=0.1) == pytest.approx(max(tails), rel=1e-9)


@pytest.mark.parametrize(
    ("margin", "power", "n", "accepted"),
    [
        (0.05, 0.8, 861, None),
        (0.05, 0.9, 1092, None),
        (0.10, 0.8, 214, (98, 116)),
        (0.10, 0.9, 268, (121, 147)),
        (0.15, 0.8, 96, (42, 54)),
        (0.20, 0.8, 53, (22, 31)),
    ],
)
def test_trials_needed_for_equivalence(margin: float, power: float, n: int, accepted: tuple[int, int] | None) -> None:
    assert binomial.trials_needed(margin=margin, power=power) == n
    assert accepted in (None, binomial.acceptance(n, margin=margin))


def test_fifty_trials_cannot_prove_equivalence_within_ten_percent() -> None:
    assert binomial.acceptance(50, margin=0.1) is None
    assert binomial.acceptance(100, margin=0.1) == (49, 51)


def test_interval_is_clopper_pearson() -> None:
    assert binomial.clopper_pearson(60, 100) == pytest.approx((0.4972, 0.6967), abs=1e-4)
    assert binomial.clopper_pearson(0, 10)[0] == 0.0 and binomial.clopper_pearson(10, 10)[1] == 1.0


def trials(listeners: int, each: int, *, right: Right, form: Form = "single") -> list[Trial]:
    """Balanced trials; `right(listener, trial)` says whether the answer is correct."""
    words = ("ai", "real") if form == "single" else ("first", "second")
    made = []
    for listener in range(listeners):
        for i in range(each):
            truth, other = words if i % 2 else words[::-1]
            answer = truth if right(listener, i) else other
            made.append(Trial(listener=f"L{listener}", form=form, clip=str(i), truth=truth, answer=answer))  # type: ignore[arg-type]
    return made


def result(made: list[Trial], **levels: float) -> ListeningResult:
    return evaluate_trials(made, levels=Levels(**levels), date="2025-01-15")


def guessing(seed: int = 0) -> Right:
    coins = np.random.default_rng(seed).integers(2, size=(500, 500))
    return lambda listener, trial: bool(coins[listener, trial])


@pytest.mark.parametrize("form", ["single", "pair"])
def test_twenty_guesses_pass_p_but_are_inconclusive(form: Form) -> None:
    found = result(trials(2, 10, right=lambda listener, i: (i // 2 + listener) % 2 == 0, form=form))
    assert found.p_value == 1.0 and found.verdict == "inconclusive"
    assert found.trials_needed >= 214 and found.trials_missing >= 194


@pytest.mark.parametrize("form", ["single", "pair"])
def test_enough_guessing_listeners_are_indistinguishable(form: Form) -> None:
    found = result(trials(20, 40, right=guessing(), form=form))
    assert found.verdict == "indistinguishable" and found.p_value > 0.05 and found.equivalence_p < 0.05
    assert found.trials_missing == 0 and abs(found.d_prime) < 0.2
    assert found.accuracy_interval[0] < 0.5 < found.accuracy_interval[1]
    assert found.human_evaluation() == {
        "evaluator_count": 20,
        "accuracy": found.accuracy,
        "p_value": found.p_value,
        "date": "2025-01-15",
    }
    json.dumps(plain(found), allow_nan=False)


def test_listeners_who_hear_it_are_distinguishable_however_few_they_are_sure_of() -> None:
    found = result(trials(10, 20, right=lambda _, i: i % 10 < 7))
    assert found.verdict == "distinguishable" and found.accuracy == 0.7 and found.p_value < 1e-6


def test_one_form_that_tells_apart_is_enough_and_both_have_to_be_within_the_margin() -> None:
    single, pair = trials(20, 40, right=guessing()), trials(20, 40, right=guessing(1), form="pair")
    both = result([*single, *pair])
    assert both.verdict == "indistinguishable" and set(both.forms) == {"single", "pair"}
    heard = trials(20, 40, right=lambda _, i: i % 10 < 7, form="pair")
    assert result([*single, *heard]).verdict == "distinguishable"
    few = trials(20, 2, right=lambda listener, i: (i // 2 + listener) % 2 == 0, form="pair")
    assert result([*single, *few]).verdict == "inconclusive"


def test_a_stricter_level_is_asked_for_where_the_look_or_an_earlier_test_says_so() -> None:
    made = trials(20, 16, right=lambda listener, i: (i // 2 + listener) % 2 == 0)
    at_once = result(made)
    assert at_once.verdict == "indistinguishable"
    assert result(made, equivalence=at_once.equivalence_p / 2).verdict == "inconclusive"


def test_answers_that_hang_together_count_for_less() -> None:
    """Half the listeners always right and half always wrong average to one half, and prove nothing."""
    split = trials(20, 40, right=lambda listener, _: listener % 2 == 0)
    found = result(split)
    assert design_effect(split) > 30 and found.effective_trials < 30
    assert found.accuracy == 0.5 and found.verdict == "inconclusive" and found.trials_missing > 1000
    assert found.listener_interval is not None and found.listener_interval[0] < 0.4 < 0.6 < found.listener_interval[1]
    by_clip = result(trials(20, 40, right=lambda _, i: (i // 2) % 2 == 0))
    assert by_clip.verdict == "inconclusive" and by_clip.design_effect > 15


def test_one_listener_or_an_unbalanced_test_supports_no_claim() -> None:
    alone = result(trials(1, 400, right=lambda _, i: (i // 2) % 2 == 0))
    assert alone.verdict == "inconclusive" and "1 listener" in alone.notes[0] and alone.listener_interval is None
    balanced = trials(20, 40, right=guessing())
    tilted = result([t for t in balanced if t.truth == "ai" or t.clip.endswith("0")])
    assert tilted.verdict != "indistinguishable" and "balance" in " ".join(tilted.notes)


def test_a_result_does_not_depend_on_the_order_of_the_answers() -> None:
    made = trials(6, 30, right=guessing())
    assert result(made) == result(made[::-1])


def test_no_trials_is_an_error_not_a_pass() -> None:
    with pytest.raises(MetricError, match="collect more"):
        result([])
