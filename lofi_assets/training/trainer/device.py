"""Where training runs, and that it runs there the same way twice: the choice of a device, and deterministic kernels."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from lofi_assets.training.config import ConfigError


def pick_device(name: str, *, precision: str) -> torch.device:
    """The device to train on.

    Raises:
        ConfigError: it is absent, or cannot do the precision.
    """
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
    device = torch.device(chosen)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device: {name} asked for, but torch sees no GPU; use 'cpu' or 'auto'")
    if device.type == "cuda" and precision == "bf16-mixed" and not torch.cuda.is_bf16_supported():
        raise ConfigError("training.precision: this GPU has no bfloat16; use '32'")
    return device


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Deterministic kernels within the block; what has none raises RuntimeError with the operation's name."""
    before, warned = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    filled = memory.fill_uninitialized_memory
    if device.type == "cuda":
        # cuBLAS reads it when it is first used; without, some of its products depend on the stream
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # no kernel here reads memory that it did not write, and filling it costs a pass over every new tensor
    memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warned)
        memory.fill_uninitialized_memory = filled
