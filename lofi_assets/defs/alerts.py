"""The sensor `alerts`: watches verdicts, runs and deliveries, and tells people what changed.

What belongs here: the order of a tick. What does not: what Dagster knows (`observations.py`), what is news, texts and
queues (`lofi_assets/alerts/`).

Open-source Dagster has no alert policies; a check that fails without blocking leaves its run green; a run-status sensor
that raises loses its event. So one plain sensor polls: the latest evaluation of every check, a check's or a person's
(which works on SQLite too), and the runs that failed since it last looked. What it told and what waits is in
`<data root>/alerts/` and not in its cursor, which is only kept when a tick ends: see `alerts/state.py`.
"""

import time

import dagster as dg

from lofi_assets.alerts.arrivals import delivery_news, read_tracks, tables_key, told_of
from lofi_assets.alerts.gates import first_look, gate_news
from lofi_assets.alerts.messages import Message
from lofi_assets.alerts.outbox import deliver, enqueue
from lofi_assets.alerts.runs import mended_news, run_news
from lofi_assets.alerts.state import (
    AlertState,
    clear_told_tracks,
    read_state,
    read_told_tracks,
    set_aside,
    write_state,
    write_told_tracks,
)
from lofi_assets.defs.jobs import INTERVAL_SECONDS
from lofi_assets.defs.observations import data_at_rest, failed_runs, latest_verdicts, mended, released
from lofi_assets.defs.resources import Notifier, Platform
from lofi_assets.errors import LofiError
from lofi_assets.files.writing import StoreError, locked
from lofi_assets.profiles import Profile, ProfileError
from lofi_assets.store import Store
from lofi_assets.tracks.review import ReviewError, queue

SENDING_SECONDS = 20.0
"""No attempt to deliver begins later in a tick: Dagster ends one after 60 s at the earliest."""


class _AnotherProcessError(LofiError):
    """Two daemons watch one data root."""


@dg.sensor(
    minimum_interval_seconds=INTERVAL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Tells people, once, when a gate stops passing or passes again, a run fails or works again, a release is held, "
        "or tracks were delivered. Receivers: LOFI_ALERT_URLS and the profile; try them with `lofi alerts test`."
    ),
)
def alerts(context: dg.SensorEvaluationContext, platform: Platform, notifier: Notifier) -> dg.SkipReason:
    """One look, one round of deliveries."""
    store = platform.store
    try:
        with locked(store.alerts, busy=_AnotherProcessError()):
            return dg.SkipReason(_tick(context, store, notifier, _profile(context, platform)))
    except _AnotherProcessError:
        return dg.SkipReason(f"another process sends the alerts of {store.root}")
    except (StoreError, OSError) as error:
        # Sent without being remembered, everything would be sent again at every tick.
        trouble = f"{store.alerts} cannot be written ({error}); alerts wait until it can, and none is lost"
        context.log.error(trouble)
        return dg.SkipReason(trouble)


def _profile(context: dg.SensorEvaluationContext, platform: Platform) -> Profile | None:
    try:
        return platform.profile
    except ProfileError as error:
        context.log.error(f"receivers of the profile are left out: {error}")
        return None


def _tick(context: dg.SensorEvaluationContext, store: Store, notifier: Notifier, profile: Profile | None) -> str:
    state, messages = _look(context, store)
    receivers = notifier.receivers(profile)
    enqueue(state, receivers, messages)
    write_state(store, state)
    clear_told_tracks(store, state)
    for message in messages:
        context.log.warning(f"ALERT {message.title}\n{message.body}")
    done = deliver(
        state,
        receivers,
        notifier.send,
        now=time.time,
        until=time.time() + SENDING_SECONDS,
        save=lambda: write_state(store, state),
    )
    for trouble in done.troubles:
        context.log.warning(trouble)
    told = f"{len(messages)} new, {done.sent} delivered"
    return "; ".join((told, *done.troubles)) if receivers else f"{told}; no receiver is configured, see the log"


def _look(context: dg.SensorEvaluationContext, store: Store) -> tuple[AlertState, list[Message]]:
    """What people know with this look, and what they have not been told of it yet."""
    instance, now = context.instance, time.time()
    try:
        state, lost = read_state(store), ""
    except StoreError as error:
        state, lost = None, f"What was told before is lost, and what waited for a receiver: {error}"
        context.log.error(f"{lost}; kept as {set_aside(store)}")
    if state is None:
        state = AlertState(begun=now, runs_until=now)
        failed = instance.get_runs_count(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
        _deliveries(context, store, state)
        return state, first_look(state, list(latest_verdicts(instance, state)), failed_runs=failed, after=lost)
    messages = [
        *gate_news(state, latest_verdicts(instance, state)),
        *run_news(state, failed_runs(instance, state)),
        *mended_news(state, mended(instance, state), released(instance, state)),
    ]
    if data_at_rest(instance, store, now=now):
        messages += _deliveries(context, store, state)
    return state, messages


def _deliveries(context: dg.SensorEvaluationContext, store: Store, state: AlertState) -> list[Message]:
    """Tracks that were accepted or rejected since people were last told; `state` knows them afterwards."""
    tables = tables_key(store)
    if tables == state.tables:
        return []
    try:
        tracks = read_tracks(store)
        told = read_told_tracks(store, state)
    except StoreError as error:
        context.log.error(f"deliveries are not told: {error}")
        return []
    try:
        waiting = {item.row.track_id: "; ".join(item.reasons) for item in queue(store) if item.reasons}
    except (ReviewError, StoreError) as error:
        context.log.error(f"the review queue is not told: {error}")
        waiting = {}
    state.tracks, state.tables = write_told_tracks(store, told_of(tracks)), tables
    return delivery_news(tracks, told=told, waiting=waiting)
