"""News of gates: one that begins not to pass, changes its verdict, or passes again.

What belongs here: which latest verdicts are news, and the texts. What does not: finding evaluations
(`defs/observations.py`), judging (`constitution/gates.py`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from lofi_assets.alerts.messages import Kind, Message, asset_link, message, run_link, when
from lofi_assets.alerts.state import AlertState, OpenGate
from lofi_assets.constitution.gates import Gate, Status
from lofi_assets.constitution.verdict_text import remedy
from lofi_assets.wording import counted, shortened

MAX_GATES = 8
"""Gates that one message shows in full."""


@dataclass(frozen=True)
class GateSeen:
    """A gate's latest verdict."""

    gate: Gate
    status: Status
    reading: str
    """Outcome, value and limit as the check says them (`constitution.verdict_text.sentence`), or what a person said."""
    at: float
    """Seconds since 1970."""
    run_id: str = ""
    """The run that judged; empty for a person."""

    @property
    def asset(self) -> str:
        """The judged asset."""
        return str(self.gate.asset)

    @property
    def kind(self) -> Kind:
        """By the table's severity."""
        return "failure" if self.gate.severity == "ERROR" else "warning"


def gate_news(state: AlertState, seen: Iterable[GateSeen]) -> list[Message]:
    """Messages for what changed since people were last told; `state` knows it afterwards.

    Gates of one asset that change together share a message per severity.
    """
    opened: list[GateSeen] = []
    mended: list[tuple[GateSeen, OpenGate]] = []
    for found in seen:
        known = state.gates.get(found.gate.id)
        if found.status == "pass":
            if known:
                mended.append((found, state.gates.pop(found.gate.id)))
        elif known is None or known.status != found.status:
            state.gates[found.gate.id] = OpenGate(status=found.status, since=known.since if known else found.at)
            opened.append(found)
    opened.sort(key=_asset_and_kind)
    mended.sort(key=lambda pair: pair[0].asset)
    return [
        *(_opened(list(group)) for _, group in groupby(opened, key=_asset_and_kind)),
        *(_mended(list(group)) for _, group in groupby(mended, key=lambda pair: pair[0].asset)),
    ]


def _asset_and_kind(found: GateSeen) -> tuple[str, str]:
    return found.asset, found.kind


def _opened(found: Sequence[GateSeen]) -> Message:
    first = found[0]
    title = (
        f"{first.gate.id} {_verb(first)} ({first.asset})"
        if len(found) == 1
        else f"{counted(len(found), 'gate')} of {first.asset} do not pass"
    )
    shown = shortened([_about(one, alone=len(found) == 1) for one in found], most=MAX_GATES)
    todo = dict.fromkeys(remedy(one.gate, one.status) for one in found)
    runs = {one.run_id for one in found if one.run_id and one.gate.blocking}
    return message(
        first.kind,
        title,
        [
            *shown,
            f"What to do: {'; '.join(todo)}.",
            *(f"Run that stopped: {run_link(run)}" for run in runs),
        ],
        link=asset_link(first.asset, checks=True),
    )


def _verb(found: GateSeen) -> str:
    return "fails" if found.status == "fail" else "is inconclusive"


def _about(found: GateSeen, *, alone: bool) -> str:
    head = found.reading if alone else f"{found.gate.id}: {found.reading}"
    return f"{head}\n  Why: {found.gate.why} ({found.gate.article})\n  {_effect(found.gate)}"


def _effect(gate: Gate) -> str:
    stops = ["A run stops before what depends on it."] if gate.blocking or gate.scope == "track" else []
    if gate.holds:
        stops.append(f"It holds back {', '.join(gate.holds)} until it passes.")
    return " ".join(stops) or "Nothing stops for it; a person should look."


def _mended(found: Sequence[tuple[GateSeen, OpenGate]]) -> Message:
    first = found[0][0]
    title = (
        f"{first.gate.id} passes again ({first.asset})"
        if len(found) == 1
        else f"{counted(len(found), 'gate')} of {first.asset} pass again"
    )
    lines = [f"{one.gate.id}: {one.reading}; it had not passed since {when(known.since)}" for one, known in found]
    return message("success", title, shortened(lines, most=MAX_GATES), link=asset_link(first.asset, checks=True))


def first_look(state: AlertState, seen: Sequence[GateSeen], *, failed_runs: int, after: str = "") -> list[Message]:
    """What people are told when alerts begin on an instance that has a past: one message, nothing one by one.

    Args:
        failed_runs: how many runs failed before now; they are not reported.
        after: why alerts begin anew, where they were there before.
    """
    failing = [found for found in seen if found.status != "pass"]
    for found in failing:
        state.gates[found.gate.id] = OpenGate(status=found.status, since=found.at)
    lines = [f"{found.gate.id}: {found.reading}" for found in failing]
    if not failing and not after:
        return []
    past = f"{counted(failed_runs, 'run')} that failed before now {'is' if failed_runs == 1 else 'are'} not reported."
    title = f"alerts begin: {counted(len(failing), 'gate')} do{'es' if len(failing) == 1 else ''} not pass now"
    told = "From now on you hear of changes only." if failing else ""
    lines = [after, *shortened(lines, most=12), past if failed_runs else "", told]
    return [message("info", title, lines, link=asset_link("").removesuffix("/"))]
