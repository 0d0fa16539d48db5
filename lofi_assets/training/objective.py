"""The loss of a batch: how far the transformer's velocity is from the straight line between noise and music.

What belongs here: items -> tensors -> loss per item. What does not: where items come from (`batches`), the formula of
the loss (`ace_step.flow_matching`), the optimiser (`loop`).

Each item's conditions are encoded by themselves and padded at the end: padding the prompt inside a batch would shift
the lyrics' positions, and an item would depend on its neighbours.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lofi_assets.ace_step.flow_matching import Schedule, add_noise, denoising_loss
from lofi_assets.ace_step.transformer import ACEStepTransformer2DModel
from lofi_assets.training.batches import Item


@dataclass(frozen=True)
class Objective:
    """Flow-matching loss of a transformer."""

    transformer: ACEStepTransformer2DModel
    schedule: Schedule
    """Noise shares and timesteps, by timestep index."""
    dtype: torch.dtype
    """Of the frozen weights; below float32 the transformer runs under autocast."""

    def losses(self, items: Sequence[Item]) -> Tensor:
        """(B,) float32, each item's mean over its own frames: a long item weighs as much as a short one."""
        latents, mask = _stacked([item.latents for item in items], self.device)
        noise, _ = _stacked([item.noise for item in items], self.device)
        index = torch.tensor([item.timestep_index for item in items])
        sigmas = self.schedule.sigmas[index].to(self.device)
        noisy = add_noise(latents, noise, sigmas)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.dtype != torch.float32):
            context, context_mask = self._context(items)
            velocity = self.transformer.decode(
                hidden_states=noisy.to(self.dtype),
                attention_mask=mask,
                encoder_hidden_states=context,
                encoder_hidden_mask=context_mask,
                timestep=self.schedule.timesteps[index].to(self.device),
            )
        return denoising_loss(velocity.float(), noisy=noisy, clean=latents, sigmas=sigmas, mask=mask)

    @property
    def device(self) -> torch.device:
        """Where the transformer is."""
        return self.transformer.device

    def _context(self, items: Sequence[Item]) -> tuple[Tensor, Tensor | None]:
        contexts = [self._encoded(item) for item in items]
        if len(contexts) == 1:
            return contexts[0][0][None], contexts[0][1][None]
        states, masks = zip(*contexts, strict=True)
        return pad_sequence(list(states), batch_first=True), pad_sequence(list(masks), batch_first=True)

    def _encoded(self, item: Item) -> tuple[Tensor, Tensor]:
        """Context (tokens, width) of one item, and its mask (tokens,)."""
        conditions, dtype = item.conditions, self.dtype
        states, mask = self.transformer.encode(
            text_hidden_states=conditions.text[None].to(self.device, dtype),
            text_attention_mask=torch.ones(1, len(conditions.text), dtype=torch.long, device=self.device),
            speaker_embeds=conditions.speaker[None].to(self.device, dtype),
            lyric_token_ids=conditions.lyric_ids[None].to(self.device),
            lyric_mask=conditions.lyric_mask[None].to(self.device),
        )
        return states[0], mask[0]


def _stacked(tensors: Sequence[Tensor], device: torch.device) -> tuple[Tensor, Tensor | None]:
    """(B, 8, 16, longest), zeros behind the shorter ones, and a mask (B, longest) unless all are equally long."""
    lengths = [tensor.shape[-1] for tensor in tensors]
    longest = max(lengths)
    padded = torch.stack([torch.nn.functional.pad(t, (0, longest - t.shape[-1])) for t in tensors]).to(device)
    if min(lengths) == longest:
        return padded, None
    return padded, (torch.arange(longest)[None] < torch.tensor(lengths)[:, None]).long().to(device)
