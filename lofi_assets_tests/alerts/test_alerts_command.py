"""`lofi alerts test`: one message of each kind to every receiver, and what became of them."""

import pytest
from click.testing import CliRunner

from lofi_assets.cli.main import main
from lofi_assets_tests.alerts.alert_receiver import Receiver


def test_each_receiver_gets_one_message_of_each_kind(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOFI_ALERT_URLS", receiver.url)
    done = CliRunner().invoke(main, ["alerts", "test"])
    assert done.exit_code == 0
    assert [message["type"] for message in receiver.received] == ["failure", "warning", "info", "success"]
    assert done.output == (
        f"LOFI_ALERT_URLS, 1st URL: json://127.0.0.1:{receiver.port}/…: delivered failure, warning, info, success\n"
    )


def test_a_receiver_that_is_down_is_named_by_position_and_the_others_get_theirs(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    down = Receiver()
    down.stop()
    monkeypatch.setenv("LOFI_ALERT_URLS", f"nonsense://s3cr3tpath,{down.url},{receiver.url}")
    done = CliRunner().invoke(main, ["alerts", "test"])
    assert done.exit_code == 1
    assert len(receiver.received) == 4
    said = done.output + done.stderr
    assert "LOFI_ALERT_URLS, 1st URL: nonsense://…: nothing delivered" in said
    assert f"LOFI_ALERT_URLS, 2nd URL: json://127.0.0.1:{down.port}/…: nothing delivered" in said
    assert "not an address that apprise understands" in said and "A Connection error occurred" in said
    assert "s3cr3tpath" not in said


def test_without_a_receiver_it_says_where_alerts_go_and_how_to_name_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOFI_ALERT_URLS", " ")
    done = CliRunner().invoke(main, ["alerts", "test"])
    assert done.exit_code == 0
    for part in ("log of the sensor", "LOFI_ALERT_URLS", "config/profiles/demo.yaml"):
        assert part in done.output


def test_a_profile_that_is_not_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOFI_PROFILE", "no-such-profile")
    done = CliRunner().invoke(main, ["alerts", "test"])
    assert done.exit_code == 1
    assert "LOFI_PROFILE can be" in done.output + done.stderr
