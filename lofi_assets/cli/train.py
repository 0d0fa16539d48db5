"""`lofi train`: the profile's training run without Dagster, and its plan."""

import sys
from contextlib import suppress
from pathlib import Path

import click

from lofi_assets.errors import DiskError
from lofi_assets.profiles import load_profile
from lofi_assets.store import Store, data_root


@click.command()
@click.option("--profile", "profile_name", default=None, help="Profile; default LOFI_PROFILE, else demo.")
@click.option("--plan", "only_plan", is_flag=True, help="Print memory, time and disk, and start nothing.")
@click.option("--card", default=None, help="With --plan: the card by name, as 4090, L40S, 'A100 80GB'.")
@click.option("--headless", is_flag=True, help="With --plan --card: the card drives no screens.")
@click.option("--memory", type=float, default=None, help="With --plan: memory of the card in GB.")
@click.option("--minutes", type=float, default=None, help="With --plan: minutes of audio, in place of the dataset's.")
@click.option("--longest", type=float, default=None, help="With --plan: seconds of the longest track, likewise.")
@click.option("--hours", type=float, default=None, help="With --plan: hours in which the steps are wanted.")
@click.option("--tflops", type=float, default=None, help="With --plan: the card's dense bfloat16 TFLOP/s.")
@click.option("--only-config", is_flag=True, help="Write the run's file for torchrun, print its path, start nothing.")
@click.option(
    "--init-from",
    type=click.Path(path_type=Path),
    help="LoRA to start from: any form, a checkpoint, or the id of one that was taken in.",
)
@click.option("--strength", type=float, default=None, help="With --init-from: factor on B A, in place of the file's.")
@click.option("--fresh", is_flag=True, help="Archive what this run already has, and start over.")
@click.option("--force", is_flag=True, help="Start although the plan does not fit the free memory, or the disk.")
def train(
    profile_name: str | None,
    only_plan: bool,
    card: str | None,
    headless: bool,
    memory: float | None,
    minutes: float | None,
    longest: float | None,
    hours: float | None,
    tflops: float | None,
    only_config: bool,
    init_from: Path | None,
    strength: float | None,
    fresh: bool,
    force: bool,
) -> None:
    """Train the profile's LoRA on the current dataset, going on where it stopped; exit codes as the trainer's.

    The features must be cached: materialise feature_cache first. With --init-from the run is one of its own: the id
    that it prints, as --init-from or as `init_from` in the profile, goes on with it.
    """
    store, profile = Store(data_root()), load_profile(profile_name)
    if only_plan:
        from lofi_assets.training.planning.profile_plan import plan_profile
        from lofi_assets.training.planning.text import plan_text

        plan = plan_profile(
            store,
            profile,
            card=card,
            headless=headless,
            memory=memory,
            tflops=tflops,
            minutes=minutes,
            longest=longest,
            hours=hours,
        )
        click.echo(plan_text(plan))
        sys.exit(1 if plan.fits is False or plan.disk_fits is False else 0)
    from lofi_assets.training.lora_checkpoints import plan_training

    planned = plan_training(store, profile, init_from=_taken(store, init_from, strength))
    if only_config:
        click.echo(planned.config)
        return
    sys.exit(_run([*planned.command, *_flags(fresh=fresh, force=force)], planned.config))


def _taken(store: Store, path: Path | None, strength: float | None) -> str | None:
    """The id of what to start from, taken in if it is a path; None leaves it to the profile."""
    if path is None:
        return None
    from lofi_assets.training.checkpoints.trainer_record import FOLDER as WRITTEN
    from lofi_assets.training.feature_cache import FeatureRecord
    from lofi_assets.training.initial import take_in, taken

    if not path.exists() and (store.adapters / path.name).is_dir() and path.name == str(path):
        return path.name
    features = FeatureRecord.read(store)
    identifier = take_in(
        store,
        path,
        backbone=features.backbone,
        base=Path(features.base),
        base_fingerprint=features.base_fingerprint,
        strength=strength,
    )
    found = taken(store, identifier)[1]
    if found.checkpoint and found.sha256 in found.foreign:
        click.echo(
            f"{path}: no document in {store.checkpoints / WRITTEN} says that it was trained here (an earlier version's "
            "has none): its tracks count, and it counts as a LoRA from elsewhere, whose rights have to be on record "
            "before a release (docs/loras.md)"
        )
    click.echo(f"starting from {store.adapters / identifier}; for Dagster, in the profile: init_from: {identifier}")
    return identifier


def _flags(**flags: bool) -> list[str]:
    return [f"--{name}" for name, given in flags.items() if given]


def _run(command: list[str], config: Path) -> int:
    """Run the trainer, pass signals on to it, and say how it ended if it could not; returns the exit code."""
    from lofi_assets.training.death import watched
    from lofi_assets.training.ending import SAID, begin, killed, read_ending, shell_code, start_of, write_ending
    from lofi_assets.training.launch import run_in_foreground

    begin(config)
    with watched() as watch:
        code = run_in_foreground(command)
    if code in SAID or read_ending(config) is not None:
        return shell_code(code)
    ending = killed(code, watch.account(code))
    with suppress(DiskError):
        write_ending(config, ending, start=start_of(config))
    with suppress(OSError):  # the terminal may be gone
        click.echo(f"error: {ending.message}", err=True)
    return ending.code
