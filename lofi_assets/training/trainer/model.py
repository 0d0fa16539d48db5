"""The model as it is trained: frozen, perhaps quantized, with a fresh adapter, perhaps shared out or compiled.

Only the order of these is here; each is done in `backbones/`, `adapters`, `quantized_base` or `training.distributed`.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

import torch

from lofi_assets.training.config import TrainingRun, TrainingSettings
from lofi_assets.training.distributed import Processes, wrapped
from lofi_assets.training.trainer import adapters
from lofi_assets.training.trainer.initial_values import start_from
from lofi_assets.training.trainer.quantized_base import quantize_base

COMPILED_SIZES = 256
"""Most sizes and kinds of input that blocks are compiled for; beyond, they run uncompiled."""
C_COMPILERS = ("cc", "gcc", "clang")
"""Triton needs one to load its kernels."""


@dataclass(frozen=True)
class AdaptedModel:
    """A model to train."""

    model: torch.nn.Module
    """To call, as the backbone's objective does."""
    parameters: dict[str, torch.nn.Parameter]
    """The adapter's, by the names of `adapters.trainable`."""
    dtype: torch.dtype
    """Of the frozen weights that are not quantized."""
    compiled: bool
    """Whether its blocks are."""
    layers: int
    """Blocks of the model."""


def prepare_model(
    run: TrainingRun, *, device: torch.device, processes: Processes, at_start: bool = True
) -> AdaptedModel:
    """Load the base of a run and put an adapter on it, with the values that the run starts from.

    Args:
        at_start: no state of the run is loaded afterwards; else what the run started from is not needed any more.
    Raises:
        ConfigError: an optional dependency is absent, or what the run starts from does not fit its adapter.
        BaseModelError: the base cannot be read.
    """
    backbone, settings = run.backbone, run.training
    name: Literal["float32", "bfloat16"] = "float32" if settings.precision == "32" else "bfloat16"
    # what is quantized or shared out never lies on the GPU as a whole
    first = "cpu" if settings.base_quantization != "none" or _sharded(run, processes) else str(device)
    base, dtype = backbone.trainable(run.base, settings, dtype=name, device=first), getattr(torch, name)
    if settings.base_quantization != "none":
        quantize_base(
            base,
            settings.base_quantization,
            quantizable=backbone.quantizable,
            convolutions=settings.quantized_parts == "blocks",
            compute=dtype,
            device=device,
        )
        torch.nn.Module.to(base, device)
    parameters = adapters.add_lora(base, run.lora, seed=settings.seed)
    if run.initial and at_start:
        start_from(base, parameters, run)
    blocks = backbone.blocks(base)
    compiled = compiles(settings, device)
    if compiled:
        compile_blocks(blocks)
    model = wrapped(base, settings, processes, device, blocks=blocks)
    if _sharded(run, processes):
        parameters = adapters.trainable(base)
    return AdaptedModel(model, parameters, dtype, compiled, len(blocks))


def compiles(settings: TrainingSettings, device: torch.device) -> bool:
    """What `compile` comes to on a device; the same for every process and every resume on one machine."""
    if settings.compile != "auto":
        return settings.compile
    whole = settings.base_quantization == "none" and settings.parallel == "ddp"
    return device.type == "cuda" and whole and bool(find_spec("triton")) and any(map(shutil.which, C_COMPILERS))


def compile_blocks(blocks: Sequence[torch.nn.Module], *, backend: str = "inductor") -> None:
    """Compile each block for every size that it meets; they share what is compiled.

    Args:
        backend: of torch.compile; "aot_eager" traces forward and backward pass and needs no C compiler.
    """
    import torch._dynamo.config as dynamo
    import torch._inductor.config as inductor

    # otherwise the compiler times its kernels, and which one wins may differ after a resume
    inductor.deterministic = True
    dynamo.recompile_limit = max(dynamo.recompile_limit, COMPILED_SIZES)
    dynamo.accumulated_recompile_limit = max(dynamo.accumulated_recompile_limit, COMPILED_SIZES)
    for block in blocks:
        block.compile(dynamic=False, backend=backend)


def _sharded(run: TrainingRun, processes: Processes) -> bool:
    return processes.count > 1 and run.training.parallel == "fsdp"
