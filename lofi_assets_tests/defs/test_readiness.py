"""Why the release is held stands on its own page, whenever a gate was judged, and opens nothing."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest

from lofi_assets.defs import gates
from lofi_assets.defs.readiness import HUB_RELEASE, READY
from lofi_assets.release.verification import Finding
from lofi_assets_tests.defs.test_gate_checks import SEAMS, SOUND, StandIns, evaluations, run_checks

BEFORE_RELEASE = list(SEAMS)[:-1]
KEY = dg.AssetCheckKey(HUB_RELEASE, READY)


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIns:
    return StandIns(tmp_path).install(monkeypatch)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def latest(instance: dg.DagsterInstance) -> dg.AssetCheckEvaluation:
    record = instance.get_latest_asset_check_evaluation_record(KEY)
    assert record is not None and isinstance(record.evaluation, dg.AssetCheckEvaluation)
    return record.evaluation


def observations(instance: dg.DagsterInstance) -> list[dg.AssetObservation]:
    records = instance.fetch_observations(HUB_RELEASE, limit=100).records
    return [record.asset_observation for record in records if record.asset_observation]


def test_judging_any_gate_brings_the_page_of_the_release_up_to_date(
    stand_ins: StandIns, instance: dg.DagsterInstance
) -> None:
    stand_ins.report(instance, *BEFORE_RELEASE)
    stand_ins.measured["quality.fad"] = {"value": 9.0, "encoder": "vggish", "trained": True}
    assert stand_ins.materialize(instance, "quality_metrics").success
    found = latest(instance)
    assert not found.passed and found.severity == dg.AssetCheckSeverity.WARN and not found.blocking
    assert "Fail: fad is 9, must be below 5." in str(found.description) and "**Do:**" in str(found.description)
    assert "/docs/gates.md#quality.fad" in str(found.description)
    (seen,) = observations(instance)
    assert str(seen.metadata["summary"].value).startswith("Held by 1 gate: quality.fad.")
    assert isinstance(seen.metadata["needs a person"], dg.TableMetadataValue)


def test_nothing_is_written_while_nothing_changes(stand_ins: StandIns, instance: dg.DagsterInstance) -> None:
    stand_ins.report(instance, *BEFORE_RELEASE)
    stand_ins.measured["quality.fad"] = {"value": 9.0, "encoder": "vggish", "trained": True}
    for _ in range(3):
        stand_ins.materialize(instance, "quality_metrics")
    assert len(observations(instance)) == 1


def test_when_the_last_gate_has_passed_the_page_says_that_a_person_may_release(
    stand_ins: StandIns, instance: dg.DagsterInstance
) -> None:
    stand_ins.report(instance, *BEFORE_RELEASE)
    stand_ins.measured["card.approved"] = False
    stand_ins.materialize(instance, "model_card")
    assert not latest(instance).passed
    stand_ins.measured.clear()
    stand_ins.materialize(instance, "model_card")
    assert latest(instance).passed and "materialise hub_release" in str(latest(instance).description)
    assert "needs a person" not in observations(instance)[0].metadata


def test_gates_that_hold_for_one_reason_are_one_line(stand_ins: StandIns, instance: dg.DagsterInstance) -> None:
    stand_ins.materialize(instance, "licensed_sources", "style_taxonomy")
    table = observations(instance)[0].metadata["needs a person"]
    assert isinstance(table, dg.TableMetadataValue)
    gates = observations(instance)[0].metadata["gates"].value
    assert isinstance(gates, int) and len(table.records) <= len(SEAMS) < gates


def test_a_passed_check_opens_no_release(stand_ins: StandIns, instance: dg.DagsterInstance) -> None:
    """A person or a program that reports it as passed changes nothing: the guard asks the gates."""
    stand_ins.report(instance, *BEFORE_RELEASE)
    stand_ins.measured["card.approved"] = False
    stand_ins.report(instance, "model_card")
    passed = dg.AssetCheckEvaluation(asset_key=HUB_RELEASE, check_name=READY, passed=True, metadata={})
    instance.report_runless_asset_event(passed)
    assert not stand_ins.materialize(instance, "hub_release").success and "hub_release" not in stand_ins.worked


def test_a_page_that_cannot_be_written_stops_no_check(
    stand_ins: StandIns, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError("database is locked")

    monkeypatch.setattr(gates, "keep_current", broken)
    result = stand_ins.materialize(instance, "style_taxonomy")
    assert result.success and all(found.passed for found in evaluations(result).values())


def test_what_others_would_find_wrong_in_the_published_release_fails_its_check(
    stand_ins: StandIns, instance: dg.DagsterInstance
) -> None:
    found = Finding("fault", "README.md", "was changed: released was 0123")
    assert stand_ins.materialize(instance).success
    stand_ins.read_back = {"adapter": replace_findings(SOUND, found)}
    evaluation = run_checks(instance, stand_ins.root, "hub_release")["reads_back"]
    assert not evaluation.passed and "adapter, README.md: was changed" in str(evaluation.description)
    stand_ins.read_back = {}
    assert not run_checks(instance, stand_ins.root, "hub_release")["reads_back"].passed, "nothing was published"


def replace_findings(report: SimpleNamespace, *findings: Finding) -> SimpleNamespace:
    return SimpleNamespace(**{**vars(report), "findings": findings})
