"""What each asset measured for its gates, and what the gates say of it.

What belongs here: the verdicts over the numbers in an asset's evidence, and the question that a guard asks: what holds
this asset back? What does not: the rules of judging (`gates.py`), the evidence (`evidence.py`), whether it holds
(`chain.py`).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

from lofi_assets.constitution import evidence
from lofi_assets.constitution.chain import Chain
from lofi_assets.constitution.evidence import Evidence, TrackList
from lofi_assets.constitution.gates import Gate, Verdict, judge
from lofi_assets.store import Store
from lofi_assets.wording import counted


@dataclass(frozen=True)
class Measures:
    """The numbers an asset wrote for its gates: the part of its evidence that is judged."""

    asset: str
    data_version: str
    upstream: Mapping[str, str] = field(default_factory=dict)
    """Data versions of the assets it was built from; "" for one without evidence."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """Measure -> value, or -> {"value": ..., "encoder": ..., "trained": ..., "note": ...}."""
    tracks: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Track-scope gate id -> {"accepted": n, "violating": n, "rejected": n}."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """What people want to know first: how many, and how many were recomputed."""
    named: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    """Track-scope gate id -> {"rejected": first ids, "violating": first ids}; a gate without any is left out."""


def recorded(store: Store, asset: str) -> Measures | None:
    """An asset's latest measures; None before its first materialisation.

    Raises:
        StoreError: the evidence is gone, broken or was changed.
    """
    sha256 = evidence.current_sha256(store, asset)
    if not sha256:
        return None
    found = evidence.read(store, asset, sha256)
    return measures_of(found, evidence.read_list(store, found))


def measures_of(found: Evidence, tracked: TrackList | None = None) -> Measures:
    """The part of an asset's evidence that is judged.

    Args:
        tracked: what the evidence says of single tracks; None for somebody who has the document alone.
    """
    tracked = tracked or TrackList()
    return Measures(
        asset=found.asset,
        data_version=found.data_version,
        upstream={name: link.data_version for name, link in found.upstream.items()},
        values={
            name: {**value, "note": tracked.notes[name]} if name in tracked.notes else value
            for name, value in found.values.items()
        },
        tracks=found.tracks,
        counts=found.counts,
        named=tracked.named,
    )


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


class TrackRules(TypedDict):
    """Fields of an `Outcome` about the rules for single tracks."""

    tracks: dict[str, dict[str, int]]
    named: dict[str, dict[str, list[str]]]


def track_rules(
    gates: Sequence[Gate],
    *,
    accepted: Sequence[tuple[str, Mapping[str, Any]]],
    rejected: Sequence[tuple[str, str]],
) -> TrackRules:
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
    if counts is None or {"accepted", "violating", "rejected"} - counts.keys():
        return Verdict(gate, "inconclusive", None, "not measured")
    note = f"{counted(counts['accepted'], 'track')} accepted, {counts['rejected']} rejected by this rule"
    return Verdict(gate, "fail" if counts["violating"] else "pass", counts["violating"], note, counted=True)


def verdicts(store: Store, gates: Sequence[Gate]) -> list[Verdict]:
    """Latest verdict of every gate that judges an asset, in the order of the table."""
    measures = {gate.asset: recorded(store, gate.asset) for gate in gates if gate.asset}
    return [verdict(gate, measures[gate.asset]) for gate in gates if gate.asset]


def held_back_by(gates: Sequence[Gate], *, asset: str, chain: Chain, overruled: Iterable[str] = ()) -> list[Verdict]:
    """Verdicts that hold a guarded asset back; empty means that it may run (design.md section 4, layer 3).

    Args:
        chain: says whether the numbers of an asset can be believed.
        overruled: ids of gates for which a person or a check recorded a failure on this very build.
    Returns:
        One verdict per gate that is missing, failed, inconclusive, overruled, about another build, or judged on
        evidence that does not hold.
    """
    held, refused = [], set(overruled)
    for gate in gates:
        if asset not in gate.holds or gate.asset is None:
            continue
        if reason := chain.reason(gate.asset):
            held.append(Verdict(gate, "inconclusive", None, reason))
            continue
        found = verdict(gate, measures_of(chain.held[gate.asset], chain.lists[gate.asset]))
        if gate.id in refused:
            held.append(Verdict(gate, "fail", found.value, "a failed verdict was recorded for this build"))
        elif not found.passed:
            held.append(found)
    return held
