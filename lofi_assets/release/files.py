"""The files of a release: what they are called, and where each is."""

from collections.abc import Mapping
from typing import Any

from lofi_assets.errors import LofiError

ADAPTER_FILES = ("adapter_model.safetensors", "adapter_config.json", "pytorch_lora_weights.safetensors", "config.json")
"""What a release carries of the checkpoint (constitution, Checkpoint Management: stored with full configuration)."""


CARD = "README.md"


RELEASE = "release.json"
"""Lists every other file of a release, where it comes from, and the verdicts under which it was let go."""


Files = Mapping[str, Mapping[str, Any]]
"""Path in the release -> `bytes` and `sha256`."""


class ReleaseError(LofiError, RuntimeError):
    """A release that cannot be made as things are; the message says what is wrong and what to do."""
