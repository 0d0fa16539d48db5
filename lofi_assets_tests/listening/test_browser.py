"""The page in a real browser: whole sessions with a reload, a killed server, stalls and a mute; nothing is lost.

Screenshots of 1440 and 390 px go to `LISTEN_SHOTS`, if it is set.
"""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from lofi_assets.audio.encode import encode_mp3
from lofi_assets.listening.answers import collect
from lofi_assets.listening.arrivals import sessions_folder
from lofi_assets.listening.invitations import invite
from lofi_assets.listening.items import TestKey
from lofi_assets.listening.journal import Journal
from lofi_assets.listening.ledger import read_ledger
from lofi_assets.listening.opening import Clip, Judged, open_test
from lofi_assets.listening.session import Session
from lofi_assets.listening.tiers import open_tiers_test, tiers_result
from lofi_assets.store import Store
from lofi_assets_tests.listening.browser import Served, Tab, browser
from lofi_assets_tests.listening.stand_in_listeners import START
from lofi_assets_tests.listening.test_excerpts import music

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]
SECONDS = 3.0
SECRET = ("obvious", "repeated", "real_twice", "CORE-0", "anchor", "int8", "int4", "fp32", "condition")


@pytest.fixture
def served(store: Store) -> Iterator[Served]:
    made = Served(store.root)
    yield made
    if made.process and made.process.poll() is None:
        made.kill()


@pytest.fixture
def tab(tmp_path: Path) -> Iterator[Tab]:
    with browser(tmp_path / "profile") as made:
        made.size(1440, 900)
        yield made


def shot(tab: Tab, name: str) -> None:
    if folder := os.environ.get("LISTEN_SHOTS"):
        for width, height, dark in ((1440, 900, False), (390, 844, False), (390, 844, True)):
            tab.size(width, height, dark=dark)
            assert tab.run("document.documentElement.scrollWidth") <= width, "the page is wider than the screen"
            tab.screenshot(Path(folder) / f"{name}_{width}{'_dark' if dark else ''}.png")
        tab.size(1440, 900)


def clips(folder: Path, side: str) -> list[Clip]:
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for number in range(12):
        path = folder / f"{side}-{number}.mp3"
        path.write_bytes(encode_mp3(music(number + 50 * (side == "ai"), 2 * SECONDS + 0.5)))
        made.append(Clip(path=path, style_id=("CORE-01", "CORE-02")[number % 2]))
    return made


def session_of(store: Store, test: str) -> Session:
    journal = Journal(sessions_folder(store, test) / "L001.jsonl", TestKey.read(store, test).signing)
    return Session.load(journal, seconds=SECONDS)


def come_in(tab: Tab, served: Served, store: Store, test: str) -> str:
    """Through the headphone check; returns the token."""
    (token,) = invite(store, test, count=1, now=START)
    served.start()
    tab.call("Page.navigate", url=f"http://127.0.0.1:{served.port}/#{token}")
    tab.until("document.getElementById('welcome').hidden === false")
    shot(tab, "1_welcome")
    tab.run("document.getElementById('begin').click()")
    tab.until("document.getElementById('check').hidden === false")
    shot(tab, "2_check")
    for number, quietest in enumerate(session_of(store, test).quietest[-1]):
        tab.run(f'document.querySelector(\'input[name="round-{number}"][value="{quietest}"]\').click()')
    tab.run("document.querySelector('#check-form .main').click()")
    return token


def ready(tab: Tab) -> None:
    tab.until("!document.getElementById('question').hidden && players.length && players.every(p => !p.button.disabled)")


def play_all(tab: Tab) -> None:
    """With the space bar alone, from wherever it stands, until everything was heard."""
    end = time.monotonic() + 120
    while tab.run("document.getElementById('next').disabled"):
        assert time.monotonic() < end, tab.run("document.body.innerText")
        if not tab.run("players.some(p => p.playing) || players.some(p => p.button.disabled)"):
            tab.key(" ")
        time.sleep(0.15)


def reload(tab: Tab) -> None:
    tab.call("Page.reload")
    tab.until("document.getElementById('welcome').hidden === false")
    tab.run("document.getElementById('begin').click()")
    ready(tab)


def begin_playing(tab: Tab) -> None:
    tab.key(" ")
    tab.until("players.some(p => p.playing && p.audio.currentTime > 0.5)")


def test_sixteen_questions_with_a_reload_a_kill_a_stall_and_a_mute_lose_nothing(
    store: Store, served: Served, tab: Tab
) -> None:
    judged = Judged(
        about="a" * 64,
        checkpoint_id="step 80",
        generated=clips(store.samples / "x", "ai"),
        real=clips(store.samples / "x", "real"),
    )
    options = {"form": "both", "trials": 16, "listeners": 60, "spending": "obrien_fleming"}
    plan = open_test(store, judged, seconds=SECONDS, now=START, **options)  # type: ignore[arg-type]
    token = come_in(tab, served, store, plan.test)
    asked = 0
    while True:
        ready(tab)
        question = tab.run("current.question.id")
        if asked == 3:  # in the middle of an excerpt
            begin_playing(tab)
            reload(tab)
            assert tab.run("current.question.id") == question
        if asked == 6:
            begin_playing(tab)
            served.kill()
            tab.until("document.getElementById('status').textContent.includes('connection is lost')", seconds=40)
            shot(tab, "7_connection_lost")
            served.start()
            tab.until("document.getElementById('status').textContent.includes('play it again')", seconds=60)
        if asked == 8:
            begin_playing(tab)
            tab.run("players.find(p => p.playing).audio.dispatchEvent(new Event('waiting'))")
            tab.until("document.getElementById('status').textContent.includes('the sound stopped')")
        if asked == 9:
            begin_playing(tab)
            tab.run("players.find(p => p.playing).audio.muted = true")
            tab.until("document.getElementById('status').textContent.includes('turned off')")
            shot(tab, "8_muted")
        if asked == 10:
            begin_playing(tab)
            tab.run("players.find(p => p.playing).audio.playbackRate = 2")
            tab.until("document.getElementById('status').textContent.includes('another speed')")
        assert tab.run("document.getElementById('choice').disabled")
        play_all(tab)
        for key in "a3":
            tab.key(key)
        if asked in (0, 5):
            shot(tab, f"4_question_{asked}")
        practice = tab.run("current.question.training")
        tab.key("Enter")
        if practice:
            tab.until("!document.getElementById('feedback').hidden")
            shot(tab, f"5_feedback_{asked}")
            tab.run("document.getElementById('continue').click()")
        tab.until(f"current.stage === 'done' || current.question.id !== '{question}'")
        asked += 1
        if tab.run("current.stage") == "done":
            break
    shot(tab, "9_end")
    session = session_of(store, plan.test)
    assert asked == len(session.order) == len(session.answers) == 16 + 5 + 4 + 4
    assert session.void == () and session.faults == {"stall": 1, "mute": 1, "rate": 1}
    (sat,) = collect(store, plan.test, seconds=SECONDS).finished
    assert len(sat.trials) == 16
    assert [entry.event for entry in read_ledger(store)] == ["opened", "started", "finished"]
    assert_nothing_leaks(tab, token, TestKey.read(store, plan.test))


def assert_nothing_leaks(tab: Tab, token: str, key: TestKey) -> None:
    """Neither what was asked for nor what was told names an item, and the token is in no address."""
    here = {urlsplit(url).netloc for url in tab.requests if url.startswith("http")}
    assert len(here) == 1 and next(iter(here)).startswith("127.0.0.1:")
    traffic = "\n".join([*tab.requests, *tab.posted])
    for secret in (token, *key.items, *SECRET):
        assert secret not in traffic, secret
    lost = [line for line in tab.console if "ERR_CONNECTION" not in line and '"status": 409' not in line]
    assert [line for line in lost if "exceptionThrown" in line or "Uncaught" in line] == []


def test_every_control_has_a_name_and_the_page_says_what_happens(store: Store, served: Served, tab: Tab) -> None:
    judged = Judged(
        about="a" * 64,
        checkpoint_id="step 80",
        generated=clips(store.samples / "x", "ai"),
        real=clips(store.samples / "x", "real"),
    )
    options = {"form": "pair", "trials": 8, "listeners": 60, "spending": "obrien_fleming"}
    plan = open_test(store, judged, seconds=SECONDS, now=START, **options)  # type: ignore[arg-type]
    come_in(tab, served, store, plan.test)
    ready(tab)
    assert tab.run("document.activeElement.id") == "question-title"
    nodes = tab.call("Accessibility.getFullAXTree")["nodes"]
    asked = ("button", "radio", "radiogroup", "slider", "checkbox", "textbox")
    unnamed = [
        node["role"]["value"]
        for node in nodes
        if not node.get("ignored") and node["role"]["value"] in asked and not node.get("name", {}).get("value")
    ]
    assert unnamed == []
    assert {"status", "heading", "main"} <= {node["role"]["value"] for node in nodes if "role" in node}
    tab.key("a")
    assert not tab.run("document.querySelector('input[name=said]:checked')"), (
        "nothing can be answered before it is heard"
    )


def test_a_comparison_of_tiers_is_rated_to_its_end(store: Store, served: Served, tab: Tab) -> None:
    rng = np.random.default_rng(0)
    tiers: dict[str, dict[str, Path]] = {}
    for tier, noise in (("fp32", 0.0), ("int8", 0.003), ("int4", 0.03)):
        for piece in ("rain", "keys"):
            path = store.samples / "tiers" / tier / f"{piece}.mp3"
            path.parent.mkdir(parents=True, exist_ok=True)
            samples = music(len(piece), SECONDS + 0.5)
            path.write_bytes(encode_mp3(samples + noise * rng.standard_normal(samples.shape).astype(np.float32)))
            tiers.setdefault(tier, {})[piece] = path
    plan = open_tiers_test(store, tiers, about="b" * 64, seconds=SECONDS, now=START)
    token = come_in(tab, served, store, plan.test)
    key = TestKey.read(store, plan.test)
    for number in range(2):
        tab.until(f"document.getElementById('tiers-title').textContent.startsWith('Piece {number + 1}')")
        tab.until("document.getElementById('reference').disabled === false", seconds=60)
        shown = session_of(store, plan.test).current
        assert shown is not None
        names = [key.items[item].condition for item in shown.items]
        assert names[0] == "reference" and sorted(names[1:]) == sorted(plan.conditions)
        tab.run("document.getElementById('rated').disabled || (() => { throw 'rated before it was heard' })()")
        for slot, name in enumerate(names):
            tab.run(f"document.getElementById('{'reference' if slot == 0 else f'version-{slot}'}').click()")
            time.sleep(2.6)
            if slot:
                score = {"reference": 100, "int8": 90, "int4": 60, "anchor_7000": 40, "anchor_3500": 15}[name]
                slider = f"document.getElementById('rating-{slot}')"
                tab.run(f"{slider}.value = {score}; {slider}.dispatchEvent(new Event('input'))")
        if number == 0:
            shot(tab, "10_tiers")
        tab.run("document.getElementById('ratings').requestSubmit()")
    tab.until("current.stage === 'done'")
    result = tiers_result(store, read_ledger(store)[0])
    scores = {name: score.mean for name, score in result.conditions.items()}
    assert scores == {"reference": 100, "int8": 90, "int4": 60, "anchor_7000": 40, "anchor_3500": 15}
    assert json.loads((store.listening / plan.test / "result.json").read_text())["pieces"] == 2
    assert_nothing_leaks(tab, token, key)
