"""The server lets in who was invited, plays what is asked now, and tells nothing else whatever is asked of it."""

import errno
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from lofi_assets.listening.arrivals import session_files, sessions_folder
from lofi_assets.listening.invitations import invitations_path, invite
from lofi_assets.listening.items import TestKey, audio_path
from lofi_assets.listening.ledger import read_ledger
from lofi_assets.listening.plan import Plan
from lofi_assets.listening.room import Room
from lofi_assets.listening.server import LISTEN_URL, NOT_NOW, listening_app
from lofi_assets.listening.verdict import close_test, judge_checkpoint
from lofi_assets.store import Store
from lofi_assets_tests.listening.stand_in_listeners import ABOUT, START, made_test


class Clock:
    """Seconds that go by when a test says so."""

    def __init__(self) -> None:
        self.now = START.timestamp()

    def __call__(self) -> float:
        return self.now


class Page:
    """What the page does, with a token."""

    def __init__(self, client: TestClient, token: str, clock: Clock, store: Store, plan: Plan) -> None:
        self.client, self.token, self.clock, self.store, self.plan = client, token, clock, store, plan

    def post(self, path: str, **body: Any) -> Any:
        return self.client.post(f"/api/{path}", json=body, headers={"Authorization": f"Bearer {self.token}"})

    def get(self, path: str) -> Any:
        return self.client.get(f"/api/{path}", headers={"Authorization": f"Bearer {self.token}"})

    def pass_check(self) -> dict[str, Any]:
        self.post("state")
        begun = json.loads(self.journal().splitlines()[0])
        state: dict[str, Any] = self.post("check", quietest=begun["quietest"]).json()["state"]
        return state

    def journal(self) -> str:
        (path,) = sessions_folder(self.store, self.plan.test).glob("L001.jsonl")
        return path.read_text()

    def hear(self, question: dict[str, Any]) -> None:
        for slot in range(question["excerpts"]):
            assert self.get(f"audio/{question['id']}/{slot}").status_code == 200
            for event, position, gone in (("play", 0.0, 0.0), ("beat", 2.0, 2.0), ("ended", 4.0, 2.0)):
                self.clock.now += gone
                told = self.post("event", question=question["id"], excerpt=slot, event=event, position=position)
                assert told.status_code == 200, told.text

    def answer(self, question: dict[str, Any]) -> Any:
        self.clock.now += 2.5
        said = "ai" if question["form"] == "single" else "first"
        return self.post("answer", question=question["id"], said=said, confidence=2)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def plan(store: Store) -> Plan:
    return made_test(store, forms={"single": 8, "pair": 8}, listeners=60)[1]


@pytest.fixture
def client(store: Store, plan: Plan, clock: Clock) -> Iterator[TestClient]:
    with TestClient(listening_app(Room(store, clock=clock)), base_url="http://127.0.0.1:3002") as made:
        yield made


@pytest.fixture
def page(client: TestClient, store: Store, plan: Plan, clock: Clock) -> Page:
    (token,) = invite(store, plan.test, count=1, now=START)
    return Page(client, token, clock, store, plan)


def test_a_whole_session_goes_through_and_starts_the_test(page: Page, store: Store) -> None:
    state = page.pass_check()
    asked = 0
    while state["stage"] == "listen":
        page.hear(state["question"])
        answer = page.answer(state["question"]).json()
        assert bool(answer["feedback"]) is state["question"]["training"]
        state, asked = answer["state"], asked + 1
    assert state["stage"] == "done" and state["done"] == state["total"] == asked - 4 == 25
    assert [entry.event for entry in read_ledger(store)] == ["opened", "started", "finished"]
    assert page.post("state").json()["stage"] == "done"
    (path,) = session_files(store, page.plan.test)
    path.unlink()
    (judged,) = judge_checkpoint(store, ABOUT, now=START)
    assert judged.verdict is None and "finished sessions are gone (L001)" in judged.note


def test_what_the_page_is_told_gives_nothing_away(page: Page, store: Store, plan: Plan) -> None:
    """Traffic, names and sizes: the same for generated and real, control and test."""
    state = page.pass_check()
    told, audio, keys = [json.dumps(state)], [], set()
    key = TestKey.read(store, plan.test)
    while state["stage"] == "listen":
        question = state["question"]
        keys.add(tuple(sorted(question)))
        for slot in range(question["excerpts"]):
            sent = page.get(f"audio/{question['id']}/{slot}")
            audio.append((len(sent.content), tuple(sorted(sent.headers.items()))))
        page.hear(question)
        answer = page.answer(question).json()
        told.append(json.dumps(answer["state"]))
        state = answer["state"]
    text = " ".join(told)
    for secret in ("obvious", "repeat", "twice", "control", "real-", "ai-", "CORE", *key.items):
        assert secret not in text, secret
    assert len(set(audio)) == 1 and len(keys) == 1
    shapes = {re.sub(r'"[0-9a-f]{16}"|\d+', "_", part) for part in told if '"listen"' in part}
    assert len(shapes) == 4, "practice or not, one or two excerpts; nothing else differs but numbers and ids"


def test_a_reload_and_a_new_server_go_on_where_it_was(page: Page, store: Store, clock: Clock) -> None:
    state = page.pass_check()
    for _ in range(3):
        page.hear(state["question"])
        state = page.answer(state["question"]).json()["state"]
    assert page.post("state").json() == state
    with TestClient(listening_app(Room(store, clock=clock)), base_url="http://127.0.0.1:3002") as other:
        page.client = other
        assert page.post("state").json() == state
        again = page.post("event", question=state["question"]["id"], excerpt=0, event="ended", position=4.0)
        assert again.status_code == 409 and "load the excerpt again" in again.json()["message"]
        page.hear(state["question"])
        assert page.answer(state["question"]).status_code == 200


def test_answering_before_listening_is_refused(page: Page) -> None:
    question = page.pass_check()["question"]
    refused = page.answer(question)
    assert refused.status_code == 409 and refused.json()["message"] == "Please listen to the end first."


@pytest.mark.parametrize("event", ["rate", "mute", "stall"])
def test_speed_mute_and_stalls_are_recorded_and_the_excerpt_is_played_again(page: Page, event: str) -> None:
    question = page.pass_check()["question"]
    page.get(f"audio/{question['id']}/0")
    page.post("event", question=question["id"], excerpt=0, event="play", position=0.0)
    told = page.post("event", question=question["id"], excerpt=0, event=event, position=1.0).json()
    assert told["message"].startswith("Please play it again from the start") and not any(told["heard"])
    assert f'"event":"{event}"' in page.journal()
    page.hear(question)
    assert page.answer(question).status_code == 200


def test_only_what_is_asked_now_is_played(page: Page, store: Store, plan: Plan) -> None:
    state = page.pass_check()
    order = json.loads(page.journal().splitlines()[0])["order"]
    assert page.get(f"audio/{order[5]['id']}/0").status_code == 409
    assert page.get(f"audio/{state['question']['id']}/7").status_code == 409
    item = next(iter(TestKey.read(store, plan.test).items))
    assert page.get(f"audio/{item}/0").status_code == 409
    assert page.get("tones/0").status_code == 409


@pytest.mark.parametrize(
    "path", ["/key.json", "/api/../key.json", "/..%2fserver.py", "/plan.json", "/api/audio/x", "/sessions/L001.jsonl"]
)
def test_nothing_but_the_page_is_a_file(client: TestClient, path: str) -> None:
    assert client.get(path).status_code in (404, 405)


@pytest.mark.parametrize("name", ["", "listen.js", "tiers.js", "listen.css"])
def test_the_page_asks_nobody_else_for_anything(client: TestClient, name: str) -> None:
    answer = client.get(f"/{name}")
    assert answer.status_code == 200 and not re.search(r"https?://", answer.text)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy
    assert answer.headers["cache-control"] == "no-store" and answer.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer "}, {"Authorization": "Basic abc"}])
def test_without_a_token_there_is_nothing(client: TestClient, header: dict[str, str]) -> None:
    assert client.post("/api/state", headers=header).status_code == 401


def test_a_token_that_nobody_was_given_opens_nothing(page: Page, store: Store) -> None:
    for token in ("x" * 22, page.token[:-1], page.token.swapcase()):
        answer = page.client.post("/api/state", headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 409 and "no invitation" in answer.json()["message"]
    assert not list(store.listening.glob("*/sessions/*"))


def test_tokens_are_random_and_only_their_hashes_are_kept(store: Store, plan: Plan) -> None:
    tokens = invite(store, plan.test, count=20, now=START)
    kept = invitations_path(store, plan.test).read_text()
    assert len(set(tokens)) == 20 and all(len(token) >= 22 and token not in kept for token in tokens)


@pytest.mark.parametrize(
    ("host", "status"), [("127.0.0.1:3002", 200), ("localhost", 200), ("evil.example", 400), ("listen.example", 400)]
)
def test_it_answers_to_its_own_names_alone(client: TestClient, host: str, status: int) -> None:
    assert client.get("/", headers={"Host": host}).status_code == status


def test_behind_a_proxy_it_answers_to_the_name_that_people_use(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LISTEN_URL, "https://listen.example/blind")
    with TestClient(listening_app(Room(store, clock=clock)), base_url="http://listen.example") as client:
        assert client.get("/").status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"[]", b"{", b'{"question": 1}', b"x" * 5000, b'{"question":"x","excerpt":0,"event":"play"}'),
        b'{"question":"x","excerpt":"0","event":"play","position":0}',
        b'{"question":"x","excerpt":0,"event":"cheat","position":0}',
    ],
)
def test_what_is_no_event_is_refused(page: Page, body: bytes) -> None:
    page.pass_check()
    answer = page.client.post("/api/event", content=body, headers={"Authorization": f"Bearer {page.token}"})
    assert answer.status_code in (400, 409, 413)


def test_an_ended_test_takes_nobody_in(page: Page, store: Store) -> None:
    close_test(store, read_ledger(store)[0], by="Mo", reason="over", now=START)
    answer = page.post("state")
    assert answer.status_code == 409 and "is over" in answer.json()["message"]


def test_an_excerpt_that_was_changed_is_not_played(page: Page, store: Store, plan: Plan) -> None:
    question = page.pass_check()["question"]
    for item in TestKey.read(store, plan.test).items:
        audio_path(store.listening / plan.test, item).write_bytes(b"RIFF")
    answer = page.get(f"audio/{question['id']}/0")
    assert answer.status_code == 503 and answer.json() == {"message": NOT_NOW}


def test_a_full_disk_loses_no_answer_and_goes_on_later(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    question = page.pass_check()["question"]
    page.hear(question)
    before = page.journal()

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("lofi_assets.listening.journal.os.fsync", full)
        assert page.answer(question).json() == {"message": NOT_NOW}
    assert page.journal() == before
    assert page.answer(question).status_code == 200
    assert page.journal().startswith(before) and page.journal().count('"event":"answer"') == 1
