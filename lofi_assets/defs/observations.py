"""What Dagster knows that alerts need: latest verdicts, failed runs, what works again, whether data is at rest.

What belongs here: reading the instance. What does not: what of it is news (`lofi_assets/alerts/`).
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from lofi_assets.alerts.gates import GateSeen
from lofi_assets.alerts.runs import FailedRun, FailedStep
from lofi_assets.alerts.state import AlertState, OpenFailure
from lofi_assets.constitution.gates import GUARDED_ASSETS, Gate, Status, load_gates
from lofi_assets.constitution.verdict_text import OUTCOMES
from lofi_assets.constitution.verdicts import recorded
from lofi_assets.defs.gates import EVALUATIONS_AT_ONCE, evaluated, failed_by_a_person, materialized_versions
from lofi_assets.files.writing import StoreError
from lofi_assets.store import Store

DATA_ASSETS = ("licensed_sources", "processed_tracks", "prompts", "dataset_manifest")
"""What a delivery of tracks runs through, in lineage order."""

QUIET_SECONDS = 90.0
"""Data is at rest if nothing moved for this long, though the dataset was not made anew: automation looks every 30 s."""

LONGEST_WAIT_SECONDS = 6 * 3600.0
"""A run that never ends, such as one whose process was killed, delays the news of a delivery no longer than this."""

OVERLAP_SECONDS = 300.0
"""How far a look for failed runs overlaps the one before: processes do not write in the order of their clocks."""

MAX_RUNS = 200
"""Runs looked at in one tick; of failed ones the others follow in the next."""

MAX_LOOKED_AT = 1000
"""Failed runs that are remembered as looked at."""

WILL_RETRY_TAG = "dagster/will_retry"
"""Dagster's mark on a failed run that it starts again by itself."""

ENDINGS = {
    "ChildProcessCrashException": "its process was killed, or ended without a word",
    "DagsterExecutionInterruptedError": "it was interrupted",
}
"""What Dagster reports of a step that could not say anything itself, by class, in people's words."""

UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def latest_verdicts(instance: dg.DagsterInstance, state: AlertState) -> Iterator[GateSeen]:
    """Every gate that was judged since the last look, by its check or by a person; `state` knows it afterwards.

    A gate that a person failed stays failed, for the build that the person judged, even if its check passes: the
    release guard sees it so too.
    """
    gates = {dg.AssetCheckKey(dg.AssetKey(gate.asset), gate.check_name): gate for gate in load_gates() if gate.asset}
    latest = instance.event_log_storage.get_latest_asset_check_execution_by_key(list(gates))
    made = materialized_versions(instance, [str(gate.asset) for gate in gates.values()])
    for key, gate in gates.items():
        record = latest.get(key)
        if record and not evaluated(record.evaluation):
            # It runs now, or was killed: what counts is the evaluation before.
            record = next((earlier for earlier in _history(instance, key) if evaluated(earlier.evaluation)), None)
        if record is None or state.judged.get(gate.id) == record.id:
            continue
        state.judged[gate.id] = record.id
        evaluation = record.evaluation
        if evaluation and evaluation.passed:
            failed = failed_by_a_person(instance, gate, data_version=made[str(gate.asset)])
            record, evaluation = (failed, failed.evaluation) if failed else (record, evaluation)
        if evaluation:
            yield _seen(gate, evaluation, at=record.create_timestamp, run_id=record.run_id)


def _history(instance: dg.DagsterInstance, key: dg.AssetCheckKey) -> Sequence[Any]:
    return instance.event_log_storage.get_asset_check_execution_history(key, limit=EVALUATIONS_AT_ONCE)


def _seen(gate: Gate, evaluation: dg.AssetCheckEvaluation, *, at: float, run_id: str) -> GateSeen:
    said = evaluation.metadata.get("verdict")
    status: Status = "pass" if evaluation.passed else "fail"
    if said is not None and said.value == "inconclusive":
        status = "inconclusive"
    text = evaluation.description or "no reason given"
    if said is None:
        rater = evaluation.metadata.get("rater")
        text = f"{OUTCOMES[status]}: {rater.value if rater else 'a person'} says: {text}"
    return GateSeen(gate, status, text, at, run_id)


def failed_runs(instance: dg.DagsterInstance, state: AlertState) -> list[FailedRun]:
    """Runs that failed since the last look, oldest first; `state` knows them afterwards.

    A run that a person cancelled did not fail; one that Dagster starts again by itself has not failed yet.
    """
    since = datetime.fromtimestamp(state.runs_until - OVERLAP_SECONDS, tz=UTC)
    records = instance.get_run_records(
        dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=since),
        order_by="update_timestamp",
        ascending=True,
    )
    ended_for_good = (record for record in records if record.dagster_run.tags.get(WILL_RETRY_TAG) != "true")
    unseen = [record for record in ended_for_good if record.dagster_run.run_id not in state.runs_looked_at][:MAX_RUNS]
    found = []
    for record in unseen:
        updated = record.update_timestamp.timestamp()
        ended = record.end_time or updated
        state.runs_until = max(state.runs_until, updated)
        state.runs_looked_at[record.dagster_run.run_id] = updated
        if ended >= state.begun:
            found.append(_failed_run(instance, record.dagster_run, ended))
    _forget(state)
    return found


def _forget(state: AlertState) -> None:
    """Forget the oldest runs that no later look finds again."""
    looked = sorted(state.runs_looked_at.items(), key=lambda item: item[1], reverse=True)
    found_again = state.runs_until - OVERLAP_SECONDS
    state.runs_looked_at = {
        run_id: at for index, (run_id, at) in enumerate(looked) if index < MAX_LOOKED_AT or at > found_again
    }


def _failed_run(instance: dg.DagsterInstance, run: dg.DagsterRun, ended: float) -> FailedRun:
    kinds = {dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE}
    entries = [record.event_log_entry for record in instance.get_records_for_run(run.run_id, of_type=kinds).records]
    steps: dict[str, FailedStep] = {}
    held, stopped, reason = {}, False, ""
    for entry in entries:
        event = entry.dagster_event
        if event is None or not event.is_step_failure:
            reason = (event.message if event else None) or reason
            continue
        step, data = str(event.step_key), event.step_failure_data
        holding = _holding(step, data.user_failure_data)
        if holding:
            held[step] = holding
        elif data.error and data.error.cls_name == "DagsterAssetCheckFailedError":
            stopped = True
        else:
            # A step whose process is ended may be reported twice: by itself, and by the process that missed it.
            if step not in steps or steps[step].error in ENDINGS.values():
                steps[step] = FailedStep(step, _error(data), asset="" if step.endswith("_gates") else step)
    return FailedRun(
        run_id=run.run_id,
        job=_job(run),
        selection=tuple(sorted(key.to_user_string() for key in run.entity_selection or ())),
        at=ended,
        steps=tuple(steps.values()),
        held=held,
        stopped_by_gates=stopped,
        reason=reason,
    )


def _job(run: dg.DagsterRun) -> str:
    """Name of a job that people know; a run of chosen assets has none."""
    return "" if run.job_name.startswith("__ASSET_JOB") else run.job_name


def _holding(step: str, failure: Any) -> dict[str, str]:
    """Gate id -> what it says, if the step is a guarded asset that `require_gates` refused; else empty."""
    if failure is None or step not in GUARDED_ASSETS:
        return {}
    gates = {gate.check_name: gate.id for gate in load_gates() if step in gate.holds}
    said = {name: str(value.value) for name, value in (failure.metadata or {}).items()}
    if not said or not said.keys() <= gates.keys():
        return {}
    return {gates[name]: text.removeprefix(f"{gates[name]}: ") for name, text in said.items()}


def _error(data: Any) -> str:
    failure = data.user_failure_data
    if failure and failure.description:
        return str(failure.description)
    error = data.error
    if error is None:
        return "no reason given"
    return ENDINGS.get(str(error.cls_name)) or str((error.cause or error).message).strip()


def mended(instance: dg.DagsterInstance, state: AlertState) -> dict[str, str]:
    """Subject of each open failure that works again -> the run that shows it."""
    found = {subject: _mended_by(instance, failure) for subject, failure in state.failures.items()}
    return {subject: run_id for subject, run_id in found.items() if run_id}


def _mended_by(instance: dg.DagsterInstance, failure: OpenFailure) -> str:
    """A run that made every asset that had failed, or one of the same job and assets that succeeded; else ""."""
    if failure.assets:
        made = _latest_materializations(instance, failure.assets)
        if len(made) == len(failure.assets) and all(at > failure.latest for at, _ in made.values()):
            return max(made.values())[1]
        return ""
    succeeded = dg.RunsFilter(
        job_name=failure.job or None,
        statuses=[dg.DagsterRunStatus.SUCCESS],
        updated_after=datetime.fromtimestamp(failure.latest, tz=UTC),
    )
    for run in instance.get_runs(succeeded, limit=MAX_RUNS):
        if tuple(sorted(key.to_user_string() for key in run.entity_selection or ())) == failure.selection:
            return run.run_id
    return ""


def released(instance: dg.DagsterInstance, state: AlertState) -> dict[str, str]:
    """Each held asset that was materialised since -> the run that did it."""
    made = _latest_materializations(instance, list(state.held))
    return {asset: run_id for asset, (at, run_id) in made.items() if at > state.held[asset].since}


def data_at_rest(instance: dg.DagsterInstance, store: Store, *, now: float) -> bool:
    """Whether a delivery went through as far as it will: into the dataset, or nothing has moved for a while."""
    made = _latest_materializations(instance, DATA_ASSETS)
    if not made:
        return False
    pending = [
        run.status
        for run in instance.get_runs(dg.RunsFilter(statuses=UNFINISHED))
        if _still_to_make(instance, run, made)
    ]
    if _reached_dataset(store) and all(status == dg.DagsterRunStatus.QUEUED for status in pending):
        return True
    return now - max(at for at, _ in made.values()) > (LONGEST_WAIT_SECONDS if pending else QUIET_SECONDS)


def _reached_dataset(store: Store) -> bool:
    """Whether the dataset was built from what the data assets before it hold now, and so was each of them."""
    try:
        measures = [recorded(store, asset) for asset in DATA_ASSETS]
    except StoreError:
        return False
    versions = {found.asset: found.data_version for found in measures if found}
    return len(versions) == len(DATA_ASSETS) and all(
        versions.get(name, version) == version
        for found in measures
        if found
        for name, version in found.upstream.items()
    )


def _still_to_make(
    instance: dg.DagsterInstance, run: dg.DagsterRun, made: Mapping[str, tuple[float, str]]
) -> Sequence[str]:
    """Data assets that an unfinished run will still materialise."""
    planned = instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED)
    assets = {
        event.asset_key.to_user_string()
        for record in planned.records
        if (event := record.event_log_entry.dagster_event) and event.asset_key
    }
    return [asset for asset in DATA_ASSETS if asset in assets and made.get(asset, (0.0, ""))[1] != run.run_id]


def _latest_materializations(instance: dg.DagsterInstance, assets: Sequence[str]) -> dict[str, tuple[float, str]]:
    """Asset -> time and run of its latest materialisation, for those that have one."""
    if not assets:
        return {}
    found = {}
    for record in instance.get_asset_records([dg.AssetKey(asset) for asset in assets]):
        last = record.asset_entry.last_materialization_record
        if last:
            found[record.asset_entry.asset_key.to_user_string()] = (last.timestamp, last.run_id)
    return found
