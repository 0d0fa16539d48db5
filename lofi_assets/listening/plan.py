"""What is fixed before the first answer: how many listeners and trials, when to look, at which levels, who is left out.

    listening/<test>/plan.json

The ledger holds the plan's hash from the moment the test is opened; a plan that was changed afterwards is refused.
"""

import math
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from pydantic.dataclasses import dataclass

from lofi_assets.files.hashing import hash_of
from lofi_assets.files.typed import STORED, Stored, plain, read_typed
from lofi_assets.files.writing import StoreError
from lofi_assets.listening.errors import ListeningError
from lofi_assets.listening.ledger import Entry
from lofi_assets.metrics import binomial
from lofi_assets.metrics.listener_screening import Form, ScreeningRule
from lofi_assets.metrics.listening_trials import Levels
from lofi_assets.metrics.sequential import Spending, nominal_levels, repeated_p
from lofi_assets.store import Store

ALPHA = 0.05
"""Of the test against guessing, two-sided (constitution III); and of all equivalence tests that one checkpoint has."""
MARGIN = 0.10
LOOKS = (0.5, 0.75, 1.0)
"""Shares of the listeners at which the answers are looked at."""
OBVIOUS, REPEATED = 5, 1
"""Controls of a session with one form of question; with two forms the obvious ones are divided among them."""
ASSUMED_EFFECT = 1.3
"""Design effect that `power` is printed for; the test itself uses the one that it finds."""
MIN_LISTENERS, MOST_LISTENERS = 8, 10_000
WANTED_POWER, LEAST_POWER = 0.8, 0.5


@dataclass(frozen=True, kw_only=True, config=STORED)
class Plan:
    """Of a test of generated against real tracks."""

    test: str
    about: str
    checkpoint_id: str
    made: datetime
    earlier_tests: int
    """Of the same checkpoint, with answers; each halves what is left of `ALPHA` for equivalence."""
    forms: Mapping[Form, int]
    """Test trials of each form for one listener."""
    obvious: int = OBVIOUS
    repeated: int = REPEATED
    """Of each form, one excerpt again and one real one twice."""
    listeners: int
    """Whose answers count at the last look; who is left out is replaced."""
    looks: tuple[int, ...]
    """Listeners at each look."""
    alpha: float = ALPHA
    margin: float = MARGIN
    spending: Spending
    seconds: float
    """Of an excerpt."""
    screening: ScreeningRule

    @property
    def equivalence_alpha(self) -> float:
        """Of this test: what `level_of` leaves for it."""
        return level_of(self.earlier_tests)

    @property
    def fractions(self) -> tuple[float, ...]:
        return tuple(look / self.listeners for look in self.looks)

    def levels(self, look: int) -> Levels:
        """Of look 1, 2, ...; the same for everybody who has the plan."""
        p, equivalence = (
            nominal_levels(self.fractions, alpha=alpha, spending=self.spending)[look - 1]
            for alpha in (self.alpha / 2.0, self.equivalence_alpha)
        )
        return Levels(p=2.0 * p, equivalence=equivalence, margin=self.margin)

    def adjusted(self, p: float, look: int) -> float:
        """A p-value of a look with the earlier looks accounted for."""
        return repeated_p(p, self.fractions[:look], spending=self.spending)

    def power(self) -> float:
        """As the function of this name."""
        return power(self.forms, self.listeners, self.earlier_tests)


def level_of(earlier_tests: int) -> float:
    """Level of a test's equivalence: 0.025 for a checkpoint's first, then half of the one before, in all 0.05."""
    return ALPHA * 0.5 ** (earlier_tests + 1)


def power(forms: Mapping[Form, int], listeners: int, earlier_tests: int) -> float:
    """How probably true guessing is proven at one look at everybody, for the form with the fewest trials."""
    effective = int(min(forms.values()) * listeners / ASSUMED_EFFECT)
    accepted = binomial.acceptance(effective, margin=MARGIN, alpha=level_of(earlier_tests))
    return binomial.mass(accepted, effective) if accepted else 0.0


def new_plan(
    *,
    test: str,
    about: str,
    checkpoint_id: str,
    made: datetime,
    earlier_tests: int,
    forms: Mapping[Form, int],
    listeners: int | None,
    seconds: float,
    spending: Spending,
) -> Plan:
    """A plan with looks at `LOOKS`.

    Args:
        listeners: None for as many as prove true guessing with power 0.8.
    Raises:
        ListeningError: too few listeners or trials for any answer, so that people would listen for nothing.
    """
    if listeners is None:
        options = range(MIN_LISTENERS, MOST_LISTENERS)
        listeners = next(n for n in options if power(forms, n, earlier_tests) >= WANTED_POWER)
    if listeners < MIN_LISTENERS:
        raise ListeningError(f"{listeners} listeners are no panel; plan for {MIN_LISTENERS} or more")
    if (likely := power(forms, listeners, earlier_tests)) < LEAST_POWER:
        raise ListeningError(
            f"{listeners} listeners with {min(forms.values())} trials of a form prove equivalence with probability "
            f"{likely:.2f} only, even if nobody hears a difference; plan for more listeners or trials"
        )
    return Plan(
        test=test,
        about=about,
        checkpoint_id=checkpoint_id,
        made=made,
        earlier_tests=earlier_tests,
        forms=forms,
        listeners=listeners,
        looks=tuple(sorted({math.ceil(listeners * share) for share in LOOKS})),
        spending=spending,
        seconds=seconds,
        screening=ScreeningRule(),
    )


def plan_path(store: Store, test: str) -> Path:
    """Where a test's plan lies."""
    return store.listening / test / "plan.json"


def plan_hash(plan: Stored) -> str:
    """By which the ledger knows a plan."""
    return hash_of(plain(plan))


def read_plan(store: Store, entry: Entry) -> Plan:
    """The plan of a test, as it was when the test was opened.

    Args:
        entry: its opening.
    Raises:
        ListeningError: it is gone, or was changed.
    """
    return _unchanged(read_file(plan_path(store, entry.test), Plan), plan_path(store, entry.test), entry)


def read_file(path: Path, kind: type[Plan]) -> Plan | None:
    """What stands there; None if nothing does.

    Raises:
        ListeningError: it is broken, or of another version.
    """
    try:
        return read_typed(path, kind, remedy="restore it from a copy, or close the test and open another")
    except StoreError as error:
        raise ListeningError(str(error)) from error


def _unchanged(plan: Plan | None, path: Path, entry: Entry) -> Plan:
    if plan is None:
        raise ListeningError(f"{path}: is gone; the test stays in the ledger: restore its folder from a copy")
    if plan_hash(plan) != entry.plan_sha256:
        raise ListeningError(
            f"{path}: was changed after the test was opened; restore it from a copy, or close the test and open another"
        )
    return plan
