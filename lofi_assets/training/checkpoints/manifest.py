"""Checkpoints on disk: their manifest, whether they load, which are kept.

What belongs here: reading and changing `checkpoints/manifest.json` and the folders it names. What does not: writing
weights (`adapters`), optimiser state (`resume`), which run a checkpoint belongs to (`runs`). Imports without torch.

    checkpoints/manifest.json                  array of Checkpoint records (data model)
    checkpoints/pruned.json                    records of what retention removed
    checkpoints/epoch=0-step={N}_lora/         adapter_model.safetensors + adapter_config.json (PEFT),
                                               pytorch_lora_weights.safetensors (diffusers, ACE-Step),
                                               comfyui_lora.safetensors (ComfyUI; the same bytes),
                                               config.json (the TrainingRun), checkpoint.json (record and provenance),
                                               state/ (adapter, optimiser and position, to go on from: `resume`)
"""

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lofi_assets.errors import LofiError
from lofi_assets.files.documents import read_json, write_json
from lofi_assets.records import Checkpoint, dump, parse
from lofi_assets.training.config import LoraSettings

if TYPE_CHECKING:
    import numpy as np

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
REMOVABLE = f"mend it or remove it: every checkpoint's folder holds its own record ({DESCRIPTION})"
"""What to do about a broken manifest."""


class CheckpointError(LofiError, RuntimeError):
    """A checkpoint or the manifest is not what it should be; the message names the file and the remedy."""


def checkpoint_id(step: int) -> str:
    """`epoch=0-step={N}_lora` (constitution, Checkpoint Management)."""
    return f"epoch=0-step={step}_lora"


def read_manifest(checkpoints_dir: Path) -> list[Checkpoint]:
    """Records by rising step; empty if nothing was trained.

    Without a manifest they are those that the checkpoints' folders hold, so that a broken one can be removed; FAD and
    the like are then entered again by `quality_metrics`.

    Raises:
        StoreError, CheckpointError: the manifest is broken.
        RecordError: a record breaks the schema.
    """
    path = checkpoints_dir / MANIFEST
    if path.is_file():
        return _read(path)
    described = [describe(file.parent) for file in checkpoints_dir.glob(f"epoch=0-step=*_lora/{DESCRIPTION}")]
    return _records([description.get("record") for description in described], path)


def write_manifest(checkpoints_dir: Path, records: Sequence[Checkpoint]) -> None:
    """Replace the manifest atomically."""
    _write(checkpoints_dir / MANIFEST, records)


def add_record(checkpoints_dir: Path, record: Checkpoint) -> None:
    """Put a record into the manifest, in place of one with the same id."""
    others = [known for known in read_manifest(checkpoints_dir) if known.checkpoint_id != record.checkpoint_id]
    write_manifest(checkpoints_dir, [*others, record])


def update_record(checkpoints_dir: Path, identifier: str, **changes: Any) -> Checkpoint:
    """Change fields of a record, for instance `fad_score=3.2, samples_generated=True`; returns the new record.

    Raises:
        CheckpointError: no such checkpoint.
        RecordError: the change breaks the schema.
    """
    records = read_manifest(checkpoints_dir)
    index = next((i for i, known in enumerate(records) if known.checkpoint_id == identifier), None)
    if index is None:
        raise CheckpointError(f"{checkpoints_dir / MANIFEST}: no checkpoint {identifier!r} to update")
    records[index] = parse(Checkpoint, {**dump(records[index]), **_plain(changes)}, where=identifier)
    write_manifest(checkpoints_dir, records)
    return records[index]


def best(manifest: Sequence[Checkpoint]) -> Checkpoint | None:
    """The valid checkpoint with the lowest FAD, the later one of a tie; None before any evaluation."""
    ranked = _ranked(manifest)
    return ranked[0] if ranked else None


def retention(
    manifest: Sequence[Checkpoint], *, keep_best: int = 3
) -> tuple[tuple[Checkpoint, ...], tuple[Checkpoint, ...]]:
    """Split into what is kept and what may be pruned (data model, Retention Policy).

    Kept: the best by FAD, the latest, and everything that has no FAD yet, since it may turn out the best.
    """
    latest = max(manifest, key=lambda record: record.step, default=None)
    chosen = {record.checkpoint_id for record in _ranked(manifest)[:keep_best]}
    kept = [r for r in manifest if r is latest or r.fad_score is None or r.checkpoint_id in chosen]
    return tuple(kept), tuple(record for record in manifest if record not in kept)


def prune(checkpoints_dir: Path, *, keep_best: int = 3) -> tuple[Checkpoint, ...]:
    """Remove the folders that retention gives up; their records move to `pruned.json`. Returns those records.

    The records move first, so that a killed process leaves folders without a record, which the next call removes.
    """
    kept, given_up = retention(read_manifest(checkpoints_dir), keep_best=keep_best)
    pruned = {record.checkpoint_id: record for record in (*_read(checkpoints_dir / PRUNED), *given_up)}
    if given_up:
        _write(checkpoints_dir / PRUNED, list(pruned.values()))
        write_manifest(checkpoints_dir, kept)
    for identifier in pruned.keys() - {record.checkpoint_id for record in kept}:
        shutil.rmtree(checkpoints_dir / identifier, ignore_errors=True)
    return given_up


def fault(folder: Path) -> str | None:
    """Why the checkpoint in `folder` cannot be used, None if it can.

    Loads every form. The PEFT one is whole, finite and of the rank that its configuration says; the others, whose
    readers apply them as they are, hold the same A and B times the trained scale, and say so in their metadata.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        lora = _settings(folder)
        peft = load_file(folder / PEFT_WEIGHTS)
        reason = _misnamed(peft) or _malformed(peft, rank=lora.r)
        for name in () if reason else _unscaled_forms(peft):
            reason = reason or _misread(folder / name, peft, lora)
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
        return f"{folder}: does not load ({type(error).__name__}: {error})"
    return f"{folder}: {reason}" if reason else None


def is_valid(folder: Path) -> bool:
    """Whether the checkpoint loads and holds a whole, finite adapter."""
    return fault(folder) is None


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


def _ranked(manifest: Sequence[Checkpoint]) -> list[Checkpoint]:
    """Evaluated, valid checkpoints, best first."""
    evaluated = [r for r in manifest if r.is_valid and r.fad_score is not None and math.isfinite(r.fad_score)]
    return sorted(evaluated, key=lambda record: (record.fad_score, -record.step))


def _settings(folder: Path) -> LoraSettings:
    """The adapter's settings as peft reads them."""
    config = read_json(folder / PEFT_CONFIG, default={})
    names = ("r", "lora_alpha", "use_rslora", "target_modules")
    return LoraSettings.model_validate({name: config[name] for name in names})


def _misnamed(peft: "Mapping[str, np.ndarray]") -> str | None:
    wrong = [name for name in peft if not name.startswith(PEFT_PREFIX)]
    return (
        f"{PEFT_WEIGHTS}: {wrong[0]} lacks the prefix {PEFT_PREFIX}, so peft would not find its layer"
        if wrong
        else None
    )


def _malformed(tensors: "Mapping[str, np.ndarray]", *, rank: int) -> str | None:
    import numpy as np

    if not tensors:
        return "holds no adapter weights"
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            return f"{name} holds a number that is not finite"
        if name.endswith(".lora_magnitude_vector"):
            half = tensors.get(name.replace(".lora_magnitude_vector", ".lora_B.weight"))
            if half is None or tensor.shape != half.shape[:1]:
                return f"{name} does not fit its lora_B"
        elif ".lora_A." in name:
            other = tensors.get(name.replace(".lora_A.", ".lora_B."))
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
    """Files whose readers apply B A x as it stands; ComfyUI cannot apply a DoRA (`adapters.write_adapter`)."""
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
        if (said.get("lora_alpha"), said.get("r"), said.get("use_rslora")) != (lora.r, lora.r, False):
            return f"{path.name} does not say that it is applied at 1.0 (lora_alpha = r, no rsLoRA)"
        for name in sorted(names):
            trained = peft[PEFT_PREFIX + name]
            if not np.array_equal(file.get_tensor(name), trained * lora.scale if ".lora_B." in name else trained):
                return f"{PEFT_WEIGHTS} and {path.name} hold different adapters: {name} is not the trained strength"
    return None


def _read(path: Path) -> list[Checkpoint]:
    data = read_json(path, default=[], remedy=REMOVABLE)
    if not isinstance(data, list):
        raise CheckpointError(f"{path}: not an array of checkpoints; {REMOVABLE}")
    return _records(data, path)


def _records(data: Sequence[Any], path: Path) -> list[Checkpoint]:
    records = [parse(Checkpoint, entry, where=f"{path}, record {i}") for i, entry in enumerate(data)]
    return sorted(records, key=lambda record: record.step)


def _write(path: Path, records: Sequence[Checkpoint]) -> None:
    write_json(path, [dump(record) for record in sorted(records, key=lambda record: record.step)])


def _plain(changes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in changes.items()}
