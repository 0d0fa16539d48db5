"""Sensors: what people change, what training made, and what listeners answered. Alerts are in `alerts.py`."""

import json
import time
from collections.abc import Mapping
from dataclasses import field
from datetime import UTC, datetime

import dagster as dg
from pydantic.dataclasses import dataclass

from lofi_assets.constitution.gates import load_gates
from lofi_assets.defs.dataset import dataset_manifest
from lofi_assets.defs.evaluation import human_evaluation, quality_metrics
from lofi_assets.defs.jobs import AFTER_DATA, DATA, INTERVAL_SECONDS, LANE_TAG, refresh_data
from lofi_assets.defs.resources import Platform
from lofi_assets.defs.sources import licensed_sources, style_taxonomy
from lofi_assets.defs.tracks import processed_tracks, prompts
from lofi_assets.errors import LofiError
from lofi_assets.files.hashing import hash_of
from lofi_assets.files.typed import STORED, parsed, plain
from lofi_assets.files.writing import StoreError
from lofi_assets.listening.arrivals import arrivals
from lofi_assets.sources.ledger_page import survey, usable_files
from lofi_assets.sources.licences import load_licences
from lofi_assets.sources.rights import latest_day
from lofi_assets.store import CONFIG_DIR, Store
from lofi_assets.tracks.landing import landing_state

SETTLE_SECONDS = 5
"""A file that changed less than this ago may still be copied: wait for the next tick."""
CHANGED_TAG = "lofi/changed"
"""What a run was started for, on its page."""
WAITING = (dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED)
"""A run in these states has read nothing yet."""

READERS: Mapping[str, tuple[dg.AssetsDefinition, ...]] = {
    "library": (licensed_sources, processed_tracks, prompts, dataset_manifest),
    "styles": (processed_tracks, prompts, dataset_manifest),
    "words": (prompts, dataset_manifest),
    "vocabulary": (style_taxonomy, processed_tracks, prompts, dataset_manifest),
}
"""Part of a landing (`tracks.landing.Landing`) -> the assets that read it, and what stands on them."""
CURSOR = "the cursor of new_tracks_landed"
LINEAGE = [asset.key for asset in (licensed_sources, style_taxonomy, processed_tracks, prompts, dataset_manifest)]


@dataclass(frozen=True, config=STORED)
class Seen:
    """The cursor: what the last run was asked for."""

    number: int = 0
    """How many runs were asked for; part of each one's key, since a state may come back."""
    parts: Mapping[str, str] = field(default_factory=dict)
    """Part of a landing -> its state then."""


@dg.sensor(
    job=refresh_data,
    minimum_interval_seconds=INTERVAL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Starts one run when people change something: audio or licence records (inventory, tracks, prompts, dataset), "
        "chosen styles (tracks, prompts, dataset), prompts, lyrics or reviews (prompts, dataset), the vocabulary."
    ),
)
def new_tracks_landed(context: dg.SensorEvaluationContext, platform: Platform) -> dg.RunRequest | dg.SkipReason:
    """One run, in lineage order, of exactly the assets that read what changed."""
    landed = landing_state(platform.store)
    seen = _seen(context.cursor)
    if landed.files == 0 and not context.cursor:
        return dg.SkipReason("the data root is empty: put audio under raw/ and its licence into metadata/sources.json")
    now = {part: getattr(landed, part) for part in READERS}
    changed = [part for part in READERS if now[part] != seen.parts.get(part)]
    if not changed:
        return dg.SkipReason(f"nothing new among {landed.files} files")
    if 0 <= time.time() - landed.newest < SETTLE_SECONDS:
        return dg.SkipReason("files are still arriving")
    if _nothing_to_begin_with(context.instance, platform.store):
        return dg.SkipReason("no file under raw/ has a verified licence yet: lofi sources list says what each lacks")
    latest = _latest_data_run(context.instance)
    wanted = {asset.key for part in changed for asset in READERS[part]} | _left_undone(latest)
    asked = Seen(number=seen.number + 1, parts=now)
    context.update_cursor(json.dumps(plain(asked)))
    if latest and latest.status in WAITING and wanted <= (latest.asset_selection or set()):
        return dg.SkipReason(f"run {latest.run_id[:8]} has not started yet and will see this too")
    return dg.RunRequest(
        run_key=f"{asked.number}:{hash_of(now)[:16]}",
        asset_selection=sorted(wanted, key=lambda key: LINEAGE.index(key)),
        tags={CHANGED_TAG: ",".join(changed)},
    )


def _nothing_to_begin_with(instance: dg.DagsterInstance, store: Store) -> bool:
    """Whether a library that was never built has no file to build it from: waiting for a licence is no failed run."""
    if instance.get_latest_materialization_event(processed_tracks.key):
        return False
    try:
        found = survey(
            store, licences=load_licences(CONFIG_DIR), gates=load_gates(), today=latest_day(datetime.now(UTC))
        )
    except (LofiError, OSError):
        return False  # the inventory says what is wrong with the records
    return usable_files(found) == 0


def _seen(cursor: str | None) -> Seen:
    """A cursor of another form is as none: everything counts as changed, and one run looks at it."""
    try:
        return parsed(Seen, json.loads(cursor or "{}"), where=CURSOR, remedy="reset it in the UI")
    except (ValueError, StoreError):
        return Seen()


def _latest_data_run(instance: dg.DagsterInstance) -> dg.DagsterRun | None:
    runs = instance.get_runs(filters=dg.RunsFilter(tags={LANE_TAG: "data"}), limit=1)
    return runs[0] if runs else None


def _left_undone(latest: dg.DagsterRun | None) -> set[dg.AssetKey]:
    """What the latest run was for, if it failed or was ended: the next one does that too."""
    undone = latest is not None and latest.status in (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
    return set(latest.asset_selection or ()) if latest and undone else set()


rebuild_data = dg.AutomationConditionSensorDefinition(
    "rebuild_data",
    target=DATA,
    run_tags={LANE_TAG: "data"},
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=INTERVAL_SECONDS,
    description="Brings tracks, prompts and dataset in line when one was materialised by hand or its code moved.",
)

judge_training = dg.AutomationConditionSensorDefinition(
    "judge_training",
    target=AFTER_DATA,
    run_tags={LANE_TAG: "training"},
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=INTERVAL_SECONDS,
    description="Samples, measures and quantizes new checkpoints. A new dataset alone starts nothing here.",
)


@dg.sensor(
    asset_selection=[human_evaluation],
    minimum_interval_seconds=INTERVAL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Judges the listening tests anew when somebody has finished one, or when one was closed or lifted.",
)
def answers_arrived(context: dg.SensorEvaluationContext, platform: Platform) -> dg.RunRequest | dg.SkipReason:
    """One run of `human_evaluation` for whatever came in since the last; a look is taken in it if it is due."""
    arrived = arrivals(platform.store)
    if not arrived.tests:
        return dg.SkipReason("no listening test was ever opened")
    if context.cursor == arrived.key:
        return dg.SkipReason(f"nothing new: {arrived.finished} finished sessions of {arrived.tests} tests")
    if not context.instance.get_latest_materialization_event(quality_metrics.key):
        return dg.SkipReason("quality_metrics was never materialised, so there is no best checkpoint")
    context.update_cursor(arrived.key)
    return dg.RunRequest(run_key=arrived.key, tags={LANE_TAG: "training", CHANGED_TAG: "listening"})
