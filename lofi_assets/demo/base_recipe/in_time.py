"""The last stages of a base: a clock that counts from a mark is written in, and the rest learns to follow it.

A trained transformer and its text encoder become a wider pair (`tempo_code`), whose first cross-attention is a clock of
the bar (`bar_clock`). These parts stay as they are, since an optimiser's steps are as long for a weight that is right
as for any other: the text encoder, the embedder of its states, the speaker's, and the first cross-attention. All else
learns, first from all but noise (stage `bars`), then at all levels (`beats`). Decision 011, "A clock needs a fixed
place to count from".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, UMT5EncoderModel

from lofi_assets.backbones.ace_step_v1.conditions import conditions_of
from lofi_assets.backbones.ace_step_v1.transformer import ACEStepTransformer2DModel
from lofi_assets.backbones.training import Item
from lofi_assets.demo.base_recipe.bar_clock import MARK, first_cross_attention, write_clock
from lofi_assets.demo.base_recipe.music import MusicTask, noisier_sigmas
from lofi_assets.demo.base_recipe.settings import BeatsSettings
from lofi_assets.demo.base_recipe.tempo_code import CODES, FINE, Channels, with_mark, with_tempo_code
from lofi_assets.styles.prompt_text import split_tags
from lofi_assets.styles.taxonomy import bpm_of
from lofi_assets.training.trainer.batches import generator

FROZEN = ("genre_embedder", "speaker_embedder", "transformer_blocks.0.cross_attn")
LIKE = 0.02
"""How much longer, as a share, a bar is whose clips still tell of another."""
RIDGE = 1e-3
"""Of the number of frames."""
PROMPTS_PER_TEMPO = 12
"""From which the clock's keys are read."""
QUIET_CLIPS = 6
QUIET_NOISE = (0.999, 0.97, 0.9, 0.6)
"""Clips, and shares of noise, that tell in which directions the first block is quiet."""


class InTimeTask(MusicTask):
    """Clips of hip hop and some others; in all but noise the mean of the clips of a bar's length stands for a clip."""

    def __init__(
        self,
        plain: MusicTask,
        *,
        transformer: ACEStepTransformer2DModel,
        text_encoder: UMT5EncoderModel,
        tokenizer: PreTrainedTokenizerBase,
        settings: BeatsSettings,
    ) -> None:
        sizes = replace(
            plain.settings,
            crops=settings.crops,
            frames_per_step=settings.frames_per_step,
            text_width=text_encoder.config.d_model,
            rope_theta=settings.rope_theta,
        )
        super().__init__(
            transformer,
            text_encoder,
            tokenizer=tokenizer,
            lyric_ids=plain.lyric_ids.tolist(),
            latents=plain.latents,
            captions=plain.captions,
            bars=plain.bars,
            settings=sizes,
            seed=plain.seed,
        )
        self.beats = settings
        self.own = min(settings.clips, len(self.latents))
        self.means = mean_bars(self.latents[: self.own], self.bars[: self.own], harmonics=settings.harmonics)
        self.draw_sigmas = partial(noisier_sigmas, noisy=settings.noisy, noise_from=settings.noise_from)

    def picks(self, count: int, random: torch.Generator) -> list[int]:
        others = len(self.latents) - self.own
        own = torch.randint(self.own, (count,), generator=random)
        if not others:
            return list(own.tolist())
        other = self.own + torch.randint(others, (count,), generator=random)
        return list(torch.where(torch.rand(count, generator=random) < self.beats.own, own, other).tolist())

    def clean(self, pick: int, *, frames: int, place: float, sigma: float) -> Tensor:
        crop = super().clean(pick, frames=frames, place=place, sigma=sigma)
        if pick >= self.own or sigma <= self.beats.noise_from:
            return crop
        bar = self.bars[pick]
        return self.means[bar] @ waves(crop.shape[-1], bar, self.beats.harmonics)


def mean_bars(latents: Sequence[Tensor], bars: Sequence[float], *, harmonics: int) -> Mapping[float, Tensor]:
    """Bar in latent frames -> (8, 16, 2 harmonics + 1), what clips of that bar have in common, as weights of `waves`.

    Least squares over all frames of the clips (8, 16, frames), which begin with a bar. A bar need not be whole frames:
    a frame's latent is a function of the music around it, so of its place in the bar. Clips whose bar is
    longer or shorter by a share d count exp(-(d / LIKE)^2 / 2) as much, since they play the same patterns.
    """
    found: dict[float, tuple[Tensor, Tensor]] = {}
    for clip, bar in zip(latents, bars, strict=True):
        rows = waves(clip.shape[-1], bar, harmonics).double()
        gram, sums = rows @ rows.T, rows @ clip.flatten(0, 1).double().T
        before = found.get(bar, (torch.zeros_like(gram), torch.zeros_like(sums)))
        found[bar] = before[0] + gram, before[1] + sums
    if not found:
        return {}
    grams, sums = (torch.stack(parts) for parts in zip(*found.values(), strict=True))
    logs = torch.tensor(list(found), dtype=torch.float64).log()
    alike = torch.exp(-0.5 * ((logs[:, None] - logs) / LIKE).square())
    grams, sums = torch.einsum("ab,bij->aij", alike, grams), torch.einsum("ab,bij->aij", alike, sums)
    ridge = RIDGE * grams[:, :1, :1] * torch.eye(grams.shape[-1], dtype=torch.float64)
    solved = torch.linalg.solve(grams + ridge, sums).mT.float()
    return {bar: weights.unflatten(0, (8, 16)) for bar, weights in zip(found, solved, strict=True)}


def waves(frames: int, bar: float, harmonics: int) -> Tensor:
    """(2 harmonics + 1, frames): 1, then the cosines and sines of 1 to `harmonics` periods a bar, from its start."""
    angles = 2 * math.pi * torch.arange(1, harmonics + 1)[:, None] * torch.arange(frames) / bar
    return torch.cat([torch.ones(1, frames), angles.cos(), angles.sin()])


def in_time(plain: MusicTask, settings: BeatsSettings, *, tempi: range) -> InTimeTask:
    """The task of a wider pair that knows what the pair of `plain` knows; the clock is not written yet.

    Args:
        plain: its first `settings.clips` clips are hip hop.
        tempi: BPM that have a word of their own.
    """
    tokenizer = with_mark(plain.tokenizer)
    text_encoder = with_tempo_code(plain.text_encoder, tokenizer, tempi=tempi)
    transformer = _with_text_width(plain.transformer, Channels(plain.text_encoder.config.d_model), settings.rope_theta)
    for module in (text_encoder, *(transformer.get_submodule(name) for name in FROZEN)):
        module.requires_grad_(False)
    return InTimeTask(plain, transformer=transformer, text_encoder=text_encoder, tokenizer=tokenizer, settings=settings)


@torch.no_grad()
def _with_text_width(
    plain: ACEStepTransformer2DModel, channels: Channels, rope_theta: float
) -> ACEStepTransformer2DModel:
    """The transformer with other rotary periods, which reads the code in directions that no old channel uses.

    Where fewer are left than the code has numbers, they share them.
    """
    config = {name: value for name, value in dict(plain.config).items() if not name.startswith("_")}
    config |= {"text_embedding_dim": channels.width, "rope_theta": rope_theta}
    wide: ACEStepTransformer2DModel = ACEStepTransformer2DModel.from_config(config)
    state = plain.state_dict()
    old = state.pop("genre_embedder.weight")
    state["genre_embedder.weight"] = old.new_zeros(len(old), channels.width)
    state["genre_embedder.weight"][:, : channels.old] = old
    unused = torch.linalg.svd(old, full_matrices=True).U[:, channels.old :]
    shared = nn.init.orthogonal_(torch.empty(unused.shape[1], CODES))
    state["genre_embedder.weight"][:, channels.heard] = unused @ shared
    wide.load_state_dict(state)
    return wide


@torch.no_grad()
def start_clock(task: InTimeTask) -> None:
    """Write the clock into the first cross-attention, as this task's prompts and clips tell."""
    random = generator(task.seed, "clock", 0)
    marks, tempi, others = _contexts(task, random)
    write_clock(task.transformer, marks=marks, tempi=tempi, others=others, quiet=_quiet_directions(task, random))


def _contexts(task: InTimeTask, random: torch.Generator) -> tuple[Tensor, list[int], Tensor]:
    """Marks (n, width) of prompts that name a tempo, these tempi, and all other tokens (m, width)."""
    bpms = [bpm for bpm in FINE for _ in range(PROMPTS_PER_TEMPO)]
    captions = [task.captions[index % len(task.captions)] for index in range(len(bpms))]
    prompts = [task.prompt(_at(caption, bpm), random) for caption, bpm in zip(captions, bpms, strict=True)]
    named = torch.tensor(
        [any(bpm_of(tag) == bpm for tag in split_tags(p)) for p, bpm in zip(prompts, bpms, strict=True)]
    )
    batch = task.tokenizer(prompts, return_tensors="pt", padding=True)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    states = task.text_encoder(**inputs).last_hidden_state
    marks, others = [], []
    # the second: no prompt, as in guidance
    for text, known in ((states, named), (torch.zeros_like(states[:1]), torch.zeros_like(named[:1]))):
        lyrics = task.lyric_ids.expand(len(text), -1)
        context, mask = task.transformer.encode(
            text_hidden_states=text,
            text_attention_mask=inputs["attention_mask"][: len(text)],
            speaker_embeds=torch.zeros(len(text), task.settings.speaker_width),
            lyric_token_ids=lyrics,
            lyric_mask=torch.ones_like(lyrics),
        )
        is_mark = torch.zeros_like(mask, dtype=torch.bool)
        is_mark[:, MARK] = known
        marks.append(context[is_mark])
        others.append(context[mask.bool() & ~is_mark])
    tempi = [bpm for bpm, known in zip(bpms, named.tolist(), strict=True) if known]
    return torch.cat(marks), tempi, torch.cat(others)


def _at(caption: str, bpm: int) -> str:
    """The caption at another tempo."""
    return ", ".join(f"{bpm} bpm" if bpm_of(tag) is not None else tag for tag in split_tags(caption))


def _quiet_directions(task: InTimeTask, random: torch.Generator) -> Tensor:
    """(width, heads) unit vectors along which the input of the first cross-attention varies least."""
    config = task.transformer.config
    heard: list[Tensor] = []

    def hear(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        heard.append(inputs[0].flatten(0, 1).double())

    hook = first_cross_attention(task.transformer).register_forward_pre_hook(hear)
    speaker = torch.zeros(task.settings.speaker_width)
    try:
        for clip, caption in zip(task.latents[:QUIET_CLIPS], task.captions, strict=False):
            batch = task.tokenizer([caption], return_tensors="pt")
            text = task.text_encoder(input_ids=batch["input_ids"]).last_hidden_state[0]
            conditions = conditions_of(text, task.lyric_ids, speaker)
            noise = torch.randn(clip.shape, generator=random)
            for sigma in QUIET_NOISE:
                task.objective.losses(
                    [Item(track_id="", latents=clip, noise=noise, sigma=sigma, conditions=conditions)]
                )
    finally:
        hook.remove()
    rows = torch.cat(heard)
    directions: Tensor = torch.linalg.eigh(rows.T @ rows).eigenvectors
    return directions[:, : config.num_attention_heads].float()
