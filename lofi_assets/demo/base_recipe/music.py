"""What the transformer and its text encoder learn: from words and noise to latents of music.

Their task, and the latents that they learn from. The loss is that of `backbones.ace_step_v1.objective`, which a LoRA is
trained by too.

The text encoder learns with the transformer and is frozen in what ships. Frozen random features would do for telling
words apart, but each of the 91 tempi would then have to be read off a fixed random direction by one linear layer; here
the words that sound alike move together, and the encoder may read "82" and "bpm" as one. Words that no caption holds
keep their random start, at the scale of the learnt ones: that is where a LoRA finds room for lofi.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, UMT5EncoderModel

from lofi_assets.backbones.ace_step_v1.conditions import conditions_of, without
from lofi_assets.backbones.ace_step_v1.flow_matching import (
    sample_timestep_indices,
    training_schedule,
)
from lofi_assets.backbones.ace_step_v1.frame_rates import MEL_RATE
from lofi_assets.backbones.ace_step_v1.music_dcae import MusicDCAE
from lofi_assets.backbones.ace_step_v1.objective import Objective
from lofi_assets.backbones.ace_step_v1.transformer import ACEStepTransformer2DModel
from lofi_assets.backbones.training import Item
from lofi_assets.demo.base_recipe.corpus import Clip, read_whole
from lofi_assets.demo.base_recipe.optimizer import NOTHING, Fixed
from lofi_assets.demo.base_recipe.settings import BeatsSettings, TransformerSettings
from lofi_assets.files.writing import atomic_path
from lofi_assets.progress import over
from lofi_assets.styles.prompt_text import split_tags
from lofi_assets.styles.taxonomy import bpm_of
from lofi_assets.training.trainer.batches import generator

Prompt = Callable[[str, torch.Generator], str]
"""From a clip's caption and a random state to the prompt that it is heard under."""
DrawSigmas = Callable[[int, torch.Generator], list[float]]
"""From a number of items and a random state to each item's share of noise, in (0, 1]."""


def cache_latents(codec: MusicDCAE, clips: Sequence[Clip], *, folder: Path) -> list[Tensor]:
    """Latents (8, 16, frames) of every clip; those that are in the folder are read."""
    missing = [clip for clip in clips if not (folder / f"{clip.name}.npy").is_file()]
    for clip in over(missing, "latents", unit="clip"):
        audio = torch.from_numpy(read_whole(clip))[None]
        latents, frames = codec.encode(audio, sample_rate=MEL_RATE)
        with atomic_path(folder / f"{clip.name}.npy") as temporary, temporary.open("wb") as file:
            np.save(file, latents[0, ..., : int(frames[0])].numpy())
    return [torch.from_numpy(np.load(folder / f"{clip.name}.npy", allow_pickle=False)) for clip in clips]


class MusicTask:
    """Flow matching of latents under prompts that lose tags, or all of them, and lyrics at random."""

    fixed: Fixed = NOTHING

    def __init__(
        self,
        transformer: ACEStepTransformer2DModel,
        text_encoder: UMT5EncoderModel,
        *,
        tokenizer: PreTrainedTokenizerBase,
        lyric_ids: Sequence[int],
        latents: Sequence[Tensor],
        captions: Sequence[str],
        bars: Sequence[float],
        settings: TransformerSettings,
        seed: int,
    ) -> None:
        self.modules = nn.ModuleDict({"transformer": transformer, "text_encoder": text_encoder}).train()
        self.transformer, self.text_encoder, self.tokenizer = transformer, text_encoder, tokenizer
        self.objective = Objective(transformer, torch.float32, torch.device("cpu"))
        self.latents, self.captions, self.bars = latents, captions, bars
        self.settings, self.seed = settings, seed
        self.prompt: Prompt = partial(shorter_prompt, tag_dropout=settings.tag_dropout)
        self.draw_sigmas: DrawSigmas = drawn_sigmas
        self.lyric_ids = torch.tensor(list(lyric_ids))

    def groups(self) -> Mapping[str, Mapping[str, nn.Parameter]]:
        return {"model": dict(self.modules.named_parameters())}

    def backward(self, step: int) -> dict[str, float]:
        items = self.items(step)
        losses = self.objective.losses(items)
        if self.settings.velocity_loss:
            losses = losses / torch.tensor([item.sigma for item in items]).square()
        loss = losses.mean()
        loss.backward()
        return {"loss": float(loss.detach())}

    def items(self, step: int) -> list[Item]:
        """The examples of a step, all of one length."""
        settings, random = self.settings, generator(self.seed, "transformer", step)
        frames = settings.crops[int(torch.randint(len(settings.crops), (), generator=random))]
        count = max(1, settings.frames_per_step // frames)
        picks = self.picks(count, random)
        sigmas = self.draw_sigmas(count, random)
        draws = torch.rand(count, 4, generator=random).tolist()
        prompts = [self.prompt(self.captions[pick], random) for pick in picks]
        conditions = self._conditions(prompts)
        items = []
        for pick, sigma, known, (place, text, speaker, lyrics) in zip(picks, sigmas, conditions, draws, strict=True):
            latents = self.clean(pick, frames=frames, place=place, sigma=sigma)
            items.append(
                Item(
                    track_id=str(pick),
                    latents=latents,
                    noise=torch.randn(latents.shape, generator=random),
                    sigma=sigma,
                    conditions=without(known, self._dropped(text=text, speaker=speaker, lyrics=lyrics)),
                )
            )
        return items

    def picks(self, count: int, random: torch.Generator) -> list[int]:
        """Which clips a step hears."""
        drawn: list[int] = torch.randint(len(self.latents), (count,), generator=random).tolist()
        return drawn

    def clean(self, pick: int, *, frames: int, place: float, sigma: float) -> Tensor:
        """(8, 16, at most `frames`) of a clip, from `place` in [0, 1) of what is left over, as it is heard at a share
        of noise."""
        return crop_from_bar(self.latents[pick], frames=frames, place=place, bar=self.bars[pick])

    def _dropped(self, *, text: float, speaker: float, lyrics: float) -> set[str]:
        """Groups of conditions that chance leaves out."""
        settings = self.settings
        rates = {"text": settings.text_dropout, "speaker": settings.speaker_dropout, "lyrics": settings.lyric_dropout}
        drawn = {"text": text, "speaker": speaker, "lyrics": lyrics}
        return {group for group, rate in rates.items() if drawn[group] < rate}

    def _conditions(self, prompts: Sequence[str]) -> list[dict[str, Tensor]]:
        """Text states with their gradient, so that the text encoder learns too."""
        batch = self.tokenizer(list(prompts), return_tensors="pt", padding=True)
        states = self.text_encoder(**{name: batch[name] for name in ("input_ids", "attention_mask")}).last_hidden_state
        speaker = torch.zeros(self.settings.speaker_width)
        return [
            conditions_of(text[mask.bool()], self.lyric_ids, speaker)
            for text, mask in zip(states, batch["attention_mask"], strict=True)
        ]


def drawn_sigmas(count: int, random: torch.Generator) -> list[float]:
    """Shares of noise as a LoRA's training draws them: densest about 0.75."""
    sigmas: list[float] = training_schedule().sigmas[sample_timestep_indices(count, generator=random)].tolist()
    return sigmas


def noisier_sigmas(count: int, random: torch.Generator, *, noisy: float, noise_from: float) -> list[float]:
    """The same, but a share `noisy` of them drawn evenly from `noise_from` (without it) to 1."""
    usual = torch.tensor(drawn_sigmas(count, random))
    chosen = torch.rand(count, generator=random)
    even = 1 - (1 - noise_from) * torch.rand(count, generator=random)
    sigmas: list[float] = torch.where(chosen < noisy, even, usual).tolist()
    return sigmas


def shorter_prompt(caption: str, random: torch.Generator, *, tag_dropout: float) -> str:
    """The caption with each tag but the genre left out now and then."""
    genre, *tags = split_tags(caption)
    drawn = torch.rand(len(tags), generator=random).tolist()
    return ", ".join([genre, *(tag for tag, draw in zip(tags, drawn, strict=True) if draw >= tag_dropout)])


def prompt_like_lofi(caption: str, random: torch.Generator, *, settings: BeatsSettings, unheard: Sequence[str]) -> str:
    """Few of the caption's tags, often without the genre, and now and then words that no caption holds."""
    genre, *tags = split_tags(caption)
    no_genre, strange, anywhere, *drawn = torch.rand(len(tags) + 3, generator=random).tolist()

    def kept(tag: str, draw: float) -> bool:
        return draw >= (settings.tag_dropout if bpm_of(tag) is None else settings.bpm_dropout)

    words = [tag for tag, draw in zip(tags, drawn, strict=True) if kept(tag, draw)]
    if no_genre >= settings.genre_dropout:
        words = [genre, *words]
    if strange < settings.unheard:
        for _ in range(int(torch.randint(1, 4, (), generator=random))):
            word = unheard[int(torch.randint(len(unheard), (), generator=random))]
            place = int(torch.randint(len(words) + 1, (), generator=random)) if anywhere < 0.5 else 0
            words.insert(place, word)
    return ", ".join(words) or genre


def crop_from_bar(latents: Tensor, *, frames: int, place: float, bar: float) -> Tensor:
    """At most `frames` of (8, 16, T) from the frame nearest to the start of a bar of `bar` frames, the first of which
    begins at 0: what is generated begins on a one."""
    start = int(place * max(1, latents.shape[-1] - frames + 1))
    start = round(start // bar * bar)
    return latents[..., start : start + frames]


def latent_statistics(latents: Sequence[Tensor]) -> dict[str, float]:
    """`mean`, `std`, and `largest_channel_deviation`: how far from 1 a channel's own standard deviation is."""
    joined = torch.cat([item.flatten(1) for item in latents], dim=1)
    return {
        "mean": float(joined.mean()),
        "std": float(joined.std()),
        "largest_channel_deviation": float((joined.std(dim=1) - 1).abs().max()),
    }
