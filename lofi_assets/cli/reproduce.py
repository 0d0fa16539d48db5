"""`lofi reproduce`: a checkpoint made again from what it recorded, and compared bit for bit (constitution II)."""

import shutil
import sys
from pathlib import Path

import click

from lofi_assets.errors import explanation
from lofi_assets.store import Store, data_root
from lofi_assets.training.checkpoints.files import checkpoint_id
from lofi_assets.training.checkpoints.provenance import provenance
from lofi_assets.training.checkpoints.runs import log_path
from lofi_assets.training.reproduction.comparison import (
    check_inputs,
    compare,
    configuration_changes,
    find_checkpoint,
    first_logged_difference,
    provenance_changes,
    read_recorded,
)
from lofi_assets.training.reproduction.rerun import Interrupted, Rerun, plan_rerun, run_again

IDENTICAL, DIFFERENT, IMPOSSIBLE, INTERRUPTED = 0, 1, 2, 75


@click.command()
@click.argument("checkpoint")
@click.option("--base", type=click.Path(path_type=Path), help="The base model, if it is no longer where it was.")
@click.option("--features", type=click.Path(path_type=Path), help="The feature cache, if it is no longer where it was.")
@click.option("--device", help="Another device than the recorded one; the bits will hardly be the same.")
def reproduce(checkpoint: str, base: Path | None, features: Path | None, device: str | None) -> None:
    """Re-run CHECKPOINT, an id or a folder, from its recorded configuration, and compare the adapters.

    The run takes a folder below data/cache/reproduce, goes on there after an interruption, and stops at the first
    checkpoint that differs. The original is only read. Exits 0 for the same bits, 1 for other ones, 2 when it cannot
    be re-run, 75 when interrupted.
    """
    store = Store(data_root())
    try:
        recorded = read_recorded(find_checkpoint(store.checkpoints, checkpoint))
        rerun = plan_rerun(recorded, store.cache / "reproduce", base=base, features=features, device=device)
        check_inputs(rerun.run)
        changes = _changes(rerun)
        _introduce(rerun, changes)
        same = _verdict(rerun, run_again(rerun, say=click.echo), changes)
    except Interrupted as error:
        click.echo(str(error), err=True)
        sys.exit(INTERRUPTED)
    except Exception as error:
        # Exit status 1, which `main.Explaining` gives to errors, says here that the bits are others.
        sentence = explanation(error) or (str(error) if isinstance(error, OSError) else None)
        if sentence is None:
            raise
        click.echo(f"Error: {sentence}", err=True)
        sys.exit(IMPOSSIBLE)
    if same:
        shutil.rmtree(rerun.folder)
    sys.exit(IDENTICAL if same else DIFFERENT)


def _changes(rerun: Rerun) -> list[str]:
    recorded = rerun.recorded
    here = provenance(device=rerun.run.device, threads=recorded.provenance.threads)
    return configuration_changes(recorded) + provenance_changes(recorded.provenance, here)


def _introduce(rerun: Rerun, changes: list[str]) -> None:
    recorded, run = rerun.recorded, rerun.recorded.run
    start = f"going on after step {rerun.done}" if rerun.done else "from the start"
    threads = recorded.provenance.threads
    click.echo(
        f"{recorded.folder}: run {run.run_id}, step {recorded.step}, dataset {run.dataset_id}, "
        f"seed {run.training.seed}, adapter {recorded.digest[:12]}"
    )
    click.echo(
        f"re-running {recorded.step} steps {start}, on {rerun.run.device} with {threads} "
        f"thread{'' if threads == 1 else 's'}, in {rerun.folder}"
    )
    for change in changes:
        click.echo(f"not as it was: {change}")


def _verdict(rerun: Rerun, reached: int, changes: list[str]) -> bool:
    """Say what agrees, or what differs first; returns whether the bits are the same."""
    recorded = rerun.recorded
    found = compare(recorded.folder.parent / checkpoint_id(reached), rerun.checkpoint(reached))
    if found.identical:
        click.echo(
            f"identical: step {reached}, all {found.tensors} tensors have the same bits, adapter {recorded.digest}"
        )
        return True
    click.echo(
        f"different: step {reached}, {found.differing} of {found.tensors} tensors; the largest difference is "
        f"{found.difference:.3g} in {found.largest} ({found.share:.2g} of its largest value)"
    )
    logged = first_logged_difference(Path(recorded.description.log), log_path(rerun.run))
    click.echo(f"first difference in the log: {logged or 'none, or the log of the original run is gone'}")
    if changes:
        click.echo(f"what is not as it was, the likeliest cause first: {'; '.join(changes)}")
    else:
        click.echo(
            "base, dataset, configuration, packages, code, machine, device and threads are as recorded: either the "
            "features were computed anew with other bits, or the hardware differs, or this is a defect to report"
        )
    click.echo(f"what was made is kept in {rerun.folder}; delete it to start over")
    return False
