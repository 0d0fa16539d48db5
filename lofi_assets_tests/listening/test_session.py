"""What counts as heard, and a session that goes on where it was, whatever happened to page or server."""

import numpy as np
import pytest

from lofi_assets.listening.answers import truth_of
from lofi_assets.listening.arrivals import sessions_folder
from lofi_assets.listening.headphones import ATTEMPTS
from lofi_assets.listening.items import TestKey
from lofi_assets.listening.journal import Journal
from lofi_assets.listening.order import order_of
from lofi_assets.listening.plan import Plan
from lofi_assets.listening.playback import Playback, Told, told, why_not
from lofi_assets.listening.session import RefusedError, Session
from lofi_assets.store import Store
from lofi_assets_tests.listening.stand_in_listeners import START, made_test, person, sit

NOW = START.timestamp()
Events = list[tuple[Told, float, float]]
"""(event, position in the excerpt, server's clock)."""
BEATS: Events = [("beat", float(n), float(n)) for n in range(1, 10)]


@pytest.mark.parametrize(
    ("events", "heard"),
    [
        ([("play", 0, 0), *BEATS, ("ended", 10, 10)], True),
        ([("play", 0, 0.4), *BEATS, ("ended", 10, 9.9)], True),
        ([("play", 0, 0), ("ended", 10, 0.2)], False),
        ([("play", 0, 0), ("ended", 10, 60)], False),
        ([("play", 9, 0), ("ended", 10, 10)], False),
        ([("play", 0, 0), *[("beat", 0.0, float(n)) for n in range(1, 10)], ("ended", 0.1, 10)], False),
        ([("play", 0, 0), *BEATS, ("pause", 9.2, 9.2), ("play", 9.2, 100), ("ended", 10, 100.8)], True),
        ([("play", 0, 0), *BEATS[:4], ("rate", 4, 4), ("play", 4, 4), *BEATS[4:], ("ended", 10, 10)], False),
        ([("play", 0, 0), *BEATS[:4], ("mute", 4, 4), ("play", 4, 4), *BEATS[4:], ("ended", 10, 10)], False),
        ([("play", 0, 0), *[(e, p, t / 2) for e, p, t in BEATS], ("ended", 10, 5)], False),
        ([("ended", 10, 10)], False),
        ([("stall", 3, 3), ("play", 0, 20), *[(e, p, t + 20) for e, p, t in BEATS], ("ended", 10, 30)], True),
    ],
    ids=[
        *("to the end", "events late", "at once", "nothing between", "from near the end", "position stands still"),
        *("paused", "another speed", "muted", "twice the speed", "never started", "a stall and again"),
    ],
)
def test_what_counts_as_heard_is_what_the_servers_clock_saw(events: Events, heard: bool) -> None:
    state = Playback()
    for event, position, now in events:
        state = told(state, event, position=position, now=now, needed=10.0)
    assert state.complete is heard
    assert bool(why_not(state, 10.0)) is not heard


def test_a_pass_that_was_heard_stays_heard() -> None:
    state = Playback(complete=True)
    for event in ("play", "mute", "ended"):
        state = told(state, event, position=0.0, now=0.0, needed=10.0)
    assert state.complete and why_not(state, 10.0) == ""


@pytest.fixture
def plan(store: Store) -> Plan:
    return made_test(store, forms={"single": 8, "pair": 8}, listeners=60)[1]


@pytest.fixture
def journal(store: Store, plan: Plan) -> Journal:
    return Journal(sessions_folder(store, plan.test) / "L001.jsonl", TestKey.read(store, plan.test).signing)


@pytest.fixture
def session(store: Store, plan: Plan, journal: Journal) -> Session:
    made = Session.begin(journal, order_of(TestKey.read(store, plan.test).items, plan), seconds=plan.seconds, now=NOW)
    made.check(made.quietest[-1], now=NOW)
    return made


def hear(session: Session, now: float) -> str:
    shown = session.current
    assert shown is not None
    for slot in range(len(shown.items)):
        session.tell(shown.id, slot, "play", position=0.0, now=now)
        session.tell(shown.id, slot, "ended", position=4.0, now=now + 4.0)
        now += 5.0
    return shown.id


def said(session: Session) -> dict[str, object]:
    assert session.current is not None
    return {"said": "ai" if session.current.form == "single" else "first", "confidence": 3}


def test_an_answer_before_enough_was_played_is_refused(session: Session) -> None:
    shown = session.current
    assert shown is not None
    with pytest.raises(RefusedError, match="listen to the end"):
        session.answer(shown.id, said(session), now=NOW)
    session.tell(shown.id, 0, "play", position=0.0, now=NOW)
    message = session.tell(shown.id, 0, "ended", position=4.0, now=NOW + 0.3)
    assert message.startswith("Please play it again")
    with pytest.raises(RefusedError, match="listen to the end"):
        session.answer(shown.id, said(session), now=NOW + 1)


def test_a_killed_server_goes_on_where_it_was(session: Session, journal: Journal, plan: Plan) -> None:
    answered = []
    for number in range(6):
        answered.append(hear(session, NOW + 100 * number))
        session.answer(answered[-1], said(session), now=NOW + 100 * number + 50)
    heard = hear(session, NOW + 900)
    journal.path.write_bytes(journal.path.read_bytes() + b'{"n":99,"event":"ans')
    again = Session.load(journal, seconds=plan.seconds)
    assert again.order == session.order and again.answers == session.answers and again.void == ()
    assert again.current is not None and again.current.id == heard and all(again.heard(again.current))
    again.answer(heard, said(again), now=NOW + 950)
    last = Session.load(journal, seconds=plan.seconds)
    assert list(last.answers) == [*answered, heard] and last.void == ()


def test_an_answer_that_is_sent_again_is_taken_once(session: Session, journal: Journal) -> None:
    shown = hear(session, NOW)
    session.answer(shown, said(session), now=NOW + 20)
    before = journal.path.read_bytes()
    session.answer(shown, {"said": "second", "confidence": 5}, now=NOW + 30)
    assert journal.path.read_bytes() == before


def test_a_kill_between_the_last_answer_and_the_end_loses_no_session(store: Store, plan: Plan) -> None:
    done = sit(store, plan, "L002", person(0.5), rng=np.random.default_rng(0), start=NOW)
    path = done.journal.path
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    again = Session.load(done.journal, seconds=plan.seconds)
    assert again.stage == "listen" and again.current is None
    again.end_if_answered(now=NOW)
    assert Session.load(done.journal, seconds=plan.seconds).stage == "done"


def test_without_headphones_the_session_ends_after_three_attempts(store: Store, plan: Plan, journal: Journal) -> None:
    order = order_of(TestKey.read(store, plan.test).items, plan)
    session = Session.begin(journal, order, seconds=plan.seconds, now=NOW)
    for _ in range(ATTEMPTS):
        assert session.stage == "check"
        assert not session.check([(tone + 1) % 3 for tone in session.quietest[-1]], now=NOW)
    assert session.stage == "stopped" and len({tuple(tones) for tones in session.quietest}) >= 1
    with pytest.raises(RefusedError):
        session.check(session.quietest[-1], now=NOW)


@pytest.mark.parametrize(
    "content",
    [
        *({}, {"said": "ai"}, {"said": "perhaps", "confidence": 3}, {"said": "ai", "confidence": 6}),
        *({"said": "ai", "confidence": True}, {"said": ["ai"], "confidence": 3}, {"ratings": [1, 2]}),
    ],
)
def test_what_is_no_answer_is_refused(session: Session, content: dict[str, object]) -> None:
    shown = hear(session, NOW)
    with pytest.raises(RefusedError):
        session.answer(shown, content, now=NOW + 20)


def test_a_session_has_every_control_and_asks_about_nothing_that_was_told(store: Store, plan: Plan) -> None:
    items = TestKey.read(store, plan.test).items
    for _ in range(20):
        order = order_of(items, plan)
        kinds = [shown.kind for shown in order]
        assert kinds.count("test") == 16 and kinds.count("obvious") == 5
        assert kinds.count("repeated") == 2 and kinds.count("real_twice") == 2
        assert [shown.kind for shown in order if shown.form == order[0].form][:2] == ["training"] * 2
        tests = [shown for shown in order if shown.kind == "test"]
        asked = [item for shown in tests for item in shown.items]
        assert len(asked) == len(set(asked)) and len({shown.id for shown in order}) == len(order)
        singles = [truth_of(shown, items) for shown in tests if shown.form == "single"]
        assert singles.count("ai") == singles.count("real") == 4
        for shown in tests:
            assert len({items[item].style_id for item in shown.items}) == 1
            assert shown.form == "single" or {items[item].truth for item in shown.items} == {"ai", "real"}
        practice = [shown for shown in order if shown.kind == "training"]
        plain = [shown for shown in practice if not any(items[item].obvious for item in shown.items)]
        told_of = {items[item].source for shown in plain for item in shown.items}
        assert told_of and not told_of & {items[item].source for item in asked}
        for place, shown in enumerate(order):
            if shown.again_of:
                first = next(n for n, one in enumerate(order) if one.id == shown.again_of)
                assert place - first > 1 and set(order[first].items) == set(shown.items)


def test_two_sessions_share_neither_order_nor_ids(store: Store, plan: Plan) -> None:
    items = TestKey.read(store, plan.test).items
    one, other = order_of(items, plan), order_of(items, plan)
    assert not {shown.id for shown in one} & {shown.id for shown in other}
    assert [shown.items for shown in one] != [shown.items for shown in other]
