"""The files of a release: what they are called, and where each is."""

from collections.abc import Mapping
from dataclasses import field

from pydantic.dataclasses import dataclass

from lofi_assets.errors import LofiError
from lofi_assets.files.typed import STORED

ADAPTER_FILES = ("adapter_model.safetensors", "adapter_config.json", "pytorch_lora_weights.safetensors", "config.json")
"""What a release carries of the checkpoint (constitution, Checkpoint Management: stored with full configuration)."""


CARD = "README.md"


EVIDENCE = "evidence"
"""Folder of the evidence that a release was let go by, `<asset>.json`, and of the table of gates."""
RELEASE = "release.json"
"""Lists every other file of a release, where it comes from, and the verdicts under which it was let go."""


@dataclass(frozen=True, config=STORED)
class ReleasedFile:
    """A file as it was released."""

    bytes: int
    sha256: str


Files = Mapping[str, ReleasedFile]
"""By path in the release."""


@dataclass(frozen=True, config=STORED)
class Approver:
    """Who approved the card."""

    approved_by: str
    date: str
    """ISO 8601."""


@dataclass(frozen=True, config=STORED)
class ReleasedGate:
    """A verdict under which a release was let go."""

    gate: str
    verdict: str
    value: str
    """The measure and its limit, as people read it."""


@dataclass(frozen=True, kw_only=True, config=STORED)
class ReleaseRecord:
    """`release.json`: the same for the same facts, so it names no time but the approval's."""

    checkpoint: str
    adapter_sha256: str
    base_fingerprint: str
    dataset_sha256: str
    config_sha256: str
    card_sha256: str
    approval: Approver
    constitution: str
    """Its version."""
    gates: tuple[ReleasedGate, ...]
    """Those that hold a release."""
    tools: Mapping[str, str | None]
    """Version of each; None for one that is not installed."""
    files: Files
    """Every other file of the release."""
    evidence: Mapping[str, str] = field(default_factory=dict)
    """Asset of the lineage -> sha256 of its evidence; empty: of a version that had none."""
    made_from: Mapping[str, str] = field(default_factory=dict)
    """File -> sha256 of the checkpoint's file that it was made from, without what names machine, people or tracks."""


class ReleaseError(LofiError, RuntimeError):
    """A release that cannot be made as things are; the message says what is wrong and what to do."""
