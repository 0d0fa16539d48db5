"""Receivers that are down, refuse or are misspelt: every other one gets each alert once, in order; nothing is lost."""

from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

from lofi_assets.alerts import services as receivers
from lofi_assets.alerts.messages import MAX_BODY, Message, message
from lofi_assets.alerts.outbox import MAX_WAITING, PATIENCE, Delivery, deliver, enqueue
from lofi_assets.alerts.services import Service, services
from lofi_assets.alerts.state import AlertState
from lofi_assets.profiles import Profile, load_profile
from lofi_assets_tests.alerts.alert_receiver import Receiver
from lofi_assets_tests.alerts.alert_watch import NOTHING, Watch
from lofi_assets_tests.defs.test_gate_checks import StandIns

ONE = Service("LOFI_ALERT_URLS, 1st URL", "json://user:hunter2@one.example.org/a")
OTHER = Service("LOFI_ALERT_URLS, 2nd URL", "json://other.example.org/b")


def note(text: object) -> Message:
    return Message(kind="info", title=str(text), body="nothing more")


class Post:
    """A stand-in for the network: what arrived where, and what each receiver refuses."""

    def __init__(self) -> None:
        self.arrived: list[tuple[str, str]] = []
        self.down: set[str] = set()
        self.refused: set[str] = set()
        self.attempts = 0
        self.now = 1000.0

    def send(self, service: Service, sent: Message) -> str:
        self.attempts += 1
        if service.url in self.down or sent.title in self.refused:
            return "refused"
        self.arrived.append((service.url, sent.title))
        return ""

    def to(self, service: Service) -> list[str]:
        return [title for url, title in self.arrived if url == service.url]


@pytest.fixture
def post() -> Post:
    return Post()


@pytest.fixture
def state() -> AlertState:
    return AlertState(begun=0.0, runs_until=0.0)


Round = Callable[..., Delivery]


@pytest.fixture
def round_of(post: Post, state: AlertState) -> Round:
    """One tick 30 s after the last: new messages, then deliveries."""

    def tick(*texts: object, to: tuple[Service, ...] = (ONE, OTHER)) -> Delivery:
        post.now += 30
        enqueue(state, to, [note(text) for text in texts])
        return deliver(state, to, post.send, now=lambda: post.now, until=post.now + 20, save=lambda: None)

    return tick


def test_a_receiver_that_was_down_gets_everything_later_in_order_and_once(post: Post, round_of: Round) -> None:
    post.down.add(ONE.url)
    for text in "abc":
        round_of(text)
    assert post.to(OTHER) == ["a", "b", "c"]
    post.down.clear()
    round_of("d")
    round_of()
    assert post.to(ONE) == post.to(OTHER) == ["a", "b", "c", "d"]


def test_a_receiver_that_is_down_for_ever_is_bounded_and_learns_what_it_missed(
    post: Post, state: AlertState, round_of: Round
) -> None:
    post.down.add(ONE.url)
    for number in range(MAX_WAITING + 7):
        round_of(number)
    assert len(state.queues[ONE.key].messages) == MAX_WAITING
    post.down.clear()
    post.now += 600
    round_of()
    assert post.to(ONE) == ["WARNING 7 earlier alerts did not reach you", *map(str, range(7, MAX_WAITING + 7))]
    assert len(post.to(OTHER)) == MAX_WAITING + 7


def test_a_receiver_that_is_down_for_ever_is_tried_less_and_less(post: Post, round_of: Round) -> None:
    post.down.add(ONE.url)
    round_of("a", to=(ONE,))
    for _ in range(10 * PATIENCE):
        round_of(to=(ONE,))
    assert post.attempts < 2 * PATIENCE


def test_one_message_that_a_receiver_refuses_for_ever_does_not_hold_back_the_rest(post: Post, round_of: Round) -> None:
    post.refused.add("poison")
    round_of("a", "poison", "b", "c")
    for _ in range(6):
        round_of()
    assert post.to(ONE) == post.to(OTHER) == ["a", "b", "WARNING 1 earlier alert did not reach you", "c"]


def test_an_address_that_is_mended_gets_what_its_wrong_form_did_not(
    post: Post, state: AlertState, round_of: Round
) -> None:
    wrong = Service("LOFI_ALERT_URLS, 1st URL", "json://oen.example.org/a")
    post.down.add(wrong.url)
    round_of("a", to=(wrong, OTHER))
    round_of("b", to=(ONE, OTHER))
    assert post.to(ONE) == ["a", "b"]
    assert state.queues.keys() == {ONE.key, OTHER.key}


def test_a_receiver_that_is_not_configured_for_a_while_keeps_what_waits(post: Post, round_of: Round) -> None:
    post.down.add(ONE.url)
    round_of("a")
    post.down.clear()
    round_of("b", to=(OTHER,))
    round_of("c")
    assert post.to(ONE) == ["a", "c"]


def test_a_tick_ends_in_time_however_much_waits(post: Post, state: AlertState) -> None:
    def slow(service: Service, sent: Message) -> str:
        post.now += 8
        return post.send(service, sent)

    enqueue(state, (ONE,), [note(number) for number in range(9)])
    deliver(state, (ONE,), slow, now=lambda: post.now, until=post.now + 20, save=lambda: None)
    assert post.to(ONE) == ["0", "1", "2"]


def test_what_was_delivered_is_saved_before_the_next_is_sent(post: Post, state: AlertState) -> None:
    """A process killed at any moment repeats at most one message."""
    waiting: list[int] = []
    enqueue(state, (ONE,), [note("a"), note("b")])
    save = lambda: waiting.append(len(state.queues[ONE.key].messages))  # noqa: E731
    deliver(state, (ONE,), post.send, now=lambda: post.now, until=post.now + 20, save=save)
    assert waiting == [1, 0]


def test_a_long_message_keeps_its_link() -> None:
    found = message("info", "long", ["word " * 1000], link="http://127.0.0.1:3000/runs/7")
    assert len(found.body) <= MAX_BODY
    assert found.body.endswith(" …\nhttp://127.0.0.1:3000/runs/7")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("json://user:hunter22@example.org:8080/hooks/t0ken?+Auth=Bearer t0ken", "json://user:****@example.org:8080/…"),
        ("tgram://123456789:alphanumericTOKEN-abcdefghijk/12315544", "tgram://1...k/…"),
        ("slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ", "slack://T...2/…"),
        ("nonsense://t0ken", "nonsense://…"),
        ("t0ken", "…"),
    ],
)
def test_an_address_is_shown_without_its_secrets(url: str, shown: str, capfd: pytest.CaptureFixture[str]) -> None:
    found = Service("LOFI_ALERT_URLS, 1st URL", url)
    assert found.shown == shown
    assert url not in found.key + repr(found) + str(found) + capfd.readouterr().err


def test_every_receiver_is_named_by_where_it_stands_and_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    profile = Profile(**{**load_profile("demo").model_dump(), "alerts": ("json://a", " ")})
    monkeypatch.setenv("LOFI_ALERT_URLS", " json://b?to=x,y , json://a,\tmailto://u:p@example.org,")
    assert [(found.where, found.url) for found in services(profile)] == [
        ("alerts of config/profiles/demo.yaml, 1st URL", "json://a"),
        ("LOFI_ALERT_URLS, 1st URL", "json://b?to=x,y"),
        ("LOFI_ALERT_URLS, 3rd URL", "mailto://u:p@example.org"),
    ]


@pytest.mark.parametrize("blank", ["", " ", ",", " ,\n"])
def test_a_blank_variable_names_no_receiver(monkeypatch: pytest.MonkeyPatch, blank: str) -> None:
    monkeypatch.setenv("LOFI_ALERT_URLS", blank)
    assert services(None) == []


@pytest.fixture
def watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """The sensor after its first tick, without a receiver."""
    stand_ins = StandIns(tmp_path / "data").install(monkeypatch)
    with dg.DagsterInstance.ephemeral() as instance:
        watch = Watch(stand_ins, instance, monkeypatch)
        watch.receivers()
        watch.tick()
        yield watch


@pytest.fixture
def pair() -> Iterator[tuple[Receiver, Receiver]]:
    found = Receiver(), Receiver()
    yield found
    for receiver in found:
        receiver.stop()


def test_a_receiver_that_is_down_and_comes_up_gets_each_alert_once(
    watch: Watch, pair: tuple[Receiver, Receiver]
) -> None:
    """With real sockets, and a new process at each tick as far as the sensor can tell."""
    up, down = pair
    watch.receivers(up.url, down.url)
    down.stop()
    watch.judge_by_hand("human.equivalence", passed=False)
    assert "LOFI_ALERT_URLS, 2nd URL: json://127.0.0.1" in (shown := watch.tick())
    assert "1 alert waits for it: A Connection error occurred" in shown
    watch.judge_by_hand("human.equivalence", passed=True)
    watch.tick()
    down.start()
    watch.tick()
    assert watch.tick() == NOTHING
    assert up.titles == down.titles
    assert [message["type"] for message in down.received] == ["failure", "success"]


def test_an_address_that_nobody_understands_holds_back_no_other(watch: Watch, pair: tuple[Receiver, Receiver]) -> None:
    watch.receivers("nonsense://s3cr3tpath", pair[0].url)
    watch.judge_by_hand("human.equivalence", passed=False)
    shown = watch.tick()
    assert len(pair[0].received) == 1
    assert "LOFI_ALERT_URLS, 1st URL: nonsense://…" in shown and "not an address that apprise understands" in shown
    assert "s3cr3tpath" not in shown


def test_a_receiver_that_answers_with_an_error_says_which(pair: tuple[Receiver, Receiver]) -> None:
    pair[0].status = 503
    reason = receivers.send(Service("LOFI_ALERT_URLS, 1st URL", pair[0].url), note("a"))
    assert "503" in reason and "s3cr3tpath" not in reason


def test_a_profile_that_cannot_be_read_leaves_the_receivers_of_the_variable(
    watch: Watch, pair: tuple[Receiver, Receiver], monkeypatch: pytest.MonkeyPatch
) -> None:
    watch.receivers(pair[0].url)
    watch.profile_name = "no-such-profile"
    watch.judge_by_hand("human.equivalence", passed=False)
    watch.tick()
    assert len(pair[0].received) == 1
