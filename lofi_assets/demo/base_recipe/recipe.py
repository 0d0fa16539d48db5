"""From an empty folder to a base model, in stages that can be killed at any moment.

The order of the stages, the plan with its hours, and where things lie:

    corpus/        clips and clips.json        latents/   of clips that the transformer hears, per DCAE
    steady_corpus/ those that it hears first   tempo_corpus/  those that it hears last
    plan.json      steps and seconds per step  <stage>/   log.jsonl, state/ while it runs, weights.safetensors
    base/          the model as the Hub lays it out, with report.json, its card and pictures

What a stage learns is in `codec` and `music`; what the result is worth in `report`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from lofi_assets.backbones.ace_step_v1.loading import load_base
from lofi_assets.backbones.ace_step_v1.lyric_vocabulary import LYRIC_VOCABULARY
from lofi_assets.backbones.ace_step_v1.music_dcae import MusicDCAE
from lofi_assets.demo.base_recipe import architecture
from lofi_assets.demo.base_recipe.codec import ClockTask, DcaeTask, EdgesTask, VocoderTask, calibrate
from lofi_assets.demo.base_recipe.corpus import Clip, beat_clips, clips, steady_clips, write_corpus
from lofi_assets.demo.base_recipe.in_time import InTimeTask, in_time, start_clock
from lofi_assets.demo.base_recipe.music import (
    MusicTask,
    cache_latents,
    prompt_like_lofi,
)
from lofi_assets.demo.base_recipe.settings import IN_TIME_STAGES, STAGES, Recipe, StageName
from lofi_assets.demo.base_recipe.stage import Stage, Task, read_weights, run_stage
from lofi_assets.files.hashing import hash_of, sha256_file
from lofi_assets.files.writing import StoreError
from lofi_assets.lyrics.text import INSTRUMENTAL
from lofi_assets.lyrics.tokenizer import LyricTokenizer
from lofi_assets.styles.prompt_text import split_tags
from lofi_assets.styles.taxonomy import Taxonomy

T = TypeVar("T")
RECIPE_VERSION = "2"
"""Raised when the same settings make other weights."""
LISTENS_TO: Mapping[StageName, StageName | None] = {
    "dcae": None,
    "clock": "dcae",
    "vocoder": "clock",
    "edges": "vocoder",
    "steady": "dcae",
    "transformer": "steady",
    "bars": "transformer",
    "beats": "bars",
}
"""The stage whose weights a stage starts from."""


@dataclass(frozen=True)
class RecipeRun:
    """A recipe in its folder."""

    folder: Path
    recipe: Recipe
    taxonomy: Taxonomy
    start: Path | None = None
    """A finished base whose codec is kept and whose transformer goes on learning in `IN_TIME_STAGES`, the only ones
    that are trained then. A base's weights are rounded to float16, so the bits are not those of all stages in a row."""

    @property
    def stages(self) -> tuple[StageName, ...]:
        """Those that are trained."""
        return STAGES if self.start is None else IN_TIME_STAGES

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

    @cached_property
    def beats(self) -> list[Clip]:
        """What the transformer hears last for the first time."""
        recipe = self.recipe
        return beat_clips(
            self.folder / "tempo_corpus",
            recipe.beats,
            seconds=recipe.corpus.seconds,
            seed=recipe.seed,
            taxonomy=self.taxonomy,
        )

    @property
    def heard_before(self) -> list[Clip]:
        """All that the transformer hears before its last stages."""
        return [*self.steady, *self.clean]

    @property
    def heard_last(self) -> list[Clip]:
        """What the transformer hears in its last stages, their own clips first."""
        settings = self.recipe.beats
        return [*self.beats, *self.steady[: settings.steady], *self.clean[: settings.others]]

    @property
    def heard(self) -> list[Clip]:
        """All that the transformer hears, in the stages that are trained here."""
        if self.start:
            return self.heard_last
        return [*self.heard_before, *self.beats]

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
        from_start = self.start is not None and name == IN_TIME_STAGES[0]
        before = [] if heard is None else [self._start_hash if from_start else self._run_id(heard)]
        own = settings["vocoder"]["clock"] if name == "clock" else settings["beats" if name == "bars" else name]
        if name in ("steady", *IN_TIME_STAGES):  # a finished base may have been built otherwise
            own = [own, settings["transformer"]]
        return hash_of(RECIPE_VERSION, recipe.seed, settings["corpus"], own, settings["training"][name], before)

    @cached_property
    def _start_hash(self) -> str:
        assert self.start is not None
        return hash_of(sorted((path.name, sha256_file(path)) for path in self.start.rglob("*.safetensors")))

    def codec(self) -> MusicDCAE:
        """DCAE and vocoder, at unit scale, with the weights of those stages that are finished."""
        if self.start:
            codec = load_base(self.start, components=("music_dcae",)).music_dcae
            assert codec is not None
            return codec
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
        if name in IN_TIME_STAGES:
            return self.in_time_task(name)
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
        """Steady music and all other, from where the steady stage ended."""
        task = self.music_task(self.heard_before, self.latents(self.heard_before))
        read_weights(self.stage("steady"), task.modules)
        return task

    def in_time_task(self, name: StageName) -> InTimeTask:
        """A stage after it, `bars` or `beats`: hip hop at the tempi of lofi, under prompts like those of lofi."""
        clips = self.heard_last
        named = {tag for clip in clips for tag in split_tags(clip.piece.caption)}
        known = {tag for category in self.taxonomy.categories for tag in category.tags}
        settings = self.recipe.beats
        plain = self.music_task(clips, self.latents(clips))
        plain.bars = [clip.piece.exact_bar for clip in clips]
        if name == "bars":
            self._read_transformer(plain)
        task = self.in_time(plain, name)
        task.prompt = partial(prompt_like_lofi, settings=settings, unheard=sorted(known - named))
        if name == "bars":
            start_clock(task)
        else:
            read_weights(self.stage("bars"), task.modules)
        return task

    def in_time(self, plain: MusicTask, name: StageName) -> InTimeTask:
        """The task on wider modules, of which parts are written by hand; its clips are the last stages'."""
        settings = self.recipe.beats
        if name == "bars":
            settings = replace(settings, crops=settings.crops[-1:], noisy=1.0, own=1.0)
        low, high = self.taxonomy.bpm_range
        return self._seeded("in time", lambda: in_time(plain, settings, tempi=range(low, high + 1)))

    def _read_transformer(self, task: MusicTask) -> None:
        """Put the transformer and the text encoder from before the last stages into a task."""
        if self.start is None:
            read_weights(self.stage("transformer"), task.modules)
            return
        base = load_base(self.start, components=("transformer", "text_encoder"))
        assert base.transformer is not None and base.text_encoder is not None
        found, wanted = base.text_encoder.config.d_model, task.settings.text_width
        if found != wanted:
            raise StoreError(
                f"{self.start}: its text encoder is {found} wide, and these stages start from one of {wanted}; "
                "a base that went through them has a wider one already"
            )
        task.transformer.load_state_dict(base.transformer.state_dict())
        task.text_encoder.load_state_dict(base.text_encoder.state_dict())

    def music_task(self, clips: Sequence[Clip], latents: Sequence[Tensor]) -> MusicTask:
        """A transformer that has heard nothing yet, before the latents of clips; under their captions, now and then
        shorter.
        """
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
        codec = self._start_hash if self.start else self._run_id("dcae")
        folder = self.folder / "latents" / codec[:12]
        return cache_latents(self.codec().eval(), clips, folder=folder)

    def _seeded(self, part: str, build: Callable[[], T]) -> T:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(hash_of(self.recipe.seed, part)[:15], 16))
            return build()


def write_music(recipe_run: RecipeRun) -> None:
    """Whatever the stages hear; what is there stays."""
    peak, folder, last = recipe_run.recipe.corpus.peak, recipe_run.folder, recipe_run.recipe.beats
    corpus, steady = recipe_run.corpus, recipe_run.steady
    if recipe_run.start:
        corpus, steady = recipe_run.clean[: last.others], steady[: last.steady]
    write_corpus(corpus, peak=peak, folder=folder / "corpus")
    write_corpus(steady, peak=peak, folder=folder / "steady_corpus")
    write_corpus(recipe_run.beats, peak=peak, folder=folder / "tempo_corpus")


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
    if heard is not None and heard in recipe_run.stages and not recipe_run.stage(heard).finished:
        raise StoreError(f"{recipe_run.folder}: {name} listens to {heard}, which is not finished; train {heard} first")
    run_stage(stage, recipe_run.task(name))


def assemble(recipe_run: RecipeRun) -> Path:
    """The folder of the finished stages as a base model; returns it.

    Raises:
        StoreError: a stage is not finished.
    """
    for name in recipe_run.stages:
        _require_finished(recipe_run.stage(name))
    last = recipe_run.stages[-1]
    music = recipe_run.in_time(recipe_run.music_task((), ()), last)
    read_weights(recipe_run.stage(last), music.modules)
    codec = recipe_run.codec()
    architecture.write_base(
        recipe_run.base,
        dcae=codec.dcae,
        vocoder=codec.vocoder,
        transformer=music.transformer,
        text_encoder=music.text_encoder,
        taxonomy=recipe_run.taxonomy,
        mark=True,
    )
    return recipe_run.base


def _require_finished(stage: Stage) -> None:
    if not stage.finished:
        raise StoreError(f"{stage.folder}: this stage is not finished; run lofi train-base again")
