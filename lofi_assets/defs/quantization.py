"""Quantization: the best checkpoint merged into its base, then three ONNX tiers."""

from typing import Any

import dagster as dg

from lofi_assets.defs.automation import WHEN_TRAINING_MOVES
from lofi_assets.defs.dataset import dataset_manifest
from lofi_assets.defs.evaluation import quality_metrics
from lofi_assets.defs.faults import explained
from lofi_assets.defs.gates import gate_checks, require_gates
from lofi_assets.defs.reporting import report
from lofi_assets.defs.resources import Platform
from lofi_assets.defs.training import lora_checkpoints
from lofi_assets.quantization.merged_model import merge_best
from lofi_assets.quantization.quantized_tiers import TIERS_VERSION, quantize


@dg.asset(
    group_name="quantization",
    kinds={"pytorch", "safetensors"},
    owners=["team:release"],
    deps=[lora_checkpoints, quality_metrics],
    automation_condition=WHEN_TRAINING_MOVES,
)
@explained
def merged_model(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult[Any]:
    """The best checkpoint's LoRA merged into the base in FP32, with the error against the adapter."""
    require_gates(context, platform.store)
    return report(context, platform, merge_best(platform.store, platform.profile))


@dg.asset(
    group_name="quantization",
    kinds={"onnx"},
    owners=["team:release"],
    deps=[dataset_manifest, merged_model],
    code_version=TIERS_VERSION,
    automation_condition=WHEN_TRAINING_MOVES,
    pool="gpu",
)
@explained
def quantized_tiers(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult[Any]:
    """FP16, INT8 and INT4 ONNX tiers: precision proven from the files, FAD of the files against FP32."""
    require_gates(context, platform.store)
    return report(context, platform, quantize(platform.store, platform.profile))


merged_model_gates = gate_checks(merged_model)
quantized_tiers_gates = gate_checks(quantized_tiers)
