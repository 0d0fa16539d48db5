"""`lofi demo`: the whole lineage in this process, on a Dagster instance that the UI shows too.

The release is a run of its own, and only where no gate holds it: what is held back as it should be is no red run.
"""

import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import dagster as dg
from rich.console import Console
from rich.markup import escape

from lofi_assets.constitution.gates import Verdict, load_gates
from lofi_assets.constitution.verdict_table import gates_table
from lofi_assets.constitution.verdicts import recorded, verdicts
from lofi_assets.definitions import build_defs
from lofi_assets.defs.dagster_home import dagster_home
from lofi_assets.defs.gates import held_back
from lofi_assets.defs.resources import Platform
from lofi_assets.demo.tables import assets_table, rejects_table
from lofi_assets.evaluation.reports.pages import comparison_path
from lofi_assets.html.links import page_url
from lofi_assets.store import Store
from lofi_assets.tracks.review import queue
from lofi_assets.wording import counted

RELEASE = "hub_release"
PROCESS_TAG = "lofi/process"
"""Which process a demo run is: by it the next demo sees that an earlier one was killed."""


@dg.logger
def quiet_console(context: dg.InitLoggerContext) -> logging.Logger:
    """What assets say of themselves, without Dagster's own events: failures are printed once, at the end."""
    logger = logging.Logger("lofi demo")
    handler = logging.StreamHandler()
    handler.addFilter(lambda record: not getattr(record, "dagster_meta", {}).get("dagster_event"))
    handler.setFormatter(_Plain())
    logger.addHandler(handler)
    return logger


class _Plain(logging.Formatter):
    """The message as it was logged, without run id and step."""

    def format(self, record: logging.LogRecord) -> str:
        return str(getattr(record, "dagster_meta", {}).get("orig_message") or record.getMessage())


def process_mark(process: int) -> str:
    """`id:start time`, which no later process shares; the id alone where the system has no /proc; "" if it is gone."""
    try:
        os.kill(process, 0)
        status = Path(f"/proc/{process}/stat")
        started = status.read_bytes().rpartition(b")")[2].split()[19].decode() if status.is_file() else ""
    except (ProcessLookupError, FileNotFoundError):
        return ""
    except PermissionError:
        started = ""
    return f"{process}:{started}"


def fail_killed_runs(instance: dg.DagsterInstance, *, alone: bool = True) -> list[str]:
    """Mark demo runs whose process was killed as failed and give back their pool slots; returns their ids.

    A killed process cannot report its end, and the next run would wait for its slot in the pool `gpu` for ever.

    Args:
        alone: whether another demo may not go on meanwhile.
    Raises:
        click.ClickException: another demo is still running on this instance.
    """
    alive = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING])
    dead = []
    for run in instance.get_runs(filters=alive):
        mark = run.tags.get(PROCESS_TAG)
        if mark is None:
            continue
        process = mark.partition(":")[0]
        if process_mark(int(process)) == mark:
            if not alone:
                continue
            raise click.ClickException(f"another demo runs as process {process}; wait for it, or end it")
        instance.report_run_failed(run, message=f"its process {process} was killed")
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
        dead.append(run.run_id)
    return dead


def instance_of_home() -> dg.DagsterInstance:
    """The Dagster instance of `DAGSTER_HOME` (`defs.dagster_home.dagster_home`)."""
    return dg.DagsterInstance.get()


def run_demo(console: Console, *, started: float) -> int:
    """Materialise everything on the corpus that lies there, print what came of it and what to do next.

    Args:
        started: of the monotonic clock, when the demo began.
    Returns:
        0 if every step but a held-back release succeeded, else 1.
    """
    dagster_home()
    store = Platform().store
    definitions = build_defs(loggers={"console": quiet_console})
    with instance_of_home() as instance:
        fail_killed_runs(instance)
        failures, held = materialise(definitions, instance, store)
    assets = [key.to_user_string() for key in _assets(definitions)]
    for table in (rejects_table(store), gates_table(verdicts(store, load_gates())), assets_table(store, assets)):
        console.print(table)
    for step, reason in failures.items():
        console.print(f"[red]{step} failed:[/] {escape(reason)}")
    _print_release(console, store, held, failures)
    done = sum(measures.counts.get("recomputed", 0) for asset in assets if (measures := recorded(store, asset)))
    summary = "Nothing was recomputed" if done == 0 else f"{done} pieces of work were computed"
    console.print(f"{summary}; {time.monotonic() - started:.0f} s.", highlight=False)
    console.print("\n".join(what_next(store)), highlight=False, soft_wrap=True, markup=False)
    return 1 if failures else 0


def materialise(
    definitions: dg.Definitions, instance: dg.DagsterInstance, store: Store
) -> tuple[dict[str, str], list[Verdict]]:
    """Everything but the release, and then the release if every gate lets it.

    Returns:
        Failed steps with their reasons, and the verdicts that hold the release back.
    """
    release = dg.AssetKey(RELEASE)
    failures = run_assets(definitions, instance, [key for key in _assets(definitions) if key != release])
    held = held_back(instance, store, RELEASE)
    if not held and not failures:
        failures = run_assets(definitions, instance, [release])
    return failures, held


def _assets(definitions: dg.Definitions) -> list[dg.AssetKey]:
    return list(definitions.resolve_asset_graph().toposorted_asset_keys)


def run_assets(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    assets: Sequence[dg.AssetKey],
    *,
    config: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, str]:
    """Materialise assets in this process, on the instance that the UI shows; failed steps with their reasons.

    Args:
        config: settings of an asset for this run, by its key.
    """
    result = definitions.resolve_job_def("everything").execute_in_process(
        instance=instance,
        asset_selection=assets,
        raise_on_error=False,
        run_config={
            "loggers": {"console": {}},
            "ops": {asset: {"config": dict(settings)} for asset, settings in (config or {}).items()},
        },
        tags={PROCESS_TAG: process_mark(os.getpid())},
    )
    failed = {str(event.step_key): event.step_failure_data for event in result.all_events if event.is_step_failure}
    return {step: _reason(data) for step, data in failed.items()}


def _reason(data: Any) -> str:
    """The sentence of an explained failure, else what raised it."""
    if data.user_failure_data and data.user_failure_data.description:
        return str(data.user_failure_data.description)
    return (data.error.cause or data.error).message.strip() if data.error else "no reason given"


def what_next(store: Store) -> list[str]:
    """What a person can do now, a line each."""
    page = comparison_path(store)
    waiting = sum(bool(item.reasons) for item in queue(store))
    lines = [
        "",
        "What next:",
        "  make dev            the Dagster UI on http://127.0.0.1:3000, and beside it the pages:",
    ]
    if page.is_file():
        lines.append(f"                      hear the base, each step and real tracks on {page_url(store, page)}")
    lines.append(f"  lofi review list    {waiting} tracks wait for a person to hear them and confirm their tags")
    lines.append(f'  your own tracks     go into {store.raw}; README, "A curator\'s day", has the steps')
    return lines


def _print_release(console: Console, store: Store, held: Sequence[Verdict], failures: Mapping[str, str]) -> None:
    if held:
        console.print(f"[bold]{RELEASE} is held back by {counted(len(held), 'gate')}:[/]")
        for found in held:
            console.print(f"  {found.gate.id}: {found.status}, {found.text}", highlight=False, soft_wrap=True)
    elif not failures:
        console.print(f"Released to {store.release / 'published'}")
