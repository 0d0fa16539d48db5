"""Alerts: every failed run and every verdict that did not pass reaches somebody, once."""

import json
from collections.abc import Callable, Iterator

import apprise
import dagster as dg
import pytest

from lofi_assets.definitions import build_defs
from lofi_assets.defs import sensors
from lofi_assets.defs.resources import Notifier, Platform
from lofi_assets_tests.test_gate_checks import GATES, StandIns


@pytest.fixture
def stand_ins(tmp_path, monkeypatch: pytest.MonkeyPatch) -> StandIns:
    return StandIns(tmp_path / "data").install(monkeypatch)


@pytest.fixture
def instance(tmp_path) -> Iterator[dg.DagsterInstance]:
    """SQLite on disk, as `dg dev` has it: the usual cursor over events fails there."""
    home = tmp_path / "dagster"
    home.mkdir()
    with dg.DagsterInstance.local_temp(str(home)) as instance:
        yield instance


class Inbox(list[tuple[str, str]]):
    """Messages (title, body) that the alert service took; `down`: it takes none."""

    down = False


@pytest.fixture
def inbox(monkeypatch: pytest.MonkeyPatch) -> Inbox:
    received = Inbox()

    def notify(_self: apprise.Apprise, *, title: str, body: str) -> bool:
        if not received.down:
            received.append((title, body))
        return not received.down

    monkeypatch.setattr(apprise.Apprise, "notify", notify)
    monkeypatch.setenv("LOFI_ALERT_URLS", "json://localhost")
    return received


Tick = Callable[[], str | None]


@pytest.fixture
def cursor() -> dict[str, str | None]:
    """Where `failed_gate_alerts` stands between two ticks."""
    return {"cursor": None}


@pytest.fixture
def tick(stand_ins: StandIns, instance: dg.DagsterInstance, inbox: Inbox, cursor: dict[str, str | None]) -> Tick:
    """One evaluation as the daemon does it, with why it was skipped; if it raises, the cursor stays."""
    platform = Platform(data_dir=str(stand_ins.root), profile_name="demo")

    def next_tick() -> str | None:
        with dg.build_sensor_context(
            instance=instance,
            cursor=cursor["cursor"],
            repository_def=stand_ins.defs.get_repository_def(),
            resources={"platform": platform, "notifier": Notifier()},
        ) as context:
            found = sensors.failed_gate_alerts.evaluate_tick(context)
        cursor["cursor"] = found.cursor
        return found.skip_message

    return next_tick


NOTHING = "no new verdict that did not pass"


def judge_by_hand(instance: dg.DagsterInstance, gate_id: str, *, passed: bool) -> None:
    gate = GATES[gate_id]
    instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey(str(gate.asset)),
            check_name=gate.check_name,
            passed=passed,
            metadata={"rater": "Ada"},
            description="the left channel hums",
        )
    )


def test_gates_that_pass_alert_nobody(stand_ins: StandIns, instance, tick: Tick, inbox: Inbox) -> None:
    stand_ins.materialize(instance, "style_taxonomy")
    assert tick() == NOTHING
    assert inbox == []


def test_one_alert_for_each_new_evaluation_and_none_again(
    stand_ins: StandIns, instance, tick: Tick, inbox: Inbox
) -> None:
    stand_ins.measured["taxonomy.presets"] = 37
    stand_ins.materialize(instance, "style_taxonomy")
    tick()
    assert len(inbox) == 1
    title, body = inbox[0]
    assert "1 gate" in title
    assert "taxonomy_presets" in body and "presets is 37, must be 38" in body
    assert tick() == NOTHING
    stand_ins.materialize(instance, "style_taxonomy")
    tick()
    assert len(inbox) == 2


def test_a_failure_in_a_green_run_alerts_too(stand_ins: StandIns, instance, tick: Tick, inbox: Inbox) -> None:
    """Neither of these blocks: one is a warning, one holds the release alone."""
    stand_ins.measured |= {"quality.coverage": 3, "quality.fad": None}
    assert stand_ins.materialize(instance, "quality_metrics").success
    tick()
    ((title, body),) = inbox
    assert "2 gate" in title
    assert "quality_coverage" in body and "Fail" in body
    assert "quality_fad:" in body and "Not measured" in body


def test_a_persons_verdict_alerts_too(instance, tick: Tick, inbox: Inbox) -> None:
    judge_by_hand(instance, "human.equivalence", passed=False)
    tick()
    ((_, body),) = inbox
    assert "human_equivalence" in body and "the left channel hums" in body
    assert tick() == NOTHING


def test_a_gate_that_recovered_is_silent(stand_ins: StandIns, instance, tick: Tick, inbox: Inbox) -> None:
    stand_ins.measured["taxonomy.presets"] = 37
    stand_ins.materialize(instance, "style_taxonomy")
    tick()
    del stand_ins.measured["taxonomy.presets"]
    stand_ins.materialize(instance, "style_taxonomy")
    assert tick() == NOTHING
    assert len(inbox) == 1


def test_an_alert_that_was_not_delivered_comes_again(instance, tick: Tick, inbox: Inbox) -> None:
    judge_by_hand(instance, "human.equivalence", passed=False)
    inbox.down = True
    with pytest.raises(dg.Failure, match="not delivered"):
        tick()
    inbox.down = False
    tick()
    assert len(inbox) == 1


def test_the_cursor_is_one_number_per_check(
    stand_ins: StandIns, instance, tick: Tick, cursor: dict[str, str | None]
) -> None:
    stand_ins.materialize(instance, "style_taxonomy")
    tick()
    seen = json.loads(str(cursor["cursor"]))
    assert set(seen) == {"style_taxonomy:taxonomy_presets", "style_taxonomy:taxonomy_undocumented_tags"}
    assert all(isinstance(number, int) for number in seen.values())


def test_without_an_account_alerts_go_to_the_log(
    instance, tick: Tick, inbox: Inbox, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("LOFI_ALERT_URLS")
    judge_by_hand(instance, "human.equivalence", passed=False)
    tick()
    assert inbox == []
    assert "ALERT lofi: 1 gate(s) did not pass" in capfd.readouterr().err


def test_an_alert_url_that_nobody_understands_is_an_error(
    instance, tick: Tick, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOFI_ALERT_URLS", "nonsense://nowhere")
    judge_by_hand(instance, "human.equivalence", passed=False)
    with pytest.raises(dg.Failure, match="not understood"):
        tick()


@pytest.fixture
def failed_run_alert(stand_ins: StandIns, instance: dg.DagsterInstance, inbox: Inbox) -> tuple[str, str, str]:
    """Run id, title and body of the alert for a run whose disk was full."""
    stand_ins.broken["style_taxonomy"] = OSError("no space left on /srv/lofi")
    result = stand_ins.materialize(instance, "style_taxonomy")
    assert not result.success
    (event,) = [
        event for event in result.all_events if event.is_failure and event.event_type_value == "PIPELINE_FAILURE"
    ]
    context = dg.build_run_status_sensor_context(
        sensor_name="failed_run_alerts",
        dagster_event=event,
        dagster_instance=instance,
        dagster_run=result.dagster_run,
        resources={"platform": Platform(data_dir=str(stand_ins.root), profile_name="demo"), "notifier": Notifier()},
    ).for_run_failure()
    sensors.failed_run_alerts(context)
    ((title, body),) = inbox
    return result.run_id, title, body


def test_a_failed_run_alerts_with_its_id_and_step(failed_run_alert: tuple[str, str, str]) -> None:
    run_id, title, body = failed_run_alert
    assert "failed" in title
    assert run_id in body and "style_taxonomy" in body


def test_a_failed_run_alerts_with_the_error(failed_run_alert: tuple[str, str, str]) -> None:
    assert "no space left on /srv/lofi" in failed_run_alert[2]


def test_a_check_that_is_only_planned_alerts_nobody(instance, tick: Tick, inbox: Inbox) -> None:
    instance.create_run_for_job(job_def=build_defs().resolve_job_def("everything"))
    assert tick() == NOTHING
    assert inbox == []
