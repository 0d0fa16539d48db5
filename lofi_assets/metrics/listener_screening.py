"""Whose answers count: the rule by which listeners are left out of a listening test, fixed before the first answer.

Nothing here looks at whether an answer about a test clip is right. Who cannot tell and who does not listen answer alike
there; they differ at controls whose answer is plain, in whether they contradict themselves with certainty, and in when
and in which order they answer.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from pydantic.dataclasses import dataclass as stored

from lofi_assets.files.typed import STORED
from lofi_assets.metrics.binomial import two_sided_p

Form = Literal["single", "pair"]
"""single: one excerpt, AI or people; pair: two similar ones, which of them is AI."""
Said = Literal["ai", "real", "first", "second"]
"""What is said of a single one, and of a pair: which one is AI."""
Kind = Literal["training", "test", "obvious", "repeated", "real_twice"]
"""obvious: one that anybody calls AI, in a pair beside a real one; repeated: as before, a pair with its sides changed;
real_twice: a real one again, in a pair against itself."""

SURE = 4
"""Confidence, of 1 to 5, from which on a person says to know."""
LONGEST_PERIOD = 4
MIN_ANSWERS = 10
"""Fewer answers tell nothing of their order or timing."""


@stored(frozen=True, kw_only=True, config=STORED)
class ScreeningRule:
    """Part of the plan of a test. `tests/metrics/test_listener_screening.py` shows whom it finds and whom it spares."""

    obvious_missed: int = 0
    """Most obvious controls that may be missed: who guesses passes five with 1 in 32."""
    contradictions: int = 1
    """Most times that a listener may say to know, and say otherwise of the same excerpt."""
    fastest_s: float = 0.35
    """Least median time from the end of the excerpt to the answer: choosing and confirming take longer."""
    least_spread: float = 0.10
    """Least standard deviation of that time over its mean; people have .3 and more, a program that waits has none."""
    habit_p: float = 0.001
    """Answers that are so one-sided, or so regular, that a guessing person gives them more rarely than this."""
    same_answers: float = 0.95
    """Share of presentations, by order, from which on two listeners' answers are one script's."""
    most_excluded: float = 0.30
    """Share of those who finished; if more are left out the panel is no panel, and nothing is shown by it."""


@dataclass(frozen=True, kw_only=True)
class Given:
    """One answer of a session, as the server saw it."""

    form: Form
    kind: Kind
    said: Said
    truth: Said | None
    """None where there is none: a pair of one excerpt with itself."""
    confidence: int
    seconds: float
    """From when the excerpt had been heard to the answer, by the server's clock."""
    chosen: str
    """What was called AI: an item's id, or ""."""
    again_of: int | None = None
    """Index of the answer about the same excerpts before."""


@dataclass(frozen=True, kw_only=True)
class Sitting:
    """What a listener answered, in the order of the session; training is not among it."""

    listener: str
    answers: tuple[Given, ...]


@dataclass(frozen=True)
class Screening:
    """What the rule finds in sittings: of each by itself, and of which two are one script's."""

    faults: Mapping[str, str]
    copies: tuple[tuple[str, str], ...]

    def among(self, listeners: Collection[str]) -> dict[str, str]:
        """Those of these listeners who are left out, each with the reason; one copies another only if both are here."""
        found = {who: why for who, why in self.faults.items() if who in listeners}
        for one, other in self.copies:
            if one in listeners and other in listeners:
                found.setdefault(one, f"answered by the same list as {other}")
                found.setdefault(other, f"answered by the same list as {one}")
        return found


def screening(sittings: Sequence[Sitting], rule: ScreeningRule) -> Screening:
    """What the rule finds, whatever was answered about test clips."""
    faults = {sitting.listener: reason for sitting in sittings if (reason := _fault(sitting, rule))}
    return Screening(faults, tuple(_copies(sittings, rule)))


def screened(sittings: Sequence[Sitting], rule: ScreeningRule) -> dict[str, str]:
    """Listeners who are left out of all of these, each with the reason."""
    return screening(sittings, rule).among({sitting.listener for sitting in sittings})


def too_many(excluded: Mapping[str, str], finished: int, rule: ScreeningRule) -> str:
    """Why a panel of which so many are left out shows nothing; "" if it does."""
    if len(excluded) <= rule.most_excluded * finished:
        return ""
    return (
        f"{len(excluded)} of {finished} who finished are left out by the rule, more than {rule.most_excluded:.0%}: "
        "invite people whom you know to listen, and close this test"
    )


def _fault(sitting: Sitting, rule: ScreeningRule) -> str:
    answers = sitting.answers
    obvious = [given for given in answers if given.kind == "obvious"]
    missed = sum(given.said != given.truth for given in obvious)
    if missed > rule.obvious_missed:
        return f"missed {missed} of {len(obvious)} obvious controls"
    if (contradicted := _contradictions(answers)) > rule.contradictions:
        return f"was sure and said otherwise of the same excerpt, {contradicted} times"
    if len(answers) >= MIN_ANSWERS and (fault := _timing(answers, rule) or _habit(answers, rule)):
        return fault
    return ""


def _contradictions(answers: Sequence[Given]) -> int:
    return sum(_contradicts(given, answers) for given in answers if given.kind in ("repeated", "real_twice"))


def _contradicts(given: Given, answers: Sequence[Given]) -> bool:
    """Whether a listener claims to know what nobody can, or the opposite of what was claimed of the same excerpts."""
    if given.confidence < SURE:
        return False
    if given.again_of is None:  # a pair of one excerpt with itself
        return True
    before = answers[given.again_of]
    return before.confidence >= SURE and before.chosen != given.chosen


def _timing(answers: Sequence[Given], rule: ScreeningRule) -> str:
    seconds = np.array([given.seconds for given in answers])
    if (median := float(np.median(seconds))) < rule.fastest_s:
        return f"answered within {median:.2f} s of the end"
    if (spread := float(seconds.std() / seconds.mean())) < rule.least_spread:
        return f"answered at constant intervals ({seconds.mean():.1f} s, spread {spread:.2f})"
    return ""


def _habit(answers: Sequence[Given], rule: ScreeningRule) -> str:
    by_form: dict[Form, list[Said]] = defaultdict(list)
    for given in answers:
        if given.form == "pair" or given.kind != "obvious":  # obvious single ones are all AI
            by_form[given.form].append(given.said)
    for said in by_form.values():
        most = max(said.count(answer) for answer in set(said))
        if two_sided_p(most, len(said)) < rule.habit_p:
            return f"said {max(set(said), key=said.count)!r} {most} of {len(said)} times"
    order = [given.said in ("ai", "first") for given in answers]
    for period in range(1, LONGEST_PERIOD + 1):
        if all(order[i] == order[i - period] for i in range(period, len(order))):
            return f"answered in a pattern that repeats after {period}"
    return ""


def _copies(sittings: Sequence[Sitting], rule: ScreeningRule) -> Iterator[tuple[str, str]]:
    """Two whose answers follow one list: every session has an order of its own, so that people's do not."""
    long = [sitting for sitting in sittings if len(sitting.answers) >= MIN_ANSWERS]
    words = {said: code for code, said in enumerate(get_args(Said))}
    size = min((len(sitting.answers) for sitting in long), default=0)
    codes = np.array([[words[given.said] for given in sitting.answers[:size]] for sitting in long])
    for number, one in enumerate(long):
        same = (codes[number] == codes[number + 1 :]).mean(axis=1)
        for other in np.flatnonzero(same >= rule.same_answers):
            yield one.listener, long[number + 1 + other].listener
