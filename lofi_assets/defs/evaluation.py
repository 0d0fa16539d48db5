"""Evaluation: what the checkpoints sound like, in numbers and to people."""

from datetime import UTC, datetime
from typing import Any

import dagster as dg

from lofi_assets.defs.automation import WHEN_TRAINING_MOVES
from lofi_assets.defs.dataset import dataset_manifest
from lofi_assets.defs.faults import explained
from lofi_assets.defs.gates import gate_checks
from lofi_assets.defs.reporting import report
from lofi_assets.defs.resources import Platform
from lofi_assets.defs.training import lora_checkpoints
from lofi_assets.evaluation.generated_samples import generate_samples
from lofi_assets.evaluation.human_evaluation import LISTENING_VERSION, evaluate_listening
from lofi_assets.evaluation.measured import METRICS_VERSION
from lofi_assets.evaluation.quality_metrics import evaluate_checkpoints


@dg.asset(
    group_name="evaluation",
    kinds={"audio", "pytorch"},
    owners=["team:evaluation"],
    deps=[dataset_manifest, lora_checkpoints],
    automation_condition=WHEN_TRAINING_MOVES,
    pool="gpu",
)
@explained
def generated_samples(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult[Any]:
    """Audio for the validation prompts with fixed seeds, of every checkpoint that is not pruned."""
    return report(context, platform, generate_samples(platform.store, platform.profile))


@dg.asset(
    group_name="evaluation",
    kinds={"json"},
    owners=["team:evaluation"],
    deps=[dataset_manifest, lora_checkpoints, generated_samples],
    code_version=METRICS_VERSION,
    automation_condition=WHEN_TRAINING_MOVES,
    pool="gpu",
)
@explained
def quality_metrics(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult[Any]:
    """FAD, KAD, alignment and style coverage of every checkpoint, with encoder, n and interval; then retention."""
    outcome = evaluate_checkpoints(platform.store, platform.profile, now=datetime.now(UTC))
    return report(context, platform, outcome)


@dg.asset(
    group_name="evaluation",
    kinds={"json"},
    owners=["team:evaluation"],
    deps=[dataset_manifest, generated_samples, quality_metrics],
    automation_condition=WHEN_TRAINING_MOVES,
    code_version=LISTENING_VERSION,
)
@explained
def human_evaluation(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult[Any]:
    """The blind listening tests of the best checkpoint, judged at their planned looks by the answers so far."""
    return report(context, platform, evaluate_listening(platform.store, now=datetime.now(UTC)))


generated_samples_gates = gate_checks(generated_samples)
quality_metrics_gates = gate_checks(quality_metrics)
human_evaluation_gates = gate_checks(human_evaluation)
