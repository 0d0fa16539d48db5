"""What one listener gets, in which order: drawn anew for each session, from no seed, and known to the server alone."""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from pydantic.dataclasses import dataclass

from lofi_assets.files.typed import STORED
from lofi_assets.listening.errors import ListeningError
from lofi_assets.listening.items import Item, random_id
from lofi_assets.listening.plan import Plan
from lofi_assets.metrics.listener_screening import Form, Kind

PresentedForm = Literal["single", "pair", "tiers"]
APART = 3
"""Presentations between an excerpt and the same again, at least."""
_RANDOM = secrets.SystemRandom()


@dataclass(frozen=True, kw_only=True, config=STORED)
class Presentation:
    """One question."""

    id: str
    form: PresentedForm
    kind: Kind
    items: tuple[str, ...]
    """In the order in which they are offered."""
    again_of: str = ""
    """The presentation that this one repeats."""


def order_of(items: Mapping[str, Item], plan: Plan) -> tuple[Presentation, ...]:
    """One listener's session: per form a little training, then test trials and controls in one random order.

    Raises:
        TooFewExcerptsError: fewer excerpts than the plan asks for.
    """
    pool = _Pool(items)
    forms: list[Form] = list(plan.forms)
    _RANDOM.shuffle(forms)
    training = {form: pool.training(form) for form in forms}
    made: list[Presentation] = []
    for number, form in enumerate(forms):
        obvious = plan.obvious // len(forms) + (number < plan.obvious % len(forms))
        made += training[form] + _block(pool, form, plan.forms[form], obvious=obvious, repeated=plan.repeated)
    return tuple(made)


def _block(pool: "_Pool", form: Form, trials: int, *, obvious: int, repeated: int) -> list[Presentation]:
    tests = pool.tests(form, trials)
    controls = [pool.obvious(form) for _ in range(obvious)]
    twice = [pool.real_twice() for _ in range(repeated)] if form == "pair" else []
    order = [*tests, *controls, *twice]
    _RANDOM.shuffle(order)
    for wanted in (None,) if form == "pair" else ("ai", "real"):
        fitting = [one for one in order if one in tests and wanted in (None, pool.items[one.items[0]].truth)]
        early = fitting[: max(repeated, len(fitting) // 2)]
        for first in _RANDOM.sample(early, repeated):
            place = _RANDOM.randint(min(order.index(first) + 1 + APART, len(order)), len(order))
            kind: Kind = "real_twice" if wanted == "real" else "repeated"
            order.insert(place, _shown(form, kind, first.items[::-1], again_of=first.id))
    return order


def _shown(form: PresentedForm, kind: Kind, items: Iterable[str], *, again_of: str = "") -> Presentation:
    return Presentation(id=random_id(), form=form, kind=kind, items=tuple(items), again_of=again_of)


class TooFewExcerptsError(ListeningError):
    """A listener would have to hear an excerpt twice."""


class _Pool:
    """The excerpts of a test, each given out once in a session."""

    def __init__(self, items: Mapping[str, Item]) -> None:
        self.items = items
        ids = list(items)
        _RANDOM.shuffle(ids)
        self._ai = [i for i in ids if items[i].truth == "ai" and not items[i].obvious]
        self._real = [i for i in ids if items[i].truth == "real"]
        self._obvious = [i for i in ids if items[i].obvious]
        self._reals = list(self._real)

    def training(self, form: Form) -> list[Presentation]:
        """One obvious and one like the others; the recordings behind the latter are not asked about again."""
        real = self._take(self._real)
        if form == "single":
            self._leave_out(real)
            return [self.obvious(form, kind="training"), _shown(form, "training", [real])]
        ai = self._take(self._ai)
        self._leave_out(real, ai)
        return [self.obvious(form, kind="training"), _shown(form, "training", _either_way(ai, real))]

    def tests(self, form: Form, count: int) -> list[Presentation]:
        """As many generated as real ones, or pairs of one style."""
        if form == "single":
            ai = [self._take(self._ai) for _ in range(count // 2)]
            real = [self._take(self._real) for _ in range(count - count // 2)]
            return [_shown(form, "test", [item]) for item in (*ai, *real)]
        pairs = [(ai, self._partner(ai)) for ai in (self._take(self._ai) for _ in range(count))]
        return [_shown(form, "test", _either_way(*pair)) for pair in pairs]

    def obvious(self, form: Form, *, kind: Kind = "obvious") -> Presentation:
        """One that anybody calls AI."""
        item = self._take(self._obvious)
        return _shown(form, kind, [item] if form == "single" else _either_way(item, _RANDOM.choice(self._reals)))

    def real_twice(self) -> Presentation:
        """A pair of one real excerpt with itself."""
        item = _RANDOM.choice(self._reals)
        return _shown("pair", "real_twice", [item, item])

    def _partner(self, ai: str) -> str:
        """A real excerpt of the same style, a fresh one where there is one."""
        style = self.items[ai].style_id
        for pool in (self._real, self._reals):
            if fitting := [i for i in pool if self.items[i].style_id == style]:
                if pool is self._real:
                    self._real.remove(fitting[0])
                return fitting[0]
        raise ListeningError(f"no real excerpt of style {style} is left to stand beside a generated one")

    def _take(self, pool: list[str]) -> str:
        if not pool:
            raise TooFewExcerptsError("too few excerpts for so many trials; plan fewer trials for one listener")
        return pool.pop()

    def _leave_out(self, *used: str) -> None:
        sources = {self.items[item].source for item in used}
        for pool in (self._ai, self._real):
            pool[:] = [i for i in pool if self.items[i].source not in sources]


def _either_way(one: str, other: str) -> Sequence[str]:
    return (one, other) if _RANDOM.random() < 0.5 else (other, one)


def order_of_tiers(items: Mapping[str, Item]) -> tuple[Presentation, ...]:
    """One listener's comparison of tiers: every piece once, its reference first and then all conditions, shuffled."""
    pieces: dict[str, list[str]] = {}
    for item, about in items.items():
        pieces.setdefault(about.source, []).append(item)
    made = []
    for found in pieces.values():
        (reference,) = (item for item in found if items[item].condition == "reference")
        made.append(_shown("tiers", "test", [reference, *_RANDOM.sample(found, len(found))]))
    _RANDOM.shuffle(made)
    return tuple(made)
