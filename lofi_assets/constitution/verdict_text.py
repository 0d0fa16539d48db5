"""What a verdict says to people: the outcome, the number, then what to do. The command line's table is in
`verdict_table.py`.
"""

from collections.abc import Mapping, Sequence

from lofi_assets.constitution.gates import NOT_MEASURED, Gate, Status, Verdict, shown
from lofi_assets.wording import counted, named

OUTCOMES = {"pass": "Pass", "fail": "Fail", "inconclusive": "Inconclusive"}
COMPARISONS = {"<": "below ", "<=": "at most ", ">": "above ", ">=": "at least ", "==": "", "!=": "other than "}

REMEDIES = {
    "card.approved": "read the card on the page of model_card, then approve it with lofi approve-card",
    "checkpoint.revoked": "materialise licensed_sources and what follows, so that training starts without these tracks",
    "checkpoint.dataset": "materialise feature_cache and lora_checkpoints: train on the current dataset",
    "dataset.unlicensed": "lofi sources verify says what the records lack; then materialise licensed_sources",
}
"""What only a person can do, by gate."""

BY_PEOPLE = ("human_evaluation",)
"""Assets that lack something which no run can measure."""

NEXT_STEP = {
    "licensed_sources": "`lofi sources list` says what each record and file lacks",
    "style_taxonomy": "mend the file of config/styles/ that the page of style_taxonomy names",
    "processed_tracks": "`lofi inspect FILE` measures a file against every rule; processed_tracks lists the rejects",
    "prompts": "`lofi review list` names the tracks and what to look at; then materialise prompts",
    "dataset_manifest": "`lofi dataset verify` names the files; then materialise dataset_manifest",
    "feature_cache": "materialise feature_cache again",
    "lora_checkpoints": "read the training report on the page of lora_checkpoints, mend the cause and train again",
    "generated_samples": "listen to the samples on the page of generated_samples; materialise it again",
    "quality_metrics": "compare the checkpoints on the page of quality_metrics; train longer or mend the data",
    "human_evaluation": "let people listen (docs/listening.md); `lofi listen status` says how far the test is",
    "merged_model": "materialise merged_model again; if it fails again, look at the best checkpoint",
    "quantized_tiers": "see which tier and component the page of quantized_tiers names; materialise it again",
    "onnx_artifacts": "materialise onnx_artifacts again",
    "model_card": "read the card on the page of model_card, then approve it with lofi approve-card",
}
"""Where a person begins with a failed gate, by asset."""


def sentence(found: Verdict) -> str:
    """Outcome and number of an asset's gate: `Fail: fad is 9.12, must be below 5`."""
    gate, asked = found.gate, f"must be {COMPARISONS[found.gate.op]}{shown(found.gate.limit, found.gate)}"
    if found.value is None:
        why = "" if found.note in ("", NOT_MEASURED) else f": {found.note}"
        return f"Not measured{why} ({gate.measure} {asked})"
    value = shown(found.value, gate)
    if found.status == "inconclusive":
        return f"Inconclusive: {gate.measure} is {value}, {found.note} ({asked})"
    return f"{OUTCOMES[found.status]}: {gate.measure} is {value}, {asked}" + (f" ({found.note})" if found.note else "")


def for_one_reason(held: Sequence[Verdict], *, of_one_asset: bool = False) -> list[list[Verdict]]:
    """Gates that hold for the same reason, such as that what they judge was built from something earlier.

    Args:
        of_one_asset: those of each asset by themselves.
    """
    found: dict[tuple[str, str], list[Verdict]] = {}
    for verdict in held:
        why = verdict.note if verdict.status == "inconclusive" else verdict.gate.id
        found.setdefault((str(verdict.gate.asset) if of_one_asset else "", why), []).append(verdict)
    return list(found.values())


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


def remedy(gate: Gate, status: Status) -> str:
    """What a person can do about a gate of an asset that did not pass."""
    if gate.id in REMEDIES:
        return REMEDIES[gate.id]
    if status == "inconclusive" and gate.asset not in BY_PEOPLE:
        measured = f", measured with {gate.encoder} as the production profile does" if gate.encoder else ""
        return f"materialise {gate.asset}{measured}"
    return NEXT_STEP[str(gate.asset)]


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
