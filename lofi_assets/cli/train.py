"""`lofi train`: the profile's training run without Dagster, and its plan."""

import subprocess
import sys

import click

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
@click.option("--fresh", is_flag=True, help="Archive what this run already has, and start over.")
@click.option("--force", is_flag=True, help="Start although the plan does not fit the free memory.")
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
    fresh: bool,
    force: bool,
) -> None:
    """Train the profile's LoRA on the current dataset, going on where it stopped; exit codes as the trainer's.

    The features must be cached: materialise feature_cache first.
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

    planned = plan_training(store, profile)
    sys.exit(_run([*planned.command, *_flags(fresh=fresh, force=force)]))


def _flags(**flags: bool) -> list[str]:
    return [f"--{name}" for name, given in flags.items() if given]


def _run(command: list[str]) -> int:
    """Run the trainer; Ctrl-C reaches it through the terminal, and its end is waited for."""
    with subprocess.Popen(command) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                continue
