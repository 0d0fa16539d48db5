"""LoRAs that runs start from, taken into the data root: read once, checked, copied by content.

    adapters/<id>/taken.json    what it is and what it goes back to (`Taken`)
    adapters/<id>/...           the files as they came

A run's own checkpoints move into the archive when another run starts, and files from elsewhere move as people please:
so a run starts from the copy. What belongs here: taking in, and the lineage. What does not: the forms
(`adapter_forms`), the rights in one from elsewhere (`adapter_rights`), its values in training
(`trainer.initial_values`).
"""

import shutil
from dataclasses import replace
from pathlib import Path

from pydantic.dataclasses import dataclass

from lofi_assets.backbones import Backbone
from lofi_assets.files.hashing import hash_of
from lofi_assets.files.typed import STORED, read_typed, write_typed
from lofi_assets.files.writing import atomic_folder, copy_file
from lofi_assets.store import Store
from lofi_assets.training.adapter_forms.adapter import Adapter, AdapterError
from lofi_assets.training.checkpoints import trainer_record
from lofi_assets.training.checkpoints.description import CheckpointDescription
from lofi_assets.training.checkpoints.files import DESCRIPTION, RUN_CONFIG
from lofi_assets.training.config import InitialAdapter, TrainingRun, load_run
from lofi_assets.wording import named

TAKEN = "taken.json"
WEIGHTS = "lora.safetensors"
"""Name of the copy of a single file."""
_AGAIN = "take it in again: lofi train --init-from FILE"


@dataclass(frozen=True, kw_only=True, config=STORED)
class Taken:
    """A LoRA in `adapters/`."""

    sha256: str
    form: str
    source: str
    """Where it came from."""
    base_fingerprint: str
    """Of the base that it was read for."""
    strength: float | None = None
    checkpoint: str = ""
    trained_on: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()

    @property
    def identifier(self) -> str:
        """Name of its folder: 16 hex digits of content and strength."""
        return hash_of(self.sha256, self.strength)[:16]

    def initial(self, folder: Path) -> InitialAdapter:
        """As a run names it."""
        return InitialAdapter(
            folder=folder,
            sha256=self.sha256,
            form=self.form,
            strength=self.strength,
            checkpoint=self.checkpoint,
            trained_on=self.trained_on,
            foreign=self.foreign,
        )


def take_in(
    store: Store, path: Path, *, backbone: Backbone, base: Path, base_fingerprint: str, strength: float | None = None
) -> str:
    """Copy a LoRA into the data root; returns its id, the same for the same content and strength.

    Args:
        path: file or folder of a LoRA in any form, or a checkpoint's folder, in the archive too.
    Raises:
        AdapterError: it cannot be read for this base, or is a checkpoint that is not what its record says.
        CheckpointError: the documents of the checkpoint's run are not whole.
    """
    from lofi_assets.training.adapter_forms.reading import layers_of, read_lora

    adapter = read_lora(path, layers_of(backbone, base), strength=strength)
    run = _own_run(store, path, adapter)
    if run and run.base_fingerprint != base_fingerprint:
        raise AdapterError(
            f"{path}: was trained on the base {run.base_fingerprint[:12]}, this is {base_fingerprint[:12]}; "
            "start from a checkpoint of this base"
        )
    documented = run is not None and _trained_here(store, path, run)
    taken = _described(adapter, path, run, documented=documented, base_fingerprint=base_fingerprint, strength=strength)
    folder = store.adapters / taken.identifier
    known = read_typed(folder / TAKEN, Taken, remedy=f"remove {folder} and {_AGAIN}")
    if folder.is_dir() and (known is None or replace(known, source=taken.source) != taken):
        shutil.rmtree(folder)  # else it stays as it is: evidence has its hashes
    if not folder.is_dir():
        with atomic_folder(folder) as partial:
            for file in adapter.files:
                copy_file(file, partial / (file.name if len(adapter.files) > 1 else WEIGHTS))
            write_typed(partial / TAKEN, taken)
    return taken.identifier


def taken(store: Store, identifier: str) -> tuple[Path, Taken]:
    """A LoRA that was taken in, and its folder.

    Raises:
        AdapterError: there is none of that id.
        StoreError: its record is broken, or of another version.
    """
    known = sorted(folder.parent.name for folder in store.adapters.glob(f"*/{TAKEN}"))
    if identifier not in known:
        there = named(known) or "none yet"
        raise AdapterError(f"{store.adapters}: no LoRA {identifier!r} was taken in ({there}); {_AGAIN}")
    folder = store.adapters / identifier
    found = read_typed(folder / TAKEN, Taken, remedy=_AGAIN)
    assert found is not None
    return folder, found


def initial_adapter(
    store: Store, identifier: str, *, base_fingerprint: str, validation: frozenset[str]
) -> InitialAdapter:
    """What a run starts from.

    Args:
        base_fingerprint: of the run's base.
        validation: ids of the tracks that the run validates with.
    Raises:
        AdapterError: no such id, one for another base, or one that has learnt what this run validates with.
    """
    folder, found = taken(store, identifier)
    if found.identifier != identifier or (not found.checkpoint and found.foreign != (found.sha256,)):
        raise AdapterError(f"{folder / TAKEN}: was changed since the LoRA was taken in; remove the folder and {_AGAIN}")
    if found.base_fingerprint != base_fingerprint:
        raise AdapterError(
            f"{folder}: was read for the base {found.base_fingerprint[:12]}, this run's is {base_fingerprint[:12]}; "
            f"{_AGAIN}"
        )
    known = sorted(validation & set(found.trained_on))
    if known:
        raise AdapterError(
            f"{folder}: was trained on {len(known)} of the tracks that this run validates with ({named(known)}), so "
            "that every number would be of music that it knows; start from a checkpoint of the same split, or from "
            "nothing"
        )
    return found.initial(folder)


def _described(
    adapter: Adapter,
    path: Path,
    run: TrainingRun | None,
    *,
    documented: bool,
    base_fingerprint: str,
    strength: float | None,
) -> Taken:
    """A checkpoint without a document has the tracks that it names, and counts as a LoRA from elsewhere besides."""
    foreign: tuple[str, ...] = (adapter.sha256,)
    checkpoint, trained_on = "", set[str]()
    if run:
        before = run.initial
        checkpoint = f"{run.run_id}/{path.resolve().name}"
        foreign = (*(() if documented else (adapter.sha256,)), *(before.foreign if before else ()))
        trained_on = {track.track_id for track in run.of_split("train")} | set(before.trained_on if before else ())
    return Taken(
        sha256=adapter.sha256,
        form=adapter.form,
        source=str(path.resolve()),
        base_fingerprint=base_fingerprint,
        strength=strength,
        checkpoint=checkpoint,
        trained_on=tuple(sorted(trained_on)),
        foreign=foreign,
    )


def _own_run(store: Store, path: Path, adapter: Adapter) -> TrainingRun | None:
    """The run of a checkpoint of this data root; None for a LoRA from elsewhere.

    One of another data root is from elsewhere: the rights in its tracks stand in another ledger.
    """
    folder = path.resolve()
    if not folder.is_relative_to(store.checkpoints.resolve()):
        return None
    if not folder.is_dir():
        raise AdapterError(f"{path}: is a file of a checkpoint; name its folder, which says what it was trained on")
    from lofi_assets.training.trainer.adapters import digest, read_adapter

    described, run = CheckpointDescription.read(folder), load_run(folder / RUN_CONFIG)
    wrong = [
        *(["its weights"] if digest(read_adapter(folder)) != described.adapter_sha256 else []),
        *([RUN_CONFIG] if run.run_id != described.run_id or run.config_hash != described.record.config_hash else []),
    ]
    if wrong or adapter.form != "peft":
        raise AdapterError(
            f"{folder}: {' and '.join(wrong) or 'its form'} is not what {DESCRIPTION} says, so that what it was "
            "trained on is unknown; restore the checkpoint's folder from a copy"
        )
    if run.initial and folder.parent == store.checkpoints.resolve() and _same_place(run.initial, folder):
        raise AdapterError(
            f"{path}: is a checkpoint of the run that started from one of this name, which is in the archive; to go on "
            f"with that run: --init-from {run.initial.folder.name}; to start another from it, name another step"
        )
    return run


def _trained_here(store: Store, path: Path, run: TrainingRun) -> bool:
    """Whether the trainer left a document of the checkpoint: a folder copied from another data root has none."""
    here, folder = run.model_copy(update={"checkpoints_dir": store.checkpoints}), path.resolve()
    return trainer_record.wrote(here, folder, checkpoint=folder.name)


def _same_place(initial: InitialAdapter, folder: Path) -> bool:
    """Whether a command that named what a run starts from would now name a checkpoint of that run itself."""
    return initial.checkpoint.rpartition("/")[2] == folder.name
