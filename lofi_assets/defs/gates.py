"""Asset checks and the release guard, both from the constitution's table.

Three layers (design.md section 4): blocking checks hold inside one run; automation waits for them (`automation.py`);
`require_gates` holds in the body of the guarded assets, whoever started the run.
"""

import math
from collections.abc import Iterator, Sequence
from typing import TypeGuard

import dagster as dg
from dagster._core.storage.asset_check_execution_record import (
    AssetCheckExecutionRecord,
    AssetCheckExecutionRecordStatus,
)

from lofi_assets.constitution.amendments import loosened_licences, unlogged_gates
from lofi_assets.constitution.chain import Chain, Hasher, read_again
from lofi_assets.constitution.clearance import Clearance, give
from lofi_assets.constitution.gates import Gate, Verdict, load_gates
from lofi_assets.constitution.made_with import constitution_in_force
from lofi_assets.constitution.verdict_text import effect, sentence, track_sentence
from lofi_assets.constitution.verdicts import Measures, held_back_by, measures_of, recorded, verdict
from lofi_assets.defs.event_log import InstanceLog
from lofi_assets.defs.faults import explaining
from lofi_assets.defs.readiness import HUB_RELEASE, keep_current
from lofi_assets.defs.resources import Platform
from lofi_assets.html.links import docs_url
from lofi_assets.store import CONFIG_DIR, PACKAGE, Store
from lofi_assets.training.trained_on import on_revoked_tracks
from lofi_assets.wording import counted, named


def gate_checks(asset: dg.AssetsDefinition) -> dg.AssetChecksDefinition:
    """Every gate of one asset as an asset check; they read what the asset recorded and never touch audio."""
    key = asset.key
    gates = {gate.check_name: gate for gate in load_gates() if gate.asset == key.to_user_string()}

    @dg.multi_asset_check(
        name=f"{key.to_python_identifier()}_gates",
        specs=[_spec(gate, key) for gate in gates.values()],
        can_subset=True,
    )
    def evaluate_gates(context: dg.AssetCheckExecutionContext, platform: Platform) -> Iterator[dg.AssetCheckResult]:
        with explaining():
            measures = recorded(platform.store, key.to_user_string())
            _say_what_holds_the_release(context, platform.store)
        for check in sorted(context.selected_asset_check_keys, key=lambda check: list(gates).index(check.name)):
            yield _result(verdict(gates[check.name], measures), key, measures)

    return evaluate_gates


def _spec(gate: Gate, key: dg.AssetKey) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(
        gate.check_name,
        asset=key,
        description=f"{effect(gate)} {gate.why}\n\nRule: [`{gate.rule}`]({docs_url('gates.md', gate.id)})"
        f" ({gate.article}).",
        blocking=gate.blocking or gate.scope == "track",
        metadata={"gate": gate.id, "article": gate.article, "rule": gate.rule, "holds": ", ".join(gate.holds) or "-"},
    )


def _result(found: Verdict, key: dg.AssetKey, measures: Measures | None) -> dg.AssetCheckResult:
    gate = found.gate
    counts = measures.tracks.get(gate.id) if measures else None
    tracks = measures.named.get(gate.id, {}) if measures else {}
    numbers = _asset_numbers(found) if counts is None else {name: dg.MetadataValue.int(n) for name, n in counts.items()}
    names = {kind: dg.MetadataValue.text(named(ids, most=len(ids))) for kind, ids in tracks.items() if ids}
    return dg.AssetCheckResult(
        passed=found.passed,
        asset_key=key,
        check_name=gate.check_name,
        severity=dg.AssetCheckSeverity.ERROR if gate.severity == "ERROR" else dg.AssetCheckSeverity.WARN,
        description=sentence(found) if counts is None else track_sentence(gate, counts, tracks),
        metadata={
            "verdict": found.status,
            **numbers,
            **{f"{kind} tracks": text for kind, text in names.items()},
            "gate": dg.MetadataValue.url(docs_url("gates.md", gate.id)),
            "data_version": measures.data_version if measures else "",
        },
    )


def _asset_numbers(found: Verdict) -> dict[str, dg.MetadataValue]:
    """Value and limit as numbers, which the UI plots; none for what was not measured, nor for a rule about tracks."""
    if found.gate.scope == "track":
        return {}
    numbers = {"value": found.value, "limit": found.gate.limit}
    return {name: _shown(number) for name, number in numbers.items() if number is not None}


def _shown(value: object) -> dg.MetadataValue:
    """A number stays a number; one that is not finite is text, since no plot can hold it."""
    if isinstance(value, bool):
        return dg.MetadataValue.bool(value)
    if isinstance(value, int):
        return dg.MetadataValue.int(value)
    if isinstance(value, float) and math.isfinite(value):
        return dg.MetadataValue.float(value)
    return dg.MetadataValue.text(str(value))


def _say_what_holds_the_release(context: dg.AssetCheckExecutionContext, store: Store) -> None:
    """Whatever was judged, the page of the release says what holds it now; that it cannot say so stops no check."""
    try:
        keep_current(context.instance, held_back(context.instance, store, HUB_RELEASE.to_user_string()))
    except Exception as error:
        context.log.warning(f"the page of hub_release does not say what holds it now: {error}")


def require_gates(context: dg.AssetExecutionContext, store: Store) -> Clearance:
    """Refuse to go on unless every gate that holds this asset has passed for the very build it would use.

    Everything is recomputed: the bytes of every file of the lineage for a release, those that were written to since
    they were last hashed for the assets before it.

    Returns:
        The permit, good for one use.
    Raises:
        dg.Failure: naming each gate that is missing, failed, inconclusive, about another build, or judged on evidence
            that does not hold.
    """
    asset = context.asset_key.to_user_string()
    chain = _chain(context.instance, store, hasher=read_again if asset == HUB_RELEASE.to_user_string() else None)
    held = _held_back(context.instance, store, asset, chain)
    if held:
        raise dg.Failure(
            f"{asset} is held back by {counted(len(held), 'gate')}:\n"
            + "\n".join(f"- {_line(found)}" for found in held),
            metadata={found.gate.check_name: dg.MetadataValue.text(_line(found)) for found in held},
            allow_retries=False,
        )
    return give(
        Clearance(
            asset=asset,
            verdicts=tuple(
                verdict(gate, measures_of(chain.held[gate.asset], chain.lists[gate.asset]))
                for gate in load_gates()
                if gate.asset and asset in gate.holds
            ),
            evidence=dict(chain.digests),
            files=dict(chain.files),
            constitution=constitution_in_force(),
        )
    )


def held_back(instance: dg.DagsterInstance, store: Store, asset: str) -> list[Verdict]:
    """The gates that hold `asset` back now, judged on the evidence of what this instance materialised last."""
    return _held_back(instance, store, asset, _chain(instance, store))


def _chain(instance: dg.DagsterInstance, store: Store, *, hasher: Hasher | None = None) -> Chain:
    return Chain(store, InstanceLog(instance, _lineage_of(load_gates())), hasher=hasher)


def _held_back(instance: dg.DagsterInstance, store: Store, asset: str, chain: Chain) -> list[Verdict]:
    gates = load_gates()
    if reason := _no_constitution(gates, asset):
        return [Verdict(AMENDMENTS, "fail", 1, reason)]
    versions = {name: found.data_version for name in _lineage_of(gates) if (found := chain.log.latest(name))}
    refused = [
        gate.id
        for gate in gates
        if asset in gate.holds
        and gate.asset
        and failed_by_a_person(instance, gate, data_version=versions.get(gate.asset, ""))
    ]
    held = held_back_by(gates, asset=asset, chain=chain, overruled=refused)
    revoked = _revoked_since(store, gates, asset)
    return [*revoked, *(found for found in held if found.gate.id not in {known.gate.id for known in revoked})]


AMENDMENTS = Gate(
    "repository.amendments",
    "Governance",
    "repository",
    "unversioned_amendments",
    "==",
    0,
    "A changed text or gate needs a new version and a row in the amendment log.",
)
"""Holds everything that is guarded, whatever the table says: a table without its rows opens nothing."""


def _no_constitution(gates: tuple[Gate, ...], asset: str) -> str:
    """Why there are no rules to judge by; "" if the tables are those that the version had when it was logged."""
    known = PACKAGE.parent / "config"
    if reason := unlogged_gates(CONFIG_DIR, known=known) or loosened_licences(CONFIG_DIR, known=known):
        return reason
    return "" if any(asset in gate.holds for gate in gates) else f"no gate of the table holds {asset}"


REVOKED = "checkpoint.revoked"
"""The gate that a revocation fails at once, whatever was measured when the checkpoints were materialised."""


def _revoked_since(store: Store, gates: tuple[Gate, ...], asset: str) -> list[Verdict]:
    lost = on_revoked_tracks(store)
    note = next(iter(lost.values()), "")
    held_by = [gate for gate in gates if gate.id == REVOKED and asset in gate.holds]
    return [Verdict(gate, "fail", len(lost), note) for gate in held_by if lost]


def _lineage_of(gates: tuple[Gate, ...]) -> list[str]:
    return sorted({gate.asset for gate in gates if gate.asset})


def materialized_versions(instance: dg.DagsterInstance, assets: Sequence[str]) -> dict[str, str]:
    """Asset -> data version of its latest materialisation, "" before the first; one query for all."""
    log = InstanceLog(instance, assets)
    return {asset: found.data_version if (found := log.latest(asset)) else "" for asset in assets}


EVALUATIONS_AT_ONCE = 100
"""Evaluations of a check that are asked for at a time."""


def failed_by_a_person(
    instance: dg.DagsterInstance, gate: Gate, *, data_version: str
) -> AssetCheckExecutionRecord | None:
    """A person's latest verdict on this build of the gate's asset, or on no named build, if it is a failure.

    No check can lift it, and no number of them can push it out of sight: only a person's verdict after it does.
    """
    failed = next(_of_people(instance, gate, data_version, AssetCheckExecutionRecordStatus.FAILED), None)
    if failed is None:
        return None
    passed = next(_of_people(instance, gate, data_version, AssetCheckExecutionRecordStatus.SUCCEEDED), None)
    return failed if passed is None or passed.id < failed.id else None


def _of_people(
    instance: dg.DagsterInstance, gate: Gate, data_version: str, status: AssetCheckExecutionRecordStatus
) -> Iterator[AssetCheckExecutionRecord]:
    """People's verdicts on a build or on no named one, the latest first."""
    key = dg.AssetCheckKey(dg.AssetKey(str(gate.asset)), gate.check_name)
    cursor: int | None = None
    while True:
        page = instance.event_log_storage.get_asset_check_execution_history(
            key, limit=EVALUATIONS_AT_ONCE, cursor=cursor, status={status}
        )
        for record in page:
            evaluation = record.evaluation
            if evaluated(evaluation) and evaluation.target_materialization_data is None:
                version = evaluation.metadata.get("data_version")
                if version is None or version.value == data_version:
                    yield record
        if len(page) < EVALUATIONS_AT_ONCE:
            return
        cursor = page[-1].id


def evaluated(evaluation: object) -> TypeGuard[dg.AssetCheckEvaluation]:
    """Whether a recorded evaluation took place: a run that goes on, or was killed, leaves planned ones."""
    return isinstance(evaluation, dg.AssetCheckEvaluation)


def _line(found: Verdict) -> str:
    return f"{found.gate.id}: {found.status}, {found.text}. {found.gate.why}"
