"""From an empty folder to a base model, in stages that can be killed at any moment.

The order of the stages, the plan with its hours, and where things lie:

    corpus/        clips and clips.json        latents/   of clips that the transformer hears, per DCAE
    steady_corpus/ those that it hears first
    plan.json      steps and seconds per step  <stage>/   log.jsonl, state/ while it runs, weights.safetensors
    base/          the model as the Hub lays it out, with report.json, its card and pictures

What a stage learns is in `codec` and `music`; what the result is worth in `report`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from lofi_assets.backbones.ace_step_v1.lyric_vocabulary import LYRIC_VOCABULARY
from lofi_assets.backbones.ace_step_v1.music_dcae import MusicDCAE, latent_frames
from lofi_assets.backbones.ace_step_v1.tiny import LATENT_CHANNELS
from lofi_assets.demo.base_recipe import architecture
from lofi_assets.demo.base_recipe.codec import ClockTask, DcaeTask, EdgesTask, VocoderTask, calibrate
from lofi_assets.demo.base_recipe.corpus import Clip, clips, steady_clips, write_corpus
from lofi_assets.demo.base_recipe.genres import SAMPLE_RATE
from lofi_assets.demo.base_recipe.music import MusicTask, cache_latents
from lofi_assets.demo.base_recipe.optimizer import StageOptimizer
from lofi_assets.demo.base_recipe.settings import STAGES, Recipe, StageName
from lofi_assets.demo.base_recipe.stage import Stage, Task, read_weights, run_stage, take_step
from lofi_assets.files.documents import read_json, write_json
from lofi_assets.files.hashing import hash_of
from lofi_assets.files.writing import StoreError
from lofi_assets.lyrics.text import INSTRUMENTAL
from lofi_assets.lyrics.tokenizer import LyricTokenizer
from lofi_assets.styles.taxonomy import Taxonomy

T = TypeVar("T")
RECIPE_VERSION = "1"
"""Raised when the same settings make other weights."""
LISTENS_TO: Mapping[StageName, StageName | None] = {
    "dcae": None,
    "clock": "dcae",
    "vocoder": "clock",
    "edges": "vocoder",
    "steady": "dcae",
    "transformer": "steady",
}
"""The stage whose weights a stage starts from."""
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


@dataclass(frozen=True)
class RecipeRun:
    """A recipe in its folder."""

    folder: Path
    recipe: Recipe
    taxonomy: Taxonomy

    @property
    def base(self) -> Path:
        """The finished model."""
        return self.folder / "base"

    @cached_property
    def corpus(self) -> list[Clip]:
        """All clips, the clean ones first."""
        return clips(self.folder / "corpus", self.recipe.corpus, seed=self.recipe.seed, taxonomy=self.taxonomy)

    @property
    def clean(self) -> list[Clip]:
        """Those that are not worn."""
        return [clip for clip in self.corpus if not clip.worn]

    @cached_property
    def steady(self) -> list[Clip]:
        """What the transformer hears first."""
        recipe = self.recipe
        return steady_clips(
            self.folder / "steady_corpus",
            recipe.steady,
            seconds=recipe.corpus.seconds,
            seed=recipe.seed,
            taxonomy=self.taxonomy,
        )

    @property
    def heard(self) -> list[Clip]:
        """All that the transformer hears."""
        return [*self.steady, *self.clean]

    @cached_property
    def vocabularies(self) -> tuple[int, int]:
        """Sizes of the text and the lyric vocabulary; both are written first."""
        return architecture.write_tokenizers(self.folder / "tokenizers", self.taxonomy)

    def stage(self, name: StageName) -> Stage:
        """A stage, identified by everything that its weights depend on."""
        return Stage(name, self.folder / name, self.recipe.training[name], self._run_id(name))

    def _run_id(self, name: StageName) -> str:
        recipe = self.recipe
        settings = asdict(recipe)
        heard = LISTENS_TO[name]
        before = [] if heard is None else [self._run_id(heard)]
        own = settings["vocoder"]["clock"] if name == "clock" else settings[name]
        if name == "steady":
            own = [own, settings["transformer"]]
        return hash_of(RECIPE_VERSION, recipe.seed, settings["corpus"], own, settings["training"][name], before)

    def codec(self) -> MusicDCAE:
        """DCAE and vocoder, at unit scale, with the weights of those stages that are finished."""
        dcae = self._seeded("dcae", lambda: architecture.build_dcae(self.recipe.dcae))
        codec = MusicDCAE(dcae, self._seeded("vocoder", lambda: architecture.build_vocoder(self.recipe.vocoder)))
        if self.stage("dcae").finished:
            read_weights(self.stage("dcae"), codec.dcae)
        calibrate(codec, self.clean, seed=self.recipe.seed)
        if self.stage("clock").finished:
            read_weights(self.stage("clock"), codec.dcae.decoder)
        if self.stage("vocoder").finished:
            read_weights(self.stage("vocoder"), codec)
        if self.stage("edges").finished:
            read_weights(self.stage("edges"), codec.dcae.decoder)
        return codec

    def task(self, name: StageName) -> Task:
        """What a stage learns, on what is finished before it."""
        if name == "steady":
            return self.music_task(self.steady, self.latents(self.steady))
        if name == "transformer":
            return self.transformer_task()
        if name == "clock":
            return self.clock_task()
        if name == "edges":
            return self.edges_task()
        return self.dcae_task() if name == "dcae" else self.vocoder_task()

    def dcae_task(self) -> DcaeTask:
        """The first stage's task."""
        recipe = self.recipe
        return DcaeTask(
            self.codec(), self.corpus, settings=recipe.dcae, training=recipe.training["dcae"], seed=recipe.seed
        )

    def clock_task(self) -> ClockTask:
        """The second stage's task."""
        recipe = self.recipe
        return ClockTask(
            self.codec(),
            self.corpus,
            clock=recipe.vocoder.clock,
            latent_noise=recipe.dcae.latent_noise,
            training=recipe.training["clock"],
            seed=recipe.seed,
        )

    def vocoder_task(self) -> VocoderTask:
        """The third stage's task, behind the DCAE as it is by now."""
        recipe = self.recipe
        return self._seeded(
            "critic",
            lambda: VocoderTask(
                self.codec(),
                self.corpus,
                settings=recipe.vocoder,
                latent_noise=recipe.dcae.latent_noise,
                training=recipe.training["vocoder"],
                seed=recipe.seed,
            ),
        )

    def edges_task(self) -> EdgesTask:
        """The fourth stage's task, between the finished decoder and the finished vocoder."""
        recipe = self.recipe
        return EdgesTask(
            self.codec(),
            self.corpus,
            settings=recipe.edges,
            latent_noise=recipe.dcae.latent_noise,
            training=recipe.training["edges"],
            seed=recipe.seed,
        )

    def transformer_task(self) -> MusicTask:
        """The last stage's task: steady music and all other, from where the steady stage ended."""
        task = self.music_task(self.heard, self.latents(self.heard))
        read_weights(self.stage("steady"), task.modules)
        return task

    def music_task(self, clips: Sequence[Clip], latents: Sequence[Tensor]) -> MusicTask:
        """A transformer that has heard nothing yet, before the latents of clips."""
        recipe, (text_ids, lyric_ids) = self.recipe, self.vocabularies
        settings = recipe.transformer
        tokenizers = self.folder / "tokenizers"
        return MusicTask(
            self._seeded("transformer", lambda: architecture.build_transformer(settings, lyric_ids=lyric_ids)),
            self._seeded("text", lambda: architecture.build_text_encoder(settings, text_ids=text_ids)),
            tokenizer=architecture.read_tokenizer(tokenizers),
            lyric_ids=LyricTokenizer(tokenizers / LYRIC_VOCABULARY).encode(INSTRUMENTAL),
            latents=latents,
            captions=[clip.piece.caption for clip in clips],
            bars=[clip.piece.bar_frames for clip in clips],
            settings=settings,
            seed=recipe.seed,
        )

    def latents(self, clips: Sequence[Clip]) -> list[Tensor]:
        """Of clips, from the finished DCAE."""
        folder = self.folder / "latents" / self._run_id("dcae")[:12]
        return cache_latents(self.codec().eval(), clips, folder=folder)

    def _seeded(self, part: str, build: Callable[[], T]) -> T:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(hash_of(self.recipe.seed, part)[:15], 16))
            return build()


def write_music(recipe_run: RecipeRun) -> None:
    """Both corpora; what is there stays."""
    peak = recipe_run.recipe.corpus.peak
    write_corpus(recipe_run.corpus, peak=peak, folder=recipe_run.folder / "corpus")
    write_corpus(recipe_run.steady, peak=peak, folder=recipe_run.folder / "steady_corpus")


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
    for name in STAGES:
        seconds = round(_seconds_per_step(recipe_run, name), 4)
        wanted = (minutes or {}).get(name)
        steps = recipe_run.recipe.training[name].steps if wanted is None else max(1, round(wanted * 60 / seconds))
        planned.append(PlannedStage(name, steps, seconds))
    write_json(path, {"threads": torch.get_num_threads(), "stages": [asdict(stage) for stage in planned]})
    return planned


def planned_recipe(recipe_run: RecipeRun, stages: Sequence[PlannedStage]) -> RecipeRun:
    """The recipe_run with the steps of its plan."""
    return RecipeRun(
        recipe_run.folder,
        recipe_run.recipe.with_steps({stage.name: stage.steps for stage in stages}),
        recipe_run.taxonomy,
    )


def train_stage(recipe_run: RecipeRun, name: StageName) -> None:
    """A stage, unless it is finished. Clock, vocoder and edges need no transformer, nor it them: they may run at
    once, a core each.

    Raises:
        StoreError: the folder holds another recipe's stage, or one that it listens to is not finished.
    """
    stage = recipe_run.stage(name)
    if stage.finished:
        return
    heard = LISTENS_TO[name]
    if heard is not None and not recipe_run.stage(heard).finished:
        raise StoreError(f"{recipe_run.folder}: {name} listens to {heard}, which is not finished; train {heard} first")
    run_stage(stage, recipe_run.task(name))


def assemble(recipe_run: RecipeRun) -> Path:
    """The folder of the finished stages as a base model; returns it.

    Raises:
        StoreError: a stage is not finished.
    """
    music = recipe_run.music_task((), ())
    for name in STAGES:
        _require_finished(recipe_run.stage(name))
    read_weights(recipe_run.stage("transformer"), music.modules)
    codec = recipe_run.codec()
    architecture.write_base(
        recipe_run.base,
        dcae=codec.dcae,
        vocoder=codec.vocoder,
        transformer=music.transformer,
        text_encoder=music.text_encoder,
        taxonomy=recipe_run.taxonomy,
    )
    return recipe_run.base


def _require_finished(stage: Stage) -> None:
    if not stage.finished:
        raise StoreError(f"{stage.folder}: this stage is not finished; run lofi train-base again")


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
    if name not in ("steady", "transformer"):
        return recipe_run.task(name)
    seconds = recipe_run.recipe.corpus.seconds
    frames = latent_frames(round(seconds * SAMPLE_RATE), sample_rate=SAMPLE_RATE)
    blank = torch.zeros(LATENT_CHANNELS, LATENT_HEIGHT, frames)
    return recipe_run.music_task(recipe_run.steady, [blank] * len(recipe_run.steady))
