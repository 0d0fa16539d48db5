"""What a LoRA is, for people: form, ranks, strengths, how much it changes which block, what it says of itself."""

import re
from collections import Counter
from collections.abc import Mapping
from math import sqrt
from pathlib import Path

from pydantic.dataclasses import dataclass as stored

from lofi_assets.errors import LofiError
from lofi_assets.files.typed import STORED
from lofi_assets.training.adapter_forms.adapter import Adapter, Pair
from lofi_assets.training.adapter_forms.strength import NOT_SAID
from lofi_assets.training.checkpoints.description import CheckpointDescription
from lofi_assets.training.checkpoints.files import DESCRIPTION

_BLOCK = re.compile(r".*?\.\d+(?=\.)")
_TITLES: Mapping[str, str] = {
    "ace_step": "ACE-Step's (names as in the model)",
    "diffusers": "diffusers' pipelines (also SimpleTuner's)",
    "peft": "PEFT's folder",
    "comfyui": "ComfyUI's",
}


@stored(frozen=True, kw_only=True, config=STORED)
class Block:
    """The adapted layers of one block."""

    layers: int
    norm: float
    """Frobenius norm of everything that is added to its weights, scale included."""


@stored(frozen=True, kw_only=True, config=STORED)
class Inspected:
    """A LoRA file described."""

    form: str
    files: tuple[str, ...]
    sha256: str
    ranks: dict[int, int]
    """Rank -> how many layers have it."""
    strengths: dict[float, int]
    """Factor on B A -> how many layers it is applied to."""
    strength_from: str
    parameters: int
    dora: bool
    layers: dict[str, int]
    """Kind of layer (the end of its name) -> how many."""
    blocks: dict[str, Block]
    said: dict[str, str]
    """What the file claims of itself, unproven."""
    checkpoint: str
    """Of this project's own: checkpoint, run and dataset by its own record; empty for any other."""
    notes: tuple[str, ...]


def inspected(adapter: Adapter, path: Path) -> Inspected:
    """A LoRA described; nothing but the file and what lies beside it is read."""
    blocks: dict[str, list[Pair]] = {}
    for layer, pair in adapter.pairs.items():
        block = _BLOCK.match(layer)
        blocks.setdefault(block[0] if block else layer, []).append(pair)
    pairs = adapter.pairs.values()
    return Inspected(
        form=_TITLES[adapter.form],
        files=tuple(map(str, adapter.files)),
        sha256=adapter.sha256,
        ranks=dict(sorted(Counter(pair.rank for pair in pairs).items())),
        strengths=dict(sorted(Counter(pair.scale for pair in pairs).items())),
        strength_from=adapter.strength,
        parameters=sum(pair.down.numel() + pair.up.numel() for pair in pairs),
        dora=adapter.is_dora,
        layers=dict(sorted(Counter(_kind(layer) for layer in adapter.pairs).items())),
        blocks={
            name: Block(layers=len(found), norm=sqrt(sum(change(pair) ** 2 for pair in found)))
            for name, found in blocks.items()
        },
        said=dict(adapter.said),
        checkpoint=_own(path),
        notes=tuple(_notes(adapter)),
    )


def change(pair: Pair) -> float:
    """Frobenius norm of scale * B A, from the two Gram matrices of the rank's size."""
    down, up = pair.down.flatten(1).double(), pair.up.flatten(1).double()
    squared = float(((up.T @ up) * (down @ down.T)).sum())
    return abs(pair.scale) * sqrt(max(squared, 0.0))


def _kind(layer: str) -> str:
    """`to_q`, `to_out.0`."""
    parts = layer.split(".")
    return ".".join(parts[-2:] if parts[-1].isdigit() else parts[-1:])


def _own(path: Path) -> str:
    folder = path if path.is_dir() else path.parent
    if not (folder / DESCRIPTION).is_file():
        return ""
    try:
        found = CheckpointDescription.read(folder)
    except LofiError as error:
        return f"its {DESCRIPTION} cannot be read ({error})"
    return f"{found.record.checkpoint_id} of run {found.run_id or '?'}, dataset {found.dataset_id or '?'}"


def _notes(adapter: Adapter) -> list[str]:
    notes = []
    if adapter.strength == NOT_SAID:
        notes.append("whoever trained it may have trained it at alpha / r or alpha / sqrt(r); ask, or compare by ear")
    elif adapter.form in ("ace_step", "diffusers") and any(pair.scale != 1 for pair in adapter.pairs.values()):
        notes.append("ACE-Step's own pipeline and ComfyUI apply this file at 1; `lofi lora convert` mends that")
    if adapter.is_dora:
        notes.append("a DoRA: the norms are of B A alone, without the magnitudes")
    if any(change(pair) == 0 for pair in adapter.pairs.values()):
        none = sum(change(pair) == 0 for pair in adapter.pairs.values())
        notes.append(f"{none} of {len(adapter.pairs)} layers change nothing: they were not trained")
    return notes
