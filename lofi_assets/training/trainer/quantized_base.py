"""The frozen base in 8 or 4 bits, so that training fits a smaller GPU (QLoRA, arXiv 2305.14314).

What belongs here: which layers are quantized for training, and the optional dependency. What does not: the tiers that
are released (`lofi_assets.quantization`): an adapter is merged into the unquantized base.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Literal

import torch
from torch import nn

from lofi_assets.training.config import ConfigError


def bitsandbytes(purpose: str) -> ModuleType:
    """The library.

    Raises:
        ConfigError: it is not installed; the message names `purpose`.
    """
    try:
        import bitsandbytes
    except ImportError as error:
        raise ConfigError(
            f"training.{purpose} needs bitsandbytes ({error}); run: pip install 'lofi_assets[bitsandbytes]'"
        ) from error
    return bitsandbytes


def quantize_base(
    model: nn.Module,
    bits: Literal["int8", "nf4"],
    *,
    quantizable: Callable[[str], bool],
    convolutions: bool = False,
    compute: torch.dtype,
    device: torch.device,
) -> None:
    """Replace linear layers by quantized ones on `device`; the rest stays as and where it is.

    Args:
        quantizable: whether the layer of that name is one of them (`Backbone.quantizable`).
        convolutions: also of one frame, which are linear layers by another name.

    Raises:
        ConfigError: bitsandbytes is not installed.
    """
    library = bitsandbytes(f"base_quantization '{bits}'")
    linears = [name for name, module in model.named_modules() if _linear(module, convolutions)]
    for name in filter(quantizable, linears):
        model.set_submodule(name, _quantized(library, model.get_submodule(name), bits, compute).to(device))
    # peft asks the model, not its layers, which kind of adapter fits
    setattr(model, "is_loaded_in_8bit" if bits == "int8" else "is_loaded_in_4bit", True)


def _linear(module: nn.Module, convolutions: bool) -> bool:
    if type(module) is nn.Conv1d:
        return convolutions and module.kernel_size == (1,) and module.groups == 1
    return type(module) is nn.Linear


def _quantized(library: ModuleType, layer: nn.Module, bits: Literal["int8", "nf4"], compute: torch.dtype) -> nn.Module:
    assert isinstance(layer, nn.Linear | nn.Conv1d)
    weight = layer.weight.data.flatten(1)
    shape = (weight.shape[1], weight.shape[0], layer.bias is not None)
    quantized: nn.Linear
    if bits == "int8":
        quantized = library.nn.Linear8bitLt(*shape, has_fp16_weights=False)
        quantized.weight = library.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
    else:
        quantized = library.nn.Linear4bit(*shape, compute_dtype=compute, quant_type="nf4")
        quantized.weight = library.nn.Params4bit(weight, requires_grad=False, quant_type="nf4")
    quantized.bias = layer.bias  # type: ignore[assignment]
    return quantized
