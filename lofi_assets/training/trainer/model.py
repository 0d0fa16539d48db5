"""The transformer as it is trained: frozen, perhaps quantized, with a fresh adapter, perhaps shared out or compiled.

What belongs here: the order in which these are done. What does not: how each is done (`adapters`, `quantized_base`,
`training.distributed`).
"""

from dataclasses import dataclass

import torch

from lofi_assets.backbones.ace_step_v1.loading import load_base
from lofi_assets.training.config import TrainingRun
from lofi_assets.training.distributed import Processes, wrapped
from lofi_assets.training.trainer import adapters
from lofi_assets.training.trainer.quantized_base import quantize_base

COMPILED_SIZES = 256
"""Most sizes and kinds of input that blocks are compiled for; beyond, they run uncompiled."""


@dataclass(frozen=True)
class Backbone:
    """A model to train."""

    model: torch.nn.Module
    """To call, with the arguments of `ACEStepTransformer2DModel.forward`."""
    parameters: dict[str, torch.nn.Parameter]
    """The adapter's, by the names of `adapters.trainable`."""
    dtype: torch.dtype
    """Of the frozen weights that are not quantized."""


def prepare_backbone(run: TrainingRun, *, device: torch.device, processes: Processes) -> Backbone:
    """Load the base of a run and put a fresh adapter on it.

    Raises:
        ConfigError: an optional dependency is absent.
        BaseModelError: the base cannot be read.
    """
    settings = run.training
    name = "float32" if settings.precision == "32" else "bfloat16"
    options = {"drop_dead_projections": True, "build_projectors": settings.ssl_weight > 0}
    # what is quantized or shared out never lies on the GPU as a whole
    first = "cpu" if settings.base_quantization != "none" or _sharded(run, processes) else str(device)
    base = load_base(run.base, dtype=name, device=first, components=("transformer",), transformer_options=options)
    transformer, dtype = base.transformer, getattr(torch, name)
    assert transformer is not None
    if settings.base_quantization != "none":
        quantize_base(transformer, settings.base_quantization, compute=dtype, device=device)
        torch.nn.Module.to(transformer, device)
    parameters = adapters.add_lora(transformer, run.lora, seed=settings.seed)
    if settings.gradient_checkpointing:
        transformer.enable_gradient_checkpointing()
    if settings.compile:
        for block in transformer.transformer_blocks:
            block.compile(dynamic=False, recompile_limit=COMPILED_SIZES)
    model = wrapped(transformer, settings, processes, device)
    if _sharded(run, processes):
        parameters = adapters.trainable(transformer)
    return Backbone(model, parameters, dtype)


def _sharded(run: TrainingRun, processes: Processes) -> bool:
    return processes.count > 1 and run.training.parallel == "fsdp"
