"""What the files of a checkpoint are called, and the description that it carries of itself."""

from pathlib import Path
from typing import Any

from lofi_assets.errors import LofiError
from lofi_assets.files.documents import read_json

MANIFEST = "manifest.json"


PRUNED = "pruned.json"


PEFT_WEIGHTS = "adapter_model.safetensors"


PEFT_CONFIG = "adapter_config.json"


PEFT_PREFIX = "base_model.model."


DIFFUSERS_WEIGHTS = "pytorch_lora_weights.safetensors"


COMFYUI_WEIGHTS = "comfyui_lora.safetensors"


MAGNITUDE = ".lora_magnitude_vector"
"""End of a DoRA tensor's name: the length of each row of the adapted weight."""


ADAPTER_METADATA = "lora_adapter_metadata"
"""Safetensors metadata from which diffusers takes the LoraConfig."""


RUN_CONFIG = "config.json"


DESCRIPTION = "checkpoint.json"


class CheckpointError(LofiError, RuntimeError):
    """A checkpoint or the manifest is not what it should be; the message names the file and the remedy."""


def checkpoint_id(step: int) -> str:
    """`epoch=0-step={N}_lora` (constitution, Checkpoint Management)."""
    return f"epoch=0-step={step}_lora"


def describe(folder: Path) -> dict[str, Any]:
    """`checkpoint.json`: record, run id, seed, losses, provenance.

    Raises:
        CheckpointError: absent, or of another form.
        StoreError: not JSON.
    """
    description = read_json(folder / DESCRIPTION)
    if not isinstance(description, dict):
        state = "absent" if description is None else "not an object"
        raise CheckpointError(f"{folder / DESCRIPTION}: {state}; this folder was not written by lofi_assets.training")
    return description
