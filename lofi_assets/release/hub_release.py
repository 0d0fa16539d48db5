"""Publication of the bundle, the adapter and the approved card: to a local folder, or in one commit to the Hub.

What belongs here: which files go and what `release.json` says of them, the folder, the commit. What does not: whether
anything may go, which is the guard's (`defs/gates.py`). What is refused here is a release that would not be what the
guard looked at: a file that changed since, an adapter that is not in the tiers, a card that nobody approved.
"""

import hashlib
import json
import logging
import platform
import tempfile
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lofi_assets.constitution.gates import load_constitution, load_gates
from lofi_assets.constitution.verdicts import verdicts
from lofi_assets.errors import LofiError, megabytes
from lofi_assets.files.documents import read_json
from lofi_assets.files.hashing import fingerprint, sha256_file, sha256_folder
from lofi_assets.files.writing import atomic_folder, copy_file
from lofi_assets.outcome import Outcome
from lofi_assets.profiles import Profile
from lofi_assets.progress import Progress, over
from lofi_assets.release.model_card import APPROVAL
from lofi_assets.release.onnx_artifacts import MANIFEST, differences
from lofi_assets.store import Store
from lofi_assets.training.checkpoints.files import COMFYUI_WEIGHTS
from lofi_assets.training.checkpoints.manifest import read_manifest
from lofi_assets.wording import counted

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import ModelInfo, RepoSibling

LOG = logging.getLogger(__name__)
ADAPTER_FILES = ("adapter_model.safetensors", "adapter_config.json", "pytorch_lora_weights.safetensors", "config.json")
"""What a release carries of the checkpoint (constitution, Checkpoint Management: stored with full configuration)."""
CARD = "README.md"
RELEASE = "release.json"
"""Lists every other file of a release, where it comes from, and the verdicts under which it was let go."""
TOOLS = ("diffusers", "huggingface_hub", "lofi_assets", "numpy", "onnx", "onnxruntime", "peft", "torch", "transformers")
BLANK = frozenset({".gitattributes", "README.md", "LICENSE"})
"""What a Hub repository may hold before its first release: what the Hub itself offers to put there."""

Files = Mapping[str, Mapping[str, Any]]
"""Path in the release -> `bytes` and `sha256`."""


class ReleaseError(LofiError, RuntimeError):
    """A release that cannot be made as things are; the message says what is wrong and what to do."""


def publish(store: Store, profile: Profile, *, progress: Callable[[str], None] = LOG.info) -> Outcome:
    """Assemble `release/published/` unless it is current and, if the profile says so, commit it to the Hub.

    The folder is replaced in one step, and the Hub gets one commit: a release is there whole or not at all.

    Args:
        progress: is told what will go, a line per file with size and hash, before anything is sent.
    Raises:
        ReleaseError: a setting or the token is missing, something is not what was judged, or the Hub refused.
    """
    if profile.release.target == "hub":
        _token(profile)
    folder = store.release / "published"
    sources = _sources(store)
    about = {**_about(store), "files": {name: _described(path) for name, path in sorted(sources.items())}}
    text = json.dumps(about, indent=2, ensure_ascii=False) + "\n"
    wanted = {name: entry["sha256"] for name, entry in about["files"].items()}
    wanted[RELEASE] = hashlib.sha256(text.encode()).hexdigest()
    current = folder.is_dir() and sha256_folder(folder) == wanted
    if not current:
        _assemble(folder, sources, text, wanted)
    files = {name: _described(folder / name) | {"sha256": wanted[name]} for name in sorted(wanted)}
    for name, entry in files.items():
        progress(f"release: {entry['sha256'][:12]} {entry['bytes']:>13,} bytes  {name}")
    where: dict[str, Any] = {"published": store.relative(folder)}
    if profile.release.target == "hub":
        where |= _push(folder, files, profile, progress)
    states: dict[str, str] = where.pop("states", {})
    places = "to the Hub" if profile.release.target == "hub" else "into release/published under the data root"
    return Outcome(
        data_version=fingerprint(wanted),
        summary=f"{about['checkpoint']} is published {places}: {counted(len(files), 'file')}, the card approved by "
        f"{about['approval']['approved_by']}. Nothing waits for a person.",
        counts={
            "files": len(files),
            "bytes": sum(entry["bytes"] for entry in files.values()),
            "recomputed": int(not current),
        },
        rows=[{"path": name, **entry, "state": states.get(name, "")} for name, entry in files.items()],
        details={"checkpoint": about["checkpoint"], "approved_by": about["approval"]["approved_by"], **where},
    )


def _sources(store: Store) -> dict[str, Path]:
    """Path in the release -> file that it is a copy of; only what the bundle's manifest lists leaves `export/`."""
    wrong = differences(store.export)
    listed = read_json(store.export / MANIFEST, default={}).get("files", {})
    if wrong or not listed:
        faults = "; ".join(wrong[:5]) or "no manifest"
        raise ReleaseError(f"{store.export}: not the bundle that was judged ({faults}); materialise onnx_artifacts")
    bundled = {name: store.export / name for name in (*listed, MANIFEST)}
    adapter = store.checkpoints / _merged(store)["checkpoint_id"]
    lora = {f"lora/{name}": adapter / name for name in ADAPTER_FILES}
    if (adapter / COMFYUI_WEIGHTS).is_file():  # a DoRA has none
        lora[f"lora/{COMFYUI_WEIGHTS}"] = adapter / COMFYUI_WEIGHTS
    sources = bundled | lora | {CARD: store.release / CARD}
    missing = [str(path) for path in sources.values() if not path.is_file()]
    if missing:
        raise ReleaseError(f"{', '.join(missing)}: absent; materialise the asset that writes it")
    return sources


def _merged(store: Store) -> dict[str, Any]:
    """What the tiers were made from; not the checkpoint that is best by now."""
    merged = read_json(store.metadata("merged_model.json"))
    if not merged:
        raise ReleaseError(f"{store.metadata('merged_model.json')}: absent; materialise merged_model")
    return merged


def _about(store: Store) -> dict[str, Any]:
    """`release.json` without its list of files: the same for the same facts, so it names no time but the approval's."""
    merged = _merged(store)
    identifier = merged["checkpoint_id"]
    record = next((found for found in read_manifest(store.checkpoints) if found.checkpoint_id == identifier), None)
    if record is None or _adapter_sha256(store, identifier) != merged["adapter_sha256"]:
        raise ReleaseError(
            f"{store.checkpoints / identifier}: not the adapter that the tiers were made from; "
            f"materialise merged_model and what follows"
        )
    gates = [gate for gate in load_gates() if "hub_release" in gate.holds]
    return {
        "checkpoint": identifier,
        "adapter_sha256": merged["adapter_sha256"],
        "base_fingerprint": merged["base_fingerprint"],
        "dataset_sha256": record.dataset_hash,
        "config_sha256": record.config_hash,
        **_approved(store),
        "constitution": load_constitution()["version"],
        "gates": [
            {"gate": found.gate.id, "verdict": found.status, "value": found.text} for found in verdicts(store, gates)
        ],
        "tools": {"python": platform.python_version()} | {name: _version(name) for name in TOOLS},
    }


def _adapter_sha256(store: Store, identifier: str) -> str:
    path = store.checkpoints / identifier / ADAPTER_FILES[0]
    return sha256_file(path) if path.is_file() else ""


def _approved(store: Store) -> dict[str, Any]:
    """The card's hash and who approved it; refuses a card that changed since, the gate's number being older."""
    path = store.release / CARD
    digest = sha256_file(path) if path.is_file() else ""
    approval = read_json(store.release / APPROVAL, default={})
    if not digest or approval.get("card_sha256") != digest:
        raise ReleaseError(
            f"{path}: nobody approved this text; materialise model_card, read it, "
            f"then: lofi approve-card {digest[:12] or 'HASH'}"
        )
    return {"card_sha256": digest, "approval": {key: approval.get(key) for key in ("approved_by", "date")}}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _described(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha256_file(path)}


def _assemble(folder: Path, sources: Mapping[str, Path], text: str, wanted: Mapping[str, str]) -> None:
    with atomic_folder(folder) as temporary:
        for name, path in over(list(sources.items()), "assembling the release", unit="file"):
            copy_file(path, temporary / name)
        (temporary / RELEASE).write_text(text, encoding="utf-8")
        found = sha256_folder(temporary)
        changed = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        if changed:
            raise ReleaseError(f"{', '.join(changed)}: changed while the release was made; publish again")


# --- the Hub ---------------------------------------------------------------------------------------------------------


def _token(profile: Profile) -> str:
    from huggingface_hub import get_token

    if not profile.release.repo_id:
        raise ReleaseError(f"config/profiles/{profile.name}.yaml: release.repo_id is empty; name the Hub repository")
    token = get_token()
    if not token:
        raise ReleaseError(
            f"no Hugging Face token, so {profile.release.repo_id} cannot be written: set HF_TOKEN in the environment "
            "of the process that runs the release (never in a profile), or run `hf auth login` as its user; make it "
            "at https://huggingface.co/settings/tokens with write access to that repository alone"
        )
    return token


def _push(folder: Path, files: Files, profile: Profile, progress: Callable[[str], None]) -> dict[str, Any]:
    from huggingface_hub import HfApi

    repo, token = profile.release.repo_id, _token(profile)
    try:
        return _commit(HfApi(token=token), repo, folder, files, progress)
    except ReleaseError:
        raise
    except Exception as error:  # httpx, OSError, ValueError, RuntimeError: the client has no common base
        reason = _reason(error, repo)
    # Outside the handler, so that no chained exception can carry what the Hub echoed.
    raise ReleaseError(reason.replace(token, "<HF_TOKEN>"))


def _commit(api: "HfApi", repo: str, folder: Path, files: Files, progress: Callable[[str], None]) -> dict[str, Any]:
    """One commit on the head that was read; the Hub refuses it if somebody else committed in between.

    Not `upload_folder`: with hf_xet installed it commits in batches (huggingface_hub #4331), so that a release that
    breaks off is published in part.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    api.create_repo(repo, private=True, exist_ok=True)
    before = api.model_info(repo, files_metadata=True)
    states = {name: _state(folder / name, entry, _siblings(before).get(name)) for name, entry in files.items()}
    gone = sorted(_earlier(api, repo, before) - files.keys())
    sent = [name for name, state in states.items() if state != "unchanged"]
    size = sum(files[name]["bytes"] for name in sent)
    progress(
        f"release: {len(sent)} of {len(files)} files, {size:,} bytes, to {repo} on {before.sha or 'an empty repo'}"
    )
    progress(f"release: removed there, from an earlier release: {', '.join(gone) or 'nothing'}")
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        *(CommitOperationDelete(path_in_repo=name) for name in gone),
        *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=folder / name) for name in sent),
    ]
    message = f"Release {files[RELEASE]['sha256'][:12]}"
    with Progress(f"sending {len(sent)} files, {megabytes(size)}, to {repo}", total=1, unit="commit") as sending:
        commit = api.create_commit(repo, operations, commit_message=message, parent_commit=before.sha)
        sending.advance()
    _verify(api, repo, str(commit.oid), folder, files)
    return {
        "published": commit.commit_url,
        "commit": commit.oid,
        "parent": before.sha,
        "private": before.private,
        "uploaded": len(sent),
        "uploaded_bytes": size,
        "removed": gone,
        "states": states,
    }


def _siblings(info: "ModelInfo") -> dict[str, "RepoSibling"]:
    return {found.rfilename: found for found in info.siblings or ()}


def _state(path: Path, entry: Mapping[str, Any], there: "RepoSibling | None") -> str:
    if there is None:
        return "new"
    return "unchanged" if _same(path, entry, there) else "changed"


def _same(path: Path, entry: Mapping[str, Any], there: "RepoSibling") -> bool:
    """Whether the Hub holds these bytes, from what it says of the file: the LFS hash, or git's for a small file."""
    if there.lfs:
        return bool(there.lfs.sha256 == entry["sha256"])
    if there.size != entry["bytes"]:
        return False
    content = path.read_bytes()
    return there.blob_id == hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _earlier(api: "HfApi", repo: str, before: "ModelInfo") -> set[str]:
    """Files of an earlier release that are there now; what people added to the repository is theirs and stays.

    Raises:
        ReleaseError: the repository holds something that is no release.
    """
    names = set(_siblings(before))
    if RELEASE in names:
        with tempfile.TemporaryDirectory() as scratch:
            path = api.hf_hub_download(repo, RELEASE, revision=before.sha, local_dir=scratch)
            return names & set(read_json(Path(path))["files"])
    if names - BLANK:
        raise ReleaseError(
            f"{repo} holds {', '.join(sorted(names - BLANK)[:5])} and no {RELEASE}: it is not a release of this "
            "project and is left alone; name another repository in release.repo_id, or empty this one"
        )
    return set()


def _verify(api: "HfApi", repo: str, commit: str, folder: Path, files: Files) -> None:
    """Ask the Hub what the commit holds: a .gitignore over there leaves files out without an error."""
    there = _siblings(api.model_info(repo, revision=commit, files_metadata=True))
    wrong = [name for name, entry in files.items() if _state(folder / name, entry, there.get(name)) != "unchanged"]
    if wrong:
        raise ReleaseError(
            f"{repo}: commit {commit} was made but does not hold {', '.join(wrong)} as sent; see that no .gitignore "
            "of the repository leaves them out, then run hub_release again"
        )


REMEDIES = {
    400: "Mend what it names and run hub_release again.",
    401: "The token is not valid: make one with write access at https://huggingface.co/settings/tokens, set HF_TOKEN.",
    403: "The token may not write there: make one with write access to the repository, and set HF_TOKEN.",
    404: "Check release.repo_id in the profile, and that the token can see it.",
    412: "Somebody else committed there since the release was prepared: look at that commit, then run hub_release "
    "again to publish on top of it.",
}
"""HTTP status -> what a person does about it."""
AGAIN = "Run hub_release again: what arrived is not sent twice, and what is complete stays as it is."


def _reason(error: BaseException, repo: str) -> str:
    """What failed, the file if it was one, and what to do, from an error of the client and its causes."""
    texts: list[str] = []
    status = 0
    found: BaseException | None = error
    while found is not None:
        line = " ".join(str(found).split()) or type(found).__name__
        texts += [line] if not any(line in known for known in texts) else []
        status = status or getattr(getattr(found, "response", None), "status_code", 0)
        found = found.__cause__
    return f"{repo}: not published ({': '.join(texts)[:600]}). {REMEDIES.get(status, AGAIN)}"
