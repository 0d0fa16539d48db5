"""The files of a release: what they are called, and what `release.json` says of them."""

from collections.abc import Mapping
from dataclasses import field
from typing import Literal, get_args

from pydantic.dataclasses import dataclass

from lofi_assets.errors import LofiError
from lofi_assets.files.hashing import hash_of
from lofi_assets.files.typed import STORED
from lofi_assets.profiles import Profile

Part = Literal["adapter", "tiers", "merged"]
"""A repository of a release: what one application downloads as a whole."""
PARTS: tuple[Part, ...] = get_args(Part)


def parts_of(profile: Profile) -> tuple[Part, ...]:
    """The repositories of a release by a profile: the merged model goes only where it is asked for."""
    return PARTS if profile.release.comfyui_checkpoint else ("adapter", "tiers")


CARD = "README.md"
EVIDENCE = "evidence"
"""Folder of the evidence that a release was let go by, `<asset>.json`, and of the table of gates."""
RELEASE = "release.json"
"""Lists every other file of its repository, where it comes from, and the verdicts under which it was let go."""
BUNDLE_FOLDER = "bundle"
"""Folder of the tiers' repository that is the bundle, whole and with its own manifest."""


@dataclass(frozen=True, config=STORED)
class ReleasedFile:
    """A file as it was released."""

    bytes: int
    sha256: str


Files = Mapping[str, ReleasedFile]
"""By path in the release."""


def release_name(parts: Mapping[Part, Files]) -> str:
    """The name of the release that consists of these repositories: sha256 over all their files but the lists."""
    return hash_of({part: {name: file.sha256 for name, file in files.items()} for part, files in parts.items()})


@dataclass(frozen=True, config=STORED)
class Approver:
    """Who approved the card."""

    approved_by: str
    date: str
    """ISO 8601."""


@dataclass(frozen=True, config=STORED)
class ReleasedGate:
    """A verdict under which a release was let go."""

    gate: str
    verdict: str
    value: str
    """The measure and its limit, as people read it."""


@dataclass(frozen=True, kw_only=True, config=STORED)
class ReleaseRecord:
    """`release.json`: the same for the same facts, so it names no time but the approval's."""

    checkpoint: str
    adapter_sha256: str
    base_fingerprint: str
    dataset_sha256: str
    config_sha256: str
    card_sha256: str
    approval: Approver
    constitution: str
    """Its version."""
    gates: tuple[ReleasedGate, ...]
    """Those that hold a release."""
    tools: Mapping[str, str | None]
    """Version of each; None for one that is not installed."""
    files: Files
    """Every other file of the repository."""
    part: Part | None = None
    """Which repository this is; None: of a version whose releases were one repository."""
    release: str = ""
    """`release_name` of all parts: repositories that say the same belong together. Empty: one repository."""
    evidence: Mapping[str, str] = field(default_factory=dict)
    """Asset of the lineage -> sha256 of its evidence; empty: of a version that had none."""
    made_from: Mapping[str, str] = field(default_factory=dict)
    """File -> sha256 of the checkpoint's file that it was made from, without what names machine, people or tracks."""


class ReleaseError(LofiError, RuntimeError):
    """A release that cannot be made as things are; the message says what is wrong and what to do."""
