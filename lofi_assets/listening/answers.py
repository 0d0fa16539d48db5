"""The sessions of a test as the statistics take them: what the rule looks at, and the trials that may count."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lofi_assets.listening.arrivals import session_files
from lofi_assets.listening.items import Item, TestKey
from lofi_assets.listening.journal import Journal
from lofi_assets.listening.order import Presentation
from lofi_assets.listening.session import Answer, Session
from lofi_assets.metrics.listener_screening import Form, Given, Said, Sitting
from lofi_assets.metrics.listening_trials import Trial
from lofi_assets.store import Store


@dataclass(frozen=True, kw_only=True)
class Sat:
    """One finished session."""

    finished_at: float
    sitting: Sitting
    trials: tuple[Trial, ...]

    @property
    def listener(self) -> str:
        return self.sitting.listener


@dataclass(frozen=True, kw_only=True)
class Collected:
    """What came in so far."""

    finished: tuple[Sat, ...]
    """In the order in which they were finished."""
    unfinished: int
    """Sessions that were begun and not ended."""
    stopped: int
    """Sessions that ended at the headphone check."""
    void: tuple[str, ...]
    """Lines that do not hold: `L003, line 7: ...`."""


def sessions(store: Store, test: str, key: TestKey, *, seconds: float) -> list[Session]:
    """Every session that was begun."""
    return [Session.load(Journal(path, key.signing), seconds=seconds) for path in session_files(store, test)]


def collect(store: Store, test: str, *, seconds: float) -> Collected:
    """Everything on the disk of a test of generated against real tracks.

    Raises:
        ListeningError: its key is gone.
    """
    key = TestKey.read(store, test)
    finished: list[Sat] = []
    void: list[str] = []
    unfinished = stopped = 0
    for session in sessions(store, test, key, seconds=seconds):
        void += session.void
        try:
            sat = _sat(session, key.items)
        except KeyError as error:
            void.append(f"{session.journal.session}: is of another test ({error})")
            continue
        stopped += session.stage == "stopped"
        unfinished += session.stage in ("check", "listen")
        finished += [sat] if sat else []
    return Collected(
        finished=tuple(sorted(finished, key=lambda sat: (sat.finished_at, sat.listener))),
        unfinished=unfinished,
        stopped=stopped,
        void=tuple(void),
    )


def _sat(session: Session, items: Mapping[str, Item]) -> Sat | None:
    if session.finished_at is None or not session.order:  # what was asked is void, and so is what was answered
        return None
    listener = session.journal.session
    asked = [shown for shown in session.order if shown.kind != "training"]
    places = {shown.id: place for place, shown in enumerate(asked)}
    given = tuple(_given(shown, session.answers.get(shown.id), items, places) for shown in asked)
    return Sat(
        finished_at=session.finished_at,
        sitting=Sitting(listener=listener, answers=given),
        trials=tuple(
            _trial(listener, shown, session.answers[shown.id].said, items)
            for shown in asked
            if shown.kind == "test" and shown.id in session.answers
        ),
    )


def _given(shown: Presentation, answer: Answer | None, items: Mapping[str, Item], places: Mapping[str, int]) -> Given:
    """An answer whose line is void counts as none: a control without an answer is missed."""
    truth = truth_of(shown, items)
    said = _said(answer.said) if answer else _other(truth or "first")
    return Given(
        form=_form(shown),
        kind=shown.kind,
        said=said,
        truth=truth,
        confidence=answer.confidence if answer else 0,
        seconds=answer.seconds if answer else 0.0,
        chosen=_chosen(shown, said),
        again_of=places.get(shown.again_of),
    )


def _trial(listener: str, shown: Presentation, said: str, items: Mapping[str, Item]) -> Trial:
    truth = truth_of(shown, items)
    assert truth is not None, "a test trial has an answer"
    generated = [item for item in shown.items if items[item].truth == "ai"]
    asked_about = items[generated[0] if generated else shown.items[0]]
    return Trial(
        listener=listener,
        form=_form(shown),
        clip=asked_about.source,
        truth=truth,
        answer=_said(said),
        style_id=asked_about.style_id,
    )


def truth_of(shown: Presentation, items: Mapping[str, Item]) -> Said | None:
    """The right answer; None for a pair of which neither is generated."""
    truths: Sequence[str] = [items[item].truth for item in shown.items]
    if shown.form == "single":
        return "ai" if truths[0] == "ai" else "real"
    return None if "ai" not in truths else ("first" if truths[0] == "ai" else "second")


def _form(shown: Presentation) -> Form:
    assert shown.form != "tiers"
    return shown.form


def _chosen(shown: Presentation, said: Said) -> str:
    if said == "real":
        return ""
    return shown.items[1 if said == "second" else 0]


_OTHER: Mapping[Said, Said] = {"ai": "real", "real": "ai", "first": "second", "second": "first"}


def _other(said: Said) -> Said:
    return _OTHER[said]


def _said(text: str) -> Said:
    return next(said for said in _OTHER if said == text)
