"""What a verdict says to people: the outcome, the number, then what to do.

What belongs here: sentences over `Verdict` and the counts of track rules. What does not: judging (`constitution.py`),
where the sentences are shown (`defs/`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from lofi_assets.constitution import Gate, Verdict
from lofi_assets.wording import counted, named

OUTCOMES = {"pass": "Pass", "fail": "Fail", "inconclusive": "Inconclusive"}
COMPARISONS = {"<": "below ", "<=": "at most ", ">": "above ", ">=": "at least ", "==": "", "!=": "other than "}

REMEDIES = {
    "card.approved": "read the card on the page of model_card, then approve it with lofi approve-card",
    "human.p_value": "let people take the listening test on the page of human_evaluation",
    "human.equivalence": "let people take the listening test on the page of human_evaluation",
    "checkpoint.revoked": "materialise licensed_sources and what follows, so that training starts without these tracks",
    "checkpoint.dataset": "materialise feature_cache and lora_checkpoints: train on the current dataset",
    "dataset.unlicensed": "lofi sources verify says what the records lack; then materialise licensed_sources",
}
"""What only a person can do, by gate."""


def sentence(found: Verdict) -> str:
    """Outcome and number of an asset's gate: `Fail: fad is 9.12, must be below 5`."""
    gate, asked = found.gate, f"must be {COMPARISONS[found.gate.op]}{_plain(found.gate.limit)}"
    if found.value is None:
        why = "" if found.note in ("", "not measured") else f": {found.note}"
        return f"Not measured{why} ({gate.measure} {asked})"
    shown = _plain(found.value, apart_from=found.gate.limit)
    if found.status == "inconclusive":
        return f"Inconclusive: {gate.measure} is {shown}, {found.note} ({asked})"
    return f"{OUTCOMES[found.status]}: {gate.measure} is {shown}, {asked}" + (f" ({found.note})" if found.note else "")


def track_sentence(gate: Gate, counts: Mapping[str, int], tracks: Mapping[str, Sequence[str]]) -> str:
    """Outcome and numbers of a rule for tracks: `Pass: 1 rejected, 48 accepted. In quarantine: too_hot_master_01.`

    Args:
        counts: `rejected`, `accepted` and `violating`: accepted tracks that break the rule.
        tracks: ids of the first `rejected` and `violating` ones.
    """
    numbers = f"{counts['rejected']} rejected, {counts['accepted']} accepted"
    set_aside = _listed("In quarantine", tracks.get("rejected", ()), counts["rejected"])
    if not counts["violating"]:
        return f"Pass: {numbers}.{set_aside}"
    broken = counted(counts["violating"], "accepted track breaks", "accepted tracks break")
    let_in = _listed("Let in", tracks.get("violating", ()), counts["violating"])
    return f"Fail: {broken} the rule {gate.rule} and should be in quarantine; {numbers}.{let_in}{set_aside}"


def remedy(found: Verdict) -> str:
    """What a person can do about a gate that did not pass."""
    gate = found.gate
    if gate.id in REMEDIES:
        return REMEDIES[gate.id]
    if found.status == "inconclusive":
        measured = f", measured with {gate.encoder} as the production profile does" if gate.encoder else ""
        return f"materialise {gate.asset}{measured}"
    return f"the page of {gate.asset} says what to mend"


def effect(gate: Gate) -> str:
    """What follows when the gate does not pass."""
    if gate.scope == "track":
        return (
            "Quarantine: a track that breaks this rule is set aside and the others go on. Only one that was accepted "
            "all the same would block."
        )
    stops = "What follows in the run is stopped." if gate.blocking else "A warning; the run goes on."
    if not gate.blocking and gate.severity == "ERROR":
        stops = "The run goes on."
    return f"{stops} Holds back {', '.join(gate.holds)}." if gate.holds else stops


def _listed(head: str, names: Sequence[str], number: int) -> str:
    if not names:
        return ""
    return f" {head}: {named([*names, *[''] * (number - len(names))])}."


def _plain(value: Any, *, apart_from: Any = None) -> str:
    """A number with 4 digits, or all of them where rounding would hide on which side of a limit it is."""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, float):
        return str(value)
    shown = f"{value:.4g}"
    return str(value) if float(shown) == apart_from != value else shown
