"""Release: the bundle, its card, and publication once every gate holds."""

from typing import Any

import dagster as dg

from lofi_assets.defs.automation import WHEN_TRAINING_MOVES
from lofi_assets.defs.dataset import dataset_manifest
from lofi_assets.defs.evaluation import human_evaluation, quality_metrics
from lofi_assets.defs.faults import explained, explaining
from lofi_assets.defs.gates import gate_checks, held_back, require_gates
from lofi_assets.defs.quantization import merged_model, quantized_tiers
from lofi_assets.defs.readiness import HUB_RELEASE, READ_BACK, READY, READY_DESCRIPTION, readiness
from lofi_assets.defs.reporting import report
from lofi_assets.defs.resources import Platform
from lofi_assets.release.hub_release import publish
from lofi_assets.release.model_card import write_card
from lofi_assets.release.onnx_artifacts import build_bundle
from lofi_assets.release.read_back import read_back


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
    return report(context, platform, build_bundle(platform.store, platform.profile))


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
    return report(context, platform, write_card(platform.store, platform.profile))


class ReleaseConfig(dg.Config):
    """What somebody says of one release when they start it."""

    public: bool = False
    """Whether a Hub repository that everybody can read may be written to; the profile may say so for all."""


@dg.asset(
    group_name="release",
    kinds={"huggingface"},
    owners=["team:release"],
    deps=[human_evaluation, onnx_artifacts, model_card],
)
@explained
def hub_release(
    context: dg.AssetExecutionContext, config: ReleaseConfig, platform: Platform
) -> dg.MaterializeResult[Any]:
    """What is published; refuses, naming the gates, unless every gate holds for the very build it would publish."""
    clearance = require_gates(context, platform.store)
    return report(context, platform, publish(platform.store, platform.profile, clearance, public=config.public))


@dg.asset_check(asset=hub_release, name=READY, description=READY_DESCRIPTION)
def ready_to_release(context: dg.AssetCheckExecutionContext, platform: Platform) -> dg.AssetCheckResult:
    """What holds the release now; brought up to date too whenever a gate of any asset is judged."""
    with explaining():
        return readiness(held_back(context.instance, platform.store, HUB_RELEASE.to_user_string()))


@dg.asset_check(
    asset=hub_release,
    name=READ_BACK,
    description="Whether what was published, read back from the Hub or the folder, holds for others: files, signature, "
    "evidence, and every gate judged again, as `lofi verify` does for whoever downloads it.",
)
def reads_back(platform: Platform) -> dg.AssetCheckResult:
    """Verify the published bytes."""
    with explaining():
        reports = read_back(platform.store, platform.profile)
    faults = [f"- {part}, {f.about}: {f.text}" for part, r in reports.items() for f in r.findings if f.level == "fault"]
    notes = [f"- {part}, {f.about}: {f.text}" for part, r in reports.items() for f in r.findings if f.level == "note"]
    files = sum(len(report.record.files) for report in reports.values())
    said = f"{len(faults)} faults in what was published." if faults else f"All {files} files hold for whoever has them."
    return dg.AssetCheckResult(
        passed=bool(reports) and not faults, description="\n".join([said, "", *faults, *notes]).strip()
    )


onnx_artifacts_gates = gate_checks(onnx_artifacts)
model_card_gates = gate_checks(model_card)
