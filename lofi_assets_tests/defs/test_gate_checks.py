"""Gates as asset checks: what they say of recorded measures, and what a failure stops in the same run.

`StandIns` puts small outcomes in the place of the domain's work, so that the real definitions run in milliseconds; the
other tests of the Dagster side use it too.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from lofi_assets.constitution import evidence, verdicts
from lofi_assets.constitution.gates import ENCODED_MEASURES, Gate, load_gates
from lofi_assets.constitution.verdicts import Measures
from lofi_assets.definitions import build_defs
from lofi_assets.defs import dataset, evaluation, quantization, release, sources, tracks, training
from lofi_assets.defs.readiness import READY
from lofi_assets.defs.resources import Platform
from lofi_assets.outcome import Outcome, Written
from lofi_assets.store import Store
from lofi_assets_tests.recorded_evidence import record, report_build, report_check

SEAMS: dict[str, tuple[Any, str]] = {
    "licensed_sources": (sources, "inventory_sources"),
    "style_taxonomy": (sources, "describe_taxonomy"),
    "processed_tracks": (tracks, "process_library"),
    "prompts": (tracks, "write_prompts"),
    "dataset_manifest": (dataset, "assemble"),
    "feature_cache": (training, "cache_dataset_features"),
    "lora_checkpoints": (training, "describe_training"),
    "generated_samples": (evaluation, "generate_samples"),
    "quality_metrics": (evaluation, "evaluate_checkpoints"),
    "human_evaluation": (evaluation, "evaluate_listening"),
    "merged_model": (quantization, "merge_best"),
    "quantized_tiers": (quantization, "quantize"),
    "onnx_artifacts": (release, "build_bundle"),
    "model_card": (release, "write_card"),
    "hub_release": (release, "publish"),
}
"""The one domain function that each asset calls for its outcome, where it calls it, in lineage order."""

GATES = {gate.id: gate for gate in load_gates()}
SOUND = SimpleNamespace(findings=(), record=SimpleNamespace(files={"README.md": None}))
"""The report of a release in which nothing is wrong."""


UNJUDGED: dict[str, dict[str, Any]] = {"licensed_sources": {"licences": {"CC-BY-4.0": 1}}}
"""Values that are on record for whoever verifies, and that no gate judges."""


def passing_value(gate: Gate) -> Any:
    """A measure that the gate lets through, with the trained encoder that it is bound to or that took it."""
    limit = gate.limit
    match gate.op:
        case "<":
            value: Any = 1.0 if limit == float("inf") else float(limit) / 2
        case ">":
            value = float(limit) + 0.1
        case "!=":
            value = "something else"
        case _:
            value = limit
    encoded = gate.measure in ENCODED_MEASURES
    return {"value": value, "encoder": gate.encoder, "trained": True} if encoded else value


@dataclass
class StandIns:
    """Outcomes in the place of the domain's work; everything passes until a test says otherwise."""

    root: Path
    versions: dict[str, str] = field(default_factory=dict)
    """Asset -> data version, else `<asset> 1`."""
    measured: dict[str, Any] = field(default_factory=dict)
    """Gate id -> its measure; for a track-scope gate its counts. None: the asset does not record it."""
    written: dict[str, Written] = field(default_factory=dict)
    """Asset -> the files that its numbers are about."""
    read_back: dict[str, Any] = field(default_factory=lambda: {"adapter": SOUND})
    """Part of the release -> what others find in it."""
    broken: dict[str, BaseException] = field(default_factory=dict)
    """Asset -> what its work raises."""
    worked: list[str] = field(default_factory=list)
    """Assets whose work was done, in order."""

    @property
    def store(self) -> Store:
        """The temporary data root."""
        return Store(self.root)

    @cached_property
    def defs(self) -> dg.Definitions:
        """The real definitions on the temporary data root."""
        return build_defs(resources_overrides={"platform": Platform(data_dir=str(self.root), profile_name="demo")})

    def install(self, monkeypatch: pytest.MonkeyPatch) -> "StandIns":
        """Take the domain's place until the test ends."""
        for asset, (module, name) in SEAMS.items():
            monkeypatch.setattr(module, name, lambda *_, asset=asset, **__: self.work(asset))
        monkeypatch.setattr(release, "read_back", lambda *_: self.read_back)
        monkeypatch.setattr(tracks, "curated_tempo_ranges", lambda _: {})
        monkeypatch.setattr(tracks, "categories", lambda _: lambda rows: {})
        monkeypatch.setattr(training, "plan_training", lambda *_: SimpleNamespace(remaining_steps=0))
        return self

    def work(self, asset: str) -> Outcome:
        """What the asset's domain function gives back."""
        self.worked.append(asset)
        if asset in self.broken:
            raise self.broken[asset]
        gates = [gate for gate in GATES.values() if gate.asset == asset]
        return Outcome(
            data_version=self.versions.get(asset, f"{asset} 1"),
            counts={"recomputed": 0},
            written=self.written.get(asset, Written()),
            values=self._values([gate for gate in gates if gate.scope == "asset"]) | UNJUDGED.get(asset, {}),
            tracks={
                gate.id: counts
                for gate in gates
                if gate.scope == "track"
                and (counts := self.measured.get(gate.id, {"accepted": 3, "violating": 0, "rejected": 0})) is not None
            },
        )

    def _values(self, gates: Collection[Gate]) -> dict[str, Any]:
        values = {gate.measure: self.measured.get(gate.id, passing_value(gate)) for gate in gates}
        return {measure: value for measure, value in values.items() if value is not None}

    def materialize(self, instance: dg.DagsterInstance, *assets: str) -> dg.ExecuteInProcessResult:
        """One run of the named assets with their checks; of the whole lineage if none is named."""
        job = self.defs.resolve_implicit_global_asset_job_def()
        selection = [dg.AssetKey(asset) for asset in assets] or None
        return job.execute_in_process(instance=instance, asset_selection=selection, raise_on_error=False)

    def report(self, instance: dg.DagsterInstance, *assets: str) -> None:
        """A test's starting point: what a green run of the named assets leaves for automation and for the guard."""
        graph = self.defs.resolve_asset_graph()
        for asset in assets:
            outcome, key = self.work(asset), dg.AssetKey(asset)
            upstream = [key.to_user_string() for key in graph.get(key).parent_keys]
            sha256 = evidence.write(self.store, outcome, asset=asset, upstream=upstream)
            run_id = report_build(instance, asset, outcome.data_version, evidence=sha256)
            for gate in GATES.values():
                if gate.asset == asset and (gate.blocking or gate.scope == "track"):
                    passed = dg.AssetCheckEvaluation(
                        asset_key=key, check_name=gate.check_name, passed=True, metadata={}
                    )
                    report_check(instance, passed, run_id=run_id)


def materialized(result: dg.ExecuteInProcessResult) -> list[str]:
    """Assets that a run materialised, in order."""
    return [event.asset_key.to_user_string() for event in result.get_asset_materialization_events() if event.asset_key]


def evaluations(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    """Check name -> its evaluation in a run."""
    return {found.check_name: found for found in result.get_asset_check_evaluations()}


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIns:
    return StandIns(tmp_path).install(monkeypatch)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def run_checks(instance: dg.DagsterInstance, root: Path, asset: str) -> dict[str, dg.AssetCheckEvaluation]:
    """The checks of one asset alone, as the UI's "execute check" does."""
    defs = build_defs(resources_overrides={"platform": Platform(data_dir=str(root), profile_name="demo")})
    job = defs.resolve_implicit_global_asset_job_def()
    checks = [key for key in defs.resolve_asset_graph().asset_check_keys if key.asset_key.to_user_string() == asset]
    subset = job.get_subset(asset_check_selection=set(checks), asset_selection=set())
    return evaluations(subset.execute_in_process(instance=instance, raise_on_error=False))


def test_when_every_measure_passes_the_whole_lineage_materialises_in_order(
    stand_ins: StandIns, instance: dg.DagsterInstance
) -> None:
    result = stand_ins.materialize(instance)
    assert result.success
    assert set(materialized(result)) == set(SEAMS)
    order = materialized(result)
    for asset, gate in ((gate.asset, gate) for gate in GATES.values() if gate.asset):
        assert all(order.index(str(asset)) < order.index(held) for held in gate.holds)
    found = evaluations(result)
    assert len(found) == sum(gate.asset is not None for gate in GATES.values()) + 2
    assert found[READY].passed and all(evaluation.passed for evaluation in found.values())


def test_a_check_judges_what_was_recorded_and_does_no_work(stand_ins: StandIns, instance: dg.DagsterInstance) -> None:
    record(stand_ins.store, Measures("merged_model", "v7", values={"merge_max_error": 1e-6}))
    found = run_checks(instance, stand_ins.root, "merged_model")
    assert found["merge_parity"].passed
    assert found["merge_parity"].metadata["data_version"].value == "v7"
    assert stand_ins.worked == []


@pytest.mark.parametrize(
    ("gate_id", "measure", "status", "severity"),
    [
        ("quality.fad", {"value": 4.99, "encoder": "vggish", "trained": True}, "pass", "ERROR"),
        ("quality.fad", {"value": 5.0, "encoder": "vggish", "trained": True}, "fail", "ERROR"),
        ("quality.fad", {"value": -0.1, "encoder": "vggish", "trained": True}, "inconclusive", "ERROR"),
        ("quality.fad", {"value": 1.0, "encoder": "musicnn", "trained": True}, "inconclusive", "ERROR"),
        ("quality.fad", {"value": 1.0, "encoder": "vggish", "trained": False}, "inconclusive", "ERROR"),
        ("quality.fad", {"value": 1.0, "encoder": "vggish"}, "inconclusive", "ERROR"),
        ("quality.fad_relative", {"value": 1.5, "trained": True}, "pass", "WARN"),
        ("quality.fad_relative", {"value": 2.0, "trained": True}, "fail", "WARN"),
        ("quality.fad_relative", {"value": float("nan"), "trained": True}, "inconclusive", "WARN"),
        ("quality.fad_relative", 1.5, "inconclusive", "WARN"),
        ("quality.measured", 0, "pass", "ERROR"),
        ("quality.measured", 1, "fail", "ERROR"),
        ("quality.measured", "0", "inconclusive", "ERROR"),
    ],
)
def test_only_pass_passes_and_severity_is_the_tables(
    tmp_path: Path, instance: dg.DagsterInstance, gate_id: str, measure: Any, status: str, severity: str
) -> None:
    gate = GATES[gate_id]
    record(Store(tmp_path), Measures(str(gate.asset), "v1", values={gate.measure: measure}))
    found = run_checks(instance, tmp_path, str(gate.asset))[gate.check_name]
    assert found.metadata["verdict"].value == status
    assert found.passed == (status == "pass")
    assert found.severity == dg.AssetCheckSeverity(severity)
    assert found.metadata["limit"].value == gate.limit
    outcomes = {"pass": "Pass", "fail": "Fail"}.get(status, ("Inconclusive", "Not measured"))
    assert str(found.description).startswith(outcomes)


@pytest.mark.parametrize("asset", sorted({str(gate.asset) for gate in GATES.values() if gate.asset}))
def test_an_absent_measure_never_passes(tmp_path: Path, instance: dg.DagsterInstance, asset: str) -> None:
    record(Store(tmp_path), Measures(asset, "v1"))
    found = run_checks(instance, tmp_path, asset)
    assert len(found) == sum(gate.asset == asset for gate in GATES.values())
    assert {evaluation.metadata["verdict"].value for evaluation in found.values()} == {"inconclusive"}
    assert not any(evaluation.passed for evaluation in found.values())


def test_a_check_of_an_asset_that_was_never_materialised_does_not_pass(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    found = run_checks(instance, tmp_path, "model_card")
    assert found and not any(evaluation.passed for evaluation in found.values())
    assert "not materialised yet" in str(found["card_approved"].description)


@pytest.mark.parametrize("asset", ["licensed_sources", "processed_tracks", "prompts"])
def test_an_accepted_track_that_violates_a_rule_fails_its_check(
    tmp_path: Path, instance: dg.DagsterInstance, asset: str
) -> None:
    rules = [gate for gate in GATES.values() if gate.asset == asset and gate.scope == "track"]
    counts = {"accepted": 3, "violating": 1, "rejected": 2}
    record(Store(tmp_path), Measures(asset, "v1", tracks={gate.id: counts for gate in rules}))
    found = run_checks(instance, tmp_path, asset)
    assert rules
    for gate in rules:
        evaluation = found[gate.check_name]
        assert not evaluation.passed and evaluation.blocking
        assert evaluation.metadata["violating"].value == 1
        assert str(evaluation.description).startswith("Fail: 1 accepted track breaks the rule")


def test_rejected_tracks_alone_do_not_fail_the_asset(stand_ins: StandIns, instance: dg.DagsterInstance) -> None:
    stand_ins.measured["audio.clipping"] = {"accepted": 1, "violating": 0, "rejected": 40}
    found = evaluations(stand_ins.materialize(instance, "processed_tracks"))
    assert found["audio_clipping"].passed
    assert str(found["audio_clipping"].description).startswith("Pass: 40 rejected, 1 accepted")


@pytest.mark.parametrize(
    "measured",
    [
        {"dataset.leak": 1},
        {"dataset.leak": None},
        {"dataset.hash": False},
    ],
    ids=["failed", "not measured", "false"],
)
def test_a_blocking_failure_stops_what_follows_in_the_same_run(
    stand_ins: StandIns, instance: dg.DagsterInstance, measured: Mapping[str, Any]
) -> None:
    stand_ins.measured |= measured
    result = stand_ins.materialize(instance, "dataset_manifest", "feature_cache", "lora_checkpoints")
    assert not result.success
    assert materialized(result) == ["dataset_manifest"]


def test_a_track_that_should_have_been_rejected_stops_what_follows(
    stand_ins: StandIns, instance: dg.DagsterInstance
) -> None:
    stand_ins.measured["licence.revoked"] = {"accepted": 3, "violating": 1, "rejected": 0}
    result = stand_ins.materialize(instance, "licensed_sources", "processed_tracks")
    assert not result.success
    assert materialized(result) == ["licensed_sources"]


@pytest.mark.parametrize("gate_id", ["tracks.rejected_share", "quality.fad"])
def test_a_failure_that_does_not_block_leaves_the_run_green(
    stand_ins: StandIns, instance: dg.DagsterInstance, gate_id: str
) -> None:
    gate = GATES[gate_id]
    stand_ins.measured[gate_id] = {"value": 99.0, "encoder": "vggish", "trained": True} if gate.encoder else 0.9
    following = {"tracks.rejected_share": "prompts", "quality.fad": "human_evaluation"}[gate_id]
    result = stand_ins.materialize(instance, str(gate.asset), following)
    assert result.success
    assert not evaluations(result)[gate.check_name].passed
    assert following in materialized(result)


def test_measures_name_their_build_and_the_builds_they_came_from(
    stand_ins: StandIns, instance: dg.DagsterInstance
) -> None:
    stand_ins.versions = {"licensed_sources": "s1", "style_taxonomy": "t1", "processed_tracks": "p1"}
    stand_ins.materialize(instance, "licensed_sources", "style_taxonomy", "processed_tracks")
    found = verdicts.recorded(stand_ins.store, "processed_tracks")
    assert found is not None
    assert (found.data_version, found.upstream) == ("p1", {"licensed_sources": "s1", "style_taxonomy": "t1"})
