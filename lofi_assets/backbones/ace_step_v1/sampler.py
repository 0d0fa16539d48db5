"""From conditions to latents, and from prompts to music: the sampling loop with guidance.

Each item's noise comes from its own seed, and nothing couples the items of a batch, so the company that an item is
sampled in changes it by rounding only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from lofi_assets.backbones import BaseModelError
from lofi_assets.backbones.ace_step_v1.flow_matching import (
    SHIFT,
    MomentumBuffer,
    apg,
    cfg,
    cfg_zero_star,
    euler_step,
    inference_schedule,
)
from lofi_assets.backbones.ace_step_v1.frame_rates import MEL_RATE, SAMPLES_PER_FRAME
from lofi_assets.backbones.ace_step_v1.loading import Base, encode_lyrics, encode_text
from lofi_assets.backbones.cuda_graphs import Record, Replayed
from lofi_assets.lofi_onnx import flow

OUTPUT_RATE = 48000
LATENT_SHAPE = (8, 16)
Guidance = Literal["apg", "cfg", "cfg_zero_star"]
Decode = Callable[[Mapping[str, Tensor | None]], Tensor]


@dataclass(frozen=True)
class Conditions:
    """What the transformer is conditioned on; batch first, masks 1 for a token."""

    text_hidden_states: Tensor
    text_attention_mask: Tensor
    speaker_embeds: Tensor
    lyric_token_ids: Tensor
    lyric_mask: Tensor

    def null(self) -> Conditions:
        """The unconditional branch: zeros throughout, no lyric counted, the text mask kept, as in training."""
        return replace(
            self,
            text_hidden_states=torch.zeros_like(self.text_hidden_states),
            speaker_embeds=torch.zeros_like(self.speaker_embeds),
            lyric_token_ids=torch.zeros_like(self.lyric_token_ids),
            lyric_mask=torch.zeros_like(self.lyric_mask),
        )

    def to(self, device: torch.device, dtype: torch.dtype) -> Conditions:
        """Everything on `device`, the floating-point parts as `dtype`."""
        return Conditions(
            self.text_hidden_states.to(device, dtype),
            self.text_attention_mask.to(device),
            self.speaker_embeds.to(device, dtype),
            self.lyric_token_ids.to(device),
            self.lyric_mask.to(device),
        )


class VelocityModel(Protocol):
    """What the loop needs of a transformer; an ONNX session behind these two methods samples as well."""

    def encode(
        self,
        *,
        text_hidden_states: Tensor,
        text_attention_mask: Tensor,
        speaker_embeds: Tensor,
        lyric_token_ids: Tensor,
        lyric_mask: Tensor,
    ) -> tuple[Tensor, Tensor]: ...

    def decode(
        self,
        *,
        hidden_states: Tensor,
        attention_mask: Tensor | None,
        encoder_hidden_states: Tensor,
        encoder_hidden_mask: Tensor | None,
        timestep: Tensor,
    ) -> Tensor: ...


def seeded_noise(seeds: Sequence[int], *, frames: int) -> Tensor:
    """`lofi_onnx.flow.seeded_noise` as a tensor on the CPU: a seed's noise is the same in torch and in every tier."""
    return torch.from_numpy(flow.seeded_noise(seeds, frames=frames))


@torch.no_grad()
def sample_latents(
    transformer: VelocityModel,
    conditions: Conditions,
    *,
    frames: int | None = None,
    seeds: Sequence[int] = (),
    noise: Tensor | None = None,
    steps: int = 60,
    guidance_scale: float = 15.0,
    omega_scale: float = 10.0,
    guidance_interval: float = 0.5,
    guidance: Guidance = "apg",
    shift: float = SHIFT,
    batch_mean: bool = False,
    together: bool | None = None,
    record: Record | None = None,
) -> Tensor:
    """Integrate the flow from noise to latents (B, 8, 16, frames), float32.

    With conditions in bfloat16 the transformer's passes run under autocast, as in training (`objective`). Noise,
    schedule, guidance and the sum over the steps are float32 in any case.

    Args:
        conditions: on the transformer's device and in its precision.
        frames, seeds: length and one seed for each item; or else
        noise: (B, 8, 16, frames) to start from.
        guidance_scale: 1 or less samples without the unconditional branch.
        guidance_interval: share of the steps, in the middle of the run, that are guided; 1 guides every step.
        batch_mean: as in `euler_step`.
        together: the branches with and without conditions as one batch: half of the launches for the same numbers to
            rounding. None: on a GPU; a CPU gains nothing.
        record: records the passes of the loop, which are then replayed (`cuda_graphs`); None: nothing is recorded.
    Raises:
        ValueError: the number of seeds, or of noise items, is not the batch size.
    """
    start = _start(conditions, frames=frames, seeds=seeds, noise=noise)
    with _mixed(conditions.text_hidden_states):
        context = transformer.encode(**vars(conditions))
        null_context = transformer.encode(**vars(conditions.null())) if guidance_scale > 1 else None
    schedule = inference_schedule(steps, shift=shift)
    guided = _guided_steps(steps, guidance_interval)
    buffer = MomentumBuffer()
    sample = start
    decode = _decoding(transformer, record)
    together = start.device.type == "cuda" if together is None else together
    for step in range(steps):
        timestep = schedule.timesteps[step]
        if null_context is None or step not in guided:
            velocity = _velocity(decode, sample, context, timestep)
        else:
            velocity, unconditional = _branches(decode, sample, (context, null_context), timestep, together)
            if guidance == "apg":
                velocity = apg(velocity, unconditional, scale=guidance_scale, buffer=buffer)
            elif guidance == "cfg":
                velocity = cfg(velocity, unconditional, scale=guidance_scale)
            else:
                velocity = cfg_zero_star(velocity, unconditional, scale=guidance_scale, step=step)
        now, later = float(schedule.sigmas[step]), float(schedule.sigmas[step + 1])
        sample = euler_step(sample, velocity, sigma=now, sigma_next=later, omega=omega_scale, batch_mean=batch_mean)
    return sample


@torch.no_grad()
def text_to_music(
    base: Base,
    *,
    prompts: Sequence[str],
    lyrics: Sequence[str],
    seconds: float,
    seeds: Sequence[int],
    steps: int = 60,
    guidance_scale: float = 15.0,
    omega_scale: float = 10.0,
    guidance_interval: float = 0.5,
    guidance: Guidance = "apg",
    language: str | None = None,
    record: Record | None = None,
) -> np.ndarray:
    """Music for each prompt with its lyrics and seed: (B, 2, seconds * 48000) float32 in [-1, 1] at 48 kHz.

    Raises:
        BaseModelError: the base was loaded without one of its components.
        ValueError: prompts, lyrics and seeds differ in number, or the duration is not above zero.
    """
    if base.transformer is None or base.music_dcae is None:
        raise BaseModelError(f"{base.path}: sampling needs all components, load the base without naming any")
    if not len(prompts) == len(lyrics) == len(seeds) or not prompts:
        raise ValueError(
            f"one lyric and one seed for each prompt: {len(prompts)}, {len(lyrics)} and {len(seeds)} given"
        )
    if not seconds > 0:
        raise ValueError(f"the duration must be above zero, not {seconds} s")
    latents = sample_latents(
        base.transformer,
        conditions_for(base, prompts=prompts, lyrics=lyrics, language=language),
        frames=math.ceil(seconds * MEL_RATE / SAMPLES_PER_FRAME),
        seeds=seeds,
        steps=steps,
        guidance_scale=guidance_scale,
        omega_scale=omega_scale,
        guidance_interval=guidance_interval,
        guidance=guidance,
        record=record,
    )
    lengths = [round(seconds * OUTPUT_RATE)] * len(latents)
    audio = base.music_dcae.decode(latents, sample_rate=OUTPUT_RATE, audio_lengths=lengths)
    return audio.clamp(-1, 1).cpu().numpy().astype(np.float32)


def conditions_for(
    base: Base, *, prompts: Sequence[str], lyrics: Sequence[str], language: str | None = None
) -> Conditions:
    """Encoded prompts and lyrics with zero speakers, on the transformer's device and in its precision."""
    if base.transformer is None:
        raise BaseModelError(f"{base.path} was loaded without transformer: name it in components")
    text, text_mask = encode_text(base, prompts)
    lyric_ids, lyric_mask = encode_lyrics(base, lyrics, language=language)
    speakers = torch.zeros(len(prompts), base.transformer.config.speaker_embedding_dim)
    conditions = Conditions(text, text_mask, speakers, lyric_ids, lyric_mask)
    return conditions.to(base.transformer.device, base.transformer.dtype)


def _start(conditions: Conditions, *, frames: int | None, seeds: Sequence[int], noise: Tensor | None) -> Tensor:
    batch = len(conditions.text_hidden_states)
    if noise is None:
        if frames is None or frames < 1 or len(seeds) != batch:
            raise ValueError(f"{batch} items need {batch} seeds and at least one frame, not {len(seeds)} and {frames}")
        noise = seeded_noise(seeds, frames=frames)
    if len(noise) != batch:
        raise ValueError(f"{batch} items need noise for {batch}, not for {len(noise)}")
    return noise.to(conditions.text_hidden_states.device, torch.float32)


def _guided_steps(steps: int, interval: float) -> range:
    return range(int(steps * (1 - interval) / 2), int(steps * (interval / 2 + 0.5)))


def _branches(
    decode: Decode,
    sample: Tensor,
    contexts: tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]],
    timestep: Tensor,
    together: bool,
) -> tuple[Tensor, Tensor]:
    """The velocity under each of two contexts of as many tokens, in one batch or one after the other."""
    if not together:
        one, other = (_velocity(decode, sample, context, timestep) for context in contexts)
        return one, other
    states, masks = (torch.cat(parts) for parts in zip(*contexts, strict=True))
    one, other = _velocity(decode, torch.cat([sample, sample]), (states, masks), timestep).chunk(2)
    return one, other


def _velocity(decode: Decode, sample: Tensor, context: tuple[Tensor, Tensor], timestep: Tensor) -> Tensor:
    states, mask = context
    tensors = {
        "hidden_states": sample.to(states.dtype),
        "attention_mask": None,
        "encoder_hidden_states": states,
        "encoder_hidden_mask": mask,
        "timestep": timestep.to(sample.device).expand(len(sample)),
    }
    return decode(tensors).float()


def _decoding(transformer: VelocityModel, record: Record | None) -> Decode:
    """`transformer.decode` of its arguments by name, in the precision of the context; replayed where it is recorded."""

    def decode(**tensors: Any) -> Tensor:
        with _mixed(tensors["encoder_hidden_states"]):
            return transformer.decode(**tensors)

    return (lambda tensors: decode(**tensors)) if record is None else Replayed(decode, record)


def _mixed(states: Tensor) -> AbstractContextManager[Any]:
    """Autocast to bfloat16 where the conditions are in it; else as it was."""
    if states.dtype == torch.bfloat16:
        return torch.autocast(states.device.type, dtype=torch.bfloat16)
    return nullcontext()
