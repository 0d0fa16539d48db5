"""`lofi demo`: the job `everything` in this process, on a Dagster instance that the UI shows too."""

import logging
import os
import shutil
import time
from pathlib import Path

import dagster as dg
from rich.console import Console

from lofi_assets.constitution import CONFIG_DIR, Verdict, load_gates
from lofi_assets.definitions import build_defs
from lofi_assets.defs.gates import held_back
from lofi_assets.defs.resources import Platform
from lofi_assets.store import Store
from lofi_assets.tables import assets_table, gates_table, rejects_table
from lofi_assets.verdicts import recorded, verdicts


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


def dagster_home() -> Path:
    """`DAGSTER_HOME`, else `.dagster/` of the checkout with the template's settings."""
    home = Path(os.environ.setdefault("DAGSTER_HOME", str(CONFIG_DIR.parent / ".dagster")))
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "dagster.yaml").is_file():
        shutil.copyfile(CONFIG_DIR.parent / "dagster.yaml", home / "dagster.yaml")
    return home


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
        job = definitions.resolve_job_def("everything")
        result = job.execute_in_process(
            instance=instance, raise_on_error=False, run_config={"loggers": {"console": {}}}
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
