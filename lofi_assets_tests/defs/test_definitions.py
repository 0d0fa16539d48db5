"""The code location as people see it: assets in lineage order, their gates, jobs, schedules and sensors."""

import tomllib

import dagster as dg
import pytest
import yaml

from lofi_assets.constitution.gates import load_gates
from lofi_assets.definitions import build_defs
from lofi_assets.defs.readiness import READ_BACK, READY
from lofi_assets.html.links import docs_url
from lofi_assets_tests.conftest import REPOSITORY

OF_THE_RELEASE = (READY, READ_BACK)
"""Checks that are no gates."""
LINEAGE = {
    "licensed_sources": "sources",
    "style_taxonomy": "sources",
    "processed_tracks": "tracks",
    "prompts": "tracks",
    "dataset_manifest": "dataset",
    "feature_cache": "training",
    "lora_checkpoints": "training",
    "generated_samples": "evaluation",
    "quality_metrics": "evaluation",
    "human_evaluation": "evaluation",
    "merged_model": "quantization",
    "quantized_tiers": "quantization",
    "onnx_artifacts": "release",
    "model_card": "release",
    "hub_release": "release",
}

BLOCKING = {
    "sources.verified",
    "taxonomy.presets",
    "taxonomy.undocumented_tags",
    "tracks.accepted",
    "tracks.unlicensed",
    "prompts.sidecars",
    "prompts.taxonomy",
    "prompts.styles",
    "dataset.unlicensed",
    "dataset.train",
    "dataset.validation",
    "dataset.leak",
    "dataset.durations",
    "dataset.hash",
    "features.complete",
    "features.latents",
    "checkpoint.exists",
    "checkpoint.valid",
    "checkpoint.interval",
    "checkpoint.configuration",
    "checkpoint.dataset",
    "checkpoint.loss",
    "samples.complete",
    "quality.measured",
    "merge.parity",
    "tiers.complete",
    "tiers.opset_int8",
    "tiers.opset_int4",
    "tiers.audio_critical_bits",
    "tiers.vocal_bits",
    "tiers.policy",
    "tiers.finite",
    "bundle.complete",
    "bundle.runs",
    "bundle.private",
    "bundle.parity",
    "card.sections",
}

HOLDS_THE_RELEASE = {
    "dataset.unlicensed",
    "dataset.leak",
    "dataset.hash",
    "checkpoint.exists",
    "checkpoint.valid",
    "checkpoint.configuration",
    "checkpoint.dataset",
    "checkpoint.initial_adapter",
    "checkpoint.revoked",
    "quality.fad",
    "quality.clap",
    "quality.measured",
    "quality.copies",
    "quality.artefacts",
    "human.p_value",
    "human.equivalence",
    "merge.parity",
    "tiers.complete",
    "tiers.opset_int8",
    "tiers.opset_int4",
    "tiers.audio_critical_bits",
    "tiers.vocal_bits",
    "tiers.policy",
    "tiers.finite",
    "tiers.fad_int8",
    "tiers.fad_int4",
    "bundle.complete",
    "bundle.runs",
    "bundle.private",
    "bundle.attribution",
    "bundle.parity",
    "card.sections",
    "card.approved",
}


@pytest.fixture(scope="module")
def defs() -> dg.Definitions:
    return build_defs()


@pytest.fixture(scope="module")
def specs(defs: dg.Definitions) -> dict[str, dg.AssetSpec]:
    return {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}


def listed_assets(defs: dg.Definitions) -> list[str]:
    return [asset.key.to_user_string() for asset in defs.assets or () if isinstance(asset, dg.AssetsDefinition)]


def test_the_definitions_load(defs: dg.Definitions) -> None:
    dg.Definitions.validate_loadable(defs)


def test_assets_are_listed_in_lineage_order_and_there_are_no_others(defs: dg.Definitions) -> None:
    assert listed_assets(defs) == list(LINEAGE)


def test_lineage_order_is_materialisation_order(specs: dict[str, dg.AssetSpec]) -> None:
    order = list(LINEAGE)
    for asset, spec in specs.items():
        for dep in spec.deps:
            assert order.index(dep.asset_key.to_user_string()) < order.index(asset), f"{asset} depends on what follows"


def test_every_asset_but_the_sources_is_built_from_another(specs: dict[str, dg.AssetSpec]) -> None:
    roots = {asset for asset, spec in specs.items() if not spec.deps}
    assert roots == {"licensed_sources", "style_taxonomy"}


@pytest.mark.parametrize("asset", LINEAGE)
def test_every_asset_tells_its_group_kinds_owners_and_meaning(specs: dict[str, dg.AssetSpec], asset: str) -> None:
    spec = specs[asset]
    assert spec.group_name == LINEAGE[asset]
    assert spec.kinds
    assert spec.owners
    assert spec.description and len(spec.description) > 40


def test_assets_that_need_the_accelerator_share_one_pool(defs: dg.Definitions) -> None:
    graph = defs.resolve_asset_graph()
    pooled = {asset for asset in LINEAGE if "gpu" in (graph.get(dg.AssetKey(asset)).pools or set())}
    assert pooled >= {"feature_cache", "lora_checkpoints", "generated_samples", "quality_metrics", "quantized_tiers"}
    assert not pooled & {"licensed_sources", "style_taxonomy", "processed_tracks", "prompts", "dataset_manifest"}


def test_the_blocking_gates_are_these() -> None:
    assert {gate.id for gate in load_gates() if gate.blocking} == BLOCKING


def test_the_gates_that_hold_a_release_are_these() -> None:
    assert {gate.id for gate in load_gates() if "hub_release" in gate.holds} == HOLDS_THE_RELEASE


def test_every_gate_of_an_asset_is_exactly_one_check_on_it_with_its_article(defs: dg.Definitions) -> None:
    specs = [
        spec for checks in defs.asset_checks or () for spec in checks.check_specs if spec.name not in OF_THE_RELEASE
    ]
    by_gate = {spec.metadata["gate"]: spec for spec in specs}
    gates = [gate for gate in load_gates() if gate.asset]
    assert len(specs) == len(by_gate) == len(gates)
    for gate in gates:
        spec = by_gate[gate.id]
        assert spec.asset_key.to_user_string() == gate.asset
        assert spec.metadata["article"] == gate.article
        assert spec.blocking == (gate.blocking or gate.scope == "track"), gate.id
        assert gate.why in (spec.description or "") and docs_url("gates.md", gate.id) in (spec.description or "")
        assert (spec.description or "").startswith("Quarantine: ") == (gate.scope == "track")


def test_every_asset_but_the_release_itself_is_gated(defs: dg.Definitions) -> None:
    keys = defs.resolve_asset_graph().asset_check_keys
    assert {key.asset_key.to_user_string() for key in keys if key.name not in OF_THE_RELEASE} == set(LINEAGE) - {
        "hub_release"
    }


def test_the_release_only_says_what_holds_it(defs: dg.Definitions) -> None:
    """Its check informs, and stops or opens nothing."""
    (spec,) = [spec for checks in defs.asset_checks or () for spec in checks.check_specs if spec.name == READY]
    assert spec.asset_key == dg.AssetKey("hub_release") and not spec.blocking


def test_jobs_and_schedules_say_what_they_do(defs: dg.Definitions) -> None:
    for job in defs.jobs or ():
        assert job.description, job.name
    for schedule in defs.schedules or ():
        assert isinstance(schedule, dg.ScheduleDefinition) and schedule.description, schedule.name


def test_a_selection_string_parses(defs: dg.Definitions) -> None:
    """Dagster's selection grammar needs antlr4-python3-runtime >= 4.13; an older one breaks `--assets`."""
    selection = dg.AssetSelection.from_string("group:tracks or 1+key:dataset_manifest")
    found = {key.to_user_string() for key in selection.resolve(defs.resolve_asset_graph())}
    assert found == {"licensed_sources", "processed_tracks", "prompts", "dataset_manifest"}


@pytest.mark.parametrize(
    ("job", "assets"),
    [
        ("everything", list(LINEAGE)),
        ("refresh_data", list(LINEAGE)[:5]),
        ("train_and_judge", list(LINEAGE)[5:-1]),
    ],
)
def test_a_job_runs_these_assets_with_their_gates(defs: dg.Definitions, job: str, assets: list[str]) -> None:
    layer = defs.resolve_job_def(job).asset_layer
    assert {key.to_user_string() for key in layer.executable_asset_keys} == set(assets)
    gated = {
        key.asset_key.to_user_string() for key in layer.asset_graph.asset_check_keys if key.name not in OF_THE_RELEASE
    }
    assert gated == set(assets) - {"hub_release"}


def test_only_a_person_starts_a_release(defs: dg.Definitions, specs: dict[str, dg.AssetSpec]) -> None:
    assert specs["hub_release"].automation_condition is None
    for schedule in defs.schedules or ():
        assert isinstance(schedule, dg.ScheduleDefinition)
        layer = defs.resolve_job_def(schedule.job_name).asset_layer
        assert dg.AssetKey("hub_release") not in layer.executable_asset_keys


def test_schedules_and_sensors_run_from_the_start(defs: dg.Definitions) -> None:
    repository = defs.get_repository_def()
    schedules = {schedule.name: schedule.default_status for schedule in repository.schedule_defs}
    sensors = {sensor.name: sensor.default_status for sensor in repository.sensor_defs}
    assert schedules == {"weekly_training": dg.DefaultScheduleStatus.RUNNING}
    assert sensors == dict.fromkeys(
        ("new_tracks_landed", "rebuild_data", "judge_training", "answers_arrived", "alerts"),
        dg.DefaultSensorStatus.RUNNING,
    )


def test_one_automation_sensor_looks_after_every_asset_with_a_condition(defs: dg.Definitions) -> None:
    """Curating and training are two: what one asks for never waits for the other, nor is drawn into its runs."""
    repository, graph = defs.get_repository_def(), defs.resolve_asset_graph()
    selected = {}
    for name in ("rebuild_data", "judge_training"):
        sensor = repository.get_sensor_def(name)
        assert isinstance(sensor, dg.AutomationConditionSensorDefinition)
        selected[name] = {key.to_user_string() for key in sensor.asset_selection.resolve(graph)}
    assert selected == {"rebuild_data": set(list(LINEAGE)[:5]), "judge_training": set(list(LINEAGE)[5:])}


def test_curating_and_training_go_on_side_by_side_each_one_run_at_a_time(defs: dg.Definitions) -> None:
    """Limits hold whoever starts a run: a run from the UI carries no tags, but its assets have their pools."""
    limits = yaml.safe_load((REPOSITORY / "config" / "dagster.yaml").read_text(encoding="utf-8"))["concurrency"]
    assert limits["pools"] == {"granularity": "run", "default_limit": 1}
    assert limits["runs"]["max_concurrent_runs"] > 2
    pools = {name: defs.resolve_assets_def(name).op.pool for name in LINEAGE}
    data = list(LINEAGE)[:5]
    assert {name for name, pool in pools.items() if pool == "data"} == set(data)
    assert pools["feature_cache"] == pools["lora_checkpoints"] == pools["generated_samples"] == "gpu"
    for job in ("refresh_data", "train_and_judge"):
        used = {pools[key.to_user_string()] for key in defs.resolve_job_def(job).asset_layer.executable_asset_keys}
        assert not {"data", "gpu"} <= used


def test_the_workspace_and_dg_call_the_location_by_one_name() -> None:
    """Otherwise every load logs a mismatch."""
    workspace = yaml.safe_load((REPOSITORY / "workspace.yaml").read_text(encoding="utf-8"))
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["dg"]["project"]
    (module,) = [entry["python_module"] for entry in workspace["load_from"]]
    assert module["location_name"] == project["code_location_name"]
    assert module["module_name"] == project["code_location_target_module"]


def test_resources_can_be_replaced_by_name() -> None:
    pipes = dg.PipesSubprocessClient(env={"A": "B"})
    replaced = build_defs(resources_overrides={"pipes": pipes}).resources or {}
    assert replaced["pipes"] is pipes
    assert set(replaced) == {"platform", "workers", "notifier", "pipes"}
