"""The rights in LoRAs from elsewhere that runs started from: absent means unknown, and unknown is not released.

    metadata/adapters.json    sha256 of the LoRA -> its rights (`AdapterRights`), written by hand

What the tracks of this data root allow is in the ledger (`sources/`); this is about weights that others trained.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import StrictBool
from pydantic.dataclasses import dataclass

from lofi_assets.files.hand_written import decoded, parse_json
from lofi_assets.files.typed import STORED, parsed
from lofi_assets.files.writing import StoreError
from lofi_assets.near_names import says_nothing
from lofi_assets.sources.rights import evidence_path, is_address
from lofi_assets.store import Store
from lofi_assets.training.checkpoints.files import RUN_CONFIG
from lofi_assets.training.trained_on import TrainedOn

RIGHTS = "adapters.json"
_SHA256 = re.compile("[0-9a-f]{64}")
_REMEDY = "mend it: sha256 -> licence, release_permitted, verified_by, evidence (docs/loras.md)"


@dataclass(frozen=True, kw_only=True, config=STORED)
class AdapterRights:
    """What somebody verified of a LoRA from elsewhere."""

    licence: str
    """Of the weights, an SPDX id or a name."""
    release_permitted: StrictBool
    """Whether what was trained further from it may be published; nothing but true is consent."""
    verified_by: str
    evidence: str
    """Address, or file below the data root."""
    name: str = ""


def read_rights(store: Store) -> dict[str, AdapterRights]:
    """sha256 -> rights on record; empty without the file.

    Raises:
        HandWrittenError, StoreError: it is broken.
    """
    path = store.metadata(RIGHTS)
    if not path.is_file():
        return {}
    data = parse_json(decoded(path.read_bytes(), where=str(path)), where=str(path))
    if not isinstance(data, dict):
        raise StoreError(f"{path}: not an object; {_REMEDY}")
    for sha256 in data:
        if not _SHA256.fullmatch(sha256):
            raise StoreError(
                f"{path}: {sha256!r} is no sha256 of 64 small hex digits, as `lofi lora inspect` prints it"
            )
    return {
        sha256: parsed(AdapterRights, entry, where=f"{path}, {sha256}", remedy=_REMEDY)
        for sha256, entry in data.items()
    }


def unlicensed(store: Store, foreign: tuple[str, ...]) -> dict[str, str]:
    """LoRAs from elsewhere -> why a model that goes back to them may not be released; those that may are left out.

    Raises:
        StoreError: the record of rights is broken.
    """
    rights = read_rights(store) if foreign else {}
    found = {sha256: _fault(rights.get(sha256), root=store.root) for sha256 in foreign}
    return {sha256: fault for sha256, fault in found.items() if fault}


def on_unlicensed_adapters(store: Store, checkpoints: Mapping[str, Path]) -> dict[str, str]:
    """Checkpoint id -> why a LoRA that it goes back to has no rights on record.

    Args:
        checkpoints: id -> folder.
    """
    found = {}
    for name, folder in checkpoints.items():
        if not (folder / RUN_CONFIG).is_file():
            found[name] = f"its {RUN_CONFIG} is absent, which says what it started from; restore the folder from a copy"
            continue
        lacking = unlicensed(store, TrainedOn.read(folder).foreign)
        if lacking:
            sha256, why = next(iter(lacking.items()))
            found[name] = f"started from the LoRA {sha256}, {why} (metadata/{RIGHTS}, docs/loras.md)"
    return found


def _fault(rights: AdapterRights | None, *, root: Path) -> str:
    if rights is None:
        return "whose rights are not on record"
    if rights.release_permitted is not True:
        return "whose release is not permitted by its record"
    if says_nothing(rights.licence) or says_nothing(rights.verified_by):
        return "whose record names no licence, or nobody who verified it"
    if not (is_address(rights.evidence) or evidence_path(rights.evidence, root=root)):
        return "whose record names no evidence that is there"
    return ""
