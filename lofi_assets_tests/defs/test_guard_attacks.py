"""What somebody may try in order to get a held release out, each refused by the guard with the name of what is wrong.

Everything before the release was made by runs, with files; only the domain's work is a stand-in. `docs/decisions/028`
has the table.
"""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData,
)

from lofi_assets.constitution import evidence
from lofi_assets.constitution.clearance import NotClearedError
from lofi_assets.constitution.gates import load_constitution, load_gates
from lofi_assets.defs import gates as guard
from lofi_assets.defs.gates import held_back
from lofi_assets.files.documents import read_json, write_json
from lofi_assets.files.hashing import sha256_file
from lofi_assets.outcome import Written
from lofi_assets.profiles import load_profile
from lofi_assets.release.hub_release import publish
from lofi_assets.sources.licences import SourceError, load_licences
from lofi_assets.store import CONFIG_DIR, Store
from lofi_assets_tests.defs.test_gate_checks import SEAMS, StandIns, materialized
from lofi_assets_tests.defs.test_guard import failure_of, judge_by_hand
from lofi_assets_tests.recorded_evidence import materialization, report_build

BEFORE_RELEASE = list(SEAMS)[:-1]
CHECKPOINT = "checkpoints/epoch=0-step=10_lora"
FILES = {
    "licensed_sources": ("metadata/sources.json", "raw/commissioned/rain.wav"),
    "processed_tracks": ("processed/core/rain.mp3",),
    "dataset_manifest": ("dataset/lofi-1/audio/rain.mp3",),
    "lora_checkpoints": tuple(
        f"{CHECKPOINT}/{name}"
        for name in (
            "adapter_model.safetensors",
            "adapter_config.json",
            "config.json",
            "pytorch_lora_weights.safetensors",
        )
    ),
    "generated_samples": ("samples/epoch=0-step=10_lora/000_rain.mp3",),
    "quality_metrics": ("metadata/quality_metrics.json",),
    "human_evaluation": ("metadata/human_evaluation.json",),
    "merged_model": ("models/merged/epoch=0-step=10_lora/transformer.safetensors",),
    "quantized_tiers": ("quantized/int8/transformer.onnx", "metadata/tier_fad.json"),
    "onnx_artifacts": ("export/int8/transformer.onnx", "export/bundle.json"),
    "model_card": ("release/README.md",),
}
EVERY_FILE = [name for names in FILES.values() for name in names]


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A lineage that a run made, so that the release may go out; what a test does to it, it undoes."""
    stand_ins = StandIns(tmp_path_factory.mktemp("attacked"))
    with dg.DagsterInstance.ephemeral() as instance, pytest.MonkeyPatch.context() as monkeypatch:
        stand_ins.install(monkeypatch)
        for asset, names in FILES.items():
            for name in names:
                put(stand_ins.store, name, f'{{"lora_alpha": 32, "of": "{name}"}}')
            stand_ins.written[asset] = Written(given=[stand_ins.store.root / name for name in names])
        assert stand_ins.materialize(instance, *BEFORE_RELEASE).success
        assert held_back(instance, stand_ins.store, "hub_release") == []
        yield stand_ins, instance


@pytest.fixture
def stand_ins(attacked: tuple[StandIns, dg.DagsterInstance], monkeypatch: pytest.MonkeyPatch) -> StandIns:
    return attacked[0].install(monkeypatch)


@pytest.fixture
def instance(attacked: tuple[StandIns, dg.DagsterInstance]) -> dg.DagsterInstance:
    return attacked[1]


def put(store: Store, name: str, content: str) -> None:
    path = store.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def refused(stand_ins: StandIns, instance: dg.DagsterInstance) -> str:
    """What the guard says to a run of `hub_release`, which must not get to publishing."""
    stand_ins.worked.clear()
    result = stand_ins.materialize(instance, "hub_release")
    assert not result.success and stand_ins.worked == []
    return failure_of(result, "hub_release")


def released(stand_ins: StandIns, instance: dg.DagsterInstance) -> bool:
    return materialized(stand_ins.materialize(instance, "hub_release")) == ["hub_release"]


@pytest.fixture
def undone(stand_ins: StandIns) -> Any:
    """Puts files back as they were, and shows that it was they alone that held the release."""
    kept = {path: path.read_bytes() for path in stand_ins.root.rglob("*") if path.is_file()}
    yield
    for path, content in kept.items():
        path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def test_the_honest_release_goes_out(stand_ins: StandIns, instance: dg.DagsterInstance) -> None:
    assert released(stand_ins, instance)


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERY_FILE)
def test_any_file_of_the_lineage_that_was_changed(
    stand_ins: StandIns, instance: dg.DagsterInstance, undone: None, name: str
) -> None:
    """Among them: a foreign pytorch_lora_weights.safetensors, a card edited after approval, another training track."""
    put(stand_ins.store, name, "something else")
    assert f"{name} was changed after run" in refused(stand_ins, instance)


def test_lora_alpha_that_was_raised(stand_ins: StandIns, instance: dg.DagsterInstance, undone: None) -> None:
    name = f"{CHECKPOINT}/adapter_config.json"
    path = stand_ins.root / name
    path.write_text(path.read_text().replace("32", "3200"))
    assert f"{name} was changed" in refused(stand_ins, instance)


def test_a_configuration_that_was_emptied_after_a_revocation(
    stand_ins: StandIns, instance: dg.DagsterInstance, undone: None
) -> None:
    put(stand_ins.store, f"{CHECKPOINT}/config.json", "{}")
    assert f"{CHECKPOINT}/config.json was changed" in refused(stand_ins, instance)


@pytest.mark.parametrize("name", [f"{CHECKPOINT}/adapter_model.safetensors", "export/bundle.json"])
def test_a_link_to_a_secret_or_to_the_same_bytes(
    stand_ins: StandIns, instance: dg.DagsterInstance, undone: None, tmp_path: Path, name: str
) -> None:
    path = stand_ins.root / name
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(elsewhere)
    assert f"{name} was replaced by a link" in refused(stand_ins, instance)


@pytest.mark.parametrize("name", ["export/int8/transformer.onnx", "raw/commissioned/rain.wav"])
def test_a_file_that_was_removed(stand_ins: StandIns, instance: dg.DagsterInstance, undone: None, name: str) -> None:
    (stand_ins.root / name).unlink()
    assert f"{name} was removed" in refused(stand_ins, instance)


# --- evidence --------------------------------------------------------------------------------------------------------


def document(store: Store, asset: str) -> Path:
    return evidence.document_path(store, asset, evidence.current_sha256(store, asset))


@pytest.mark.parametrize(
    ("asset", "measure"),
    [
        ("quality_metrics", "fad"),
        ("quality_metrics", "clap_alignment"),
        ("human_evaluation", "p_value"),
        ("human_evaluation", "equivalence"),
        ("model_card", "approved"),
        ("quantized_tiers", "fad_increase_int4"),
    ],
)
def test_a_number_that_was_edited_by_hand(
    stand_ins: StandIns, instance: dg.DagsterInstance, undone: None, asset: str, measure: str
) -> None:
    path = document(stand_ins.store, asset)
    data = read_json(path)
    data["predicate"]["values"][measure] = {"value": 0.0, "encoder": "vggish", "trained": True}
    write_json(path, data)
    assert f"was changed after {asset} was materialised" in refused(stand_ins, instance)


@pytest.mark.parametrize("key", ["upstream", "materials", "given"])
def test_what_a_document_is_bound_to_was_emptied(
    stand_ins: StandIns, instance: dg.DagsterInstance, undone: None, key: str
) -> None:
    path = document(stand_ins.store, "lora_checkpoints")
    data = read_json(path)
    data["predicate"][key] = {}
    write_json(path, data)
    assert "was changed after lora_checkpoints was materialised" in refused(stand_ins, instance)


def test_a_document_edited_and_filed_under_its_own_hash(
    stand_ins: StandIns, instance: dg.DagsterInstance, undone: None
) -> None:
    path = document(stand_ins.store, "quality_metrics")
    path.write_text(path.read_text().replace('"value": 2.5', '"value": 0.5'))
    sha256 = sha256_file(path)
    path.rename(evidence.document_path(stand_ins.store, "quality_metrics", sha256))
    write_json(evidence.pointer_path(stand_ins.store, "quality_metrics"), {"sha256": sha256})
    assert "quality_metrics are about another build than its latest materialisation" in refused(stand_ins, instance)


def test_the_pointer_to_an_earlier_better_document(
    stand_ins: StandIns, instance: dg.DagsterInstance, undone: None
) -> None:
    better = evidence.current_sha256(stand_ins.store, "quality_metrics")
    stand_ins.measured["quality.measured"] = 1
    stand_ins.materialize(instance, "quality_metrics")
    write_json(evidence.pointer_path(stand_ins.store, "quality_metrics"), {"sha256": better})
    try:
        assert "another build than its latest" in refused(stand_ins, instance)
    finally:
        stand_ins.measured.clear()
        stand_ins.materialize(instance, "quality_metrics")


def test_evidence_that_was_removed(stand_ins: StandIns, instance: dg.DagsterInstance, undone: None) -> None:
    document(stand_ins.store, "human_evaluation").unlink()
    assert "the evidence of human_evaluation is gone" in refused(stand_ins, instance)


def test_the_remembered_hashes_do_not_count_for_a_release(
    stand_ins: StandIns, instance: dg.DagsterInstance, undone: None
) -> None:
    """A changed file whose remembered hash was edited to be the old one: pages are fooled, the release is not."""
    name = "export/int8/transformer.onnx"
    path, memory = stand_ins.root / name, stand_ins.store.cache / "evidence" / "onnx_artifacts.json"
    known = read_json(memory)
    path.write_text("something else")
    status = path.stat()
    known[name] = [f"{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}", known[name][1]]
    write_json(memory, known)
    assert held_back(instance, stand_ins.store, "hub_release") == []
    assert f"{name} was changed after run" in refused(stand_ins, instance)


# --- the event log ---------------------------------------------------------------------------------------------------


def test_a_materialisation_reported_without_a_run(
    stand_ins: StandIns, instance: dg.DagsterInstance, undone: None
) -> None:
    sha256 = evidence.current_sha256(stand_ins.store, "quality_metrics")
    instance.report_runless_asset_event(materialization("quality_metrics", "quality_metrics 1", evidence=sha256))
    try:
        assert "quality_metrics was reported, not made by a run" in refused(stand_ins, instance)
    finally:
        stand_ins.materialize(instance, "quality_metrics")


def test_a_wiped_and_reported_asset(stand_ins: StandIns, instance: dg.DagsterInstance, undone: None) -> None:
    sha256 = evidence.current_sha256(stand_ins.store, "human_evaluation")
    instance.wipe_assets([dg.AssetKey("human_evaluation")])
    assert "human_evaluation is not materialised" in refused(stand_ins, instance)
    instance.report_runless_asset_event(materialization("human_evaluation", "human_evaluation 1", evidence=sha256))
    try:
        assert "human_evaluation was reported, not made by a run" in refused(stand_ins, instance)
    finally:
        stand_ins.materialize(instance, *BEFORE_RELEASE[BEFORE_RELEASE.index("human_evaluation") :])


def test_another_build_with_this_builds_evidence(
    stand_ins: StandIns, instance: dg.DagsterInstance, undone: None
) -> None:
    sha256 = evidence.current_sha256(stand_ins.store, "model_card")
    report_build(instance, "model_card", "another card", evidence=sha256)
    try:
        assert "the evidence of model_card is of model_card, build model_card 1" in refused(stand_ins, instance)
    finally:
        stand_ins.materialize(instance, "model_card")


def test_evidence_swapped_between_assets(stand_ins: StandIns, instance: dg.DagsterInstance, undone: None) -> None:
    """The document of one asset, in the folder and with the pointer and the event of another."""
    sha256 = evidence.current_sha256(stand_ins.store, "merged_model")
    source = evidence.document_path(stand_ins.store, "merged_model", sha256)
    evidence.document_path(stand_ins.store, "human_evaluation", sha256).write_bytes(source.read_bytes())
    write_json(evidence.pointer_path(stand_ins.store, "human_evaluation"), {"sha256": sha256})
    report_build(instance, "human_evaluation", "human_evaluation 1", evidence=sha256)
    try:
        assert "the evidence of human_evaluation is of merged_model" in refused(stand_ins, instance)
    finally:
        stand_ins.materialize(instance, "human_evaluation", "model_card")


# --- the rules and the guard itself ----------------------------------------------------------------------------------


def constitution(folder: Path, change: Callable[[dict[str, Any]], object], *, amended: bool = False) -> Path:
    """A configuration folder with another table under the same version, and a log of amendments that may know it."""
    config = folder / "config"
    config.mkdir()
    data = load_constitution(CONFIG_DIR)
    data = json.loads(json.dumps(data))
    change(data)
    (config / "constitution.yaml").write_text(json.dumps(data))
    log = read_json(CONFIG_DIR / "amendments.json")
    if amended:
        from lofi_assets.constitution.amendments import gates_sha256

        log[-1]["gates_sha256"] = gates_sha256(config)
    write_json(config / "amendments.json", log)
    return config


def without_holds(data: dict[str, Any]) -> None:
    for row in data["gates"]:
        row.pop("holds", None)


def with_a_high_limit(data: dict[str, Any]) -> None:
    next(row for row in data["gates"] if row["id"] == "quality.fad")["limit"] = 500.0


@pytest.mark.parametrize("change", [without_holds, with_a_high_limit])
@pytest.mark.parametrize("amended", [False, True], ids=["log as it was", "log edited too"])
def test_another_table_under_the_old_versions_name(
    stand_ins: StandIns,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    change: Callable[[dict[str, Any]], object],
    amended: bool,
) -> None:
    """`LOFI_CONFIG_DIR` names a folder; even with its own log edited, the log that came with the code speaks."""
    config = constitution(tmp_path, change, amended=amended)
    monkeypatch.setattr(guard, "CONFIG_DIR", config)
    monkeypatch.setattr(guard, "load_gates", lambda: load_gates(config))
    assert "is not the constitution that it says it is" in refused(stand_ins, instance)


def licences(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A configuration folder with the constitution in force and another table of licences."""
    config = folder / "config"
    config.mkdir()
    for name in ("constitution.yaml", "amendments.json"):
        shutil.copy(CONFIG_DIR / name, config)
    rows = yaml.safe_load((CONFIG_DIR / "licenses.yaml").read_text(encoding="utf-8"))
    for row in rows:
        change(row)
    (config / "licenses.yaml").write_text(yaml.safe_dump(rows), encoding="utf-8")
    return config


def permitted(row: dict[str, Any]) -> None:
    row.update(status="permitted" if row["status"] == "denied" else row["status"])


def without_a_name(row: dict[str, Any]) -> None:
    row.pop("attribution", None)


def without_an_alias(row: dict[str, Any]) -> None:
    if row["status"] == "denied":
        row.pop("aliases", None)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (permitted, "no longer denies "),
        (without_a_name, "no longer asks for a name under "),
        (without_an_alias, "no longer denies "),
    ],
)
@pytest.mark.parametrize("log", ["as it was", "emptied of licences", "without licences"])
def test_another_table_of_licences_under_the_old_versions_name(
    stand_ins: StandIns,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    change: Callable[[dict[str, Any]], object],
    said: str,
    log: str,
) -> None:
    config = licences(tmp_path, change)
    rows = read_json(config / "amendments.json")
    if log == "emptied of licences":
        write_json(config / "amendments.json", [{**row, "licences": {"denied": [], "attribution": []}} for row in rows])
    if log == "without licences":
        rows[-1].pop("licences")
        write_json(config / "amendments.json", rows)
    monkeypatch.setattr(guard, "CONFIG_DIR", config)
    found = refused(stand_ins, instance)
    assert f"licenses.yaml {said}" in found and "restore the rows, or amend it" in found


def test_a_denied_licence_that_a_second_row_permits(
    stand_ins: StandIns, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of two rows of one id the later would win where licences are looked up."""
    config = licences(tmp_path, lambda row: None)
    with (config / "licenses.yaml").open("a") as file:
        file.write("\n- id: CC-BY-NC-4.0\n  status: permitted\n  why: contract\n")
    monkeypatch.setattr(guard, "CONFIG_DIR", config)
    assert "licenses.yaml no longer denies CC-BY-NC-4.0" in refused(stand_ins, instance)
    with pytest.raises(SourceError, match=r"'CC-BY-NC-4\.0' is in the rows"):
        load_licences(config)


def test_a_stricter_table_of_licences_needs_no_amendment(
    stand_ins: StandIns, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = licences(tmp_path, lambda row: None)
    with (config / "licenses.yaml").open("a") as file:
        file.write("\n- id: Studio-9\n  aliases: [Ninth]\n  status: denied\n  why: Their lawyer says so.\n")
    monkeypatch.setattr(guard, "CONFIG_DIR", config)
    assert released(stand_ins, instance)


@pytest.mark.parametrize("own_log", ["the same", "that ends with it"])
def test_a_version_that_was_superseded(
    stand_ins: StandIns,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    own_log: str,
) -> None:
    """An earlier table asks for less, and its hash stands in the log."""
    config = licences(tmp_path, lambda row: None)
    log = read_json(config / "amendments.json")
    same = next(row for row in log if row["gates_sha256"] == log[-1]["gates_sha256"])
    assert same["version"] != log[-1]["version"], "an earlier version has the same gates, so that they are at hand"
    table = (config / "constitution.yaml").read_text(encoding="utf-8")
    (config / "constitution.yaml").write_text(re.sub(r"(?m)^version: .*$", f"version: {same['version']}", table))
    if own_log == "that ends with it":
        write_json(config / "amendments.json", log[: log.index(same) + 1])
    monkeypatch.setattr(guard, "CONFIG_DIR", config)
    said = f"says version {same['version']}, which {log[-1]['version']} has superseded"
    assert said in refused(stand_ins, instance)


def test_a_deployments_own_amendment_is_its_own(
    stand_ins: StandIns, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whoever verifies elsewhere does not know the version, and says so."""
    config = licences(tmp_path, lambda row: None)
    log = read_json(config / "amendments.json")
    table = (config / "constitution.yaml").read_text(encoding="utf-8")
    (config / "constitution.yaml").write_text(re.sub(r"(?m)^version: .*$", "version: 9.0.0", table))
    write_json(config / "amendments.json", [*log, {**log[-1], "version": "9.0.0"}])
    monkeypatch.setattr(guard, "CONFIG_DIR", config)
    assert released(stand_ins, instance)


def test_a_version_that_nobody_logged(
    stand_ins: StandIns, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = constitution(tmp_path, lambda data: data.update(version="9.9.9"))
    monkeypatch.setattr(guard, "CONFIG_DIR", config)
    assert "has no version 9.9.9" in refused(stand_ins, instance)


def test_publishing_around_the_guard(stand_ins: StandIns) -> None:
    with pytest.raises(NotClearedError, match="needs a clearance that the guard gave"):
        publish(stand_ins.store, load_profile("demo"), object())  # type: ignore[arg-type]


def test_a_persons_failed_verdict_under_any_number_of_later_checks(
    stand_ins: StandIns, instance: dg.DagsterInstance, undone: None
) -> None:
    judge_by_hand(instance, "bundle.runs", passed=False, data_version="onnx_artifacts 1")
    for _ in range(3):
        stand_ins.materialize(instance, "onnx_artifacts")
    bundle = next(gate for gate in load_gates() if gate.id == "bundle.runs")
    for number in range(120):
        target = AssetCheckEvaluationTargetMaterializationData(storage_id=number + 1, run_id="run", timestamp=1.0)
        instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(
                asset_key=dg.AssetKey("onnx_artifacts"),
                check_name=bundle.check_name,
                passed=True,
                metadata={},
                target_materialization_data=target,
            )
        )
    try:
        assert "bundle.runs: fail" in refused(stand_ins, instance)
    finally:
        judge_by_hand(instance, "bundle.runs", passed=True, data_version="onnx_artifacts 1")


def test_nothing_of_all_this_was_left_behind(stand_ins: StandIns, instance: dg.DagsterInstance) -> None:
    stand_ins.materialize(instance, *BEFORE_RELEASE)
    assert released(stand_ins, instance)
