"""Asset checks and the release guard, both from the constitution's table.

Three layers (design.md section 4): blocking checks hold inside one run; automation waits for them (`automation.py`);
`require_gates` holds in the body of the guarded assets, whoever started the run.
"""

import math
from collections.abc import Iterator
from typing import TypeGuard

import dagster as dg

from lofi_assets.constitution.gates import Gate, Verdict, load_gates
from lofi_assets.constitution.verdict_text import effect, sentence, track_sentence
from lofi_assets.constitution.verdicts import Measures, held_back_by, recorded, verdict
from lofi_assets.defs.faults import explaining
from lofi_assets.defs.readiness import HUB_RELEASE, keep_current
from lofi_assets.defs.resources import Platform
from lofi_assets.html.links import docs_url
from lofi_assets.store import Store
from lofi_assets.training.trained_on import on_revoked_tracks
from lofi_assets.wording import counted, named

DATA_VERSION_TAG = "dagster/data_version"
"""Tag under which Dagster keeps a materialisation's data version."""


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


def require_gates(context: dg.AssetExecutionContext, store: Store) -> None:
    """Refuse to go on unless every gate that holds this asset has passed for the very build it would use.

    Raises:
        dg.Failure: naming each gate that is missing, failed, inconclusive or about another build.
    """
    asset = context.asset_key.to_user_string()
    held = held_back(context.instance, store, asset)
    if held:
        raise dg.Failure(
            f"{asset} is held back by {counted(len(held), 'gate')}:\n"
            + "\n".join(f"- {_line(found)}" for found in held),
            metadata={found.gate.check_name: dg.MetadataValue.text(_line(found)) for found in held},
            allow_retries=False,
        )


def held_back(instance: dg.DagsterInstance, store: Store, asset: str) -> list[Verdict]:
    """The gates that hold `asset` back now, judged against what this instance materialised last."""
    gates = load_gates()
    materialized = materialized_versions(instance, _lineage_of(gates))
    refused = [
        gate.id
        for gate in gates
        if asset in gate.holds and gate.asset and overruled(instance, gate, data_version=materialized[gate.asset])
    ]
    held = held_back_by(store, gates, asset=asset, materialized=materialized, overruled=refused)
    revoked = _revoked_since(store, gates, asset)
    return [*revoked, *(found for found in held if found.gate.id not in {known.gate.id for known in revoked})]


REVOKED = "checkpoint.revoked"
"""The gate that a revocation fails at once, whatever was measured when the checkpoints were materialised."""


def _revoked_since(store: Store, gates: tuple[Gate, ...], asset: str) -> list[Verdict]:
    lost = on_revoked_tracks(store)
    note = next(iter(lost.values()), "")
    held_by = [gate for gate in gates if gate.id == REVOKED and asset in gate.holds]
    return [Verdict(gate, "fail", len(lost), note) for gate in held_by if lost]


def _lineage_of(gates: tuple[Gate, ...]) -> list[str]:
    return sorted({gate.asset for gate in gates if gate.asset})


def materialized_versions(instance: dg.DagsterInstance, assets: list[str]) -> dict[str, str]:
    """Asset -> data version of its latest materialisation, "" before the first; one query for all."""
    keys = [dg.AssetKey(asset) for asset in assets]
    events = instance.event_log_storage.get_latest_materialization_events(keys)
    made = {key: event.asset_materialization for key, event in events.items() if event}
    return {
        key.to_user_string(): ((at.tags or {}) if (at := made.get(key)) else {}).get(DATA_VERSION_TAG, "")
        for key in keys
    }


MAX_EVALUATIONS = 100
"""How far back a person's verdict is looked for; checks of the same build push it down."""


def overruled(instance: dg.DagsterInstance, gate: Gate, *, data_version: str) -> bool:
    """Whether a person's latest verdict on this build of the gate's asset, or on no named build, is a failure.

    No check can lift it.
    """
    key = dg.AssetCheckKey(dg.AssetKey(str(gate.asset)), gate.check_name)
    for record in instance.event_log_storage.get_asset_check_execution_history(key, limit=MAX_EVALUATIONS):
        evaluation = record.evaluation
        if not evaluated(evaluation) or evaluation.target_materialization_data is not None:
            continue
        version = evaluation.metadata.get("data_version")
        if version is None or version.value == data_version:
            return not evaluation.passed
    return False


def evaluated(evaluation: object) -> TypeGuard[dg.AssetCheckEvaluation]:
    """Whether a recorded evaluation took place: a run that goes on, or was killed, leaves planned ones."""
    return isinstance(evaluation, dg.AssetCheckEvaluation)


def _line(found: Verdict) -> str:
    return f"{found.gate.id}: {found.status}, {found.text}. {found.gate.why}"
