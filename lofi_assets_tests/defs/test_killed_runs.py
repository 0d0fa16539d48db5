"""What a run that was killed, or that failed after it had written, leaves: the next run goes on with it."""

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.events import DagsterEvent
from dagster._core.events.log import EventLogEntry
from dagster._core.execution.plan.objects import StepFailureData, StepRetryData, StepSuccessData
from dagster._core.utils import make_new_run_id
from dagster_shared.error import SerializableErrorInfo

from lofi_assets.constitution import evidence, made_here
from lofi_assets.constitution.made_here import Attempt
from lofi_assets.defs.event_log import EVENTS_AT_ONCE, LAST_WORDS_S, InstanceLog
from lofi_assets.files.hashing import sha256_file
from lofi_assets.outcome import Outcome, Written
from lofi_assets.store import Store
from lofi_assets.tracks.process_track import ProcessJob, ProcessResult
from lofi_assets_tests.defs.test_gate_checks import StandIns
from lofi_assets_tests.recorded_evidence import JOB, report_build
from lofi_assets_tests.sources import test_revocation
from lofi_assets_tests.sources.test_revocation import DATA, KEPT, Lineage

START, FAILURE, SUCCESS = (
    dg.DagsterEventType.STEP_START,
    dg.DagsterEventType.STEP_FAILURE,
    dg.DagsterEventType.STEP_SUCCESS,
)
RETRY, AGAIN = dg.DagsterEventType.STEP_UP_FOR_RETRY, dg.DagsterEventType.STEP_RESTARTED
FAULT = SerializableErrorInfo("killed", [], "RuntimeError")
DATA_OF: dict[Any, Any] = {
    FAILURE: StepFailureData(FAULT, None),  # type: ignore[no-untyped-call]
    SUCCESS: StepSuccessData(duration_ms=1.0),  # type: ignore[no-untyped-call]
    RETRY: StepRetryData(FAULT),  # type: ignore[no-untyped-call]
}
TRACK = KEPT[0]
_heard = test_revocation.heard


def heard(job: ProcessJob) -> ProcessResult:
    """A track that sounds like what was delivered."""
    found = _heard(job)
    job.target.write_bytes(b"sound of " + job.source.read_bytes())
    return replace(found, sha256=sha256_file(job.target))


@pytest.fixture
def lineage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lineage]:
    """A dataset, and then a run in which a track is made anew and that ends before it leaves evidence."""
    monkeypatch.setattr(test_revocation, "heard", heard)
    lineage = Lineage(tmp_path)
    with dg.DagsterInstance.ephemeral() as lineage.instance:
        lineage.install(monkeypatch)
        lineage.deliver()
        lineage.run(*DATA)
        (lineage.store.raw / "partnerships" / f"{TRACK}.wav").write_bytes(b"another take")
        lineage.run("licensed_sources")
        with monkeypatch.context() as patch:
            patch.setattr(evidence, "write", killed)
            assert not lineage.materialize(lineage.instance, "processed_tracks").success
        assert mp3(lineage.store).read_bytes() == b"sound of another take"
        yield lineage


def killed(store: Store, outcome: Outcome, **_: Any) -> str:
    raise RuntimeError("killed")


def mp3(store: Store) -> Path:
    (path,) = store.processed.glob(f"*/{TRACK}.mp3")
    return path


def test_the_next_run_keeps_what_it_made_and_vouches_for_it(lineage: Lineage) -> None:
    result = lineage.run("processed_tracks")
    (made,) = result.asset_materializations_for_node("processed_tracks")
    assert made.metadata["recomputed"].value == 0
    known = evidence.read(lineage.store, "processed_tracks", evidence.current_sha256(lineage.store, "processed_tracks"))
    path = mp3(lineage.store)
    assert evidence.read_list(lineage.store, known).files[lineage.store.relative(path)] == sha256_file(path)


@pytest.mark.parametrize("when", ["during", "after"])
def test_what_was_put_in_its_place_after_such_a_run_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    monkeypatch.setattr(made_here, "SLACK_S", 0.1)
    report = tmp_path / "metadata" / "report.json"
    stand_ins = StandIns(tmp_path, written={"licensed_sources": Written([report])}).install(monkeypatch)
    report.parent.mkdir()
    report.write_text("1")

    def interrupted(store: Store, outcome: Outcome, **_: Any) -> str:
        report.write_text("2")
        raise RuntimeError("killed")

    with dg.DagsterInstance.ephemeral() as instance:
        assert stand_ins.materialize(instance, "licensed_sources").success
        with monkeypatch.context() as patch:
            patch.setattr(evidence, "write", interrupted)
            assert not stand_ins.materialize(instance, "licensed_sources").success
        if when == "after":
            time.sleep(0.3)  # nothing but time itself sets the time of a change
            report.write_text("3")
            time.sleep(0.3)
        result = stand_ins.materialize(instance, "licensed_sources")
        assert result.success == (when == "during")
        if when == "after":
            (failure, *_) = [event for event in result.all_events if event.is_step_failure]
            assert "metadata/report.json: changed since a run" in failure.step_failure_data.error_display_string


def test_a_reported_materialisation_does_not_make_a_changed_file_the_runs_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(made_here, "SLACK_S", 0.1)
    report = tmp_path / "metadata" / "report.json"
    stand_ins = StandIns(tmp_path, written={"licensed_sources": Written([report])}).install(monkeypatch)
    report.parent.mkdir()
    report.write_text("1")
    with dg.DagsterInstance.ephemeral() as instance:
        assert stand_ins.materialize(instance, "licensed_sources").success
        time.sleep(0.3)
        report.write_text("2")
        instance.report_runless_asset_event(dg.AssetMaterialization("licensed_sources"))
        time.sleep(0.3)
        result = stand_ins.materialize(instance, "licensed_sources")
    (failure, *_) = [event for event in result.all_events if event.is_step_failure]
    assert "metadata/report.json: changed since a run" in failure.step_failure_data.error_display_string


class Logged:
    """An instance whose asset `a` was materialised at 0, with further runs of it; times are seconds from then."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance = instance
        report_build(instance, "a", "1")
        made = InstanceLog(instance).latest("a")
        assert made is not None
        self.at = made.timestamp

    def run(self, *events: tuple[float, dg.DagsterEventType | None, str]) -> str:
        """A run that wrote these events; None is a line of text."""
        run = self.instance.add_run(dg.DagsterRun(job_name=JOB, run_id=make_new_run_id()))
        for at, kind, step in events:
            event = (
                DagsterEvent(kind.value, JOB, step_key=step, event_specific_data=DATA_OF.get(kind)) if kind else None
            )
            facts = {"error_info": None, "level": 20, "user_message": "10 of 20 tracks", "run_id": run.run_id}
            facts |= {"timestamp": self.at + at, "step_key": step, "job_name": JOB, "dagster_event": event}
            self.instance.handle_new_event(EventLogEntry(**facts))  # type: ignore[no-untyped-call]
        return run.run_id

    def attempts(self, running: str) -> list[tuple[float, float]]:
        found: list[Attempt] = list(InstanceLog(self.instance).attempts("a", running=running))
        return [(round(one.start - self.at, 3), round(one.end - self.at, 3)) for one in found]


@pytest.fixture
def logged() -> Iterator[Logged]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Logged(instance)


def test_the_run_that_asks_has_no_end_yet(logged: Logged) -> None:
    assert logged.attempts(logged.run((50, START, "b"))) == []
    assert logged.attempts(logged.run((50, START, "a"))) == [(50, math.inf)]


def test_a_run_that_failed_worked_until_it_said_so(logged: Logged) -> None:
    logged.run((10, START, "a"), (15, START, "b"), (30, FAILURE, "a"), (40, SUCCESS, "b"))
    assert logged.attempts(logged.run((50, START, "a"))) == [(50, math.inf), (10, 30)]


def test_a_run_that_was_killed_worked_until_shortly_after_its_last_line(logged: Logged) -> None:
    others = [(30.0 + index, None, "b") for index in range(2 * EVENTS_AT_ONCE)]
    logged.run((10, START, "a"), (20, None, "a"), (25, None, "a"), *others)
    assert logged.attempts(logged.run((900, START, "a"))) == [(900, math.inf), (10, 25 + LAST_WORDS_S)]


def test_between_two_tries_of_a_run_nobody_was_at_work(logged: Logged) -> None:
    running = logged.run((10, START, "a"), (20, RETRY, "a"), (40, AGAIN, "a"))
    assert logged.attempts(running) == [(10, 20), (40, math.inf)]


def test_what_was_before_the_latest_materialisation_counts_no_more(logged: Logged) -> None:
    logged.run((-30, START, "a"), (-10, FAILURE, "a"))
    logged.run((-5, START, "a"), (5, FAILURE, "a"))
    assert logged.attempts(logged.run((50, START, "a"))) == [(50, math.inf), (0, 5)]


def test_runs_of_other_assets_count_for_nothing(logged: Logged) -> None:
    logged.run((10, START, "b"), (20, FAILURE, "b"))
    assert logged.attempts("no such run") == []
