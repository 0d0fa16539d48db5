"""The model as it is trained: frozen, perhaps quantized, with a fresh adapter, perhaps shared out or compiled.

Only the order of these is here; each is done in `backbones/`, `adapters`, `quantized_base` or `training.distributed`.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from lofi_assets.training.config import TrainingRun
from lofi_assets.training.distributed import Processes, wrapped
from lofi_assets.training.trainer import adapters
from lofi_assets.training.trainer.quantized_base import quantize_base

COMPILED_SIZES = 256
"""Most sizes and kinds of input that blocks are compiled for; beyond, they run uncompiled."""


@dataclass(frozen=True)
class AdaptedModel:
    """A model to train."""

    model: torch.nn.Module
    """To call, as the backbone's objective does."""
    parameters: dict[str, torch.nn.Parameter]
    """The adapter's, by the names of `adapters.trainable`."""
    dtype: torch.dtype
    """Of the frozen weights that are not quantized."""
    layers: int
    """Blocks of the model."""


def prepare_model(run: TrainingRun, *, device: torch.device, processes: Processes) -> AdaptedModel:
    """Load the base of a run and put a fresh adapter on it.

    Raises:
        ConfigError: an optional dependency is absent.
        BaseModelError: the base cannot be read.
    """
    backbone, settings = run.backbone, run.training
    name: Literal["float32", "bfloat16"] = "float32" if settings.precision == "32" else "bfloat16"
    # what is quantized or shared out never lies on the GPU as a whole
    first = "cpu" if settings.base_quantization != "none" or _sharded(run, processes) else str(device)
    base, dtype = backbone.trainable(run.base, settings, dtype=name, device=first), getattr(torch, name)
    if settings.base_quantization != "none":
        quantize_base(base, settings.base_quantization, quantizable=backbone.quantizable, compute=dtype, device=device)
        torch.nn.Module.to(base, device)
    parameters = adapters.add_lora(base, run.lora, seed=settings.seed)
    blocks = backbone.blocks(base)
    if settings.compile:
        for block in blocks:
            block.compile(dynamic=False, recompile_limit=COMPILED_SIZES)
    model = wrapped(base, settings, processes, device, blocks=blocks)
    if _sharded(run, processes):
        parameters = adapters.trainable(base)
    return AdaptedModel(model, parameters, dtype, len(blocks))


def _sharded(run: TrainingRun, processes: Processes) -> bool:
    return processes.count > 1 and run.training.parallel == "fsdp"
