"""The LoRA on the model: put on by peft, written in three forms, described so that every reader applies the same scale.

Readers take the scale from different places: peft from adapter_config.json; diffusers from the safetensors metadata, or
nowhere, depending on how it is called; ACE-Step's own pipeline and ComfyUI from nowhere. So B carries the scale in the
files for those (docs/decisions/008-the-scale-is-in-the-weights.md).
"""

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from lofi_assets.files.documents import write_json
from lofi_assets.files.writing import link_or_copy
from lofi_assets.training.checkpoints.files import (
    ADAPTER_METADATA,
    COMFYUI_WEIGHTS,
    DIFFUSERS_WEIGHTS,
    MAGNITUDE,
    PEFT_CONFIG,
    PEFT_PREFIX,
    PEFT_WEIGHTS,
)
from lofi_assets.training.config import LoraSettings
from lofi_assets.training.distributed import whole

if TYPE_CHECKING:  # three CPU-seconds, with transformers and bitsandbytes: not for who only reads an adapter
    from peft import LoraConfig

ADAPTER = "default"


def add_lora(model: torch.nn.Module, lora: LoraSettings, *, seed: int) -> dict[str, torch.nn.Parameter]:
    """Freeze the model and put a fresh adapter on it.

    Returns:
        What `trainable` finds. B starts at zero: the first step starts from the base model.
    """
    from peft import inject_adapter_in_model
    from peft.tuners.lora import LoraLayer

    model.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(_peft_config(lora), model, adapter_name=ADAPTER)
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            # autocast casts what a matrix product reads; peft would cast to the adapter's float32 before that
            layer.cast_input_dtype_enabled = False
    parameters = trainable(model)
    for parameter in parameters.values():
        parameter.data = parameter.data.float()
    return parameters


def trainable(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Trainable parameters by their name without the adapter's, sorted.

    `....to_q.lora_A.weight` (rank, inputs), `....to_q.lora_B.weight` (outputs, rank), and with DoRA
    `....to_q.lora_magnitude_vector.weight` (outputs,).
    """
    named = {
        name.replace(f".{ADAPTER}.", "."): parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    return dict(sorted(named.items()))


def snapshot(parameters: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Float32 CPU copies of the adapter's tensors; where processes share them out, each has to take part."""
    return {
        name: whole(tensor.detach()).to("cpu", torch.float32, copy=True).contiguous()
        for name, tensor in parameters.items()
    }


def digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """sha256 of names, shapes and bytes: two adapters with the same digest are bit-identical."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        total.update(f"{name}{tuple(tensors[name].shape)}".encode())
        total.update(tensors[name].numpy().data)
    return total.hexdigest()


def write_adapter(folder: Path, tensors: Mapping[str, torch.Tensor], *, lora: LoraSettings, base: str) -> None:
    """Write the adapter in every form that can carry it: PEFT as trained, diffusers and ComfyUI with the scale in B.

    A DoRA (one with magnitude vectors) has no ComfyUI form: ComfyUI divides by the norm of the base weights, so that no
    file gives the trained strength there. Merge it into the base instead.

    Args:
        folder: existing folder.
        tensors: from `snapshot`.
        base: path or repository of the base model, for readers.
    """
    stored = {_stored_name(name): tensor for name, tensor in tensors.items()}
    settings = plain(_peft_config(lora, base=base).to_dict())
    write_json(folder / PEFT_CONFIG, settings)
    prefixed = {PEFT_PREFIX + name: tensor for name, tensor in stored.items()}
    save_reproducibly(prefixed, folder / PEFT_WEIGHTS, metadata={"format": "pt"})
    scaled = {name: tensor * lora.scale if ".lora_B." in name else tensor for name, tensor in stored.items()}
    unit = json.dumps({**settings, "lora_alpha": lora.r, "use_rslora": False}, sort_keys=True)
    save_reproducibly(scaled, folder / DIFFUSERS_WEIGHTS, metadata={"format": "pt", ADAPTER_METADATA: unit})
    if not lora.use_dora:
        link_or_copy(folder / DIFFUSERS_WEIGHTS, folder / COMFYUI_WEIGHTS)


def read_adapter(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors that `write_adapter` was given, from the PEFT form; their `digest` is the checkpoint's.

    Raises:
        OSError, SafetensorError: absent or damaged.
    """
    stored = load_file(folder / PEFT_WEIGHTS)
    return {_parameter_name(name.removeprefix(PEFT_PREFIX)): tensor for name, tensor in stored.items()}


def save_reproducibly(tensors: dict[str, torch.Tensor], path: Path, *, metadata: dict[str, str]) -> None:
    """Write safetensors whose bytes depend on the content only.

    The library writes metadata keys in the order of a hash map, which differs from one call to the next; putting the
    header's keys in order leaves its length as it is.
    """
    save_file(tensors, path, metadata=metadata)
    with path.open("r+b") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        ordered = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(ordered) > length:
            raise RuntimeError(f"{path}: the safetensors header has an unknown form; report the safetensors version")
        file.seek(8)
        file.write(ordered.ljust(length))


def _stored_name(name: str) -> str:
    """peft stores a magnitude vector without the `.weight` that its parameter has."""
    return name.removesuffix(".weight") if name.endswith(f"{MAGNITUDE}.weight") else name


def _parameter_name(stored: str) -> str:
    return f"{stored}.weight" if stored.endswith(MAGNITUDE) else stored


def _peft_config(lora: LoraSettings, *, base: str | None = None) -> "LoraConfig":
    from peft import LoraConfig

    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.lora_alpha,
        target_modules=list(lora.target_modules),
        use_rslora=lora.use_rslora,
        use_dora=lora.use_dora,
        lora_dropout=0.0,
        base_model_name_or_path=base,
    )


def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as JSON, sets in order."""
    return {name: sorted(value) if isinstance(value, set) else value for name, value in sorted(settings.items())}
