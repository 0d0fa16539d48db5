"""Sensors: new tracks, and alerts.

Open-source Dagster has no alert policies, and a non-blocking check that fails leaves its run green: two sensors are
needed. Both kinds of verdict, a check's and a person's, are found by polling the latest evaluation of every check,
which works on SQLite too.
"""

import json
import time

import dagster as dg

from lofi_assets.defs.gates import evaluated
from lofi_assets.defs.readiness import READY
from lofi_assets.defs.resources import Notifier, Platform
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


@dg.run_failure_sensor(default_status=dg.DefaultSensorStatus.RUNNING)
def failed_run_alerts(context: dg.RunFailureSensorContext, platform: Platform, notifier: Notifier) -> None:
    """One alert per failed run, with the error's first lines."""
    run = context.dagster_run
    notifier.send(
        platform=platform,
        title=f"lofi: run {run.job_name} failed",
        body="\n".join((f"run {run.run_id}", context.failure_event.message or "", *_errors(context)))[:2000],
        log=context.log,
    )


def _errors(context: dg.RunFailureSensorContext) -> list[str]:
    failures = [(event.step_key, event.step_failure_data.error) for event in context.get_step_failure_events()]
    return [f"{step}: {(error.cause or error).message.strip()}" for step, error in failures if error]


@dg.sensor(minimum_interval_seconds=30, default_status=dg.DefaultSensorStatus.RUNNING)
def failed_gate_alerts(
    context: dg.SensorEvaluationContext, platform: Platform, notifier: Notifier
) -> dg.SkipReason | None:
    """One alert for every new evaluation that did not pass: blocking or not, a check's or a person's."""
    seen: dict[str, int] = json.loads(context.cursor or "{}")
    latest = _latest_evaluations(context)
    failed = [
        (key, record) for key, record in latest.items() if seen.get(key, 0) < record.id and not record.evaluation.passed
    ]
    if failed:
        lines = [f"- {key}: {record.evaluation.description or 'failed'}" for key, record in failed]
        notifier.send(
            platform=platform, title=f"lofi: {len(failed)} gate(s) did not pass", body="\n".join(lines), log=context.log
        )
    context.update_cursor(json.dumps({key: record.id for key, record in latest.items()}))
    return None if failed else dg.SkipReason("no new verdict that did not pass")


def _latest_evaluations(context: dg.SensorEvaluationContext) -> dict:
    assert context.repository_def is not None
    found = {}
    for key in sorted(context.repository_def.asset_graph.asset_check_keys, key=lambda key: key.to_user_string()):
        if key.name == READY:  # what holds the release has alerted by itself
            continue
        record = context.instance.get_latest_asset_check_evaluation_record(key)
        if record and evaluated(record.evaluation):
            found[key.to_user_string()] = record
    return found


rebuild_what_changed = dg.AutomationConditionSensorDefinition(
    "rebuild_what_changed",
    target=dg.AssetSelection.all(),
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
)
