"""News of runs: failed, working again, or refused by a guard, which is no failure.

A run that a blocking gate stopped is not told here: the gate's own message says it. Runs are found by
`defs/observations.py`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from lofi_assets.alerts.messages import Message, asset_link, message, run_link, when
from lofi_assets.alerts.state import AlertState, Held, OpenFailure
from lofi_assets.wording import counted, named, shortened

MAX_RUNS = 5
"""Runs that one message links."""
MAX_GATES = 10
"""Gates that the message of a held asset shows."""
MAX_OPEN = 100
"""Failures that are watched until they work again; the oldest are forgotten beyond that."""
ERROR_CHARACTERS = 400
"""Of one step's error; the whole of it is on the run's page."""


@dataclass(frozen=True)
class FailedStep:
    """A step that raised."""

    step: str
    error: str
    """Its message."""
    asset: str = ""
    """The asset it makes; empty for checks."""


@dataclass(frozen=True)
class FailedRun:
    """A run that ended in failure, after its last retry."""

    run_id: str
    job: str
    """Empty for a run of chosen assets."""
    selection: tuple[str, ...]
    """Its assets; empty: all of the job's."""
    at: float
    """When it ended, seconds since 1970."""
    steps: tuple[FailedStep, ...] = ()
    """What failed, without steps that a blocking gate stopped or a guard refused."""
    held: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Asset that a guard refused -> id of each gate that holds it -> what it says."""
    stopped_by_gates: bool = False
    """A blocking gate did not pass."""
    reason: str = ""
    """What the run said at its end; of interest if no step failed."""

    @property
    def is_broken(self) -> bool:
        """Whether it failed for another reason than gates."""
        return bool(self.steps) or not (self.held or self.stopped_by_gates)

    @property
    def assets(self) -> tuple[str, ...]:
        """Assets whose step failed."""
        return tuple(sorted({step.asset for step in self.steps if step.asset}))

    @property
    def name(self) -> str:
        """For people: the job, or the chosen assets."""
        return f"job {self.job}" if self.job else f"run of {named(self.selection, most=3)}"

    @property
    def subject(self) -> str:
        """The same for runs that failed at the same thing."""
        steps = sorted(step.step for step in self.steps)
        return "|".join((self.job, *(steps or self.selection)))


def run_news(state: AlertState, failed: Iterable[FailedRun]) -> list[Message]:
    """Messages for runs that failed; runs that failed at the same thing since the last look share one."""
    news: list[Message] = []
    together: dict[str, list[FailedRun]] = {}
    for run in failed:
        news += [_held(run, asset, gates) for asset, gates in run.held.items() if _is_news(state, run, asset, gates)]
        if run.is_broken:
            together.setdefault(run.subject, []).append(run)
    for subject, runs in together.items():
        known = state.failures.get(subject)
        news.append(_failed(runs, known))
        state.failures[subject] = OpenFailure(
            job=runs[0].job,
            selection=runs[0].selection,
            assets=runs[0].assets,
            runs=len(runs) + (known.runs if known else 0),
            since=known.since if known else runs[0].at,
            latest=runs[-1].at,
        )
    for subject in sorted(state.failures, key=lambda key: state.failures[key].latest)[:-MAX_OPEN]:
        del state.failures[subject]
    return news


def _is_news(state: AlertState, run: FailedRun, asset: str, gates: Mapping[str, str]) -> bool:
    """Whether other gates hold the asset than people were told; `state` knows these afterwards."""
    holding, known = tuple(sorted(gates)), state.held.get(asset)
    state.held[asset] = Held(gates=holding, since=run.at)
    return known is None or known.gates != holding


def _held(run: FailedRun, asset: str, gates: Mapping[str, str]) -> Message:
    lines = [
        "No fault: the guard refuses until every gate has passed for the very build it would use.",
        *shortened([f"- {gate}: {text}" for gate, text in gates.items()], most=MAX_GATES),
        f"What to do: mend what the gates name, then materialise {asset} again.",
        f"Run: {run_link(run.run_id)}",
    ]
    holding = f"{counted(len(gates), 'gate')}"
    return message("info", f"{asset} is held by {holding}", lines, link=asset_link(asset))


def _failed(runs: Sequence[FailedRun], known: OpenFailure | None) -> Message:
    first, steps = runs[0], [step.step for step in runs[0].steps]
    where = f" at {named(steps, most=3)}" if steps and steps != list(first.selection) else ""
    times = f" ({len(runs)} runs)" if len(runs) > 1 else ""
    again = " again" if known else ""
    errors = dict.fromkeys(line for run in runs for line in _errors(run))
    lines = [
        *shortened(list(errors), most=MAX_RUNS),
        f"It failed first {when(known.since)}; {counted(known.runs, 'run')} before this." if known else "",
        *(f"Run: {run_link(run.run_id)}" for run in runs[-2 : -MAX_RUNS - 1 : -1]),
        f"and {counted(len(runs) - MAX_RUNS, 'more run')}" if len(runs) > MAX_RUNS else "",
        "What to do: mend the cause, then choose Re-execute, from failure, on the run's page.",
    ]
    return message("failure", f"{first.name} failed{again}{where}{times}", lines, link=run_link(runs[-1].run_id))


def _errors(run: FailedRun) -> list[str]:
    if not run.steps:
        return [_short(run.reason or "no step failed; the run ended without a reason")]
    return [f"{step.step}: {_short(step.error)}" for step in run.steps]


def _short(text: str) -> str:
    text = text.strip()
    return text if len(text) <= ERROR_CHARACTERS else text[:ERROR_CHARACTERS].rstrip() + " …"


def mended_news(state: AlertState, mended: Mapping[str, str], released: Mapping[str, str]) -> list[Message]:
    """Messages for what works again; `state` forgets it.

    Args:
        mended: subject of an open failure -> run that did what had failed.
        released: asset that was held -> run that materialised it.
    """
    news = []
    for subject, run_id in mended.items():
        was = state.failures.pop(subject)
        what = ", ".join(was.assets) or (f"job {was.job}" if was.job else named(was.selection, most=3))
        lines = [f"It had failed since {when(was.since)}, in {counted(was.runs, 'run')}."]
        news.append(message("success", f"{what} works again", lines, link=run_link(run_id)))
    for asset, run_id in released.items():
        held = state.held.pop(asset)
        lines = [f"{counted(len(held.gates), 'gate')} held it: {', '.join(held.gates)}.", f"Run: {run_link(run_id)}"]
        news.append(
            message("success", f"{asset} is held no longer and was materialised", lines, link=asset_link(asset))
        )
    return news
