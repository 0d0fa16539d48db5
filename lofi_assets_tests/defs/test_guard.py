"""The release guard: what a blocking check cannot do, since it only holds inside its own run."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from lofi_assets.constitution import evidence
from lofi_assets.constitution.gates import GUARDED_ASSETS
from lofi_assets.definitions import build_defs
from lofi_assets.defs.gates import held_back
from lofi_assets_tests.defs.test_gate_checks import GATES, SEAMS, StandIns, materialized
from lofi_assets_tests.recorded_evidence import report_build

LINEAGE = list(SEAMS)
BEFORE_RELEASE = LINEAGE[:-1]
RELEASE_GATES = sorted(gate.id for gate in GATES.values() if "hub_release" in gate.holds)


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIns:
    return StandIns(tmp_path).install(monkeypatch)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def built(stand_ins: StandIns, instance: dg.DagsterInstance) -> None:
    """What the guard reads of a whole lineage that passed."""
    stand_ins.report(instance, *BEFORE_RELEASE)


def held(stand_ins: StandIns, instance: dg.DagsterInstance, asset: str = "hub_release") -> dict[str, str]:
    """Gate id -> status, of the gates that hold an asset back now."""
    return {found.gate.id: found.status for found in held_back(instance, stand_ins.store, asset)}


def failure_of(result: dg.ExecuteInProcessResult, step: str) -> str:
    (failure,) = [event for event in result.all_events if event.is_step_failure and event.step_key == step]
    return failure.step_failure_data.error_display_string


def judge_by_hand(instance: dg.DagsterInstance, gate_id: str, *, passed: bool, data_version: str) -> None:
    """A person's verdict, recorded outside any run."""
    gate = GATES[gate_id]
    instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey(str(gate.asset)),
            check_name=gate.check_name,
            passed=passed,
            metadata={"rater": "Ada", "data_version": data_version},
        )
    )


def test_a_release_goes_out_when_every_gate_has_passed(stand_ins: StandIns, instance: dg.DagsterInstance) -> None:
    assert stand_ins.materialize(instance, *BEFORE_RELEASE).success
    assert held(stand_ins, instance) == {}
    result = stand_ins.materialize(instance, "hub_release")
    assert result.success and materialized(result) == ["hub_release"]


def test_nothing_is_released_before_anything_was_built(stand_ins: StandIns, instance: dg.DagsterInstance) -> None:
    assert set(held(stand_ins, instance)) == set(RELEASE_GATES)
    assert not stand_ins.materialize(instance, "hub_release").success
    assert stand_ins.worked == []


@pytest.mark.parametrize("gate_id", ["quality.fad", "human.p_value", "card.approved", "tiers.fad_int4"])
def test_a_failed_gate_holds_back_a_release_started_in_another_run(
    stand_ins: StandIns, instance: dg.DagsterInstance, gate_id: str
) -> None:
    """None of these blocks inside its own run: the guard alone stands before the release."""
    stand_ins.report(instance, *BEFORE_RELEASE)
    stand_ins.measured[gate_id] = None
    assert stand_ins.materialize(instance, str(GATES[gate_id].asset)).success
    assert held(stand_ins, instance) == {gate_id: "inconclusive"}
    result = stand_ins.materialize(instance, "hub_release")
    assert not result.success
    assert "hub_release" not in stand_ins.worked
    message = failure_of(result, "hub_release")
    assert f"- {gate_id}: inconclusive" in message and GATES[gate_id].why in message


def test_every_gate_that_holds_the_release_does_so(
    stand_ins: StandIns, instance: dg.DagsterInstance, built: None
) -> None:
    """Asset by asset, as another run would find it."""
    for asset in sorted({str(GATES[gate_id].asset) for gate_id in RELEASE_GATES}):
        expected = {gate_id: "inconclusive" for gate_id in RELEASE_GATES if GATES[gate_id].asset == asset}
        stand_ins.measured = dict.fromkeys(expected)
        stand_ins.report(instance, asset)
        assert held(stand_ins, instance) == expected
        stand_ins.measured = {}
        stand_ins.report(instance, asset)
    assert held(stand_ins, instance) == {}


def test_what_the_fixture_builds_would_be_released(
    stand_ins: StandIns, instance: dg.DagsterInstance, built: None
) -> None:
    assert all(held(stand_ins, instance, asset) == {} for asset in GUARDED_ASSETS)


@pytest.mark.parametrize("asset", ["dataset_manifest", "lora_checkpoints", "quantized_tiers"])
def test_numbers_about_another_build_hold(
    stand_ins: StandIns, instance: dg.DagsterInstance, built: None, asset: str
) -> None:
    report_build(instance, asset, "2")
    found = held(stand_ins, instance)
    about = {gate_id for gate_id in RELEASE_GATES if GATES[gate_id].asset == asset}
    assert about <= set(found)
    assert set(found.values()) == {"inconclusive"}


def test_an_asset_materialised_again_makes_what_was_built_from_it_outdated(
    stand_ins: StandIns, instance: dg.DagsterInstance
) -> None:
    """The checks of everything downstream passed, and still say nothing of the new training set."""
    stand_ins.report(instance, *BEFORE_RELEASE)
    stand_ins.versions["dataset_manifest"] = "dataset_manifest 2"
    assert stand_ins.materialize(instance, "dataset_manifest").success
    found = held(stand_ins, instance)
    assert {"checkpoint.dataset", "quality.fad", "merge.parity", "bundle.runs", "card.approved"} <= set(found)
    assert not {gate_id for gate_id in found if GATES[gate_id].asset == "dataset_manifest"}
    result = stand_ins.materialize(instance, "hub_release")
    assert not result.success
    assert "built from an earlier dataset_manifest" in failure_of(result, "hub_release")


def test_a_source_that_changed_holds_all_that_was_built_from_it(
    stand_ins: StandIns, instance: dg.DagsterInstance, built: None
) -> None:
    """However far up: a withdrawn licence moves the sources' version."""
    report_build(instance, "licensed_sources", "licensed_sources 2")
    assert set(held(stand_ins, instance)) == set(RELEASE_GATES)


def test_the_same_build_materialised_again_stays_open(
    stand_ins: StandIns, instance: dg.DagsterInstance, built: None
) -> None:
    sha256 = evidence.current_sha256(stand_ins.store, "dataset_manifest")
    report_build(instance, "dataset_manifest", "dataset_manifest 1", evidence=sha256)
    assert held(stand_ins, instance) == {}


def test_measures_copied_from_another_data_root_hold(stand_ins: StandIns, instance: dg.DagsterInstance) -> None:
    """Files that say pass, and an instance that never saw their materialisation."""
    with dg.DagsterInstance.ephemeral() as elsewhere:
        stand_ins.report(elsewhere, *BEFORE_RELEASE)
    assert set(held(stand_ins, instance)) == set(RELEASE_GATES)


@pytest.mark.parametrize("asset", ["merged_model", "quantized_tiers"])
def test_a_model_is_not_built_on_by_a_run_that_skips_what_failed(
    stand_ins: StandIns, instance: dg.DagsterInstance, asset: str
) -> None:
    upstream = LINEAGE[: LINEAGE.index(asset)]
    stand_ins.measured["checkpoint.revoked"] = 2
    stand_ins.report(instance, *upstream)
    assert held(stand_ins, instance, asset)["checkpoint.revoked"] == "fail"
    result = stand_ins.materialize(instance, asset)
    assert not result.success and asset not in stand_ins.worked


def test_a_persons_failed_verdict_on_this_build_holds(
    stand_ins: StandIns, instance: dg.DagsterInstance, built: None
) -> None:
    judge_by_hand(instance, "human.equivalence", passed=False, data_version="human_evaluation 1")
    assert held(stand_ins, instance) == {"human.equivalence": "fail"}


def test_a_persons_failed_verdict_on_an_earlier_build_does_not_hold(
    stand_ins: StandIns, instance: dg.DagsterInstance, built: None
) -> None:
    judge_by_hand(instance, "human.equivalence", passed=False, data_version="human_evaluation 0")
    assert held(stand_ins, instance) == {}


def test_a_person_may_take_a_failed_verdict_back(
    stand_ins: StandIns, instance: dg.DagsterInstance, built: None
) -> None:
    judge_by_hand(instance, "human.equivalence", passed=False, data_version="human_evaluation 1")
    judge_by_hand(instance, "human.equivalence", passed=True, data_version="human_evaluation 1")
    assert held(stand_ins, instance) == {}


def test_a_persons_pass_does_not_lift_a_failed_number(stand_ins: StandIns, instance: dg.DagsterInstance) -> None:
    stand_ins.measured["quality.fad"] = {"value": 9.0, "encoder": "vggish", "trained": True}
    stand_ins.report(instance, *BEFORE_RELEASE)
    judge_by_hand(instance, "quality.fad", passed=True, data_version="quality_metrics 1")
    assert held(stand_ins, instance) == {"quality.fad": "fail"}


def test_a_persons_failed_verdict_outlives_the_checks_of_the_same_build(
    stand_ins: StandIns, instance: dg.DagsterInstance, built: None
) -> None:
    """The weekly rebuild checks the unchanged build again; that is no person's approval."""
    judge_by_hand(instance, "human.equivalence", passed=False, data_version="human_evaluation 1")
    stand_ins.materialize(instance, "human_evaluation")
    assert held(stand_ins, instance) == {"human.equivalence": "fail"}


def test_a_persons_failed_verdict_without_a_build_holds(
    stand_ins: StandIns, instance: dg.DagsterInstance, built: None
) -> None:
    """The UI and the API let a person leave the build out: doubt is against the release."""
    instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey("human_evaluation"), check_name="human_equivalence", passed=False, metadata={}
        )
    )
    assert "human.equivalence" in held(stand_ins, instance)


def test_a_run_that_was_killed_before_its_checks_does_not_break_the_guard(
    stand_ins: StandIns, instance: dg.DagsterInstance, built: None
) -> None:
    """It leaves planned evaluations without a result behind."""
    instance.create_run_for_job(job_def=build_defs().resolve_job_def("everything"))
    assert held(stand_ins, instance) == {}
