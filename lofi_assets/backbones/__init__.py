"""Model families that can be trained, a folder each, and what the platform knows of one: the Protocol `Backbone`.

Trainer, feature cache, samples, tiers and release reach a model through this and know nothing of its family. The
contract stands in five files, by who uses it: `features`, `training`, `sizes`, `sampling`, `export`.

A family of another package is found by an entry point of the group `lofi_assets.backbones`, whose name is what
`base_model.architecture` of a profile says.
"""

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

from lofi_assets.backbones.export import Exports
from lofi_assets.backbones.features import EncodesTracks
from lofi_assets.backbones.sampling import Samples
from lofi_assets.backbones.sizes import Sized
from lofi_assets.backbones.training import Trains
from lofi_assets.errors import LofiError
from lofi_assets.near_names import meant

ACE_STEP_V1 = "ace_step_v1"
"""What everything on record was made with that does not name its architecture."""
GROUP = "lofi_assets.backbones"
_SHIPPED: Mapping[str, str] = {ACE_STEP_V1: "lofi_assets.backbones.ace_step_v1.backbone:ACE_STEP_V1"}


class BackboneError(LofiError, ValueError):
    """No such family, or one that cannot do what is asked; the message says what to set."""


class BaseModelError(LofiError, ValueError):
    """A base model that cannot be read: says what is missing, where, and what to do."""


class Backbone(EncodesTracks, Trains, Sized, Samples, Exports, Protocol):
    """A model family. It can be pickled: its components are exported by two processes."""

    @property
    def architecture(self) -> str:
        """Its name in profiles and records."""
        ...

    @property
    def title(self) -> str:
        """Its name for people."""
        ...

    @property
    def hub_tag(self) -> str:
        """What the Hub files models of it under."""
        ...

    def write_tiny(self, folder: Path) -> None:
        """Write a base with random weights, small enough for tests.

        Raises:
            BackboneError: the family has none.
        """
        ...

    def base_directory(self, path_or_repo: str, *, revision: str | None) -> Path:
        """The folder of a base of the Hugging Face Hub, downloaded if it is not there.

        Raises:
            LofiError: no revision, or it cannot be had.
        """
        ...

    def downloaded(self, repo: str, *, revision: str | None) -> Path | None:
        """The folder of a base of the Hub if it is on this machine already."""
        ...

    def fingerprint(self, base: Path) -> str:
        """Hash of a base's weights and configuration, 64 hexadecimal digits; loads nothing."""
        ...

    def lyric_vocabulary(self, source: str, *, sha256: str, root: Path, downloads: Path) -> Path:
        """The vocabulary that a profile names beside the base, its content checked.

        Raises:
            LofiError: it cannot be had, is another file, or the family takes none.
        """
        ...


def backbone_of(architecture: str) -> Backbone:
    """The family of that name.

    Raises:
        BackboneError: there is none.
    """
    if architecture in _SHIPPED:
        return _loaded(_SHIPPED[architecture])
    others = {entry.name: entry.value for entry in entry_points(group=GROUP)}
    if architecture in others:
        return _loaded(others[architecture])
    known = sorted(_SHIPPED.keys() | others.keys())
    near = meant(architecture, known)
    raise BackboneError(
        f"no backbone is called {architecture!r}"
        + (f", perhaps you mean {near!r}" if near else "")
        + f"; there is {', '.join(known)}. Correct base_model.architecture, or install the package that brings it"
    )


def _loaded(place: str) -> Backbone:
    """From `module:object`."""
    module, _, name = place.partition(":")
    backbone: Backbone = getattr(import_module(module), name)
    return backbone
