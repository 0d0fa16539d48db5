"""A starting point for tests: the evidence that a run leaves, and its event, without the run's work."""

from typing import Any

import dagster as dg
from dagster._core.events import DagsterEvent, DagsterEventType, StepMaterializationData
from dagster._core.utils import make_new_run_id

from lofi_assets.constitution import evidence
from lofi_assets.constitution.chain import Materialized
from lofi_assets.constitution.verdicts import Measures
from lofi_assets.defs.event_log import EVIDENCE, shown_digest
from lofi_assets.outcome import Outcome, Written
from lofi_assets.store import Store

RUN = "3f2a0000-run"
JOB = "everything"


def record(store: Store, measures: Measures, *, written: Written | None = None) -> str:
    """Evidence of these measures, over the current evidence of its upstream; returns its sha256."""
    outcome = Outcome(
        measures.data_version,
        measures.counts,
        values=measures.values,
        tracks=measures.tracks,
        named=measures.named,
        written=written or Written(),
    )
    return evidence.write(store, outcome, asset=measures.asset, upstream=measures.upstream)


def report_build(instance: dg.DagsterInstance, asset: str, data_version: str, *, evidence: str = "") -> str:
    """A materialisation by a run, as the instance remembers it; returns the run's id."""
    run = instance.add_run(
        dg.DagsterRun(job_name=JOB, run_id=make_new_run_id(), asset_selection=frozenset([dg.AssetKey(asset)]))
    )
    made = StepMaterializationData(materialization(asset, data_version, evidence=evidence))
    _report(instance, DagsterEventType.ASSET_MATERIALIZATION, made, run.run_id)
    return run.run_id


def report_check(instance: dg.DagsterInstance, evaluation: dg.AssetCheckEvaluation, *, run_id: str) -> None:
    """The evaluation of a check by the run that made its asset."""
    _report(instance, DagsterEventType.ASSET_CHECK_EVALUATION, evaluation, run_id)


def _report(instance: dg.DagsterInstance, kind: DagsterEventType, data: Any, run_id: str) -> None:
    instance.report_dagster_event(DagsterEvent(kind.value, JOB, event_specific_data=data), run_id)


def materialization(asset: str, data_version: str, *, evidence: str = "") -> dg.AssetMaterialization:
    """The event of a materialisation, as whoever makes one says it."""
    return dg.AssetMaterialization(
        dg.AssetKey(asset), tags={"dagster/data_version": data_version}, metadata={EVIDENCE: shown_digest(evidence)}
    )


class Log:
    """An event log in which a run made what is on record when it is opened; `latest_of` says otherwise."""

    def __init__(self, store: Store, **latest_of: Materialized | None) -> None:
        assets = [path.stem for path in evidence.folder(store).glob("*.json")]
        self._latest = {asset: _on_record(store, asset) for asset in assets if asset not in latest_of} | latest_of
        self.earlier: dict[tuple[str, str], Materialized] = {}

    def latest(self, asset: str) -> Materialized | None:
        """As the data root had it."""
        return self._latest.get(asset)

    def with_evidence(self, asset: str, sha256: str) -> Materialized | None:
        """One of `earlier`."""
        return self.earlier.get((asset, sha256))


def _on_record(store: Store, asset: str) -> Materialized:
    sha256 = evidence.current_sha256(store, asset)
    return Materialized(sha256, evidence.read(store, asset, sha256).data_version, RUN)
