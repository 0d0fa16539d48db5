"""The optimiser of the adapter and its learning rate at a step."""

import contextlib
import io
import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from lofi_assets.training.config import ConfigError, TrainingSettings
from lofi_assets.training.trainer.quantized_base import bitsandbytes

ESTIMATES = ("d", "d_max", "d_hat", "d_numerator", "d_denom", "k")
"""What Prodigy keeps beside its tensors: its step size, what that is estimated from, and the steps that it counted."""


def build_optimizer(settings: TrainingSettings, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """AdamW; AdamW with 8-bit moments for tensors of 4,096 numbers and more; or Prodigy, Adam at an estimated rate.

    On a GPU AdamW is the fused one: a few launches instead of a dozen for each group of tensors, and no temporary copy.

    Raises:
        ConfigError: the library of the optimiser that is asked for is not installed.
    """
    trained = list(parameters)
    options: dict[str, Any] = {
        "lr": settings.learning_rate,
        "betas": settings.betas,
        "weight_decay": settings.weight_decay,
    }
    if settings.optimizer == "adamw_8bit":
        eight_bit: torch.optim.Optimizer = bitsandbytes("optimizer 'adamw_8bit'").optim.AdamW8bit(trained, **options)
        return eight_bit
    if settings.optimizer == "prodigy":
        return _prodigy(trained, options)
    fused = all(parameter.device.type == "cuda" for parameter in trained)
    return torch.optim.AdamW(trained, fused=fused or None, **options)


def _prodigy(trained: list[torch.nn.Parameter], options: Mapping[str, Any]) -> torch.optim.Optimizer:
    """With its authors' settings for diffusion models (Adam's bias correction) and for a warm-up."""
    try:
        from prodigyopt import Prodigy
    except ImportError as error:
        raise ConfigError(
            f"training.optimizer 'prodigy' needs prodigyopt ({error}); run: pip install 'lofi_assets[prodigy]'"
        ) from error
    with contextlib.redirect_stdout(io.StringIO()):  # it prints that weight decay is decoupled
        optimizer: torch.optim.Optimizer = Prodigy(trained, use_bias_correction=True, safeguard_warmup=True, **options)
    return optimizer


def estimates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """What an optimiser has estimated so far, beside its tensors; nothing for AdamW."""
    (group,) = optimizer.param_groups
    return {name: group[name] for name in ESTIMATES if name in group}


def restore_estimates(optimizer: torch.optim.Optimizer, values: Mapping[str, float]) -> None:
    """Put back what `estimates` gave."""
    (group,) = optimizer.param_groups
    group.update(values)


def learning_rate(settings: TrainingSettings, step: int) -> float:
    """Learning rate of a step, counted from 1: linear warm-up, then constant, or falling to zero after `max_steps`."""
    warm = min(1.0, step / settings.warmup_steps) if settings.warmup_steps else 1.0
    if settings.schedule == "constant" or step <= settings.warmup_steps:
        return settings.learning_rate * warm
    left = max(settings.max_steps + 1 - step, 0) / (settings.max_steps + 1 - settings.warmup_steps)
    share = left if settings.schedule == "linear" else (1 - math.cos(math.pi * left)) / 2
    return settings.learning_rate * share
