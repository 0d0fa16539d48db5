"""The environment that a bundle asks for: its exact requirements, and one made from nothing but them.

Nothing else is in it: a requirement that is forgotten has to show. pip makes it. Where pip finds no index to ask, the
same distributions are copied from this project's own environment, file by file, each as its wheel brought it (RECORD,
https://packaging.python.org/en/latest/specifications/recording-installed-packages/).
"""

import base64
import hashlib
import json
import logging
import platform
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path

from lofi_assets.errors import LofiError
from lofi_assets.files.hashing import hash_of
from lofi_assets.files.writing import copy_file, locked, make_folder

LOG = logging.getLogger(__name__)
INSTALL_TIMEOUT_S = 900
UNREACHABLE = (
    "(from versions: none)",
    "No module named pip",
    "NewConnectionError",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "ProxyError",
    "SSLError",
    "Failed to establish a new connection",
    "Temporary failure in name resolution",
)
"""What pip says where it found no index to ask; anything else that it says is about the requirements."""
_DONE = "requirements.txt"
"""Copied into an environment when it is whole."""


class RequirementsError(LofiError, RuntimeError):
    """Requirements that cannot be installed, or cannot be told; the message holds what pip said."""


class UnreachableError(LofiError, RuntimeError):
    """No environment could be made here, which says nothing of the requirements."""


def exact_requirements(names: Iterable[str]) -> str:
    """`requirements.txt`: these distributions and all that they need, in the versions that are installed here.

    No hashes: those of other platforms' wheels are known to an index only, and a list of some would refuse the rest.

    Raises:
        RequirementsError: one is not installed here.
    """
    found = _closure(names)
    lines = [f"{name}=={version}" for name, version in sorted(found.items())]
    tested = f"# Exact, as it was run with: Python {platform.python_version()}, {sys.platform} {platform.machine()}."
    return "\n".join([tested, *lines]) + "\n"


def _closure(names: Iterable[str]) -> Mapping[str, str]:
    """Distribution -> version of everything that installing the names installs here."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    found: dict[str, str] = {}
    todo = [Requirement(text) for text in names]
    while todo:
        wanted = todo.pop()
        name = canonicalize_name(wanted.name)
        if name in found or (wanted.marker and not wanted.marker.evaluate({"extra": ""})):
            continue
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError as error:
            raise RequirementsError(f"{name}: a bundle needs it, and it is not installed here") from error
        todo += [Requirement(text) for text in metadata.requires(name) or ()]
    return found


def environment(requirements: str, root: Path) -> Path:
    """The interpreter of an environment that holds exactly `requirements`; made once for the same text, below `root`.

    pip decides where from: its configuration and PIP_FIND_LINKS, PIP_NO_INDEX, PIP_INDEX_URL hold, so a folder of
    wheels serves a machine without network. A second process that asks meanwhile waits, and finds it made.

    Raises:
        RequirementsError: pip refuses them, they bring what they do not list, or what would be copied was changed.
        UnreachableError: there is neither an index nor, here, what is asked for; or pip was not finished in time.
    """
    wanted = dict(line.split("==") for line in requirements.splitlines() if line and not line.startswith("#"))
    key = hash_of(requirements, sys.version, platform.machine())[:16]
    folder = root / key
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    with locked(root, busy=None):
        if not ((folder / _DONE).is_file() and python.exists() and versions_in(python) == wanted):
            _make(folder, python, requirements, wanted)
    return python


def _make(folder: Path, python: Path, requirements: str, wanted: Mapping[str, str]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    make_folder(folder)
    venv.EnvBuilder(symlinks=sys.platform != "win32", with_pip=False).create(folder)
    listed = folder / "wanted.txt"
    listed.write_text(requirements, encoding="utf-8")
    try:
        _install(python, listed)
    except UnreachableError as error:
        LOG.info(f"{error}: the distributions installed here are copied")
        _copy_installed(wanted, _site_packages(python))
    other = sorted(name for name, _ in versions_in(python).items() ^ wanted.items())
    if other:
        raise RequirementsError(f"requirements.txt is not what it brings: {', '.join(dict.fromkeys(other))}")
    listed.rename(folder / _DONE)


def _copy_installed(names: Iterable[str], target: Path) -> None:
    """What these distributions put into this environment, but for scripts and what Python compiled."""
    for name in names:
        try:
            files = metadata.files(name) or ()
        except metadata.PackageNotFoundError as error:
            raise UnreachableError(f"{name}: no index has been reached, and it is not installed here") from error
        for file in files:
            if ".." in file.parts or file.suffix == ".pyc":
                continue
            source = Path(str(file.locate()))
            if file.hash and file.hash.value != _record_hash(source, file.hash.mode):
                raise RequirementsError(f"{source}: is not what the wheel of {name} brought; install it again")
            copy_file(source, target / file)


def _record_hash(path: Path, mode: str) -> str:
    """As RECORD writes it: base64 for URLs, without padding."""
    with path.open("rb") as opened:
        digest = hashlib.file_digest(opened, mode).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def _site_packages(python: Path) -> Path:
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    done = subprocess.run([str(python), "-I", "-c", code], capture_output=True, text=True, check=True)
    return Path(done.stdout.strip())


def _install(python: Path, listed: Path) -> None:
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-input"]
    command += ["--no-compile", "--only-binary", ":all:", "-r", str(listed)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise UnreachableError(f"pip was not finished after {INSTALL_TIMEOUT_S} s") from error
    if done.returncode:
        said = done.stderr.strip()
        faults = [line for line in said.splitlines() if line.startswith("ERROR")] or said.splitlines()
        told = " ".join(faults)[-500:]
        if any(sign in said for sign in UNREACHABLE):
            raise UnreachableError(
                f"no index of packages can be reached ({told}); set PIP_NO_INDEX=1 and PIP_FIND_LINKS to a wheel folder"
            )
        raise RequirementsError(f"pip refuses the bundle's requirements.txt: {told}")


def versions_in(python: Path) -> Mapping[str, str]:
    """Distribution, by canonical name -> version, of what an environment holds."""
    from packaging.utils import canonicalize_name

    code = (
        "import json; from importlib import metadata;"
        "print(json.dumps({d.name: d.version for d in metadata.distributions()}))"
    )
    done = subprocess.run([str(python), "-I", "-c", code], capture_output=True, text=True, check=True)
    return {canonicalize_name(name): version for name, version in json.loads(done.stdout).items()}
