"""What the files of a checkpoint are called."""

from lofi_assets.errors import LofiError

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
