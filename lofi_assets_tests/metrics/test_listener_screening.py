"""Whose answers count: whom the rule finds, and that it spares people who cannot tell."""

from dataclasses import replace

import numpy as np
import pytest

from lofi_assets.metrics.listener_screening import Given, Said, ScreeningRule, Sitting, screened, too_many

RULE = ScreeningRule()


def sitting(rng: np.random.Generator, listener: str = "L001", *, share: float = 0.5) -> Sitting:
    """An honest guesser of 23 pairs; `share` of the answers are the first."""
    answers = []
    for place in range(23):
        kind = "obvious" if place % 5 == 0 else "test"
        truth: Said = "first" if rng.random() < 0.5 else "second"
        guess: Said = "first" if rng.random() < share else "second"
        answers.append(
            Given(
                form="pair",
                kind=kind,  # type: ignore[arg-type]
                said=truth if kind == "obvious" else guess,
                truth=truth,
                confidence=int(rng.integers(1, 4)),
                seconds=float(rng.lognormal(1.2, 0.5)),
                chosen=f"i{place}",
            )
        )
    return Sitting(listener=listener, answers=tuple(answers))


def test_people_who_guess_are_spared() -> None:
    """The habits, the pattern and the copies together leave out at most 1 in 100 of honest guessers."""
    rng = np.random.default_rng(1)
    people = [sitting(rng, f"L{n}") for n in range(400)]
    found = [who for one in people for who in screened([one], RULE)]
    assert len(found) <= 4
    assert len(screened(people[:50], RULE)) <= 1


def changed(one: Sitting, **of_every: object) -> Sitting:
    return replace(one, answers=tuple(replace(given, **of_every) for given in one.answers))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("attack", "reason"),
    [
        ({"seconds": 0.2}, "answered within 0.20 s"),
        ({"seconds": 2.0}, "constant intervals"),
        ({"said": "first"}, "missed"),
    ],
)
def test_a_script_is_found(attack: dict[str, object], reason: str) -> None:
    one = changed(sitting(np.random.default_rng(3)), **attack)
    assert reason in screened([one], RULE)["L001"]


def test_one_answer_throughout_is_found_even_if_every_control_is_met() -> None:
    answers = [replace(given, said="first", truth="first") for given in sitting(np.random.default_rng(0)).answers]
    found = screened([Sitting(listener="L1", answers=tuple(answers))], RULE)
    assert found == {"L1": "said 'first' 23 of 23 times"}


@pytest.mark.parametrize("pattern", ["10", "110", "1100", "1000"])
def test_a_pattern_is_found(pattern: str) -> None:
    plain = sitting(np.random.default_rng(0)).answers
    words: dict[str, Said] = {"1": "first", "0": "second"}
    answers = [
        replace(given, said=words[pattern[n % len(pattern)]], truth=words[pattern[n % len(pattern)]])
        for n, given in enumerate(plain)
    ]
    assert "L1" in screened([Sitting(listener="L1", answers=tuple(answers))], RULE)


def test_two_who_answer_by_one_list_are_found_and_nobody_else() -> None:
    rng = np.random.default_rng(5)
    one, two, three = (sitting(rng, f"L{n}") for n in range(3))
    copy = replace(
        two,
        answers=tuple(
            replace(given, said=other.said, truth=other.said if given.kind == "obvious" else given.truth)
            for given, other in zip(two.answers, one.answers, strict=True)
        ),
    )
    assert set(screened([one, copy, three], RULE)) == {"L0", "L1"}


def test_who_claims_to_know_what_nobody_can_is_found_and_a_change_of_mind_is_not() -> None:
    plain = sitting(np.random.default_rng(0))
    twice = Given(form="pair", kind="real_twice", said="first", truth=None, confidence=5, seconds=3.0, chosen="x")
    again = replace(plain.answers[1], kind="repeated", confidence=5, chosen="other", again_of=1)
    sure = replace(plain.answers[1], confidence=5)
    answers = (plain.answers[0], sure, *plain.answers[2:], again, twice)
    found = screened([Sitting(listener="L1", answers=answers)], RULE)
    assert found == {"L1": "was sure and said otherwise of the same excerpt, 2 times"}
    unsure = (*plain.answers, replace(again, confidence=2), replace(twice, confidence=1))
    assert screened([Sitting(listener="L1", answers=unsure)], RULE) == {}


def test_an_obvious_control_that_is_missed_is_one_too_many() -> None:
    plain = sitting(np.random.default_rng(0))
    wrong: Said = "second" if plain.answers[5].truth == "first" else "first"
    answers = (*plain.answers[:5], replace(plain.answers[5], said=wrong), *plain.answers[6:])
    found = screened([Sitting(listener="L1", answers=answers)], RULE)
    assert found == {"L1": "missed 1 of 5 obvious controls"}


def test_whether_an_answer_about_a_test_clip_is_right_decides_nothing() -> None:
    one = sitting(np.random.default_rng(7))
    right = [replace(g, truth=g.said) for g in one.answers]
    flip: dict[Said, Said] = {"first": "second", "second": "first"}
    wrong = [g if g.kind == "obvious" else replace(g, truth=flip[g.said]) for g in right]
    for answers in (right, wrong):
        assert screened([Sitting(listener="L1", answers=tuple(answers))], RULE) == {}


def test_a_panel_of_which_too_many_are_left_out_is_none() -> None:
    assert too_many({str(n): "" for n in range(3)}, 10, RULE) == ""
    assert "4 of 10" in too_many({str(n): "" for n in range(4)}, 10, RULE)
