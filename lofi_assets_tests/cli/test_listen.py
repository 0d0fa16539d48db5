"""`lofi listen`: what people type, from the invitation to a lifted verdict."""

from datetime import timedelta

import pytest
from click.testing import CliRunner, Result

from lofi_assets.cli.main import main
from lofi_assets.listening.ledger import read_ledger
from lofi_assets.listening.server import LISTEN_URL
from lofi_assets.listening.verdict import judge_checkpoint
from lofi_assets.store import Store
from lofi_assets_tests.listening.stand_in_listeners import ABOUT, START, crowd, made_test, person


@pytest.fixture(autouse=True)
def data_root(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOFI_DATA_DIR", str(store.root))
    monkeypatch.delenv(LISTEN_URL, raising=False)


def lofi(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["listen", *arguments])


def test_before_any_test_the_commands_say_how_to_open_one() -> None:
    for arguments in (["status"], ["invite"], ["close", "ab", "--by", "Mo", "--reason", "x"]):
        result = lofi(*arguments)
        assert "Traceback" not in result.output and (
            "lofi listen plan" in result.output or "in the ledger" in result.output
        )
    assert "materialise quality_metrics" in lofi("plan").output
    assert "materialise quantized_tiers" in lofi("tiers").output


def test_an_invitation_is_a_link_per_line(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    made_test(store)
    links = lofi("invite", "--count", "20").output.splitlines()
    assert len(set(links)) == 20 and all(link.startswith("http://127.0.0.1:3002/#") for link in links)
    monkeypatch.setenv(LISTEN_URL, "https://listen.example/blind/")
    (link,) = lofi("invite", "--count", "1").output.splitlines()
    assert link.startswith("https://listen.example/blind/#")
    assert "21 invitations" in lofi("status").output


def test_the_status_counts_and_tells_no_answer_before_a_look(store: Store) -> None:
    entry, plan = made_test(store)
    crowd(store, plan, [person(0.9, slip=0.0)] * 3)
    shown = lofi("status").output
    assert f"{entry.test}  ai_or_real" in shown and "3 listeners counted; look 1 of 3 is at 12" in shown
    assert "right" not in shown and "distinguishable" not in shown


def test_a_verdict_is_lifted_with_a_name_and_a_reason(store: Store) -> None:
    entry, plan = made_test(store)
    crowd(store, plan, [person(0.9, slip=0.0)] * 12)
    judge_checkpoint(store, ABOUT, now=START + timedelta(days=1))
    assert lofi("lift", entry.test[:5], "--by", "Mo").exit_code != 0
    assert lofi("lift", entry.test[:5], "--by", "Mo", "--reason", "clipped").exit_code == 0
    assert [found.event for found in read_ledger(store)] == ["opened", "look", "lifted"]
    shown = lofi("status").output
    assert "look 1 at 12 listeners: distinguishable" in shown and "lifted by Mo: clipped" in shown


def test_a_closed_test_takes_no_invitations(store: Store) -> None:
    entry, _ = made_test(store)
    assert lofi("close", entry.test, "--by", "Mo", "--reason", "no time").exit_code == 0
    result = lofi("invite")
    assert result.exit_code == 1 and "has ended" in result.output


def test_the_server_is_for_this_machine_unless_it_is_said_how_people_reach_it() -> None:
    result = lofi("serve", "--host", "0.0.0.0")
    assert result.exit_code == 1 and LISTEN_URL in result.output
