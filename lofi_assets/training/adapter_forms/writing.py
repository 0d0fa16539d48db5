"""A LoRA in the form that another reader takes; the scale stands in B, so that no reader can miss it
(docs/decisions/008-the-scale-is-in-the-weights.md).
"""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lofi_assets.files.documents import write_json
from lofi_assets.files.writing import atomic_folder
from lofi_assets.training.adapter_forms.adapter import Adapter, AdapterError
from lofi_assets.training.checkpoints.files import (
    ADAPTER_METADATA,
    COMFYUI_WEIGHTS,
    DIFFUSERS_WEIGHTS,
    MAGNITUDE,
    PEFT_CONFIG,
    PEFT_PREFIX,
    PEFT_WEIGHTS,
)

if TYPE_CHECKING:
    from torch import Tensor

Target = Literal["peft", "diffusers", "comfyui"]


def write_lora(adapter: Adapter, folder: Path, *, to: Target) -> list[Path]:
    """Write a LoRA into a folder of its own, which appears at once or not at all.

    `diffusers` is also what ACE-Step's pipeline takes.

    Returns:
        The files.
    Raises:
        AdapterError: the folder is there and not empty, or a DoRA for ComfyUI, which no file gives the right strength.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise AdapterError(f"{folder}: is not an empty folder; name another")
    if to == "comfyui" and adapter.is_dora:
        raise AdapterError(
            "a DoRA has no form for ComfyUI, which divides by another norm than it is trained with "
            "(docs/decisions/008-the-scale-is-in-the-weights.md); merge it into the base"
        )
    from lofi_assets.training.trainer.adapters import save_reproducibly

    tensors, settings = _tensors(adapter), _settings(adapter)
    with atomic_folder(folder) as partial:
        if to == "peft":
            prefixed = {PEFT_PREFIX + name: tensor for name, tensor in tensors.items()}
            save_reproducibly(prefixed, partial / PEFT_WEIGHTS, metadata={"format": "pt"})
            write_json(partial / PEFT_CONFIG, settings)
        elif to == "diffusers":
            metadata = {"format": "pt", ADAPTER_METADATA: json.dumps(settings, sort_keys=True)}
            save_reproducibly(tensors, partial / DIFFUSERS_WEIGHTS, metadata=metadata)
        else:
            save_reproducibly(tensors, partial / COMFYUI_WEIGHTS, metadata={"format": "pt"})
    return sorted(path for path in folder.iterdir() if path.is_file())


def _tensors(adapter: Adapter) -> "dict[str, Tensor]":
    """A, B times the scale, and a DoRA's magnitude, by the names of the model."""
    found: dict[str, Tensor] = {}
    for layer, pair in adapter.pairs.items():
        found[f"{layer}.lora_A.weight"] = pair.down
        found[f"{layer}.lora_B.weight"] = (pair.up * pair.scale).contiguous()
        if pair.magnitude is not None:
            found[layer + MAGNITUDE] = pair.magnitude
    return found


def _settings(adapter: Adapter) -> Mapping[str, Any]:
    """A LoraConfig by which B A is applied at 1: alpha is the rank, in every layer."""
    from peft import LoraConfig

    from lofi_assets.training.trainer.adapters import plain

    usual = Counter(adapter.ranks.values()).most_common(1)[0][0]
    others = {layer: rank for layer, rank in adapter.ranks.items() if rank != usual}
    config = LoraConfig(
        r=usual,
        lora_alpha=usual,
        rank_pattern=others,
        alpha_pattern=others,
        target_modules=sorted(adapter.pairs),
        use_rslora=False,
        use_dora=adapter.is_dora,
    )
    return plain(config.to_dict())
