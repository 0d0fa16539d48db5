"""The loss of a batch: how far the transformer's velocity is from the straight line between noise and music.

What belongs here: items -> tensors -> loss per item. What does not: where items come from (`batches`), the formula of
the loss (`backbones.ace_step_v1.flow_matching`), the optimiser (`loop`).

Items of different length are padded at the end. The transformer is aware of the padding (`mask_aware_padding`), so an
item has the loss and the gradient that it has alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from lofi_assets.backbones.ace_step_v1.flow_matching import Schedule, add_noise, denoising_loss
from lofi_assets.backbones.ace_step_v1.transformer import TransformerOutput
from lofi_assets.training.trainer.batches import Item

FRAME_STEP, CONTEXT_STEP = 256, 128
"""Sizes in which compiled blocks grow: they are compiled for each size anew, and padding costs less than that."""


@dataclass(frozen=True)
class Objective:
    """Flow-matching loss of a transformer."""

    model: Callable[..., TransformerOutput]
    """The transformer, or what `training.distributed` wrapped around it."""
    schedule: Schedule
    """Noise shares and timesteps, by timestep index."""
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
        clean, mask = self._stacked([item.latents for item in items])
        noise, _ = self._stacked([item.noise for item in items])
        index = torch.tensor([item.timestep_index for item in items])
        sigmas = self.schedule.sigmas[index].to(self.device)
        noisy = add_noise(clean, noise, sigmas)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.dtype != torch.float32):
            output = self.model(
                hidden_states=noisy.to(self.dtype),
                attention_mask=mask,
                timestep=self.schedule.timesteps[index].to(self.device),
                ssl_targets=self._ssl_targets(items),
                **self._conditions(items),
            )
        losses = denoising_loss(output.sample.float(), noisy=noisy, clean=clean, sigmas=sigmas, mask=mask)
        projections = list(output.projection_losses.values())
        return losses + self.ssl_weight * torch.stack(projections).mean() if projections else losses

    def _ssl_targets(self, items: Sequence[Item]) -> dict[str, list[Tensor]]:
        """Encoder -> the targets of each item; either all items carry them or none."""
        return {name: [item.ssl_targets[name].to(self.device) for item in items] for name in items[0].ssl_targets}

    def _conditions(self, items: Sequence[Item]) -> dict[str, Tensor]:
        conditions = [item.conditions for item in items]
        text = _padded([each.text for each in conditions])
        tokens = _padded([torch.ones(len(each.text), dtype=torch.long) for each in conditions])
        ids = _padded([each.lyric_ids for each in conditions])
        lyrics = _padded([each.lyric_mask for each in conditions])
        if self.stepped:
            more = -(1 + text.shape[1] + ids.shape[1]) % CONTEXT_STEP
            ids, lyrics = F.pad(ids, (0, more)), F.pad(lyrics, (0, more))
        return {
            "text_hidden_states": text.to(self.device, self.dtype),
            "text_attention_mask": tokens.to(self.device),
            "speaker_embeds": torch.stack([each.speaker for each in conditions]).to(self.device, self.dtype),
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
