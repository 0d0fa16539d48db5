"""The loss of a batch: how far the transformer's velocity is from the straight line between noise and music.

What belongs here: shares of noise, dropout, items -> tensors -> loss per item. What does not: where items come from
(`training/trainer/batches.py`), the formula of the loss (`flow_matching`).

Items of different length are padded at the end. The transformer is aware of the padding (`mask_aware_padding`), so an
item has the loss and the gradient that it has alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from lofi_assets.backbones.ace_step_v1.flow_matching import (
    TRAIN_TIMESTEPS,
    add_noise,
    denoising_loss,
    training_schedule,
)
from lofi_assets.backbones.ace_step_v1.transformer import TransformerOutput
from lofi_assets.backbones.training import Item, ObjectiveSettings

FRAME_STEP, CONTEXT_STEP = 128, 128
"""Sizes in which compiled blocks grow: they are compiled for each size anew, and padding costs less than that."""


def draw_sigma(settings: ObjectiveSettings, random: torch.Generator) -> float:
    """A share of noise of the training schedule, from the density of the settings."""
    share = _share(settings, random)
    index = min(max(int(share * TRAIN_TIMESTEPS), 0), TRAIN_TIMESTEPS - 1)
    return _sigmas(settings.shift)[index]


def _share(settings: ObjectiveSettings, random: torch.Generator) -> Tensor:
    """A place in the schedule, (1,) in [0, 1], by a density of Stable Diffusion 3 (arXiv 2403.03206, section 3.1).

    diffusers has the same function (a test compares the numbers) in a module that takes a second to import.
    """
    if settings.timestep_density == "logit_normal":
        return torch.normal(settings.logit_mean, settings.logit_std, (1,), generator=random).sigmoid()
    place = torch.rand(1, generator=random)
    if settings.timestep_density == "mode":
        return 1 - place - settings.mode_scale * (torch.cos(torch.pi * place / 2) ** 2 - 1 + place)
    return place


def validation_sigmas(settings: ObjectiveSettings, *, levels: int) -> dict[int, float]:
    """Shares of noise evenly spread over the training schedule, rising, by their index in it."""
    step, table = TRAIN_TIMESTEPS / levels, _sigmas(settings.shift)
    indices = [TRAIN_TIMESTEPS - 1 - int(step * (level + 0.5)) for level in range(levels)]
    return {index: table[index] for index in indices}


@lru_cache(maxsize=4)
def _sigmas(shift: float) -> tuple[float, ...]:
    """The training schedule, noisiest first; each is a float32, exactly."""
    return tuple(training_schedule(shift=shift).sigmas.tolist())


@dataclass(frozen=True)
class Objective:
    """Flow-matching loss of a transformer."""

    model: Callable[..., TransformerOutput]
    """The transformer, or what `training.distributed` wrapped around it."""
    dtype: torch.dtype
    """Of the frozen weights; below float32 the transformer runs under autocast."""
    device: torch.device
    """Where the transformer is."""
    ssl_weight: float = 0.0
    """Factor of the SSL losses of items that carry targets."""
    stepped: bool = False
    """Pad to multiples of `FRAME_STEP` and `CONTEXT_STEP`, for a compiled transformer."""

    def losses(self, items: Sequence[Item]) -> Tensor:
        """(B,) float32, each item's mean over its own frames: a long item weighs as much as a short one.

        The SSL losses of a batch are one mean, added to each of its items.
        """
        return self.losses_of(self.tensors(items), self._ssl_targets(items))

    def tensors(self, items: Sequence[Item]) -> dict[str, Tensor | None]:
        """What the loss is a function of, on the device; the rest of `losses` works there alone.

        Returns:
            `clean` and `noise` (B, 8, 16, T) float32, `sigmas` (B,), `mask` (B, T) or None, and the conditions by the
            names of the transformer's arguments.
        """
        clean, mask = self._stacked([item.latents for item in items])
        noise, _ = self._stacked([item.noise for item in items])
        sigmas = torch.tensor([item.sigma for item in items]).to(self.device)
        return {"clean": clean, "noise": noise, "sigmas": sigmas, "mask": mask, **self._conditions(items)}

    def losses_of(
        self, tensors: Mapping[str, Tensor | None], ssl_targets: dict[str, list[Tensor]] | None = None
    ) -> Tensor:
        """`losses` of what `tensors` returned."""
        conditions: dict[str, Any] = dict(tensors)
        clean, noise, sigmas, mask = (conditions.pop(name) for name in ("clean", "noise", "sigmas", "mask"))
        noisy = add_noise(clean, noise, sigmas)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.dtype != torch.float32):
            output = self.model(
                hidden_states=noisy.to(self.dtype),
                attention_mask=mask,
                timestep=sigmas * TRAIN_TIMESTEPS,
                ssl_targets=ssl_targets,
                **conditions,
            )
        losses = denoising_loss(output.sample.float(), noisy=noisy, clean=clean, sigmas=sigmas, mask=mask)
        projections = list(output.projection_losses.values())
        return losses + self.ssl_weight * torch.stack(projections).mean() if projections else losses

    def _ssl_targets(self, items: Sequence[Item]) -> dict[str, list[Tensor]]:
        """Encoder -> the targets of each item; either all items carry them or none."""
        return {name: [item.targets[name].to(self.device) for item in items] for name in items[0].targets}

    def _conditions(self, items: Sequence[Item]) -> dict[str, Tensor]:
        conditions = [item.conditions for item in items]
        text = _padded([each["text"] for each in conditions])
        tokens = _padded([torch.ones(len(each["text"]), dtype=torch.long) for each in conditions])
        ids = _padded([each["lyric_ids"] for each in conditions])
        lyrics = _padded([each["lyric_mask"] for each in conditions])
        if self.stepped:
            more = -(1 + text.shape[1] + ids.shape[1]) % CONTEXT_STEP
            ids, lyrics = F.pad(ids, (0, more)), F.pad(lyrics, (0, more))
        return {
            "text_hidden_states": text.to(self.device, self.dtype),
            "text_attention_mask": tokens.to(self.device),
            "speaker_embeds": torch.stack([each["speaker"] for each in conditions]).to(self.device, self.dtype),
            "lyric_token_ids": ids.to(self.device),
            "lyric_mask": lyrics.to(self.device),
        }

    def _stacked(self, tensors: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        """(B, 8, 16, longest), zeros behind the shorter ones, and a mask (B, longest) unless all are equally long."""
        lengths = [tensor.shape[-1] for tensor in tensors]
        size = max(lengths)
        if self.stepped:
            size += -size % FRAME_STEP
        padded = torch.stack([F.pad(tensor, (0, size - tensor.shape[-1])) for tensor in tensors]).to(self.device)
        if min(lengths) == size and not self.stepped:
            return padded, None
        return padded, (torch.arange(size)[None] < torch.tensor(lengths)[:, None]).long().to(self.device)


def _padded(sequences: list[Tensor]) -> Tensor:
    """(B, longest, ...), zeros behind the shorter ones."""
    return pad_sequence(sequences, batch_first=True)
