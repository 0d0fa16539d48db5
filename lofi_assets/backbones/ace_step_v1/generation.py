"""A base model that generates: for samples that are judged, with or without a checkpoint's adapter, and for previews.

Base, adapter and sampler are put together here; the sampling loop is in `sampler`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lofi_assets.backbones import BackboneError
from lofi_assets.backbones.ace_step_v1.loading import ALL, Base, load_base
from lofi_assets.backbones.ace_step_v1.sampler import (
    OUTPUT_RATE,
    VelocityModel,
    sample_latents,
    text_to_music,
)
from lofi_assets.backbones.ace_step_v1.sampler import Conditions as Batch
from lofi_assets.backbones.cuda_graphs import CudaGraphs
from lofi_assets.backbones.determinism import deterministic
from lofi_assets.backbones.features import Conditions
from lofi_assets.backbones.sampling import FLOAT32, Precision

_ADAPTER = "evaluated"


@dataclass(frozen=True)
class AceStepSampler:
    """A whole base."""

    base: Base
    cuda_graphs: bool = False
    """Replay the passes of the transformer."""

    @contextmanager
    def adapted(self, weights: Path) -> Iterator[None]:
        """The base with an adapter, while it lasts."""
        transformer = self.base.transformer
        assert transformer is not None
        transformer.load_lora_adapter(str(weights.parent), weight_name=weights.name, adapter_name=_ADAPTER, prefix=None)
        try:
            yield
        finally:
            transformer.delete_adapters(_ADAPTER)

    def generate(
        self,
        prompts: Sequence[str],
        *,
        lyrics: Sequence[str],
        seconds: float,
        seeds: Sequence[int],
        steps: int,
        guidance_scale: float,
    ) -> np.ndarray:
        """Music for each prompt with its lyrics and seed (`text_to_music`), the same bits each time on one machine."""
        assert self.base.transformer is not None
        with deterministic(self.base.transformer.device):
            return text_to_music(
                self.base,
                prompts=prompts,
                lyrics=lyrics,
                seconds=seconds,
                seeds=seeds,
                steps=steps,
                guidance_scale=guidance_scale,
                record=CudaGraphs().record if self.cuda_graphs else None,
            )


def load_sampler(
    base: Path, *, device: str, vocabulary: Path | None, precision: Precision, cuda_graphs: bool = False
) -> AceStepSampler:
    """The whole base; with `bf16` the transformer in bfloat16, as the published file has it, and the rest in float32.

    Raises:
        BackboneError: a GPU without bfloat16, or graphs without a GPU.
        BaseModelError: the base cannot be read.
    """
    if cuda_graphs and torch.device(device).type != "cuda":
        raise BackboneError(f"sampling.cuda_graphs needs a CUDA device, not {device}; set it to false")
    if precision == FLOAT32:
        return AceStepSampler(load_base(base, device=device, lyric_vocabulary=vocabulary), cuda_graphs)
    if torch.device(device).type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise BackboneError(f"sampling.precision: {device} has no bfloat16; use '{FLOAT32}'")
    rest = [component for component in ALL if component != "transformer"]
    others = load_base(base, device=device, components=rest, lyric_vocabulary=vocabulary)
    narrow = load_base(base, device=device, components=("transformer",), dtype="bfloat16")
    return AceStepSampler(replace(others, transformer=narrow.transformer), cuda_graphs)


def decoder(base: Path, *, device: str) -> Callable[[Tensor], np.ndarray]:
    """From latents (8, 16, frames) to audio (2, n) float32 in [-1, 1] at 48 kHz."""
    codec = load_base(base, device=device, components=("music_dcae",)).music_dcae
    assert codec is not None

    def decode(latents: Tensor) -> np.ndarray:
        samples = codec.decode(latents[None].to(device), sample_rate=OUTPUT_RATE)[0].clamp(-1, 1).cpu().numpy()
        return np.nan_to_num(samples.astype(np.float32))

    return decode


def sampled(
    transformer: VelocityModel,
    conditions: Conditions,
    *,
    frames: int,
    seed: int,
    steps: int,
    guidance_scale: float,
    device: torch.device,
    dtype: torch.dtype,
) -> Tensor:
    """Latents (8, 16, frames) that the transformer makes of one track's conditions."""
    batch = Batch(
        text_hidden_states=conditions["text"][None],
        text_attention_mask=torch.ones(1, len(conditions["text"]), dtype=torch.long),
        speaker_embeds=conditions["speaker"][None],
        lyric_token_ids=conditions["lyric_ids"][None],
        lyric_mask=conditions["lyric_mask"][None],
    )
    return sample_latents(
        transformer,
        batch.to(device, dtype),
        frames=frames,
        seeds=[seed],
        steps=steps,
        guidance_scale=guidance_scale,
    )[0]
