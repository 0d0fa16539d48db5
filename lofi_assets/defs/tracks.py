"""Tracks: normalised audio, and the prompts that describe it."""

from typing import Any

import dagster as dg

from lofi_assets.constitution.gates import load_gates
from lofi_assets.defs.automation import WHEN_INPUTS_CHANGE
from lofi_assets.defs.faults import explained
from lofi_assets.defs.gates import gate_checks
from lofi_assets.defs.reporting import report
from lofi_assets.defs.resources import Platform, Workers
from lofi_assets.defs.sources import licensed_sources, style_taxonomy
from lofi_assets.tracks.curation import curated_tempo_ranges
from lofi_assets.tracks.processed_tracks import TRACKS_VERSION, process_library
from lofi_assets.tracks.prompts import PROMPTS_VERSION, write_prompts
from lofi_assets.tracks.tagged_tracks import categories


@dg.asset(
    group_name="tracks",
    kinds={"audio", "parquet"},
    owners=["team:audio"],
    deps=[licensed_sources, style_taxonomy],
    code_version=TRACKS_VERSION,
    automation_condition=WHEN_INPUTS_CHANGE,
    pool="data",
)
@explained
def processed_tracks(
    context: dg.AssetExecutionContext, platform: Platform, workers: Workers
) -> dg.MaterializeResult[Any]:
    """48 kHz stereo MP3 at -1 dBFS with every measurement; what breaks a rule is in quarantine with the rule's id."""
    outcome = process_library(
        platform.store,
        gates=load_gates(),
        settings=platform.profile.audio,
        tempo_ranges=curated_tempo_ranges(platform.store),
        style_of=categories(platform.store),
        map_tracks=workers.map_tracks(platform.profile.audio),
    )
    return report(context, platform, outcome)


@dg.asset(
    group_name="tracks",
    kinds={"text", "parquet"},
    owners=["team:curation"],
    deps=[processed_tracks, style_taxonomy],
    code_version=PROMPTS_VERSION,
    automation_condition=WHEN_INPUTS_CHANGE,
    pool="data",
)
@explained
def prompts(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult[Any]:
    """Tags per track with origin and confidence, style ids, and the prompt and lyrics files beside the audio."""
    return report(context, platform, write_prompts(platform.store))


processed_tracks_gates = gate_checks(processed_tracks)
prompts_gates = gate_checks(prompts)
