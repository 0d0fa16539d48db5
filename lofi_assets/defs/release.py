"""Release: the bundle, its card, and publication once every gate holds."""

from typing import Any

import dagster as dg

from lofi_assets.defs.automation import WHEN_TRAINING_MOVES
from lofi_assets.defs.dataset import dataset_manifest
from lofi_assets.defs.evaluation import human_evaluation, quality_metrics
from lofi_assets.defs.faults import explained, explaining
from lofi_assets.defs.gates import gate_checks, held_back, require_gates
from lofi_assets.defs.quantization import merged_model, quantized_tiers
from lofi_assets.defs.readiness import HUB_RELEASE, READY, READY_DESCRIPTION, readiness
from lofi_assets.defs.reporting import report
from lofi_assets.defs.resources import Platform
from lofi_assets.release.hub_release import publish
from lofi_assets.release.model_card import write_card
from lofi_assets.release.onnx_artifacts import build_bundle


@dg.asset(
    group_name="release",
    kinds={"onnx", "json"},
    owners=["team:release"],
    deps=[quantized_tiers],
    automation_condition=WHEN_TRAINING_MOVES,
)
@explained
def onnx_artifacts(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult[Any]:
    """The deployable bundle: tiers, the code that plays them, documents; every tier was run in a fresh environment."""
    return report(context, platform.store, build_bundle(platform.store, platform.profile))


@dg.asset(
    group_name="release",
    kinds={"markdown"},
    owners=["team:release"],
    deps=[dataset_manifest, quality_metrics, human_evaluation, merged_model, quantized_tiers, onnx_artifacts],
    automation_condition=WHEN_TRAINING_MOVES,
)
@explained
def model_card(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult[Any]:
    """The card, generated from what the assets recorded; a person approves the text they read."""
    return report(context, platform.store, write_card(platform.store, platform.profile))


@dg.asset(
    group_name="release",
    kinds={"huggingface"},
    owners=["team:release"],
    deps=[human_evaluation, onnx_artifacts, model_card],
)
@explained
def hub_release(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult[Any]:
    """The published folder; refuses, naming the gates, unless every gate holds for the very build it would publish."""
    require_gates(context, platform.store)
    return report(context, platform.store, publish(platform.store, platform.profile))


@dg.asset_check(asset=hub_release, name=READY, description=READY_DESCRIPTION)
def ready_to_release(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """What holds the release now; brought up to date too whenever a gate of any asset is judged."""
    with explaining():
        return readiness(held_back(context.instance, platform.store, HUB_RELEASE.to_user_string()))


onnx_artifacts_gates = gate_checks(onnx_artifacts)
model_card_gates = gate_checks(model_card)
