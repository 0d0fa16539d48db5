"""Whether a checkpoint can be loaded by everyone who reads it, and what is wrong with it if not."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lofi_assets.files.documents import read_json
from lofi_assets.training.checkpoints.files import (
    ADAPTER_METADATA,
    COMFYUI_WEIGHTS,
    DIFFUSERS_WEIGHTS,
    MAGNITUDE,
    PEFT_CONFIG,
    PEFT_PREFIX,
    PEFT_WEIGHTS,
)
from lofi_assets.training.layer_patterns import rank_of, scale_of
from lofi_assets.training.lora_settings import LoraSettings

if TYPE_CHECKING:
    import numpy as np


PATTERNS = ("rank_pattern", "alpha_pattern")


def fault(folder: Path) -> str | None:
    """Why the checkpoint in `folder` cannot be used, None if it can.

    Loads every form. The PEFT one is whole, finite and of the ranks that its configuration says; the others, whose
    readers apply them as they are, hold the same A and B times the trained scale, filled up with zeros to one rank, and
    say so in their metadata.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        lora = _settings(folder)
        peft = load_file(folder / PEFT_WEIGHTS)
        reason = _misnamed(peft) or _malformed(peft, lora)
        for name in () if reason else _unscaled_forms(peft):
            reason = reason or _misread(folder / name, peft, lora)
    except (OSError, SafetensorError, KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        return f"{folder}: does not load ({type(error).__name__}: {error})"
    return f"{folder}: {reason}" if reason else None


def is_valid(folder: Path) -> bool:
    """Whether the checkpoint loads and holds a whole, finite adapter."""
    return fault(folder) is None


def _settings(folder: Path) -> LoraSettings:
    """The adapter's settings as peft reads them."""
    config = read_json(folder / PEFT_CONFIG, default={})
    names = ("r", "lora_alpha", "use_rslora", "target_modules")
    patterns = {name: config.get(name) or {} for name in PATTERNS}
    return LoraSettings.model_validate({name: config[name] for name in names} | patterns)


def _misnamed(peft: "Mapping[str, np.ndarray]") -> str | None:
    wrong = [name for name in peft if not name.startswith(PEFT_PREFIX)]
    return (
        f"{PEFT_WEIGHTS}: {wrong[0]} lacks the prefix {PEFT_PREFIX}, so peft would not find its layer"
        if wrong
        else None
    )


def _malformed(tensors: "Mapping[str, np.ndarray]", lora: LoraSettings) -> str | None:
    import numpy as np

    if not tensors:
        return "holds no adapter weights"
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            return f"{name} holds a number that is not finite"
        if ".lora_A." in name:
            other, rank = tensors.get(name.replace(".lora_A.", ".lora_B.")), rank_of(lora, _layer(name))
            if other is None or tensor.shape[0] != rank or other.shape[1] != rank:
                return f"{name} does not fit its lora_B, or not the rank {rank}"
        elif name.endswith(MAGNITUDE):
            other = tensors.get(name.removesuffix(MAGNITUDE) + ".lora_B.weight")
            if other is None or tensor.shape != other.shape[:1]:
                return f"{name} does not fit its lora_B"
        elif ".lora_B." not in name or name.replace(".lora_B.", ".lora_A.") not in tensors:
            return f"{name} is no half of a LoRA pair"
    return None


def _unscaled_forms(peft: "Mapping[str, np.ndarray]") -> tuple[str, ...]:
    """Files whose readers apply B A x as it is; ComfyUI takes no DoRA (`training.trainer.adapters.write_adapter`)."""
    dora = any(name.endswith(MAGNITUDE) for name in peft)
    return (DIFFUSERS_WEIGHTS,) if dora else (DIFFUSERS_WEIGHTS, COMFYUI_WEIGHTS)


def _misread(path: Path, peft: "Mapping[str, np.ndarray]", lora: LoraSettings) -> str | None:
    """Why readers of `path` would apply another adapter, or another strength, than was trained."""
    import numpy as np
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        said = json.loads((file.metadata() or {}).get(ADAPTER_METADATA, "{}"))
        names = set(file.keys())
        if names != {name.removeprefix(PEFT_PREFIX) for name in peft}:
            return f"{PEFT_WEIGHTS} and {path.name} hold different adapters"
        rank = max(len(tensor) for name, tensor in peft.items() if ".lora_A." in name)
        applied = (said.get("lora_alpha"), said.get("r"), said.get("use_rslora"))
        if applied != (rank, rank, False) or any(map(said.get, PATTERNS)):
            return f"{path.name} does not say that it is applied at 1.0 (lora_alpha = r, no rsLoRA, no patterns)"
        for name in sorted(names):
            trained = peft[PEFT_PREFIX + name]
            if ".lora_B." in name:
                trained = np.pad(trained * scale_of(lora, _layer(name)), ((0, 0), (0, rank - trained.shape[1])))
            elif ".lora_A." in name:
                trained = np.pad(trained, ((0, rank - len(trained)), (0, 0)))
            if not np.array_equal(file.get_tensor(name), trained):
                return f"{PEFT_WEIGHTS} and {path.name} hold different adapters: {name} is not the trained strength"
    return None


def _layer(name: str) -> str:
    """The layer of a stored tensor, as a pattern matches it."""
    return name.removeprefix(PEFT_PREFIX).partition(".lora_")[0]
