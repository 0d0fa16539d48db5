"""`checkpoint.json`: what a checkpoint says of itself, so that it can be made again (constitution II).

What belongs here: the description and where it comes from. What does not: the run's settings, which lie beside it as
`config.json` (`training.config`), and gathering the provenance (`provenance`). Imports without torch.
"""

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

from pydantic.dataclasses import dataclass

from lofi_assets.files.documents import write_json
from lofi_assets.files.typed import STORED, plain, read_typed
from lofi_assets.records import Checkpoint, dump
from lofi_assets.training.checkpoints.files import DESCRIPTION, CheckpointError

_REMEDY = "restore the checkpoint's folder from a copy, or move it away"


@dataclass(frozen=True, kw_only=True, config=STORED)
class Provenance:
    """Where and with what a checkpoint was made; bit-identical weights are promised for the same values of all."""

    git_commit: str | None = None
    """None outside a repository."""
    git_diff_sha256: str | None = None
    """Of what the commit has not got; None without changes."""
    packages: Mapping[str, str | None] = field(default_factory=dict)
    """Package -> version; None for one that is not installed."""
    command: str = ""
    working_directory: str = ""
    python: str = ""
    machine: str = ""
    device: str = ""
    threads: int = 1
    """Of the CPU."""
    kernels: Mapping[str, str | None] = field(default_factory=dict)
    """What decides which of several kernels computes a product."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables that choose kernels or settings."""

    def parts(self) -> dict[str, Any]:
        """As JSON, to compare part by part."""
        return plain(self)


@dataclass(frozen=True, kw_only=True, config=STORED)
class CheckpointDescription:
    """What a checkpoint says of itself. A field that is not there was not recorded, and the checkpoint is then one that
    cannot be made again (`reproducible`)."""

    record: Checkpoint
    run_id: str = ""
    dataset_id: str = ""
    seed: int | None = None
    randomness: Mapping[str, int | str] = field(default_factory=dict)
    """Where the run stood in its sequence of items (`trainer.randomness`)."""
    adapter_sha256: str = ""
    """Digest of the adapter's tensors (`trainer.adapters.digest`)."""
    lora_scale: float | None = None
    started_from: str = ""
    """sha256 of the LoRA that the run started from (`TrainingRun.initial`); empty: from nothing."""
    train_loss: float | None = None
    """Smoothed."""
    validation_loss: float | None = None
    validation_by_timestep: Mapping[str, float] = field(default_factory=dict)
    log: str = ""
    """The log of the run."""
    provenance: Provenance = field(default_factory=Provenance)

    @classmethod
    def read(cls, folder: Path) -> "CheckpointDescription":
        """The description in a checkpoint's folder.

        Raises:
            CheckpointError: absent.
            StoreError: broken, or of another version.
        """
        found = read_typed(folder / DESCRIPTION, cls, remedy=_REMEDY)
        if found is None:
            raise CheckpointError(
                f"{folder / DESCRIPTION}: absent; this folder was not written by lofi_assets.training"
            )
        return found

    def write(self, folder: Path) -> None:
        """Write it into a checkpoint's folder."""
        write_json(folder / DESCRIPTION, {**plain(self), "record": dump(self.record)})

    @property
    def reproducible(self) -> bool:
        """Whether it says what making it again takes (constitution II)."""
        hashes = self.record.dataset_hash and self.record.config_hash
        return bool(self.seed is not None and hashes and self.provenance.command and self.provenance.packages)
