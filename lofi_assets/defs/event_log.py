"""Dagster's event log as the guard reads it: which run materialised what, with which evidence."""

from collections.abc import Iterator, Sequence

import dagster as dg

from lofi_assets.constitution.chain import Materialized

DATA_VERSION_TAG = "dagster/data_version"
"""Tag under which Dagster keeps a materialisation's data version."""

EVIDENCE = "evidence"
"""Metadata of a materialisation: sha256 of the document that its run left."""

EVENTS_AT_ONCE = 100


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

    def _ask(self, assets: Sequence[str]) -> None:
        keys = [dg.AssetKey(asset) for asset in assets]
        events = self._instance.event_log_storage.get_latest_materialization_events(keys) if keys else {}
        for key in keys:
            event = events.get(key)
            self._latest[key.to_user_string()] = (
                self._materialized(event.run_id, event.asset_materialization) if event else None
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
                yield self._materialized(event.run_id, event.asset_materialization)
            if not page.has_more:
                return
            cursor = page.cursor

    def _materialized(self, run_id: str, event: dg.AssetMaterialization | None) -> Materialized:
        tags, shown = (event.tags or {}, event.metadata) if event else ({}, {})
        sha256 = shown.get(EVIDENCE)
        made = run_id if run_id and self._instance.has_run(run_id) else ""
        return Materialized(str(sha256.value).replace(" ", "") if sha256 else "", tags.get(DATA_VERSION_TAG, ""), made)
