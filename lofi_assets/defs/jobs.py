"""Jobs and schedules: what people start by name, and what starts by the clock."""

import dagster as dg

everything = dg.define_asset_job(
    "everything",
    selection=dg.AssetSelection.all(),
    description="The whole lineage in order; what is unchanged is recognised and skipped by each asset.",
)

refresh_data = dg.define_asset_job(
    "refresh_data",
    selection=dg.AssetSelection.groups("sources", "tracks", "dataset"),
    description="Sources, tracks, prompts and dataset.",
)

train_and_judge = dg.define_asset_job(
    "train_and_judge",
    selection=dg.AssetSelection.all() - dg.AssetSelection.assets("hub_release"),
    description="Everything but the release.",
)

weekly_rebuild = dg.ScheduleDefinition(
    name="weekly_rebuild",
    job=train_and_judge,
    cron_schedule="0 3 * * 1",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Mondays at 03:00 UTC: train on what landed during the week and judge it; never releases.",
)
