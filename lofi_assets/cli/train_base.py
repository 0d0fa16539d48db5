"""`lofi train-base`: makes the small base model from seeds; may be killed at any moment and goes on."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lofi_assets.demo.base_recipe.settings import PRESETS, STAGES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lofi_assets.demo.base_recipe.plan import PlannedStage


@click.command("train-base")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option("--preset", type=click.Choice(list(PRESETS)), default="full", show_default=True)
@click.option(
    "--minutes-per-stage",
    type=float,
    default=None,
    help="Wall time of each stage in place of the preset's steps; fixed by the first call.",
)
@click.option("--plan", "plan_only", is_flag=True, help="Write the corpus, time a few steps, print the plan.")
@click.option(
    "--stage",
    "stages",
    multiple=True,
    type=click.Choice(STAGES),
    help="Only this stage: after the DCAE, clock, vocoder and edges may train beside the transformer, one core each.",
)
@click.option(
    "--from",
    "start",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Train the last two stages only, from this base, which has none of them.",
)
@click.option("--report", "report_only", is_flag=True, help="Judge the finished base in DIRECTORY again.")
def train_base(
    directory: Path,
    preset: str,
    minutes_per_stage: float | None,
    plan_only: bool,
    stages: tuple[str, ...],
    start: Path | None,
    report_only: bool,
) -> None:
    """Synthesise music, train a small ACE-Step v1 on it, judge it: DIRECTORY/base in the Hub's folder layout."""
    from lofi_assets.demo.base_recipe.card import write_card
    from lofi_assets.demo.base_recipe.plan import plan, planned_recipe
    from lofi_assets.demo.base_recipe.recipe import RecipeRun, assemble, train_stage, write_music
    from lofi_assets.demo.base_recipe.report import measure
    from lofi_assets.store import CONFIG_DIR
    from lofi_assets.styles.taxonomy import load_taxonomy

    recipe_run = RecipeRun(directory, PRESETS[preset], load_taxonomy(CONFIG_DIR), start)  # type: ignore[index]
    minutes = None if minutes_per_stage is None else dict.fromkeys(STAGES, minutes_per_stage)
    write_music(recipe_run)
    planned = plan(recipe_run, minutes=minutes)
    _print_plan(planned)
    recipe_run = planned_recipe(recipe_run, planned)
    for name in recipe_run.stages:
        if not plan_only and not report_only and name in (stages or recipe_run.stages):
            train_stage(recipe_run, name)
    if plan_only or stages:
        return
    if not report_only:
        click.echo(f"{assemble(recipe_run)}: base written")
    report, sounds = measure(recipe_run)
    write_card(recipe_run, report, sounds)
    click.echo(f"{recipe_run.base / 'README.md'}: card and report written")


def _print_plan(stages: "Sequence[PlannedStage]") -> None:
    for stage in stages:
        click.echo(
            f"{stage.name:12s} {stage.steps:7d} steps  {stage.seconds_per_step:8.3f} s per step  {stage.hours:6.2f} h"
        )
    click.echo(f"{'in all':12s} {'':47s}{sum(stage.hours for stage in stages):6.2f} h")
