"""Alerts on gates: what changed reaches people once, and so does its end; nothing is lost on the way."""

import errno
import json
from pathlib import Path

import dagster as dg
import pytest

from lofi_assets.definitions import build_defs
from lofi_assets.files.writing import locked
from lofi_assets_tests.alerts.alert_receiver import Receiver
from lofi_assets_tests.alerts.alert_watch import NOTHING, Watch, fail
from lofi_assets_tests.defs.test_gate_checks import GATES, StandIns


def test_gates_that_pass_alert_nobody(
    stand_ins: StandIns, instance: dg.DagsterInstance, watch: Watch, receiver: Receiver
) -> None:
    stand_ins.materialize(instance, "style_taxonomy")
    assert watch.tick() == NOTHING
    assert receiver.received == []


def test_a_gate_that_fails_three_times_alerts_once(
    stand_ins: StandIns, instance: dg.DagsterInstance, watch: Watch, receiver: Receiver
) -> None:
    for presets in (37, 36, 36):
        stand_ins.measured["taxonomy.presets"] = presets
        stand_ins.materialize(instance, "style_taxonomy")
        watch.tick()
    (message,) = receiver.received
    assert message["title"] == "ERROR taxonomy.presets fails (style_taxonomy)"
    assert message["type"] == "failure"


def test_an_alert_says_value_limit_article_what_to_do_and_where(
    stand_ins: StandIns, instance: dg.DagsterInstance, watch: Watch, receiver: Receiver
) -> None:
    stand_ins.measured["quality.fad"] = {"value": 6.123456, "encoder": "vggish", "trained": True}
    stand_ins.materialize(instance, "quality_metrics")
    watch.tick()
    (message,) = receiver.received
    gate = GATES["quality.fad"]
    for part in (
        "Fail: fad is 6.123, must be below 5",
        gate.why,
        gate.article,
        "holds back hub_release",
        "What to do: ",
    ):
        assert part in message["message"]
    assert message["message"].endswith("http://127.0.0.1:3000/assets/quality_metrics?view=checks")


def test_links_lead_where_the_variable_says(
    stand_ins: StandIns, instance: dg.DagsterInstance, watch: Watch, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOFI_UI_URL", "https://lofi.example.org/dagster/")
    watch.judge_by_hand("human.equivalence", passed=False)
    watch.tick()
    assert receiver.received[0]["message"].endswith(
        "https://lofi.example.org/dagster/assets/human_evaluation?view=checks"
    )


def test_a_gate_that_passes_again_is_said_once(
    stand_ins: StandIns, instance: dg.DagsterInstance, watch: Watch, receiver: Receiver
) -> None:
    stand_ins.measured["quality.coverage"] = 3
    stand_ins.materialize(instance, "quality_metrics")
    watch.tick()
    del stand_ins.measured["quality.coverage"]
    for _ in range(2):
        stand_ins.materialize(instance, "quality_metrics")
        watch.tick()
    assert [message["type"] for message in receiver.received] == ["warning", "success"]
    assert receiver.titles[1] == "RESOLVED quality.coverage passes again (quality_metrics)"


def test_a_verdict_that_changes_is_news(
    stand_ins: StandIns, instance: dg.DagsterInstance, watch: Watch, receiver: Receiver
) -> None:
    for measured in (
        {"value": 9.0, "encoder": "vggish", "trained": True},
        {"value": 9.0, "encoder": "musicnn", "trained": True},
    ):
        stand_ins.measured["quality.fad"] = measured
        stand_ins.materialize(instance, "quality_metrics")
        watch.tick()
    assert ["fails" in receiver.titles[0], "is inconclusive" in receiver.titles[1]] == [True, True]


def test_a_warning_does_not_look_like_an_error(
    stand_ins: StandIns, instance: dg.DagsterInstance, watch: Watch, receiver: Receiver
) -> None:
    """Neither blocks: the run is green, and its failed gates reach people all the same."""
    stand_ins.measured |= {"quality.coverage": 3, "quality.clap": 0.2, "quality.fad": None}
    assert stand_ins.materialize(instance, "quality_metrics").success
    watch.tick()
    found = {message["type"]: message for message in receiver.received}
    assert found["failure"]["title"] == "ERROR 2 gates of quality_metrics do not pass"
    assert "quality.fad: Not measured (fad must be below 5)" in found["failure"]["message"]
    assert found["warning"]["title"] == "WARNING quality.coverage fails (quality_metrics)"
    assert len(receiver.received) == 2


def test_a_blocking_gate_and_the_run_that_it_stops_are_one_alert(
    stand_ins: StandIns, instance: dg.DagsterInstance, watch: Watch, receiver: Receiver
) -> None:
    stand_ins.measured["taxonomy.presets"] = 37
    for _ in range(2):
        result = stand_ins.materialize(instance, "style_taxonomy", "processed_tracks")
        assert not result.success
        watch.tick()
    (message,) = receiver.received
    assert "taxonomy.presets" in message["title"]
    assert "/runs/" in message["message"]


def test_a_persons_verdict_alerts_too(watch: Watch, receiver: Receiver) -> None:
    watch.judge_by_hand("human.equivalence", passed=False)
    watch.tick()
    assert "human.equivalence" in receiver.titles[0]
    assert "Ada says: the left channel hums" in receiver.received[0]["message"]
    assert watch.tick() == NOTHING


def test_a_gate_that_a_person_failed_is_not_called_mended_by_its_check(
    stand_ins: StandIns, instance: dg.DagsterInstance, watch: Watch, receiver: Receiver
) -> None:
    """The release guard holds the build that the person judged, whatever the check says of it."""
    stand_ins.materialize(instance, "human_evaluation")
    watch.judge_by_hand("human.equivalence", passed=False)
    for _ in range(2):
        stand_ins.materialize(instance, "human_evaluation")
        watch.tick()
    assert watch.tick() == NOTHING
    watch.judge_by_hand("human.equivalence", passed=True)
    watch.tick()
    assert [message["type"] for message in receiver.received] == ["failure", "success"]


def test_a_check_that_is_only_planned_alerts_nobody_and_hides_nothing(
    watch: Watch, instance: dg.DagsterInstance, receiver: Receiver
) -> None:
    watch.judge_by_hand("human.equivalence", passed=False)
    instance.create_run_for_job(job_def=build_defs().resolve_job_def("everything"))
    watch.tick()
    assert len(receiver.received) == 1


def test_all_of_it_works_on_sqlite_on_disk(
    stand_ins: StandIns, receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `dg dev` has it: the usual cursor over events fails there."""
    (tmp_path / "dagster").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "dagster")) as instance:
        watch = Watch(stand_ins, instance, monkeypatch)
        watch.receivers(receiver.url)
        watch.tick()
        fail(stand_ins, instance)
        watch.judge_by_hand("human.equivalence", passed=False)
        watch.tick()
        watch.judge_by_hand("human.equivalence", passed=True)
        stand_ins.broken.clear()
        stand_ins.materialize(instance, "style_taxonomy")
        watch.tick()
        assert watch.tick() == NOTHING
    assert [message["type"] for message in receiver.received] == ["failure", "failure", "success", "success"]


def test_the_first_look_tells_what_fails_now_in_one_message_and_no_old_run(
    stand_ins: StandIns, instance: dg.DagsterInstance, unwatched: Watch, receiver: Receiver
) -> None:
    for _ in range(3):
        fail(stand_ins, instance)
    stand_ins.broken.clear()
    stand_ins.measured |= {"quality.coverage": 3, "quality.clap": 0.2}
    stand_ins.materialize(instance, "quality_metrics")
    unwatched.tick()
    assert unwatched.tick() == NOTHING
    (message,) = receiver.received
    assert (message["title"], message["type"]) == ("INFO alerts begin: 2 gates do not pass now", "info")
    assert "quality.coverage: Fail: " in message["message"]
    assert "3 runs that failed before now are not reported" in message["message"]
    stand_ins.measured.clear()
    stand_ins.materialize(instance, "quality_metrics")
    unwatched.tick()
    assert receiver.titles[1:] == ["RESOLVED 2 gates of quality_metrics pass again"]


def test_the_first_look_at_an_empty_instance_is_silent(unwatched: Watch, receiver: Receiver) -> None:
    assert unwatched.tick() == NOTHING
    assert receiver.received == []


def test_what_was_told_is_in_one_readable_file_without_secrets(
    stand_ins: StandIns, instance: dg.DagsterInstance, watch: Watch, receiver: Receiver
) -> None:
    receiver.stop()
    watch.judge_by_hand("human.equivalence", passed=False)
    shown = watch.tick()
    text = (stand_ins.root / "alerts" / "state.json").read_text(encoding="utf-8")
    assert json.loads(text)["gates"]["human.equivalence"]["status"] == "fail"
    assert "s3cr3tpath" not in text + shown


def test_a_state_that_cannot_be_read_is_set_aside_and_people_are_told(
    stand_ins: StandIns, watch: Watch, receiver: Receiver
) -> None:
    watch.judge_by_hand("human.equivalence", passed=False)
    path = stand_ins.root / "alerts" / "state.json"
    path.write_text('{"begun": ', encoding="utf-8")
    watch.tick()
    assert watch.tick() == NOTHING
    (message,) = receiver.received
    assert message["title"] == "INFO alerts begin: 1 gate does not pass now"
    assert "What was told before is lost" in message["message"]
    assert path.with_suffix(".unreadable.json").is_file()


def test_a_full_disk_delays_alerts_and_loses_none(
    watch: Watch, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    watch.judge_by_hand("human.equivalence", passed=False)
    with monkeypatch.context() as patched:
        patched.setattr("lofi_assets.defs.alerts.write_state", full)
        assert "No space left on device" in watch.tick()
    assert receiver.received == []
    watch.tick()
    assert watch.tick() == NOTHING
    assert len(receiver.received) == 1


def test_a_folder_that_cannot_be_made_delays_alerts_and_loses_none(
    stand_ins: StandIns, watch: Watch, receiver: Receiver
) -> None:
    watch.judge_by_hand("human.equivalence", passed=False)
    folder, aside = stand_ins.root / "alerts", stand_ins.root / "aside"
    folder.replace(aside)
    folder.write_text("in the way")
    assert "none is lost" in watch.tick()
    folder.unlink()
    aside.replace(folder)
    watch.tick()
    assert len(receiver.received) == 1


def test_two_daemons_on_one_data_root_tell_it_once(stand_ins: StandIns, watch: Watch, receiver: Receiver) -> None:
    watch.judge_by_hand("human.equivalence", passed=False)
    with locked(stand_ins.root / "alerts", busy=RuntimeError()):
        assert "another process" in watch.tick()
    watch.tick()
    assert len(receiver.received) == 1


def test_without_a_receiver_alerts_go_to_the_log(
    watch: Watch, receiver: Receiver, capfd: pytest.CaptureFixture[str]
) -> None:
    watch.receivers()
    watch.judge_by_hand("human.equivalence", passed=False)
    assert watch.tick() == "1 new, 0 delivered; no receiver is configured, see the log"
    assert receiver.received == []
    assert "ALERT ERROR human.equivalence fails" in capfd.readouterr().err
