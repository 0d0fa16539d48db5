"""`lofi demo`: the job `everything` in this process, on a Dagster instance that the UI shows too."""

import logging
import os
import time
from pathlib import Path

import click
import dagster as dg
from rich.console import Console

from lofi_assets.constitution import Verdict, load_gates
from lofi_assets.dagster_home import dagster_home
from lofi_assets.definitions import build_defs
from lofi_assets.defs.gates import held_back
from lofi_assets.defs.resources import Platform
from lofi_assets.store import Store
from lofi_assets.tables import assets_table, gates_table, rejects_table
from lofi_assets.verdicts import recorded, verdicts

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
        started = status.read_text().rpartition(")")[2].split()[19] if status.is_file() else ""
    except (ProcessLookupError, FileNotFoundError):
        return ""
    except PermissionError:
        started = ""
    return f"{process}:{started}"


def bury_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark demo runs whose process was killed as failed and give back their pool slots; returns their ids.

    A killed process cannot report its end, and the next run would wait for its slot in the pool `gpu` for ever.

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
            raise click.ClickException(f"another demo runs as process {process}; wait for it, or end it")
        instance.report_run_failed(run, message=f"its process {process} was killed")
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
        dead.append(run.run_id)
    return dead


def run_demo(console: Console) -> int:
    """Write the demo corpus, materialise everything, print what came of it.

    Returns:
        0 if every step but a held-back release succeeded, else 1.
    """
    from lofi_assets.demo_corpus.corpus import write_demo_corpus

    started = time.monotonic()
    dagster_home()
    store = Platform().store
    write_demo_corpus(store.root)
    definitions = build_defs(loggers={"console": quiet_console})
    with dg.DagsterInstance.get() as instance:
        bury_dead_runs(instance)
        job = definitions.resolve_job_def("everything")
        result = job.execute_in_process(
            instance=instance,
            raise_on_error=False,
            run_config={"loggers": {"console": {}}},
            tags={PROCESS_TAG: process_mark(os.getpid())},
        )
        held = held_back(instance, store, "hub_release")
    assets = [key.to_user_string() for key in definitions.resolve_asset_graph().toposorted_asset_keys]
    for table in (rejects_table(store), gates_table(verdicts(store, load_gates())), assets_table(store, assets)):
        console.print(table)
    _print_release(console, store, held)
    failures = _unexpected_failures(result, held)
    for step, reason in failures.items():
        console.print(f"[red]{step} failed:[/] {reason}")
    done = sum(measures.counts.get("recomputed", 0) for asset in assets if (measures := recorded(store, asset)))
    summary = "Nothing was recomputed" if done == 0 else f"{done} pieces of work were computed"
    console.print(f"{summary}; {time.monotonic() - started:.0f} s. The UI: make dev", highlight=False)
    return 1 if failures else 0


def _print_release(console: Console, store: Store, held: list[Verdict]) -> None:
    if not held:
        console.print(f"Released to {store.release / 'published'}")
        return
    console.print(f"[bold]hub_release is held back by {len(held)} gates:[/]")
    for found in held:
        console.print(f"  {found.gate.id}: {found.status}, {found.text}", highlight=False, soft_wrap=True)


def _unexpected_failures(result: dg.ExecuteInProcessResult, held: list[Verdict]) -> dict[str, str]:
    failed = {event.step_key: event.step_failure_data for event in result.all_events if event.is_step_failure}
    if held:
        failed.pop("hub_release", None)
    return {str(step): data.error.message if data.error else "no reason given" for step, data in failed.items()}
