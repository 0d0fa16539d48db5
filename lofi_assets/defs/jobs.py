"""Jobs and schedules: what people start by name, and what starts by the clock."""

import dagster as dg

from lofi_assets.environment import seconds

INTERVAL_SECONDS = seconds("LOFI_SENSOR_SECONDS", 30)
"""Seconds between two looks of a sensor."""

LANE_TAG = "lofi/lane"
"""Tag of a run: `data` or `training`. The two go on side by side, each one run at a time (pools in dagster.yaml)."""

DATA = dg.AssetSelection.groups("sources", "tracks", "dataset")
AFTER_DATA = dg.AssetSelection.all() - DATA

everything = dg.define_asset_job(
    "everything",
    selection=dg.AssetSelection.all(),
    description="The whole lineage in order; what is unchanged is recognised and skipped by each asset.",
)

refresh_data = dg.define_asset_job(
    "refresh_data",
    selection=DATA,
    tags={LANE_TAG: "data"},
    description="Sources, tracks, prompts and dataset; the sensor starts it when people change something.",
)

train_and_judge = dg.define_asset_job(
    "train_and_judge",
    selection=AFTER_DATA - dg.AssetSelection.assets("hub_release"),
    tags={LANE_TAG: "training"},
    description="Features and training on the dataset as it is, then everything up to the model card; never a release.",
)

weekly_training = dg.ScheduleDefinition(
    name="weekly_training",
    job=train_and_judge,
    cron_schedule="0 3 * * 1",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Mondays at 03:00 UTC: train on what landed during the week and judge it; never releases.",
)
