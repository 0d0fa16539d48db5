"""The optimiser of the adapter and its learning rate at a step."""

import math
from collections.abc import Iterable
from typing import Any

import torch

from lofi_assets.training.config import TrainingSettings
from lofi_assets.training.trainer.quantized_base import bitsandbytes


def build_optimizer(settings: TrainingSettings, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """AdamW, or AdamW with 8-bit moments for tensors of 4,096 numbers and more.

    On a GPU AdamW is the fused one: a few launches instead of a dozen for each group of tensors, and no temporary copy.

    Raises:
        ConfigError: 8 bits asked for and bitsandbytes is not installed.
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
    fused = all(parameter.device.type == "cuda" for parameter in trained)
    return torch.optim.AdamW(trained, fused=fused or None, **options)


def learning_rate(settings: TrainingSettings, step: int) -> float:
    """Learning rate of a step, counted from 1: linear warm-up, then constant, or falling to zero after `max_steps`."""
    warm = min(1.0, step / settings.warmup_steps) if settings.warmup_steps else 1.0
    if settings.schedule == "constant" or step <= settings.warmup_steps:
        return settings.learning_rate * warm
    left = max(settings.max_steps + 1 - step, 0) / (settings.max_steps + 1 - settings.warmup_steps)
    share = left if settings.schedule == "linear" else (1 - math.cos(math.pi * left)) / 2
    return settings.learning_rate * share
