"""Tests without music and listeners without ears: people, guessers and scripts, through the server's own sessions."""

import itertools
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from lofi_assets.listening.answers import truth_of
from lofi_assets.listening.arrivals import sessions_folder
from lofi_assets.listening.items import Item, TestKey
from lofi_assets.listening.journal import Journal
from lofi_assets.listening.ledger import Entry
from lofi_assets.listening.opening import enter, write_test
from lofi_assets.listening.order import Presentation, order_of
from lofi_assets.listening.plan import Plan, new_plan
from lofi_assets.listening.session import Session
from lofi_assets.metrics.listener_screening import Form, Said
from lofi_assets.metrics.sequential import Spending
from lofi_assets.store import Store

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
ABOUT = "a" * 64
SECONDS = 4.0
STYLES = ("CORE-01", "CORE-02", "THEME-03")


def made_test(
    store: Store,
    *,
    forms: Mapping[Form, int] | None = None,
    listeners: int = 24,
    earlier_tests: int = 0,
    about: str = ABOUT,
    now: datetime = START,
    spending: Spending = "obrien_fleming",
) -> tuple[Entry, Plan]:
    """An open test of 36 generated and 36 real excerpts of 24 recordings, whose files hold silence."""
    plan = new_plan(
        test=secrets.token_hex(4),
        about=about,
        checkpoint_id="epoch=0-step=80_lora",
        made=now,
        earlier_tests=earlier_tests,
        forms=forms or {"pair": 16},
        listeners=listeners,
        seconds=SECONDS,
        spending=spending,
    )
    silence = np.zeros((64, 2), dtype=np.int16)
    items = [
        Item(truth=truth, source=f"{truth}-{clip}", style_id=STYLES[clip % 3], sha256="")
        for truth in ("ai", "real")
        for clip in range(12)
        for _ in range(3)
    ]
    items += [Item(truth="ai", source=f"ai-{n}", style_id=STYLES[0], sha256="", obvious=True) for n in range(7)]
    write_test(store, plan.test, plan, [(item, silence) for item in items], sample_rate=32_000)
    return enter(store, plan, kind="ai_or_real", test=plan.test, about=about, name="step 80", now=now), plan


@dataclass(frozen=True)
class Asked:
    """What a stand-in is asked: it may use the truth only as far as it is a listener who hears."""

    shown: Presentation
    place: int
    truth: Said | None
    before: "Reply | None"
    """Its answer to the same excerpts."""


@dataclass(frozen=True)
class Reply:
    said: Said
    confidence: int
    seconds: float


Listener = Callable[[Asked, np.random.Generator], Reply]
OTHER: Mapping[Said, Said] = {"ai": "real", "real": "ai", "first": "second", "second": "first"}


def person(accuracy: float, *, slip: float = 0.01) -> Listener:
    """Someone who listens: right about tests with this probability, about obvious controls nearly always."""

    def reply(asked: Asked, rng: np.random.Generator) -> Reply:
        seconds = float(rng.lognormal(1.2, 0.5))
        truth = asked.truth or "first"
        if asked.shown.kind in ("obvious", "training"):
            return Reply(truth if rng.random() > slip else OTHER[truth], 5, seconds)
        if asked.before and rng.random() < 0.6:  # mostly hears the same again
            said = OTHER[asked.before.said] if asked.shown.form == "pair" else asked.before.said
            return Reply(said, 2, seconds)
        confidence = 1 if asked.truth is None else int(rng.integers(1, 5))
        return Reply(truth if rng.random() < accuracy else OTHER[truth], confidence, seconds)

    return reply


def undecided() -> Listener:
    """Someone who listens, cannot tell, and is right every other time: guessing without its chance."""
    answers = itertools.count()
    wrong, right = person(0.0, slip=0.0), person(1.0, slip=0.0)

    def reply(asked: Asked, rng: np.random.Generator) -> Reply:
        given = (right if asked.shown.kind != "test" or next(answers) % 2 else wrong)(asked, rng)
        return Reply(given.said, given.confidence, given.seconds)

    return reply


def clicker(asked: Asked, rng: np.random.Generator) -> Reply:
    """Someone who clicks anything, at any time."""
    words: tuple[Said, Said] = ("ai", "real") if asked.shown.form == "single" else ("first", "second")
    return Reply(words[int(rng.integers(2))], int(rng.integers(1, 6)), float(rng.lognormal(0.5, 0.6)))


def script(pattern: str, *, seconds: float = 2.0, spread: float = 0.02) -> Listener:
    """A program that answers by its own list: `1` is AI or the first, `0` the other."""

    def reply(asked: Asked, rng: np.random.Generator) -> Reply:
        words: tuple[Said, Said] = ("real", "ai") if asked.shown.form == "single" else ("second", "first")
        said = words[int(pattern[asked.place % len(pattern)])]
        return Reply(said, 3, seconds * (1.0 + spread * float(rng.uniform(-1, 1))))

    return reply


def sit(
    store: Store, plan: Plan, listener: str, reply: Listener, *, rng: np.random.Generator, start: float, stop: int = 999
) -> Session:
    """A whole session by the server's own means, from the headphone check on; `stop` ends it early."""
    key = TestKey.read(store, plan.test)
    journal = Journal(sessions_folder(store, plan.test) / f"{listener}.jsonl", key.signing)
    now = start
    session = Session.begin(journal, order_of(key.items, plan), seconds=plan.seconds, now=now)
    session.check(session.quietest[-1], now=now)
    said: dict[str, Reply] = {}
    while (shown := session.current) and len(said) < stop:
        for slot in range(len(shown.items)):
            session.tell(shown.id, slot, "play", position=0.0, now=now)
            now += plan.seconds + 0.1
            session.tell(shown.id, slot, "ended", position=plan.seconds, now=now)
        place = sum(one.kind != "training" for one in session.order[: session.order.index(shown)])
        given = reply(Asked(shown, place, truth_of(shown, key.items), said.get(shown.again_of)), rng)
        now += given.seconds
        session.answer(shown.id, {"said": given.said, "confidence": given.confidence}, now=now)
        said[shown.id] = given
        now += 0.5
    return session


def crowd(store: Store, plan: Plan, replies: list[Listener], *, seed: int = 3, first: int = 1) -> None:
    """Many listeners, in an order that has nothing to do with what they are."""
    rng = np.random.default_rng(seed)
    for place, number in enumerate(rng.permutation(len(replies))):
        start = START.timestamp() + 600.0 * (place + first)
        sit(store, plan, f"L{first + place:03d}", replies[number], rng=rng, start=start)
