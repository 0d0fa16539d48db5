"""What a release holds: the files of each repository in a sealed copy, checked against what was judged and approved.

    adapter/    the card, every form of the LoRA at the root, how it was trained
    tiers/      the card, and the bundle in a folder of its own
    merged/     the card, and the merged model as one file, where the profile asks for it

What does not belong here: where it goes (`hub_release.py`), and whether it may, which is the guard's (`defs/gates.py`).
"""

import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from lofi_assets.constitution.clearance import Clearance
from lofi_assets.constitution.dsse import envelope, private_key
from lofi_assets.constitution.evidence import current_sha256, document_path
from lofi_assets.constitution.evidence import folder as evidence_folder
from lofi_assets.constitution.gates import load_constitution, load_gates
from lofi_assets.constitution.made_with import installed_version
from lofi_assets.constitution.verdicts import verdicts
from lofi_assets.errors import LofiError
from lofi_assets.files.hashing import hash_of
from lofi_assets.files.typed import plain, read_typed
from lofi_assets.profiles import Profile
from lofi_assets.progress import over
from lofi_assets.quantization.merged_model import MergedModel, NoMergedModelError
from lofi_assets.quantization.quantized_tiers import COMPARED
from lofi_assets.quantization.tier_manifest import TierManifest
from lofi_assets.records import Checkpoint
from lofi_assets.release.adapter_files import STAGING, seal_adapter
from lofi_assets.release.bundle_samples import FOLDER as SAMPLES
from lofi_assets.release.comfyui_checkpoint import CHECKPOINT, TRANSFORMER, checkpoint_blocks, model_files
from lofi_assets.release.files import (
    BUNDLE_FOLDER,
    CARD,
    EVIDENCE,
    RELEASE,
    Approver,
    Part,
    ReleasedGate,
    ReleaseError,
    ReleaseRecord,
    parts_of,
    release_name,
)
from lofi_assets.release.model_card import Approval
from lofi_assets.release.onnx_artifacts import MANIFEST as BUNDLE
from lofi_assets.release.onnx_artifacts import Bundle
from lofi_assets.release.private_names import known_tracks, private_names, refuse_private
from lofi_assets.release.private_search import PrivateNames
from lofi_assets.release.published_text import published_text
from lofi_assets.release.sealed_copy import SealedCopy, SealedFile, sealed_copy
from lofi_assets.release.signing import LIST, SIGNATURE, listing
from lofi_assets.store import CONFIG_DIR, Store
from lofi_assets.training.checkpoints.manifest import read_manifest

TOOLS = ("diffusers", "huggingface_hub", "lofi_assets", "numpy", "onnx", "onnxruntime", "peft", "torch", "transformers")
ASSET = "hub_release"
BUNDLE_REMEDY = "materialise onnx_artifacts"


@dataclass(frozen=True)
class Release:
    """A release in its sealed copy, ready to go."""

    sealed: SealedCopy
    about: ReleaseRecord
    """What every repository says, but for its own files."""
    parts: Mapping[Part, Mapping[str, SealedFile]]
    """Repository -> path in it -> file; `release.json` is one of them."""

    def folder(self, part: Part) -> Path:
        """Where the files of a repository lie."""
        return self.sealed.path(part)


@contextmanager
def prepared(store: Store, profile: Profile, clearance: Clearance | None = None) -> Iterator[Release]:
    """A release as it would go, for the block.

    Args:
        clearance: every file has to be the bytes that it was given for; None where nothing goes.
    Raises:
        ReleaseError: something is not what was judged or approved, is no regular file, or says a private name.
    """
    merged = _merged(store)
    record = next((row for row in read_manifest(store.checkpoints) if row.checkpoint_id == merged.checkpoint_id), None)
    if record is None:
        raise ReleaseError(f"{store.checkpoints}: has no record of {merged.checkpoint_id}, which the tiers are made of")
    _approved(store)
    documents = dict(clearance.evidence) if clearance else _evidence_now(store)
    paths = {asset: document_path(store, asset, sha256) for asset, sha256 in documents.items()}
    read = {store.relative(paths[asset]): sha256 for asset, sha256 in documents.items()}
    with sealed_copy(store, cleared={**clearance.files, **read} if clearance else None) as sealed:
        approval = _sealed_approval(sealed, store)
        with _named_by_source(sealed, store, merged):
            _seal_bundle(sealed, store, merged)
            made_from = dict(seal_adapter(sealed, store, profile, merged=merged, record=record, folder="adapter"))
            if "merged" in parts_of(profile):
                made_from |= _seal_checkpoint(sealed, store, merged)
        for part in parts_of(profile):
            sealed.take(
                store.release / CARD,
                f"{part}/{CARD}",
                sha256=approval.card_sha256,
                remedy="nobody approved this text; materialise model_card, read it, then: lofi approve-card",
            )
            _seal_evidence(sealed, paths, documents, part)
            _seal_samples(sealed, part)
        names = private_names(store, known_tracks(store, merged.checkpoint_id))
        # Who approves goes on record by name, which is then no secret.
        names = replace(names, people=frozenset(name for name in names.people if name not in approval.approved_by))
        about = _about(store, merged, record, approval, names, clearance)
        about_all = replace(about, made_from=made_from, evidence=documents)
        parts = _recorded(sealed, about_all, parts_of(profile))
        _refuse_private(sealed, parts, names)
        yield Release(sealed, about, parts)


def _evidence_now(store: Store) -> dict[str, str]:
    """Asset -> evidence on record, of what a preview shows; whether it holds is not asked."""
    assets = sorted(path.stem for path in evidence_folder(store).glob("*.json") if path.stem != ASSET)
    return {asset: sha256 for asset in assets if (sha256 := current_sha256(store, asset))}


def _seal_evidence(sealed: SealedCopy, paths: Mapping[str, Path], documents: Mapping[str, str], part: Part) -> None:
    """The chain that the release was let go by, with its table of gates, so that others can judge it again."""
    for asset, path in paths.items():
        remedy = f"materialise {asset} again"
        sealed.take(path, f"{part}/{EVIDENCE}/{asset}.json", sha256=documents[asset], remedy=remedy)
    sealed.write(f"{part}/{EVIDENCE}/constitution.yaml", (CONFIG_DIR / "constitution.yaml").read_bytes())


def _seal_samples(sealed: SealedCopy, part: Part) -> None:
    """The bundle's clips where the card of each repository names them."""
    bundle = f"tiers/{BUNDLE_FOLDER}"
    for name in [name for name in sealed.files if name.startswith(f"{bundle}/{SAMPLES}/")]:
        target = f"{part}/{name.removeprefix(f'{bundle}/')}"
        sealed.take(sealed.path(name), target, sha256=sealed.files[name].sha256, remedy=BUNDLE_REMEDY)


@contextmanager
def _named_by_source(sealed: SealedCopy, store: Store, merged: MergedModel) -> Iterator[None]:
    """A fault found in the copy is said of the file that was copied."""
    places = {STAGING: store.checkpoints / merged.checkpoint_id, f"tiers/{BUNDLE_FOLDER}": store.export}
    try:
        yield
    except LofiError as error:
        said = str(error)
        for name, source in places.items():
            said = said.replace(str(sealed.path(name)), str(source))
        raise ReleaseError(said) from error


def _merged(store: Store) -> MergedModel:
    """What the tiers were made from; not the checkpoint that is best by now."""
    try:
        return MergedModel.current(store)
    except NoMergedModelError as error:
        raise ReleaseError(str(error)) from error


def _approved(store: Store) -> Approval:
    """Who approved the card, which may have changed since; the gate's number may be older than either."""
    approval = Approval.read(store)
    path = store.release / CARD
    if approval is None or not path.is_file():
        raise ReleaseError(f"{path}: nobody approved it; materialise model_card, read it, then: lofi approve-card")
    return approval


def _sealed_approval(sealed: SealedCopy, store: Store) -> Approval:
    """Who approved the card, from bytes that the guard hashed: a name put there afterwards is nobody's word."""
    name = f"approval/{Approval.path(store).name}"
    sealed.take(Approval.path(store), name, sha256=None, remedy="materialise model_card again")
    found = read_typed(sealed.path(name), Approval, remedy="approve the card again: lofi approve-card")
    if found is None:
        raise ReleaseError(f"{Approval.path(store)}: changed while it was read; publish again")
    return found


def _seal_bundle(sealed: SealedCopy, store: Store, merged: MergedModel) -> None:
    """Only what the bundle's manifest lists leaves `export/`; the tiers in it are of the merged adapter."""
    folder = sealed.path(f"tiers/{BUNDLE_FOLDER}")
    sealed.take(store.export / BUNDLE, f"tiers/{BUNDLE_FOLDER}/{BUNDLE}", sha256=None, remedy=BUNDLE_REMEDY)
    bundle = Bundle.read(folder)
    if bundle is None or not bundle.files:
        raise ReleaseError(f"{store.export / BUNDLE}: lists no file; {BUNDLE_REMEDY}")
    if unlisted := _unlisted(store.export, bundle):
        raise ReleaseError(
            f"{store.export}: not the bundle that was judged (not listed: {', '.join(unlisted[:5])}); {BUNDLE_REMEDY}"
        )
    for name, digest in over(sorted(bundle.files.items()), "sealing the bundle", unit="file"):
        sealed.take(store.export / name, f"tiers/{BUNDLE_FOLDER}/{name}", sha256=digest, remedy=BUNDLE_REMEDY)
    for tier in COMPARED:
        manifest = TierManifest.read(folder / tier)
        of = manifest.provenance.get("merge.adapter_sha256", "") if manifest else ""
        if of != merged.adapter_sha256:
            raise ReleaseError(
                f"{store.export / tier}: is made of the adapter {of[:12] or '(not recorded)'}, and merged_model is "
                f"{merged.adapter_sha256[:12]}; materialise quantized_tiers and what follows"
            )


def _seal_checkpoint(sealed: SealedCopy, store: Store, merged: MergedModel) -> dict[str, str]:
    """The merged model as ComfyUI loads it; file -> sha256 of the merged transformer that it was made from."""
    source, staged = merged.folder(store), "model"
    for path in model_files(source, architecture=merged.architecture):
        name = f"{staged}/{path.relative_to(source).as_posix()}"
        sealed.take(path, name, sha256=None, remedy="materialise merged_model and what follows")
    about = {"checkpoint": merged.checkpoint_id, "adapter_sha256": merged.adapter_sha256}
    sealed.write_blocks(f"merged/{CHECKPOINT}", checkpoint_blocks(sealed.path(staged), about=about))
    transformer = min(name for name in sealed.files if name.startswith(f"{staged}/{TRANSFORMER}/"))
    made_from = {CHECKPOINT: sealed.files[transformer].sha256}
    sealed.drop(staged)
    return made_from


def _unlisted(folder: Path, bundle: Bundle) -> list[str]:
    """Files of the bundle's folder that its manifest does not know, but for what Python caches there."""
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    return sorted(name for name in found - bundle.files.keys() - {BUNDLE} if "__pycache__" not in name)


def _about(
    store: Store,
    merged: MergedModel,
    record: Checkpoint,
    approval: Approval,
    names: PrivateNames,
    clearance: Clearance | None,
) -> ReleaseRecord:
    gates = [gate for gate in load_gates() if ASSET in gate.holds]
    judged = clearance.verdicts if clearance else verdicts(store, gates)
    return ReleaseRecord(
        checkpoint=merged.checkpoint_id,
        adapter_sha256=merged.adapter_sha256,
        base_fingerprint=merged.base_fingerprint,
        dataset_sha256=record.dataset_hash,
        config_sha256=record.config_hash,
        card_sha256=approval.card_sha256,
        approval=Approver(approval.approved_by, approval.date),
        constitution=load_constitution()["version"],
        gates=tuple(ReleasedGate(found.gate.id, found.status, published_text(found, names)) for found in judged),
        tools={"python": platform.python_version()} | {name: installed_version(name) for name in TOOLS},
        files={},
    )


def _recorded(sealed: SealedCopy, about: ReleaseRecord, wanted: Sequence[Part]) -> dict[Part, dict[str, SealedFile]]:
    """Write `release.json` into every part; the files of the parts by their path in the repository."""
    parts = {part: _of_part(sealed, part) for part in wanted}
    listed = {part: {name: file.released for name, file in sorted(files.items())} for part, files in parts.items()}
    release = release_name(listed)
    for part in wanted:
        made_from = {name: digest for name, digest in about.made_from.items() if name in listed[part]}
        record = replace(about, part=part, release=release, files=listed[part], made_from=made_from)
        text = json.dumps(plain(record), indent=2, ensure_ascii=False) + "\n"
        sealed.write(f"{part}/{RELEASE}", text.encode())
        _list(sealed, part, release)
    return {part: _of_part(sealed, part) for part in wanted}


def _list(sealed: SealedCopy, part: Part, release: str) -> None:
    """The list of everything in a repository, signed if the environment names a key."""
    key = private_key()
    listed = listing({name: file.sha256 for name, file in _of_part(sealed, part).items()}, release=release, key=key)
    sealed.write(f"{part}/{LIST}", listed.encode())
    if key:
        sealed.write(f"{part}/{SIGNATURE}", envelope(listed, key).encode())


def _of_part(sealed: SealedCopy, part: Part) -> dict[str, SealedFile]:
    prefix = f"{part}/"
    return {name.removeprefix(prefix): file for name, file in sealed.files.items() if name.startswith(prefix)}


def _refuse_private(sealed: SealedCopy, parts: Mapping[Part, Mapping[str, SealedFile]], names: PrivateNames) -> None:
    listed = [(f"{part}/{name}", sealed.path(f"{part}/{name}")) for part, files in parts.items() for name in files]
    refuse_private(over(sorted(listed), "looking for private names", unit="file"), names)


def digest_of(release: Release) -> str:
    """Names what goes: sha256 over every file of every repository."""
    return hash_of({part: {name: file.sha256 for name, file in files.items()} for part, files in release.parts.items()})
