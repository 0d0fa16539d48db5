"""Why the release is held, on its own page, without a red run.

The check `ready_to_release`, and what the page of `hub_release` says of the verdicts that hold it. Nothing here opens a
release: `gates.require_gates` asks the gates again.
"""

from collections.abc import Sequence

import dagster as dg

from lofi_assets.constitution.gates import Verdict
from lofi_assets.constitution.verdict_text import for_one_reason, remedy, sentence
from lofi_assets.defs.reporting import NEEDS, SUMMARY, table
from lofi_assets.html.links import docs_url
from lofi_assets.wording import counted, named

HUB_RELEASE = dg.AssetKey("hub_release")
READY = "ready_to_release"
READ_BACK = "reads_back"
READY_DESCRIPTION = (
    "Whether every gate that holds the release has passed for the build it would publish; each that has not, with what "
    f"to do. It only informs: materialising hub_release asks [every gate]({docs_url('gates.md')}) again."
)


def readiness(held: Sequence[Verdict]) -> dg.AssetCheckResult:
    """The check's result over the gates that hold the release now."""
    return dg.AssetCheckResult(
        asset_key=HUB_RELEASE,
        check_name=READY,
        passed=not held,
        severity=dg.AssetCheckSeverity.WARN,
        description=_text(held),
        metadata=_metadata(held),
    )


def keep_current(instance: dg.DagsterInstance, held: Sequence[Verdict]) -> None:
    """Put what holds the release now on the page of `hub_release`, unless it says so already."""
    latest = instance.get_latest_asset_check_evaluation_record(dg.AssetCheckKey(HUB_RELEASE, READY))
    known = latest.evaluation if latest else None
    if isinstance(known, dg.AssetCheckEvaluation) and known.description == _text(held):
        return
    result = readiness(held)
    instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(
            asset_key=HUB_RELEASE,
            check_name=READY,
            passed=result.passed,
            severity=result.severity,
            description=result.description,
            metadata=dict(result.metadata or {}),
        )
    )
    instance.report_runless_asset_event(dg.AssetObservation(HUB_RELEASE, metadata=_metadata(held)))


def _metadata(held: Sequence[Verdict]) -> dict[str, dg.MetadataValue]:
    shown: dict[str, dg.MetadataValue] = {SUMMARY: dg.MetadataValue.text(_summary(held))}
    if held:
        shown[NEEDS] = table(
            [
                {"gate": ", ".join(f.gate.id for f in found), "what it found": _found(found), "what to do": _do(found)}
                for found in for_one_reason(held, of_one_asset=True)
            ]
        )
    return shown | {"gates": dg.MetadataValue.int(len(held))}


def _summary(held: Sequence[Verdict]) -> str:
    if not held:
        return "Ready: no gate holds the release; materialise hub_release to publish it."
    by = named([found.gate.id for found in held], most=6)
    return f"Held by {counted(len(held), 'gate')}: {by}. When all have passed, materialise hub_release."


def _text(held: Sequence[Verdict]) -> str:
    lines = [
        f"- {', '.join(map(_linked, found))}: {_found(found)}. **Do:** {_do(found)}."
        for found in for_one_reason(held, of_one_asset=True)
    ]
    return "\n".join([_summary(held), "", *lines]).strip()


def _linked(found: Verdict) -> str:
    return f"[{found.gate.id}]({docs_url('gates.md', found.gate.id)})"


def _found(together: Sequence[Verdict]) -> str:
    return sentence(together[0]) if len(together) == 1 else f"Inconclusive: {together[0].note}"


def _do(together: Sequence[Verdict]) -> str:
    return "; ".join(dict.fromkeys(remedy(found.gate, found.status) for found in together))
