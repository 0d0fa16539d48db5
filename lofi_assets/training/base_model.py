"""Which base model a profile means, and what tells one base from another."""

from pathlib import Path

from lofi_assets.files.writing import atomic_folder
from lofi_assets.profiles import BaseModelSettings, ProfileError
from lofi_assets.store import PACKAGE, Store

SHIPPED_BASE = PACKAGE / "demo" / "base_recipe" / "weights"
"""The small trained base, as `lofi train-base` wrote it."""


def resolve_base(store: Store, settings: BaseModelSettings) -> Path:
    """Folder of the base model in the Hub's layout; a tiny one is written, a Hub one downloaded, if it is not there."""
    if settings.kind == "tiny":
        folder = store.base_models / "tiny"
        if not folder.is_dir():
            from lofi_assets.backbones.ace_step_v1.tiny import write_tiny_base

            with atomic_folder(folder) as temporary:
                write_tiny_base(temporary)
        return folder
    if settings.kind == "shipped":
        if not SHIPPED_BASE.is_dir():
            raise ProfileError(f"{SHIPPED_BASE}: this build ships no base; set base_model.kind to tiny, folder or hub")
        return SHIPPED_BASE
    if settings.kind == "folder":
        folder = store.root / settings.path  # an absolute path stays what it is
        if not folder.is_dir():
            raise ProfileError(f"{folder}: no such folder; put a base model in the Hub's layout there, or correct path")
        return folder
    from lofi_assets.backbones.ace_step_v1.loading import base_directory

    return base_directory(settings.path, revision=settings.revision)


def base_identity(folder: Path) -> str:
    """Fingerprint of a base model's weights and configuration."""
    from lofi_assets.backbones.ace_step_v1.identity import base_fingerprint

    return base_fingerprint(folder)
