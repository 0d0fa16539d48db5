"""What the trainer says it wrote: a document for each checkpoint, by the process that trained it, chained per run.

`checkpoints/written/<run id>/<number>-<checkpoint id>.json` is an in-toto Statement
(https://github.com/in-toto/attestation): the subject is every file of the checkpoint by sha256, the predicate has what
it was trained as, and the sha256 of the document before it. It is written before the checkpoint takes its name, so that
a killed trainer leaves no checkpoint without one. Documents never change, and stay where they are when a run is
archived. Where LOFI_SIGNING_KEY names a key, a DSSE envelope over the document stands beside it.

What it proves: these bytes were there when a process of this code saved a checkpoint of this run, and nothing was put
in their place since. Who can write into the checkpoints folder can write a document too; only the signature is out of
their reach. Imports without torch.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic.dataclasses import dataclass

from lofi_assets.constitution import dsse
from lofi_assets.constitution.evidence import STATEMENT
from lofi_assets.constitution.made_with import code
from lofi_assets.files.documents import read_json, write_text
from lofi_assets.files.hashing import sha256_file, sha256_folder
from lofi_assets.files.typed import STORED, parsed, plain
from lofi_assets.files.writing import StoreError
from lofi_assets.training.checkpoints.files import (
    COMFYUI_WEIGHTS,
    DESCRIPTION,
    DIFFUSERS_WEIGHTS,
    PEFT_CONFIG,
    PEFT_WEIGHTS,
    RUN_CONFIG,
    CheckpointError,
    checkpoint_id,
)
from lofi_assets.training.config import TrainingRun

FOLDER = "written"
PREDICATE = "urn:lofi-assets:trained-checkpoint:1"
NAMED = (PEFT_WEIGHTS, PEFT_CONFIG, DIFFUSERS_WEIGHTS, COMFYUI_WEIGHTS, RUN_CONFIG, DESCRIPTION)
"""Files of a checkpoint that have to be what a document says."""
SIGNATURE = ".dsse.json"
_REMEDY = "restore the folder from a copy, or start over with `lofi train --fresh` after you moved it away"


@dataclass(frozen=True, kw_only=True, config=STORED)
class Trained:
    """One document, without the form that in-toto gives it."""

    run_id: str
    checkpoint_id: str
    step: int
    config_hash: str
    dataset_hash: str
    base_fingerprint: str
    source_sha256: str
    """Of the code that trained (`constitution.made_with`)."""
    previous: str
    """sha256 of the document before it; "" for the first of a run."""
    files: Mapping[str, str]
    """File of the checkpoint's folder -> sha256."""


def folder_of(run: TrainingRun) -> Path:
    """Where a run's documents are."""
    return run.checkpoints_dir / FOLDER / run.run_id


def documents(run: TrainingRun) -> list[Path]:
    """A run's documents, first to last."""
    return sorted(path for path in folder_of(run).glob("*.json") if not path.name.endswith(SIGNATURE))


def enter(run: TrainingRun, folder: Path, *, step: int) -> None:
    """Write the document of a checkpoint that lies in `folder` and is about to take its name.

    Raises:
        SigningError: the key that the environment names is none.
    """
    before = documents(run)
    document = Trained(
        run_id=run.run_id,
        checkpoint_id=checkpoint_id(step),
        step=step,
        config_hash=run.config_hash,
        dataset_hash=run.dataset_hash,
        base_fingerprint=run.base_fingerprint,
        source_sha256=code().source_sha256,
        previous=_sha256(before[-1].read_bytes()) if before else "",
        files=sha256_folder(folder),
    )
    text = _statement(document)
    path = folder_of(run) / f"{len(before) + 1:06d}-{document.checkpoint_id}.json"
    if key := dsse.private_key():
        write_text(_signature(path), dsse.envelope(text, key))
    write_text(path, text)


def chain(run: TrainingRun) -> dict[str, list[Trained]]:
    """Checkpoint -> its documents, first to last, once all of the run's follow from each other.

    A checkpoint has several where the run went on from an earlier state or started over, which leaves the one before in
    the archive. Where the environment names a key, what is not signed by it counts for nothing.

    Raises:
        CheckpointError: one is gone, was changed or put in between; names it.
        SigningError: the key that the environment names is none.
    """
    found: dict[str, list[Trained]] = {}
    key, previous = dsse.private_key(), ""
    for number, path in enumerate(documents(run), start=1):
        document, text = _read(path), path.read_bytes()
        if (document.previous, document.run_id) != (previous, run.run_id) or not path.name.startswith(f"{number:06d}-"):
            raise CheckpointError(f"{path}: does not follow from the document before it; {_REMEDY}")
        previous = _sha256(text)
        if key is None or dsse.signed_by(key.public_key(), _signature(path), text.decode()):
            found.setdefault(document.checkpoint_id, []).append(document)
    return found


def foreign(
    run: TrainingRun,
    checkpoints: Iterable[str],
    *,
    sha256: Callable[[Path], str],
    vouched: Iterable[Mapping[str, str]] = (),
) -> dict[str, str]:
    """Checkpoint -> why it is not what this run's trainer wrote, for each that is not.

    Args:
        sha256: of a file, "" if it is absent.
        vouched: file of `checkpoints/`, relative to its parent -> sha256, of what each run of Dagster already had as
            evidence of this training run: the version before kept no documents. Read as far as it has to be.
    """
    known = chain(run)
    reasons = {name: _reason(run.checkpoints_dir / name, known.get(name, []), sha256) for name in checkpoints}
    found = {name: reason for name, reason in reasons.items() if reason}
    evidence = iter(vouched)
    while found and (given := next(evidence, None)) is not None:
        found = {name: why for name, why in found.items() if not _vouched(run.checkpoints_dir / name, sha256, given)}
    return found


def wrote(run: TrainingRun, folder: Path, *, checkpoint: str) -> bool:
    """Whether a document of the run is of a checkpoint as it lies in `folder`, which may be in the archive.

    Raises:
        CheckpointError, SigningError: as `chain`.
    """
    return not _reason(folder, chain(run).get(checkpoint, []), _hashed)


def _hashed(path: Path) -> str:
    return sha256_file(path) if path.is_file() else ""


def _reason(folder: Path, documents: Sequence[Trained], sha256: Callable[[Path], str]) -> str:
    """ "" if the files are those of one of the documents."""
    if not documents:
        signed = ", or none that the key in LOFI_SIGNING_KEY signed" if dsse.private_key() else ""
        return f"the trainer left no document of it in {FOLDER}/{signed}"
    hashes = {name: sha256(folder / name) for name in NAMED}
    differing = [[name for name in NAMED if hashes[name] != one.files.get(name, "")] for one in documents]
    changed = [] if [] in differing else differing[-1]
    return f"{', '.join(changed)} {'is' if len(changed) == 1 else 'are'} not what the trainer wrote" if changed else ""


def _vouched(folder: Path, sha256: Callable[[Path], str], vouched: Mapping[str, str]) -> bool:
    """Whether every file but the description, which evidence leaves out, was evidence as it is now."""
    names = [name for name in NAMED if name != DESCRIPTION]
    recorded = [vouched.get(f"{folder.parent.name}/{folder.name}/{name}", "") for name in names]
    return any(recorded) and recorded == [sha256(folder / name) for name in names]


def _statement(document: Trained) -> str:
    predicate = plain(document)
    subject = [{"name": name, "digest": {"sha256": digest}} for name, digest in sorted(predicate.pop("files").items())]
    data = {"_type": STATEMENT, "subject": subject, "predicateType": PREDICATE, "predicate": predicate}
    return json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def _read(path: Path) -> Trained:
    try:
        data: Any = read_json(path, remedy=_REMEDY)
        if (data["_type"], data["predicateType"]) != (STATEMENT, PREDICATE):
            raise CheckpointError(f"{path}: no document of a trainer; {_REMEDY}")
        files = {item["name"]: item["digest"]["sha256"] for item in data["subject"]}
        return parsed(Trained, {**data["predicate"], "files": files}, where=str(path), remedy=_REMEDY)
    except (StoreError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: no document of a trainer ({error}); {_REMEDY}") from error


def _signature(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(".json") + SIGNATURE)


def _sha256(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()
