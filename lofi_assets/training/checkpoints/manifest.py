"""Checkpoints on disk: their manifest, and which are kept.

What belongs here: reading and changing `checkpoints/manifest.json` and the folders it names. What does not: writing
weights (`training.trainer.adapters`), names of files (`files`), whether a checkpoint loads (`soundness`), optimiser
state (`state`), which run a checkpoint belongs to (`runs`). Imports without torch.

    checkpoints/manifest.json                  array of Checkpoint records (data model)
    checkpoints/pruned.json                    records of what retention removed
    checkpoints/epoch=0-step={N}_lora/         adapter_model.safetensors + adapter_config.json (PEFT),
                                               pytorch_lora_weights.safetensors (diffusers, ACE-Step),
                                               comfyui_lora.safetensors (ComfyUI; the same bytes),
                                               config.json (the TrainingRun), checkpoint.json (record and provenance),
                                               state/ (adapter, optimiser and position, to go on from: `state`; the
                                               last two only)
"""

import math
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lofi_assets.files.documents import read_json, write_json
from lofi_assets.files.writing import locked
from lofi_assets.records import Checkpoint, dump, parse
from lofi_assets.training.checkpoints.description import CheckpointDescription
from lofi_assets.training.checkpoints.files import DESCRIPTION, MANIFEST, PRUNED, CheckpointError

LOCK = ".manifest.lock"
REMOVABLE = f"mend it or remove it: every checkpoint's folder holds its own record ({DESCRIPTION})"
"""What to do about a broken manifest."""


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
    folders = [file.parent for file in checkpoints_dir.glob(f"epoch=0-step=*_lora/{DESCRIPTION}")]
    return sorted((CheckpointDescription.read(folder).record for folder in folders), key=lambda record: record.step)


def pruned_records(checkpoints_dir: Path) -> list[Checkpoint]:
    """Records of what retention removed, by rising step.

    Raises:
        StoreError, CheckpointError, RecordError: as `read_manifest`.
    """
    return _read(checkpoints_dir / PRUNED)


@contextmanager
def changing(checkpoints_dir: Path) -> Iterator[None]:
    """Around reading and writing what the manifest says: the trainer and `quality_metrics` write it at the same time.

    Waits for the other. Not to be nested: the functions below that change a record take it themselves.
    """
    with locked(checkpoints_dir, busy=None, name=LOCK):
        yield


def write_manifest(checkpoints_dir: Path, records: Sequence[Checkpoint]) -> None:
    """Replace the manifest atomically; whoever read it before holds `changing`."""
    _write(checkpoints_dir / MANIFEST, records)


def add_record(checkpoints_dir: Path, record: Checkpoint) -> None:
    """Put a record into the manifest, in place of one with the same id."""
    with changing(checkpoints_dir):
        others = [known for known in read_manifest(checkpoints_dir) if known.checkpoint_id != record.checkpoint_id]
        write_manifest(checkpoints_dir, [*others, record])


def expect(checkpoints_dir: Path, identifier: str) -> None:
    """Before a checkpoint is written: retention, which runs meanwhile, is not to remove it as one that it gave up.

    A run that goes on from an earlier state writes a checkpoint again that may have been pruned.
    """
    with changing(checkpoints_dir):
        pruned = pruned_records(checkpoints_dir)
        others = [known for known in pruned if known.checkpoint_id != identifier]
        if len(others) < len(pruned):
            _write(checkpoints_dir / PRUNED, others)


def update_record(checkpoints_dir: Path, identifier: str, **changes: Any) -> Checkpoint:
    """Change fields of a record, for instance `fad_score=3.2, samples_generated=True`; returns the new record.

    Raises:
        CheckpointError: no such checkpoint.
        RecordError: the change breaks the schema.
    """
    with changing(checkpoints_dir):
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
    manifest: Sequence[Checkpoint], *, keep_best: int = 3, keep: Collection[str] = ()
) -> tuple[tuple[Checkpoint, ...], tuple[Checkpoint, ...]]:
    """Split into what is kept and what may be pruned (data model, Retention Policy).

    Kept: the best by FAD, the latest, and everything that has no FAD yet, since it may turn out the best.

    Args:
        keep: ids that are kept besides.
    """
    latest = max(manifest, key=lambda record: record.step, default=None)
    chosen = {*(record.checkpoint_id for record in _ranked(manifest)[:keep_best]), *keep}
    kept = [r for r in manifest if r is latest or r.fad_score is None or r.checkpoint_id in chosen]
    return tuple(kept), tuple(record for record in manifest if record not in kept)


def best_by_validation(checkpoints_dir: Path) -> str | None:
    """The valid checkpoint in the manifest with the lowest validation loss, the later one of a tie; None without any.

    Raises:
        CheckpointError, StoreError: a checkpoint does not describe itself.
    """
    losses = [
        (CheckpointDescription.read(checkpoints_dir / record.checkpoint_id).validation_loss, -record.step, record)
        for record in read_manifest(checkpoints_dir)
        if record.is_valid
    ]
    found = [(loss, step, record.checkpoint_id) for loss, step, record in losses if loss is not None]
    return min(found)[2] if found else None


def prune(checkpoints_dir: Path, *, keep_best: int = 3, keep: Collection[str] = ()) -> tuple[Checkpoint, ...]:
    """Remove the folders that retention gives up; their records move to `pruned.json`. Returns those records.

    The records move first, so that a killed process leaves folders without a record, which the next call removes.
    """
    with changing(checkpoints_dir):
        kept, given_up = retention(read_manifest(checkpoints_dir), keep_best=keep_best, keep=keep)
        pruned = {record.checkpoint_id: record for record in (*pruned_records(checkpoints_dir), *given_up)}
        if given_up:
            _write(checkpoints_dir / PRUNED, list(pruned.values()))
            write_manifest(checkpoints_dir, kept)
        for identifier in pruned.keys() - {record.checkpoint_id for record in kept}:
            shutil.rmtree(checkpoints_dir / identifier, ignore_errors=True)
        return given_up


def _ranked(manifest: Sequence[Checkpoint]) -> list[Checkpoint]:
    """Evaluated, valid checkpoints, best first."""
    evaluated = [r for r in manifest if r.is_valid and r.fad_score is not None and math.isfinite(r.fad_score)]
    return sorted(evaluated, key=lambda record: (record.fad_score, -record.step))


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
