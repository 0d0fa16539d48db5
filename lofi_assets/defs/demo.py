"""`lofi demo`: the job `everything` in this process, on a Dagster instance that the UI shows too."""

import os
import shutil
import time
from pathlib import Path

import dagster as dg
from rich.console import Console

from lofi_assets.constitution import CONFIG_DIR, load_gates
from lofi_assets.definitions import build_defs
from lofi_assets.defs.gates import held_back
from lofi_assets.defs.resources import Platform
from lofi_assets.tables import assets_table, gates_table, rejects_table
from lofi_assets.verdicts import recorded, verdicts


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
    platform = Platform()
    store = platform.store
    write_demo_corpus(store.root)
    job = build_defs().resolve_job_def("everything")
    with dg.DagsterInstance.get() as instance:
        result = job.execute_in_process(
            instance=instance,
            raise_on_error=False,
            run_config={"loggers": {"console": {"config": {"log_level": "WARNING"}}}},
        )
        held = held_back(instance, store, "hub_release")
    failed = sorted({event.step_key for event in result.all_events if event.is_step_failure and event.step_key})
    assets = [key.to_user_string() for key in build_defs().resolve_asset_graph().toposorted_asset_keys]
    console.print(rejects_table(store))
    console.print(gates_table(verdicts(store, load_gates())))
    console.print(assets_table(store, assets))
    if held:
        console.print(f"[bold]hub_release is held back by {len(held)} gates:[/]")
        for found in held:
            console.print(f"  {found.gate.id}: {found.status}, {found.text}", highlight=False)
    else:
        console.print(f"released to {store.release / 'published'}")
    unexpected = [step for step in failed if not (step == "hub_release" and held)]
    if unexpected:
        console.print(f"[red]failed:[/] {', '.join(unexpected)}")
    again = sum(dict(measures.counts).get("recomputed", 0) for asset in assets if (measures := recorded(store, asset)))
    summary = "nothing was recomputed" if again == 0 else f"{again} pieces of work were computed"
    console.print(f"{summary}, {time.monotonic() - started:.0f} s")
    return 1 if unexpected else 0
