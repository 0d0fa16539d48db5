"""Which base model a profile means, and what tells one base from another."""

from pathlib import Path

from lofi_assets.backbones import ACE_STEP_V1, Backbone, backbone_of
from lofi_assets.files.writing import atomic_folder
from lofi_assets.profiles import BaseModelSettings, ProfileError
from lofi_assets.store import PACKAGE, Store

SHIPPED_BASE = PACKAGE / "demo" / "base_recipe" / "weights"
"""The small trained base, as `lofi train-base` wrote it."""


def backbone_for(settings: BaseModelSettings) -> Backbone:
    """The model family that a profile names.

    Raises:
        BackboneError: there is none of that name.
    """
    return backbone_of(settings.architecture)


def resolve_base(store: Store, settings: BaseModelSettings) -> Path:
    """Folder of the base model in the Hub's layout; a tiny one is written, a Hub one downloaded, if it is not there."""
    if settings.kind == "tiny":
        other = "" if settings.architecture == ACE_STEP_V1 else f"-{settings.architecture}"
        folder = store.base_models / f"tiny{other}"
        if not folder.is_dir():
            with atomic_folder(folder) as temporary:
                backbone_for(settings).write_tiny(temporary)
        return folder
    if settings.kind == "shipped":
        if settings.architecture != ACE_STEP_V1:
            raise ProfileError(
                f"the base that this package ships is {ACE_STEP_V1}; set base_model.architecture to that"
            )
        if not SHIPPED_BASE.is_dir():
            raise ProfileError(f"{SHIPPED_BASE}: this build ships no base; set base_model.kind to tiny, folder or hub")
        return SHIPPED_BASE
    if settings.kind == "folder":
        folder = store.root / settings.path  # an absolute path stays what it is
        if not folder.is_dir():
            raise ProfileError(f"{folder}: no such folder; put a base model in the Hub's layout there, or correct path")
        return folder
    return backbone_for(settings).base_directory(settings.path, revision=settings.revision)


def base_on_disk(store: Store, settings: BaseModelSettings) -> Path | None:
    """The base's folder, None for a Hub model that was not downloaded yet."""
    if settings.kind != "hub":
        return resolve_base(store, settings)
    return backbone_for(settings).downloaded(settings.path, revision=settings.revision)
