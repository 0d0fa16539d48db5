"""Alerts on runs that fail, and on a release that is held: once each, with what to do, and so their end."""

import dagster as dg
import pytest
from dagster._core.errors import DagsterExecutionInterruptedError

from lofi_assets.definitions import build_defs
from lofi_assets_tests.alerts.alert_receiver import Receiver
from lofi_assets_tests.alerts.alert_watch import NOTHING, Watch, fail
from lofi_assets_tests.defs.test_gate_checks import SEAMS, StandIns


def test_a_failed_run_alerts_once_with_step_error_and_link(
    stand_ins: StandIns, instance: dg.DagsterInstance, watch: Watch, receiver: Receiver
) -> None:
    run_id = fail(stand_ins, instance)
    watch.tick()
    assert watch.tick() == NOTHING
    (message,) = receiver.received
    assert message["type"] == "failure"
    assert message["title"] == "ERROR run of style_taxonomy failed"
    assert "style_taxonomy: OSError: no space left on /srv/lofi" in message["message"]
    assert message["message"].endswith(f"http://127.0.0.1:3000/runs/{run_id}")


def test_what_failed_and_works_again_is_said_once(
    stand_ins: StandIns, instance: dg.DagsterInstance, watch: Watch, receiver: Receiver
) -> None:
    fail(stand_ins, instance)
    watch.tick()
    stand_ins.broken.clear()
    for _ in range(2):
        stand_ins.materialize(instance, "style_taxonomy")
        watch.tick()
    assert receiver.titles[1:] == ["RESOLVED style_taxonomy works again"]
    assert receiver.received[1]["type"] == "success"


def test_many_runs_that_fail_while_nobody_looks_are_all_named(
    stand_ins: StandIns, instance: dg.DagsterInstance, watch: Watch, receiver: Receiver
) -> None:
    runs = [fail(stand_ins, instance, why) for why in ("disk full", "disk full", "no memory")]
    stand_ins.broken |= {"licensed_sources": ValueError("a broken ledger")}
    other = stand_ins.materialize(instance, "licensed_sources").run_id
    watch.tick()
    assert sorted(receiver.titles) == [
        "ERROR run of licensed_sources failed",
        "ERROR run of style_taxonomy failed (3 runs)",
    ]
    text = "\n".join(message["message"] for message in receiver.received)
    assert all(part in text for part in (*runs, other, "disk full", "no memory", "a broken ledger"))


def test_more_failures_than_one_tick_takes_are_told_in_the_next(
    stand_ins: StandIns, instance: dg.DagsterInstance, watch: Watch, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lofi_assets.defs.observations.MAX_RUNS", 2)
    runs = [fail(stand_ins, instance) for _ in range(3)]
    watch.tick()
    watch.tick()
    assert watch.tick() == NOTHING
    text = "\n".join(message["message"] for message in receiver.received)
    assert all(run in text for run in runs)
    assert receiver.titles[1] == "ERROR run of style_taxonomy failed again"


def test_a_run_that_starts_again_by_itself_has_not_failed_yet(
    stand_ins: StandIns, instance: dg.DagsterInstance, watch: Watch, receiver: Receiver
) -> None:
    run_id = fail(stand_ins, instance)
    instance.add_run_tags(run_id, {"dagster/will_retry": "true"})
    assert watch.tick() == NOTHING
    instance.add_run_tags(run_id, {"dagster/will_retry": "false"})
    watch.tick()
    assert len(receiver.received) == 1


def test_a_run_that_a_person_cancels_alerts_nobody(
    watch: Watch, instance: dg.DagsterInstance, receiver: Receiver
) -> None:
    run = instance.create_run_for_job(job_def=build_defs().resolve_job_def("everything"))
    instance.report_run_canceling(run)
    instance.report_run_canceled(run)
    assert watch.tick() == NOTHING


def test_a_run_that_dies_without_a_step_says_why(
    watch: Watch, instance: dg.DagsterInstance, receiver: Receiver
) -> None:
    run = instance.create_run_for_job(job_def=build_defs().resolve_job_def("everything"))
    instance.report_run_failed(run, message="its process 17 was killed")
    watch.tick()
    assert receiver.titles == ["ERROR job everything failed"]
    assert "its process 17 was killed" in receiver.received[0]["message"]


def ask_for_release(stand_ins: StandIns, instance: dg.DagsterInstance, *failing: str) -> None:
    """Somebody materialises hub_release while these gates do not pass."""
    stand_ins.measured = {gate_id: 0.01 if gate_id == "human.p_value" else False for gate_id in failing}
    stand_ins.report(instance, *[asset for asset in SEAMS if asset != "hub_release"])
    assert stand_ins.materialize(instance, "hub_release").success == (not failing)


def test_a_step_whose_process_was_killed_is_named_once_and_in_words(
    stand_ins: StandIns, instance: dg.DagsterInstance, watch: Watch, receiver: Receiver
) -> None:
    stand_ins.broken["style_taxonomy"] = DagsterExecutionInterruptedError()
    stand_ins.materialize(instance, "style_taxonomy")
    watch.tick()
    (message,) = receiver.received
    assert message["title"] == "ERROR run of style_taxonomy failed"
    assert "style_taxonomy: it was interrupted" in message["message"]
    assert "dagster._core" not in message["message"]


def test_a_held_release_is_no_broken_run(
    stand_ins: StandIns, instance: dg.DagsterInstance, watch: Watch, receiver: Receiver
) -> None:
    for _ in range(2):
        ask_for_release(stand_ins, instance, "card.approved")
        watch.tick()
    (held,) = receiver.received
    assert (held["title"], held["type"]) == ("INFO hub_release is held by 1 gate", "info")
    assert "card.approved: fail" in held["message"]
    assert held["message"].endswith("/assets/hub_release")


def test_a_release_that_other_gates_hold_is_news_and_so_is_its_publication(
    stand_ins: StandIns, instance: dg.DagsterInstance, watch: Watch, receiver: Receiver
) -> None:
    for failing in (["card.approved"], ["card.approved", "human.p_value"], []):
        ask_for_release(stand_ins, instance, *failing)
        watch.tick()
    assert receiver.titles == [
        "INFO hub_release is held by 1 gate",
        "INFO hub_release is held by 2 gates",
        "RESOLVED hub_release is held no longer and was materialised",
    ]
