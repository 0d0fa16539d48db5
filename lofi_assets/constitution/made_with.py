"""What a number was made with besides its inputs: constitution, code, environment, profile.

Everything is asked once per process. Imports without torch.
"""

import hashlib
import platform
from functools import cache
from importlib import metadata
from pathlib import Path

from pydantic.dataclasses import dataclass

from lofi_assets.constitution.amendments import gates_sha256
from lofi_assets.constitution.gates import load_constitution, load_gates
from lofi_assets.files.git import changes, commit
from lofi_assets.files.hashing import hash_of
from lofi_assets.files.typed import STORED
from lofi_assets.profiles import Profile
from lofi_assets.store import CONFIG_DIR, PACKAGE


@dataclass(frozen=True, config=STORED)
class ConstitutionInForce:
    """The constitution that a number is judged by."""

    version: str
    gates_sha256: str
    """What the gates mean, as `config/amendments.json` records it."""


@dataclass(frozen=True, config=STORED)
class Code:
    """The code that ran."""

    version: str | None
    """Of the installed distribution."""
    source_sha256: str
    """Of every Python file of the package, by name and content."""
    git_commit: str | None
    git_diff_sha256: str | None
    """None: the commit is what ran, or there is no repository."""


@dataclass(frozen=True, config=STORED)
class Environment:
    """What the code ran in."""

    python: str
    machine: str
    packages_sha256: str
    """Of the names and versions of all installed distributions."""


@dataclass(frozen=True, config=STORED)
class ProfileUsed:
    """The deployment's settings."""

    name: str
    sha256: str
    """Of all its settings."""
    seeds: dict[str, int]
    """Section -> its seed."""


@cache
def constitution_in_force(config_dir: Path = CONFIG_DIR) -> ConstitutionInForce:
    """The constitution of a configuration folder."""
    return ConstitutionInForce(str(load_constitution(config_dir)["version"]), gates_sha256(config_dir))


@cache
def code() -> Code:
    """The code of this process, as it lay there when this was first asked."""
    sources = sorted(PACKAGE.rglob("*.py"))
    digest = hashlib.sha256()
    for path in sources:
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(PACKAGE).as_posix()} {content}\n".encode())
    return Code(installed_version(PACKAGE.name), digest.hexdigest(), commit(PACKAGE), changes(PACKAGE))


@cache
def environment() -> Environment:
    """The environment of this process."""
    packages = sorted({(found.metadata["Name"].lower(), found.version) for found in metadata.distributions()})
    machine = f"{platform.system()} {platform.machine()}"
    return Environment(platform.python_version(), machine, hash_of(packages))


def look_at_what_runs() -> None:
    """Read code, packages, constitution and gates now, once: they may be edited before the evidence at the end names
    them, and then they are not what ran and judged."""
    code()
    environment()
    constitution_in_force()
    load_gates()


def profile_used(profile: Profile) -> ProfileUsed:
    """A profile by what it sets."""
    settings = profile.model_dump(mode="json")
    seeds = {
        section: value["seed"]
        for section, value in settings.items()
        if isinstance(value, dict) and isinstance(value.get("seed"), int)
    }
    return ProfileUsed(profile.name, hash_of(settings), seeds)


def installed_version(name: str) -> str | None:
    """Version of a distribution, None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
