"""How long every stage of a base will take, measured once on the machine that trains it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import torch

from lofi_assets.backbones.ace_step_v1.frame_rates import latent_frames
from lofi_assets.backbones.ace_step_v1.tiny import LATENT_CHANNELS
from lofi_assets.demo.base_recipe.genres import SAMPLE_RATE
from lofi_assets.demo.base_recipe.optimizer import StageOptimizer
from lofi_assets.demo.base_recipe.recipe import RecipeRun
from lofi_assets.demo.base_recipe.settings import IN_TIME_STAGES, StageName
from lofi_assets.demo.base_recipe.stage import Task, take_step
from lofi_assets.files.documents import read_json, write_json

TIMED_STEPS = 3
LATENT_HEIGHT = 16


@dataclass(frozen=True)
class PlannedStage:
    """How long a stage will take."""

    name: StageName
    steps: int
    seconds_per_step: float

    @property
    def hours(self) -> float:
        """Of all its steps."""
        return self.steps * self.seconds_per_step / 3600


def plan(recipe_run: RecipeRun, *, minutes: Mapping[StageName, float] | None = None) -> list[PlannedStage]:
    """Steps and seconds per step of every stage, measured here once and kept in `plan.json`.

    Args:
        minutes: wall time per stage in place of the recipe's steps. Other steps are another recipe: once planned, they
            stay.
    """
    path = recipe_run.folder / "plan.json"
    known = read_json(path)
    if known is not None:
        return [PlannedStage(**row) for row in known["stages"]]
    planned = []
    for name in recipe_run.stages:
        seconds = round(_seconds_per_step(recipe_run, name), 4)
        wanted = (minutes or {}).get(name)
        steps = recipe_run.recipe.training[name].steps if wanted is None else max(1, round(wanted * 60 / seconds))
        planned.append(PlannedStage(name, steps, seconds))
    write_json(path, {"threads": torch.get_num_threads(), "stages": [asdict(stage) for stage in planned]})
    return planned


def planned_recipe(recipe_run: RecipeRun, stages: Sequence[PlannedStage]) -> RecipeRun:
    """The recipe_run with the steps of its plan."""
    steps = {stage.name: stage.steps for stage in stages}
    return replace(recipe_run, recipe=recipe_run.recipe.with_steps(steps))


def _seconds_per_step(recipe_run: RecipeRun, name: StageName) -> float:
    """Wall time of a step after one to warm up, on modules that are thrown away."""
    task, training = _timed_task(recipe_run, name), recipe_run.recipe.training[name]
    optimizer = StageOptimizer(task.groups(), training, task.fixed)
    late = training.steps  # by then every loss has joined
    take_step(task, optimizer, late)
    started = time.perf_counter()
    for _ in range(TIMED_STEPS):
        take_step(task, optimizer, late)
    return (time.perf_counter() - started) / TIMED_STEPS


def _timed_task(recipe_run: RecipeRun, name: StageName) -> Task:
    """A stage's task; the transformer's on latents of silence, since the DCAE that makes true ones is still to come."""
    if name not in ("steady", "transformer", *IN_TIME_STAGES):
        return recipe_run.task(name)
    seconds = recipe_run.recipe.corpus.seconds
    frames = latent_frames(round(seconds * SAMPLE_RATE), sample_rate=SAMPLE_RATE)
    blank = torch.zeros(LATENT_CHANNELS, LATENT_HEIGHT, frames)
    task = recipe_run.music_task(recipe_run.steady, [blank] * len(recipe_run.steady))
    return recipe_run.in_time(task, name) if name in IN_TIME_STAGES else task
