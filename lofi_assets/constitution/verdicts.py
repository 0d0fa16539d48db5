"""What each asset measured for its gates, and what the gates say of it.

What belongs here: the measures file that every asset writes when it materialises, the verdicts over it, and the
question that a guard asks: what holds this asset back? What does not: the rules of judging (`gates.py`).

A measures file names the data version it is about and those of the assets it was built from, so that a number about
another build is found out however it got there.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from lofi_assets.constitution.gates import Gate, Verdict, judge
from lofi_assets.files.documents import read_json, write_json
from lofi_assets.files.writing import StoreError
from lofi_assets.store import Store
from lofi_assets.wording import counted


@dataclass(frozen=True)
class Measures:
    """The numbers an asset wrote for its gates."""

    asset: str
    data_version: str
    upstream: Mapping[str, str] = field(default_factory=dict)
    """Data versions of the assets it was built from."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """Measure -> value, or -> {"value": ..., "encoder": ..., "trained": ..., "note": ...}."""
    tracks: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Track-scope gate id -> {"accepted": n, "violating": n, "rejected": n}."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """What people want to know first: how many, and how many were recomputed."""
    named: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    """Track-scope gate id -> {"rejected": first ids, "violating": first ids}; a gate without any is left out."""


def record(store: Store, measures: Measures) -> None:
    """Write an asset's measures."""
    write_json(store.measures(measures.asset), {key: _plain(value) for key, value in measures.__dict__.items()})


def recorded(store: Store, asset: str) -> Measures | None:
    """An asset's latest measures; None before its first materialisation.

    Raises:
        StoreError: the file is broken.
    """
    path, remedy = store.measures(asset), f"remove it and materialise {asset} again"
    data = read_json(path, remedy=remedy)
    try:
        return Measures(**data) if data else None
    except TypeError as error:
        raise StoreError(f"{path}: not the measures of an asset ({error}); {remedy}") from error


def upstream_versions(store: Store, assets: Iterable[str]) -> dict[str, str]:
    """Data versions that the named assets have now."""
    found = {asset: recorded(store, asset) for asset in assets}
    return {asset: measures.data_version for asset, measures in sorted(found.items()) if measures}


def track_rule_counts(
    gates: Sequence[Gate], *, accepted: Sequence[Mapping[str, Any]], rejected_by: Mapping[str, int]
) -> dict[str, dict[str, int]]:
    """For every track-scope gate: accepted tracks, those of them that do not pass it, and tracks that it rejected.

    Args:
        accepted: one mapping measure -> value per accepted track; a missing measure counts as a violation.
        rejected_by: gate id -> number of tracks in quarantine for it.
    """
    return {
        gate.id: {
            "accepted": len(accepted),
            "violating": sum(not judge(gate, row.get(gate.measure)).passed for row in accepted),
            "rejected": int(rejected_by.get(gate.id, 0)),
        }
        for gate in gates
    }


NAMED_TRACKS = 20
"""Tracks that a gate names; the tables and `quarantine/` have the others."""


def track_rules(
    gates: Sequence[Gate],
    *,
    accepted: Sequence[tuple[str, Mapping[str, Any]]],
    rejected: Sequence[tuple[str, str]],
) -> dict[str, dict[str, Any]]:
    """`tracks` and `named` of an `Outcome`: for every track-scope gate the counts, and which tracks are behind them.

    Args:
        accepted: track id and its measures, for every accepted track.
        rejected: track id and the gate that rejected it.
    """
    rows, rejected_by = [row for _, row in accepted], Counter(rule for _, rule in rejected)
    counts = track_rule_counts(gates, accepted=rows, rejected_by=rejected_by)
    found = {gate.id: {"rejected": [track for track, rule in rejected if rule == gate.id]} for gate in gates}
    for gate in gates:
        if counts[gate.id]["violating"]:
            found[gate.id]["violating"] = [
                track for track, row in accepted if not judge(gate, row.get(gate.measure)).passed
            ]
    return {
        "tracks": counts,
        "named": {
            gate: {kind: tracks[:NAMED_TRACKS] for kind, tracks in kinds.items() if tracks}
            for gate, kinds in found.items()
            if any(kinds.values())
        },
    }


def verdict(gate: Gate, measures: Measures | None) -> Verdict:
    """A gate's verdict over what its asset recorded; nothing recorded is inconclusive."""
    if measures is None:
        return Verdict(gate, "inconclusive", None, "not materialised yet")
    if gate.scope == "track":
        return _track_verdict(gate, measures.tracks.get(gate.id))
    return judge(gate, measures.values.get(gate.measure))


def _track_verdict(gate: Gate, counts: Mapping[str, int] | None) -> Verdict:
    if counts is None:
        return Verdict(gate, "inconclusive", None, "not measured")
    note = f"{counted(counts['accepted'], 'track')} accepted, {counts['rejected']} rejected by this rule"
    return Verdict(gate, "fail" if counts["violating"] else "pass", counts["violating"], note, counted=True)


def verdicts(store: Store, gates: Sequence[Gate]) -> list[Verdict]:
    """Latest verdict of every gate that judges an asset, in the order of the table."""
    measures = {gate.asset: recorded(store, gate.asset) for gate in gates if gate.asset}
    return [verdict(gate, measures[gate.asset]) for gate in gates if gate.asset]


def held_back_by(
    store: Store, gates: Sequence[Gate], *, asset: str, materialized: Mapping[str, str], overruled: Iterable[str] = ()
) -> list[Verdict]:
    """Verdicts that hold a guarded asset back; empty means that it may run (design.md section 4, layer 3).

    Args:
        materialized: asset -> data version of its latest materialisation, as the orchestrator knows it.
        overruled: ids of gates for which a person or a check recorded a failure on this very build.
    Returns:
        One verdict per gate that is missing, failed, inconclusive, overruled or about another build.
    """
    held, refused = [], set(overruled)
    stale_for = cache(lambda name: _stale(store, name, materialized))
    for gate in gates:
        if asset not in gate.holds or gate.asset is None:
            continue
        found = verdict(gate, recorded(store, gate.asset))
        stale = stale_for(gate.asset)
        if stale:
            held.append(Verdict(gate, "inconclusive", found.value, stale))
        elif gate.id in refused:
            held.append(Verdict(gate, "fail", found.value, "a failed verdict was recorded for this build"))
        elif not found.passed:
            held.append(found)
    return held


def _stale(store: Store, asset: str, materialized: Mapping[str, str]) -> str:
    """Why an asset's measures are not about the current build; empty if they are. Follows the lineage upwards."""
    measures = recorded(store, asset)
    if measures is None:
        return f"{asset} is not materialised"
    if materialized.get(asset) != measures.data_version:
        return f"the numbers of {asset} are about another build than its latest materialisation"
    for name, version in measures.upstream.items():
        if materialized.get(name) != version:
            return f"{asset} was built from an earlier {name}"
        if reason := _stale(store, name, materialized):
            return reason
    return ""


def _plain(value: Any) -> Any:
    """JSON data; a number that is not finite becomes null, which judges as inconclusive."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
