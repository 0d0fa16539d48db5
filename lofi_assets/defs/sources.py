"""Sources: licensed raw files, and the vocabulary that describes them."""

from datetime import UTC, datetime
from typing import Any

import dagster as dg

from lofi_assets.constitution.gates import load_gates
from lofi_assets.defs.faults import explained
from lofi_assets.defs.gates import gate_checks
from lofi_assets.defs.reporting import report
from lofi_assets.defs.resources import Platform
from lofi_assets.sources.licensed_sources import inventory_sources
from lofi_assets.sources.rights import latest_day
from lofi_assets.sources.style_taxonomy import describe_taxonomy


@dg.asset(group_name="sources", kinds={"json", "parquet"}, owners=["team:curation"], pool="data")
@explained
def licensed_sources(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult[Any]:
    """Every raw file with its hash and licence record: verified, or rejected with the rule that rejected it."""
    outcome = inventory_sources(platform.store, gates=load_gates(), today=latest_day(datetime.now(UTC)))
    return report(context, platform, outcome)


@dg.asset(group_name="sources", kinds={"yaml"}, owners=["team:curation"], pool="data")
@explained
def style_taxonomy(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult[Any]:
    """Seven tag categories with canonical forms, and 38 style presets with inheritance resolved."""
    return report(context, platform, describe_taxonomy())


licensed_sources_gates = gate_checks(licensed_sources)
style_taxonomy_gates = gate_checks(style_taxonomy)
