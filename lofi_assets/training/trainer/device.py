"""Where training runs."""

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
