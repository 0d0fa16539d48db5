"""A recorded checkpoint against one that was made again: which bits agree, and what differs first if they do not.

What belongs here: reading what a checkpoint recorded, what stands in the way of making it again, and the comparison.
What does not: making it again (`rerun`). Imports without torch.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lofi_assets.errors import LofiError
from lofi_assets.training.checkpoints.description import CheckpointDescription, Provenance
from lofi_assets.training.checkpoints.files import RUN_CONFIG
from lofi_assets.training.checkpoints.runs import ARCHIVE
from lofi_assets.training.checkpoints.soundness import fault
from lofi_assets.training.config import ConfigError, TrainingRun, load_run
from lofi_assets.training.trainer.log import read_log

ORDER = ("packages", "git_commit", "git_diff_sha256", "python", "machine", "device", "kernels")
"""Parts of the provenance, the likeliest cause of other bits first; threads and environment are set as recorded."""
NAMES = {"git_commit": "commit of the code", "git_diff_sha256": "uncommitted changes to the code"}
SHOWN = 5
DIGITS = 12
"""Of a hash, for people."""


class ReproductionError(LofiError, RuntimeError):
    """A checkpoint cannot be made again; the message says what is missing and what to do."""


@dataclass(frozen=True)
class Recorded:
    """A checkpoint with what it says of itself."""

    folder: Path
    run: TrainingRun
    step: int
    digest: str
    """sha256 of the adapter, recorded and found in the file."""
    description: CheckpointDescription

    @property
    def provenance(self) -> Provenance:
        """Commit, packages, machine, device, threads."""
        return self.description.provenance


@dataclass(frozen=True)
class Comparison:
    """Two adapters, tensor by tensor."""

    identical: bool
    tensors: int
    """In both."""
    differing: int
    """Of these, with another bit somewhere, or in one of the two only."""
    largest: str = ""
    """Name of the tensor with the largest difference."""
    difference: float = 0.0
    """Largest absolute difference of an element of `largest`."""
    share: float = 0.0
    """The same, of that tensor's largest magnitude."""


def find_checkpoint(checkpoints_dir: Path, name: str) -> Path:
    """The folder of a checkpoint id, of the current run before those in the archive; or `name` itself if it is one.

    Raises:
        ReproductionError: there is none, or several archived runs have one.
    """
    if Path(name).is_dir():
        return Path(name)
    current = checkpoints_dir / name
    archived = sorted((checkpoints_dir / ARCHIVE).glob(f"*/{name}")) if "/" not in name else []
    if current.is_dir():
        return current
    if len(archived) == 1:
        return archived[0]
    if archived:
        listed = ", ".join(map(str, archived))
        raise ReproductionError(f"{name} is in several archived runs; give its folder, one of {listed}")
    known = ", ".join(sorted(path.name for path in checkpoints_dir.glob("epoch=0-step=*_lora"))) or "none"
    raise ReproductionError(f"no folder {name}, and no checkpoint of that id in {checkpoints_dir} (there: {known})")


def read_recorded(folder: Path) -> Recorded:
    """A checkpoint whose files are sound and are those that it recorded.

    Raises:
        CheckpointError: `checkpoint.json` is absent.
        ReproductionError: weights damaged or changed since, or a configuration that this version cannot read.
    """
    from lofi_assets.training.trainer.adapters import digest, read_adapter

    description = CheckpointDescription.read(folder)
    reason = fault(folder)
    if reason:
        raise ReproductionError(f"{reason}; there is nothing sound to compare with")
    found = digest(read_adapter(folder))
    if found != description.adapter_sha256:
        raise ReproductionError(
            f"{folder}: holds adapter {found[:12]}, but {description.adapter_sha256[:12]} was recorded when it was "
            "saved; the weights were changed since, restore them"
        )
    try:
        run = load_run(folder / RUN_CONFIG)
    except ConfigError as error:
        commit = description.provenance.git_commit
        raise ReproductionError(f"{error}; the checkpoint was made by commit {commit}, check that out") from error
    return Recorded(folder, run, description.record.step, found, description)


def configuration_changes(recorded: Recorded) -> list[str]:
    """Where configuration and dataset as they are read now are not what the record's hashes were taken of."""
    record = recorded.description.record
    pairs = {
        "dataset hash": (record.dataset_hash, recorded.run.dataset_hash),
        "configuration hash": (record.config_hash, recorded.run.config_hash),
        "run id": (recorded.description.run_id, recorded.run.run_id),
    }
    return [_differs(name, *pair) for name, pair in pairs.items() if pair[0] != pair[1]]


def provenance_changes(recorded: Provenance, here: Provenance) -> list[str]:
    """What is not as it was when the checkpoint was made, the likeliest cause of other bits first."""
    was, now = recorded.parts(), here.parts()
    return [sentence for name in ORDER for sentence in _changes(name, was[name], now[name])]


def _changes(name: str, recorded: Any, here: Any) -> Iterator[str]:
    if isinstance(recorded, Mapping) and isinstance(here, Mapping):
        for key in sorted(recorded.keys() | here.keys()):
            yield from _changes(f"{name}.{key}", recorded.get(key), here.get(key))
    elif recorded != here:
        yield _differs(name, recorded, here)


def _differs(name: str, recorded: object, here: object) -> str:
    return f"{NAMES.get(name, name)}: {_shown(recorded)} recorded, {_shown(here)} here"


def _shown(value: object) -> str:
    return value[:DIGITS] if isinstance(value, str) and re.fullmatch("[0-9a-f]{40,}", value) else str(value)


def check_inputs(run: TrainingRun) -> None:
    """That base and features are there and are those of the run, before hours are spent.

    Raises:
        ReproductionError: naming what is gone or different, and what to do.
    """
    from lofi_assets.backbones.features import FeatureError
    from lofi_assets.training.features.cache import CachedFeatures

    if not run.base.is_dir():
        raise ReproductionError(
            f"{run.base}: the base model is gone; put it back, or give --base with a folder of the same model "
            f"(fingerprint {run.base_fingerprint[:12]})"
        )
    found = run.backbone.fingerprint(run.base)
    if found != run.base_fingerprint:
        raise ReproductionError(
            f"{run.base}: another base model, fingerprint {found[:12]} instead of {run.base_fingerprint[:12]}; no run "
            "on it can give the same adapter. Put the recorded one back, or give --base"
        )
    gone: dict[str, FeatureError] = {}
    features = CachedFeatures(run.backbone, run.features_dir)
    for track in run.of_split("train"):
        try:
            features.latents(track.key)
            for key in (track.key, *track.variants):
                features.conditions(key)
        except FeatureError as error:
            gone[track.track_id] = error
    if gone:
        listed = ", ".join(list(gone)[:SHOWN]) + (", ..." if len(gone) > SHOWN else "")
        raise ReproductionError(
            f"{run.features_dir}: features of {len(gone)} of {len(run.of_split('train'))} tracks are gone or damaged "
            f"({listed}), for example {next(iter(gone.values()))}. With dataset {run.dataset_id} it writes the same "
            "files, since their names are made of content; or give --features, if they are elsewhere"
        )


def compare(recorded: Path, again: Path) -> Comparison:
    """The adapters of two checkpoint folders, bit for bit."""
    import torch

    from lofi_assets.training.trainer.adapters import digest, read_adapter

    first, second = read_adapter(recorded), read_adapter(again)
    shared = [name for name in first if name in second and first[name].shape == second[name].shape]
    differing = [name for name in shared if not torch.equal(first[name], second[name])]
    if digest(first) == digest(second):
        return Comparison(identical=True, tensors=len(first), differing=0)
    distances = {name: float((first[name] - second[name]).abs().max()) for name in differing}
    largest = max(distances, key=lambda name: distances[name], default="")
    magnitude = float(first[largest].abs().max()) if largest else 0.0
    return Comparison(
        identical=False,
        tensors=len(shared),
        differing=len(differing) + len(first.keys() ^ second.keys()),
        largest=largest,
        difference=distances.get(largest, 0.0),
        share=distances.get(largest, 0.0) / magnitude if magnitude else 0.0,
    )


def first_logged_difference(recorded: Path, again: Path) -> str | None:
    """The first step whose items, loss or gradient differ between two logs; None if none does, or a log is gone."""
    lines = {line["step"]: line for line in read_log(again) if "loss" in line}
    for line in read_log(recorded):
        other = lines.get(line["step"])
        if "loss" not in line or other is None:
            continue
        for name in ("items", "lr", "loss", "grad_norm"):
            if line.get(name) != other.get(name):
                return f"step {line['step']}: {_differs(name, line.get(name), other.get(name))}"
    return None
