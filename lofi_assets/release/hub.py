"""Publication of `export/` with its card: to a local folder, or in one commit to the Hugging Face Hub.

Called by the guarded asset only. The guard, not this module, decides whether anything may go.
"""

from pathlib import Path
from typing import Any

from lofi_assets.optimization import best_checkpoint
from lofi_assets.outcome import Outcome
from lofi_assets.profiles import Profile
from lofi_assets.store import Store, atomic_folder, fingerprint, link_or_copy, sha256_folder

ADAPTER_FILES = ("adapter_model.safetensors", "adapter_config.json", "pytorch_lora_weights.safetensors", "config.json")
"""What a release carries of the checkpoint (constitution, Checkpoint Management: stored with full configuration)."""


class ReleaseError(RuntimeError):
    """A release that cannot be made as configured; the message says which setting is missing."""


def publish(store: Store, profile: Profile) -> Outcome:
    """Assemble `release/published/` and, if the profile says so, commit it to the Hub."""
    folder = store.release / "published"
    checkpoint = store.checkpoints / best_checkpoint(store).checkpoint_id
    with atomic_folder(folder) as temporary:
        for path in sorted(file for file in store.export.rglob("*") if file.is_file()):
            link_or_copy(path, temporary / path.relative_to(store.export))
        for name in ADAPTER_FILES:
            link_or_copy(checkpoint / name, temporary / "lora" / name)
        link_or_copy(store.release / "README.md", temporary / "README.md")
    files = sha256_folder(folder)
    where = _push(folder, profile) if profile.release.target == "hub" else {"published": str(folder)}
    return Outcome(
        data_version=fingerprint(files),
        counts={"files": len(files)},
        rows=[{"file": name, "sha256": digest} for name, digest in files.items()],
        details=where,
    )


def _push(folder: Path, profile: Profile) -> dict[str, Any]:
    """One commit on top of the head that was read: a commit by somebody else in between is refused by the Hub."""
    from huggingface_hub import HfApi

    repo = profile.release.repo_id
    if not repo:
        raise ReleaseError(f"config/profiles/{profile.name}.yaml: release.repo_id is empty; name the Hub repository")
    api = HfApi()
    api.create_repo(repo, private=True, exist_ok=True)
    head = api.repo_info(repo).sha
    commit = api.upload_folder(
        repo_id=repo, folder_path=folder, commit_message="Release", parent_commit=head, delete_patterns="*"
    )
    return {"published": commit.commit_url, "commit": commit.oid}
