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
from torch.nn import functional as F

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
from lofi_assets.training.config import ConfigError
from lofi_assets.training.distributed import whole
from lofi_assets.training.layer_patterns import pattern_fault, scale_of
from lofi_assets.training.lora_settings import LoraSettings
from lofi_assets.training.trainer.dropout import drop_inputs

if TYPE_CHECKING:  # three CPU-seconds, with transformers and bitsandbytes: not for who only reads an adapter
    from peft import LoraConfig

ADAPTER = "default"


def add_lora(model: torch.nn.Module, lora: LoraSettings, *, seed: int) -> dict[str, torch.nn.Parameter]:
    """Freeze the model and put a fresh adapter on it.

    Returns:
        What `trainable` finds. B starts at zero: the first step starts from the base model.
    Raises:
        ConfigError: a pattern of ranks or alphas matches nothing, or two say different numbers of one layer.
    """
    from peft import inject_adapter_in_model
    from peft.tuners.lora import LoraLayer
    from peft.tuners.tuners_utils import check_target_module_exists

    config = _peft_config(lora)
    layers = (name for name, _ in model.named_modules() if check_target_module_exists(config, name))
    if fault := pattern_fault(lora, layers):
        raise ConfigError(fault)
    model.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, model, adapter_name=ADAPTER)
    drop_inputs(model, lora.lora_dropout, adapter=ADAPTER)
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

    Where layers differ in rank the last two fill all up to the largest, with rows and columns of zeros: readers that
    know no patterns take one rank for all of them, and then alpha / rank would be another factor in each.

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
    scaled, rank = at_unit_strength(stored, lora), largest_rank(stored)
    even = {"r": rank, "lora_alpha": rank, "use_rslora": False, "rank_pattern": {}, "alpha_pattern": {}}
    unit = json.dumps({**settings, **even}, sort_keys=True)
    save_reproducibly(scaled, folder / DIFFUSERS_WEIGHTS, metadata={"format": "pt", ADAPTER_METADATA: unit})
    if not lora.use_dora:
        link_or_copy(folder / DIFFUSERS_WEIGHTS, folder / COMFYUI_WEIGHTS)


def checkpoint_bytes(tensors: Mapping[str, torch.Tensor]) -> int:
    """What `write_adapter` takes on a disk, headers left out."""
    rank, total = largest_rank(tensors), 0
    for name, tensor in tensors.items():
        own = len(tensor) if ".lora_A." in name else tensor.shape[1] if ".lora_B." in name else rank
        total += tensor.nbytes + tensor.nbytes // own * rank
    return total


def largest_rank(stored: Mapping[str, torch.Tensor]) -> int:
    """Of the layers of an adapter."""
    return max(len(tensor) for name, tensor in stored.items() if ".lora_A." in name)


def at_unit_strength(stored: Mapping[str, torch.Tensor], lora: LoraSettings) -> dict[str, torch.Tensor]:
    """The tensors as readers take them that apply B A at 1: the scale in B, and every layer of the largest rank."""
    rank = largest_rank(stored)
    found = {}
    for name, tensor in stored.items():
        if ".lora_B." in name:
            tensor = F.pad(tensor * scale_of(lora, name.partition(".lora_B.")[0]), (0, rank - tensor.shape[1]))
        elif ".lora_A." in name:
            tensor = F.pad(tensor, (0, 0, 0, rank - len(tensor)))
        found[name] = tensor
    return found


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
        lora_dropout=lora.lora_dropout,
        rank_pattern=lora.rank_pattern,
        alpha_pattern=lora.alpha_pattern,
        base_model_name_or_path=base,
    )


def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as JSON, sets in order."""
    return {name: sorted(value) if isinstance(value, set) else value for name, value in sorted(settings.items())}
