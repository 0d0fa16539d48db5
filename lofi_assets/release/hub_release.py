"""Publication of the bundle, the adapter and the approved card: to a local folder, or in one commit to the Hub.

What belongs here: which files go, what `release.json` says of them, the folder. What does not: the commit
(`hub_commit.py`), and whether anything may go, which is the guard's (`defs/gates.py`). Refused here is a release that
is not what the guard saw: a file that changed since, an adapter not in the tiers, a card that nobody approved.
"""

import hashlib
import json
import logging
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from lofi_assets.constitution.clearance import Clearance, use
from lofi_assets.files.hashing import hash_of, sha256_file, sha256_folder
from lofi_assets.files.typed import plain
from lofi_assets.files.writing import atomic_folder, copy_file
from lofi_assets.outcome import Outcome, Written
from lofi_assets.profiles import Profile
from lofi_assets.progress import over
from lofi_assets.quantization.merged_model import MergedModel, NoMergedModelError
from lofi_assets.release.files import (
    ADAPTER_FILES,
    CARD,
    RELEASE,
    Approver,
    Files,
    ReleasedFile,
    ReleasedGate,
    ReleaseError,
    ReleaseRecord,
)
from lofi_assets.release.hub_commit import Pushed, hub_token, push
from lofi_assets.release.model_card import Approval
from lofi_assets.release.onnx_artifacts import MANIFEST as BUNDLE
from lofi_assets.release.onnx_artifacts import Bundle, differences
from lofi_assets.store import Store
from lofi_assets.training.checkpoints.files import COMFYUI_WEIGHTS
from lofi_assets.training.checkpoints.manifest import read_manifest
from lofi_assets.wording import counted, named

LOG = logging.getLogger(__name__)
ASSET = "hub_release"
TOOLS = ("diffusers", "huggingface_hub", "lofi_assets", "numpy", "onnx", "onnxruntime", "peft", "torch", "transformers")


def publish(
    store: Store, profile: Profile, clearance: Clearance, *, progress: Callable[[str], None] = LOG.info
) -> Outcome:
    """Assemble `release/published/` unless it is current and, if the profile says so, commit it to the Hub.

    The folder is replaced in one step, and the Hub gets one commit: a release is there whole or not at all.

    Args:
        clearance: the guard's permit; it is used up, and every file has to be the bytes that it was given for.
        progress: is told what will go, a line per file with size and hash, before anything is sent.
    Raises:
        NotClearedError: the permit is not the guard's, for another asset, used or old.
        ReleaseError: a setting or the token is missing, something is not what was judged, or the Hub refused.
    """
    use(clearance, asset=ASSET)
    if profile.release.target == "hub":
        hub_token(profile)
    folder = store.release / "published"
    sources = _sources(store)
    _require_cleared(store, sources, clearance)
    described = {name: _described(path) for name, path in sorted(sources.items())}
    changed = [
        name for name, file in described.items() if file.sha256 != clearance.files[store.relative(sources[name])]
    ]
    if changed:
        raise ReleaseError(f"{named(changed)}: changed while the release was made; publish again")
    about = _record(store, described, clearance)
    text = json.dumps(plain(about), indent=2, ensure_ascii=False) + "\n"
    wanted = {name: file.sha256 for name, file in about.files.items()}
    wanted[RELEASE] = hashlib.sha256(text.encode()).hexdigest()
    current = folder.is_dir() and sha256_folder(folder) == wanted
    if not current:
        _assemble(folder, sources, text, wanted)
    files = {name: ReleasedFile((folder / name).stat().st_size, wanted[name]) for name in sorted(wanted)}
    for name, file in files.items():
        progress(f"release: {file.sha256[:12]} {file.bytes:>13,} bytes  {name}")
    pushed = push(folder, files, profile, progress) if profile.release.target == "hub" else None
    states = pushed.states if pushed else {}
    places = "to the Hub" if profile.release.target == "hub" else "into release/published under the data root"
    return Outcome(
        data_version=hash_of(wanted),
        written=Written([folder / name for name in sorted(wanted)]),
        summary=f"{about.checkpoint} is published {places}: {counted(len(files), 'file')}, the card approved by "
        f"{about.approval.approved_by}. Nothing waits for a person.",
        counts={
            "files": len(files),
            "bytes": sum(file.bytes for file in files.values()),
            "recomputed": int(not current),
        },
        rows=[{"path": name, **plain(file), "state": states.get(name, "")} for name, file in files.items()],
        details={
            "checkpoint": about.checkpoint,
            "approved_by": about.approval.approved_by,
            **(_shown(pushed) if pushed else {"published": store.relative(folder)}),
        },
    )


def _shown(pushed: Pushed) -> dict[str, Any]:
    """A commit without the state of every file, which is in the rows."""
    return {name: value for name, value in asdict(pushed).items() if name != "states"}


def _sources(store: Store) -> dict[str, Path]:
    """Path in the release -> file that it is a copy of; only what the bundle's manifest lists leaves `export/`."""
    wrong = differences(store.export)
    bundle = Bundle.read(store.export)
    if wrong or bundle is None or not bundle.files:
        faults = "; ".join(wrong[:5]) or "no manifest"
        raise ReleaseError(f"{store.export}: not the bundle that was judged ({faults}); materialise onnx_artifacts")
    bundled = {name: store.export / name for name in (*bundle.files, BUNDLE)}
    adapter = store.checkpoints / _merged(store).checkpoint_id
    lora = {f"lora/{name}": adapter / name for name in ADAPTER_FILES}
    if (adapter / COMFYUI_WEIGHTS).is_file():  # a DoRA has none
        lora[f"lora/{COMFYUI_WEIGHTS}"] = adapter / COMFYUI_WEIGHTS
    sources = bundled | lora | {CARD: store.release / CARD}
    missing = [str(path) for path in sources.values() if not path.is_file()]
    if missing:
        raise ReleaseError(f"{', '.join(missing)}: absent; materialise the asset that writes it")
    return sources


def _require_cleared(store: Store, sources: Mapping[str, Path], clearance: Clearance) -> None:
    """Every file is one that the guard hashed; what is sent is compared with that by `_assemble`."""
    unknown = [store.relative(path) for path in sources.values() if store.relative(path) not in clearance.files]
    if unknown:
        raise ReleaseError(f"{named(unknown)}: no evidence says what made it; materialise the asset that writes it")


def _merged(store: Store) -> MergedModel:
    """What the tiers were made from; not the checkpoint that is best by now."""
    try:
        return MergedModel.current(store)
    except NoMergedModelError as error:
        raise ReleaseError(str(error)) from error


def _record(store: Store, files: Files, clearance: Clearance) -> ReleaseRecord:
    merged = _merged(store)
    identifier = merged.checkpoint_id
    record = next((found for found in read_manifest(store.checkpoints) if found.checkpoint_id == identifier), None)
    if record is None or _adapter_sha256(store, identifier) != merged.adapter_sha256:
        raise ReleaseError(
            f"{store.checkpoints / identifier}: not the adapter that the tiers were made from; "
            f"materialise merged_model and what follows"
        )
    approval = _approved(store)
    return ReleaseRecord(
        checkpoint=identifier,
        adapter_sha256=merged.adapter_sha256,
        base_fingerprint=merged.base_fingerprint,
        dataset_sha256=record.dataset_hash,
        config_sha256=record.config_hash,
        card_sha256=approval.card_sha256,
        approval=Approver(approval.approved_by, approval.date),
        constitution=clearance.constitution.version,
        gates=tuple(ReleasedGate(found.gate.id, found.status, found.text) for found in clearance.verdicts),
        tools={"python": platform.python_version()} | {name: _version(name) for name in TOOLS},
        files=files,
    )


def _adapter_sha256(store: Store, identifier: str) -> str:
    path = store.checkpoints / identifier / ADAPTER_FILES[0]
    return sha256_file(path) if path.is_file() else ""


def _approved(store: Store) -> Approval:
    """Who approved the card; refuses a card that changed since, the gate's number being older."""
    path = store.release / CARD
    digest = sha256_file(path) if path.is_file() else ""
    approval = Approval.read(store)
    if not digest or approval is None or approval.card_sha256 != digest:
        raise ReleaseError(
            f"{path}: nobody approved this text; materialise model_card, read it, "
            f"then: lofi approve-card {digest[:12] or 'HASH'}"
        )
    return approval


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _described(path: Path) -> ReleasedFile:
    return ReleasedFile(path.stat().st_size, sha256_file(path))


def _assemble(folder: Path, sources: Mapping[str, Path], text: str, wanted: Mapping[str, str]) -> None:
    with atomic_folder(folder) as temporary:
        for name, path in over(list(sources.items()), "assembling the release", unit="file"):
            copy_file(path, temporary / name)
        (temporary / RELEASE).write_text(text, encoding="utf-8")
        found = sha256_folder(temporary)
        changed = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        if changed:
            raise ReleaseError(f"{', '.join(changed)}: changed while the release was made; publish again")
