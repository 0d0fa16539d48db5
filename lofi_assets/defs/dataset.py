"""Dataset: the versioned training set."""

from datetime import UTC, datetime
from typing import Any

import dagster as dg

from lofi_assets.dataset.dataset_manifest import DATASET_VERSION, assemble
from lofi_assets.defs.automation import WHEN_INPUTS_CHANGE
from lofi_assets.defs.faults import explained
from lofi_assets.defs.gates import gate_checks
from lofi_assets.defs.reporting import report
from lofi_assets.defs.resources import Platform
from lofi_assets.defs.sources import licensed_sources
from lofi_assets.defs.tracks import processed_tracks, prompts


@dg.asset(
    group_name="dataset",
    kinds={"huggingface", "json"},
    owners=["team:training"],
    deps=[licensed_sources, processed_tracks, prompts],
    code_version=DATASET_VERSION,
    automation_condition=WHEN_INPUTS_CHANGE,
    pool="data",
)
@explained
def dataset_manifest(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult[Any]:
    """The training set: 90/10 split closed over duplicates, content hash, style distribution; versions immutable."""
    return report(context, platform, assemble(platform.store, now=datetime.now(UTC)))


dataset_manifest_gates = gate_checks(dataset_manifest)
