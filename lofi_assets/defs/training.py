"""Training: frozen features once, then the LoRA in its own process."""

import sys

import dagster as dg

from lofi_assets import experiment
from lofi_assets.defs.automation import WHEN_INPUTS_CHANGE
from lofi_assets.defs.dataset import dataset_manifest
from lofi_assets.defs.gates import gate_checks
from lofi_assets.defs.reporting import report
from lofi_assets.defs.resources import Platform
from lofi_assets.training.features import FEATURES_VERSION


@dg.asset(
    group_name="training",
    kinds={"pytorch", "safetensors"},
    owners=["team:training"],
    deps=[dataset_manifest],
    code_version=FEATURES_VERSION,
    automation_condition=WHEN_INPUTS_CHANGE,
    pool="gpu",
)
def feature_cache(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:
    """Latents, text states, lyric ids, speakers and SSL targets of every track, computed once per track and model."""
    return report(context, platform.store, experiment.cache_dataset_features(platform.store, platform.profile))


@dg.asset(
    group_name="training",
    kinds={"pytorch", "safetensors"},
    owners=["team:training"],
    deps=[dataset_manifest, feature_cache],
    pool="gpu",
)
def lora_checkpoints(
    context: dg.AssetExecutionContext, platform: Platform, pipes: dg.PipesSubprocessClient
) -> dg.MaterializeResult:
    """Every LoRA checkpoint with its configuration, seeds, hashes and resumable state; trained in its own process."""
    run = experiment.plan_training(platform.store, platform.profile)
    if run.remaining_steps:
        command = [sys.executable, "-m", "lofi_assets.training", "--config", str(run.config)]
        pipes.run(context=context, command=command).get_results()
    return report(context, platform.store, experiment.describe_training(platform.store, run))


feature_cache_gates = gate_checks(feature_cache)
lora_checkpoints_gates = gate_checks(lora_checkpoints)
