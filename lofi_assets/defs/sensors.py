"""Sensors: new tracks, and automation. Alerts are in `alerts.py`."""

import time

import dagster as dg

from lofi_assets.defs.resources import Platform
from lofi_assets.defs.sources import licensed_sources, style_taxonomy
from lofi_assets.sources import landing_state

SETTLE_SECONDS = 5
"""A file that changed less than this ago may still be copied: wait for the next tick."""


@dg.sensor(
    asset_selection=dg.AssetSelection.assets(licensed_sources, style_taxonomy),
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def new_tracks_landed(context: dg.SensorEvaluationContext, platform: Platform) -> dg.RunRequest | dg.SkipReason:
    """Files under raw/, licence or style records changed: take inventory; automation rebuilds what it touches."""
    landed = landing_state(platform.store)
    number, _, known = (context.cursor or "0:").partition(":")
    if landed.files == 0 and not context.cursor:
        return dg.SkipReason("the data root is empty: put audio under raw/ and its licence into metadata/sources.json")
    if landed.key == known:
        return dg.SkipReason(f"nothing new among {landed.files} files")
    if 0 <= time.time() - landed.newest < SETTLE_SECONDS:
        return dg.SkipReason("files are still arriving")
    cursor = f"{int(number) + 1}:{landed.key}"
    context.update_cursor(cursor)
    return dg.RunRequest(run_key=cursor)


rebuild_what_changed = dg.AutomationConditionSensorDefinition(
    "rebuild_what_changed",
    target=dg.AssetSelection.all(),
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
)
