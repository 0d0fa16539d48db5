"""The pages in a browser, opened from the disk: one clip at a time, keys, sorting, a phone, and no other script."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from lofi_assets.evaluation.reports.pages import comparison_path, page_to_send, write_reports
from lofi_assets.store import Store
from lofi_assets_tests.evaluation.stand_in_checkpoints import NAMES, put_evaluated
from lofi_assets_tests.listening.browser import Tab, browser

pytestmark = pytest.mark.slow

PLAYING = "Array.from(document.querySelectorAll('audio')).map(a => !a.paused)"
PHONE = 390


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with browser(tmp_path_factory.mktemp("browser") / "profile") as found:
        yield found


@pytest.fixture(scope="module")
def put(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Written once; its pages too, and with them the spectrograms."""
    made = put_evaluated(Store(tmp_path_factory.mktemp("put") / "data"))
    write_reports(made)
    return made


@pytest.fixture
def evaluated(put: Store, store: Store) -> Store:
    shutil.copytree(put.root, store.root)
    return store


def open_page(tab: Tab, path: Path) -> None:
    tab.call("Page.navigate", url=path.as_uri())
    tab.until(f"location.href === {path.as_uri()!r} && document.readyState === 'complete'")


def test_one_clip_plays_at_a_time_and_keys_go_on_at_the_same_second(tab: Tab, evaluated: Store) -> None:
    write_reports(evaluated)
    open_page(tab, comparison_path(evaluated))
    tab.run("document.querySelectorAll('audio')[0].focus(), document.querySelectorAll('audio')[0].play()")
    tab.until(f"{PLAYING}[0] && document.querySelectorAll('audio')[0].currentTime > 0.3")
    tab.run("document.querySelectorAll('audio')[0].currentTime = 5")
    tab.key("2")
    tab.until(f"{PLAYING}[1] && !{PLAYING}[0]")
    assert tab.run("document.querySelectorAll('audio')[1].currentTime") >= 5.0
    assert tab.run("document.activeElement === document.querySelectorAll('audio')[1]")
    tab.key("j")
    tab.until(f"{PLAYING}[2] && !{PLAYING}[1]")
    assert tab.run("document.querySelectorAll('figure.playing').length") == 1
    tab.key("k")
    tab.until(f"{PLAYING}[1] && !{PLAYING}[2]")
    assert tab.run("document.querySelectorAll('figure.unplayable').length") == 0


def test_the_table_is_sorted_by_fad_and_by_step_again(tab: Tab, evaluated: Store) -> None:
    write_reports(evaluated)
    open_page(tab, comparison_path(evaluated))
    steps = "Array.from(document.querySelectorAll('tr[data-step]')).map(row => row.dataset.step).join()"
    tab.run("document.querySelectorAll('tr[data-step]')[2].dataset.fad = '1'")
    tab.run("document.querySelector('button[data-sort=fad]').click()")
    assert tab.run(steps) == "160,0,80"
    assert tab.run("document.querySelector('button[data-sort=fad]').getAttribute('aria-pressed')") == "true"
    tab.run("document.querySelector('button[data-sort=step]').click()")
    assert tab.run(steps) == "0,80,160"


def test_the_nearest_track_plays_from_where_it_agrees_to_ten_seconds_later(tab: Tab, evaluated: Store) -> None:
    open_page(tab, write_reports(evaluated)[NAMES[0]])
    tab.run("document.querySelectorAll('audio')[2].play()")
    tab.until("document.querySelectorAll('audio')[2].currentTime > 12")
    assert tab.run("document.querySelectorAll('audio')[2].currentTime") < 22


def test_a_page_to_be_sent_plays_alone_and_runs_no_other_script(tab: Tab, evaluated: Store, tmp_path: Path) -> None:
    page = tmp_path / "sent.html"
    page.write_text(page_to_send(evaluated, "80"), encoding="utf-8")
    tab.requests.clear()
    open_page(tab, page)
    tab.run("document.querySelectorAll('audio')[3].play()")
    tab.until(f"{PLAYING}[3] && document.querySelectorAll('audio')[3].currentTime > 0.1")
    assert {url.partition(":")[0] for url in tab.requests} <= {"file", "data"}
    tab.run(
        "document.body.append(Object.assign(document.createElement('script'), {text: 'window.hacked = true'})),"
        "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.hacked = true\">')"
    )
    assert tab.run("new Promise(done => setTimeout(() => done(window.hacked === undefined), 500))") is True


def test_every_page_fits_a_phone(tab: Tab, evaluated: Store) -> None:
    tab.size(PHONE, 844)
    for page in (*write_reports(evaluated).values(), comparison_path(evaluated)):
        open_page(tab, page)
        assert tab.run("document.documentElement.scrollWidth") <= PHONE, page.name
