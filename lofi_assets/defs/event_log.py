"""Dagster's event log as the guard reads it: which run materialised what, with which evidence."""

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import dagster as dg

from lofi_assets.constitution.chain import Materialized
from lofi_assets.constitution.made_here import Attempt
from lofi_assets.progress import INTERVAL_S

DATA_VERSION_TAG = "dagster/data_version"
"""Tag under which Dagster keeps a materialisation's data version."""

EVIDENCE = "evidence"
"""Metadata of a materialisation: sha256 of the document that its run left."""

EVENTS_AT_ONCE = 100

LAST_WORDS_S = 2 * INTERVAL_S
"""How long a step that ended without a word may have worked since its last line in the log."""

DATABASE_CLOCK_S = 600.0
"""By which the clock of Dagster's database, which dates runs to the second, may be behind those that date events."""

_ENDS = {dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.STEP_SUCCESS, dg.DagsterEventType.STEP_UP_FOR_RETRY}
_BEGINS = {dg.DagsterEventType.STEP_START, dg.DagsterEventType.STEP_RESTARTED}


def shown_digest(sha256: str) -> str:
    """A digest in two words: the UI's box grows with the longest word."""
    return f"{sha256[:32]} {sha256[32:]}".strip()


class InstanceLog:
    """The event log of one instance; the latest materialisations of all assets are asked for once."""

    def __init__(self, instance: dg.DagsterInstance, assets: Sequence[str] = ()) -> None:
        self._instance = instance
        self._latest: dict[str, Materialized | None] = {}
        self._ask(assets)

    def latest(self, asset: str) -> Materialized | None:
        """The latest materialisation; None before the first."""
        if asset not in self._latest:
            self._ask([asset])
        return self._latest[asset]

    def latest_by_run(self, asset: str) -> Materialized | None:
        """The latest that a run made; what somebody reported since says nothing of the files."""
        latest = self.latest(asset)
        if latest is None or latest.run_id:
            return latest
        return next((one for one in self.history(asset) if one.run_id), None)

    def _ask(self, assets: Sequence[str]) -> None:
        keys = [dg.AssetKey(asset) for asset in assets]
        events = self._instance.event_log_storage.get_latest_materialization_events(keys) if keys else {}
        for key in keys:
            event = events.get(key)
            self._latest[key.to_user_string()] = (
                self._materialized(event.run_id, event.asset_materialization, event.timestamp) if event else None
            )

    def with_evidence(self, asset: str, sha256: str) -> Materialized | None:
        """The latest one that carries a document's hash; None if none does."""
        return next((one for one in self.history(asset) if one.evidence == sha256), None)

    def history(self, asset: str) -> Iterator[Materialized]:
        """Every materialisation, the latest first."""
        cursor = None
        while True:
            page = self._instance.fetch_materializations(dg.AssetKey(asset), limit=EVENTS_AT_ONCE, cursor=cursor)
            for event in page.records:
                yield self._materialized(event.run_id, event.asset_materialization, event.timestamp)
            if not page.has_more:
                return
            cursor = page.cursor

    def attempts(self, asset: str, *, running: str) -> Iterator[Attempt]:
        """When runs worked on an asset since one made it: this one, then those that did not get there.

        Args:
            running: id of the run that asks.
        """
        yield from self._attempts(running, asset, still=True)
        latest = self.latest_by_run(asset)
        since = latest.timestamp if latest else 0.0
        after = datetime.fromtimestamp(max(0.0, since - DATABASE_CLOCK_S), UTC)
        for record in self._instance.get_run_records(dg.RunsFilter(updated_after=after)):
            if record.dagster_run.run_id != running:
                for one in self._attempts(record.dagster_run.run_id, asset, still=False):
                    if one.end > since:
                        yield Attempt(max(one.start, since), one.end)

    def _attempts(self, run_id: str, step: str, *, still: bool) -> Iterator[Attempt]:
        """Those of one step, which has the name of its asset; the last has no end while the run is `still` at it."""
        start = None
        for record in self._instance.get_records_for_run(run_id, of_type=_BEGINS | _ENDS).records:
            entry = record.event_log_entry
            kind = entry.get_dagster_event().event_type if entry.step_key == step else None
            if kind in _BEGINS:
                start = entry.timestamp if start is None else start
            elif kind in _ENDS and start is not None:
                yield Attempt(start, entry.timestamp)
                start = None
        if start is not None:
            yield Attempt(start, math.inf if still else self._last_word(run_id, step) + LAST_WORDS_S)

    def _last_word(self, run_id: str, step: str) -> float:
        """When a step last wrote into the log."""
        cursor = None
        while True:
            page = self._instance.get_records_for_run(run_id, cursor, limit=EVENTS_AT_ONCE, ascending=False)
            for record in page.records:
                if record.event_log_entry.step_key == step:
                    return record.event_log_entry.timestamp
            if not page.has_more:
                return 0.0
            cursor = page.cursor

    def _materialized(self, run_id: str, event: dg.AssetMaterialization | None, timestamp: float) -> Materialized:
        tags, shown = (event.tags or {}, event.metadata) if event else ({}, {})
        sha256 = shown.get(EVIDENCE)
        made = run_id if run_id and self._instance.has_run(run_id) else ""
        evidence, version = str(sha256.value).replace(" ", "") if sha256 else "", tags.get(DATA_VERSION_TAG, "")
        return Materialized(evidence, version, made, timestamp)
