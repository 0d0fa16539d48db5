"""Dagster's home: where it is, that it is of one data root, and that one daemon alone works on it.

What Dagster remembers of one library (runs, what is materialised, where sensors stand) is wrong of any other. Two
daemons on one home evaluate every sensor and schedule twice: each run is started twice and each alert sent twice.
Imports without dagster.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from lofi_assets.environment import folder
from lofi_assets.errors import LofiError
from lofi_assets.files.documents import read_json, write_json, write_text
from lofi_assets.files.hashing import hash_of
from lofi_assets.files.writing import locked, make_folder
from lofi_assets.store import CONFIG_DIR, PACKAGE, data_root

TEMPLATE = PACKAGE.parent / "config" / "dagster.yaml"
ROOT = "data_root.txt"
"""In a home: the data root whose runs it has, by its path, from the checkout if it is in there."""
OWNER = "lofi-dev"
"""Folder of the home with the lock of `lofi dev`, and with who holds it."""


class DaemonRunsError(LofiError, RuntimeError):
    """Another daemon works on this home; the message says which process and what to do."""


class _HeldError(LofiError):
    """The lock of the home is held."""


def dagster_home() -> Path:
    """`DAGSTER_HOME`, else a folder of the checkout for each data root; it has the template's settings unless its own.

    That is `.dagster/` for the data root which asks first, and `.dagster/roots/<name>-<hash of its path>/` for others.
    """
    checkout = CONFIG_DIR.parent
    name = _name_of(data_root(), checkout)
    home = folder("DAGSTER_HOME", _home_of(name, checkout / ".dagster"))
    os.environ["DAGSTER_HOME"] = str(home)
    make_folder(home)
    if not (home / "dagster.yaml").is_file():
        shutil.copyfile(TEMPLATE, home / "dagster.yaml")
    if not (home / ROOT).is_file():
        write_text(home / ROOT, f"{name}\n")
    return home


def _name_of(root: Path, checkout: Path) -> str:
    """A data root within the checkout is the same when both are moved."""
    return root.relative_to(checkout).as_posix() if root.is_relative_to(checkout) else str(root)


def _home_of(name: str, first: Path) -> Path:
    try:
        owner = (first / ROOT).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return first
    return first if owner == name else first / "roots" / f"{Path(name).name}-{hash_of(name)[:8]}"


def own_settings(home: Path) -> bool:
    """Whether the home's settings are others than the template's, which may have changed since they were copied."""
    return (home / "dagster.yaml").read_bytes() != TEMPLATE.read_bytes()


@contextlib.contextmanager
def sole_daemon(home: Path, *, url: str) -> Iterator[None]:
    """Keep the home to this process and the daemon that it starts; a killed process keeps nothing.

    Args:
        url: where this process's UI is, for whoever asks meanwhile.
    Raises:
        DaemonRunsError: a `lofi dev`, or a daemon that somebody started otherwise, works on the home.
    """
    lock = home / OWNER
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(locked(lock, busy=_HeldError()))
        except _HeldError as error:
            owner = read_json(lock / "owner.json", default={})
            raise DaemonRunsError(_busy(home, owner.get("process"), owner.get("url"))) from error
        if others := daemons_on(home):
            raise DaemonRunsError(_busy(home, others[0], None))
        write_json(lock / "owner.json", {"process": os.getpid(), "url": url})
        yield


def daemons_on(home: Path) -> list[int]:
    """Ids of the Dagster daemons with this home, whoever started them, as far as this user may see them."""
    import psutil

    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if _is_daemon(process.cmdline()) and _same(process.environ().get("DAGSTER_HOME", ""), home):
                found.append(process.pid)
    return found


def _is_daemon(command: list[str]) -> bool:
    return "dagster._daemon" in command or any(Path(word).name == "dagster-daemon" for word in command[:2])


def _same(named: str, home: Path) -> bool:
    return bool(named) and Path(named).resolve() == home.resolve()


def _busy(home: Path, process: int | None, url: str | None) -> str:
    where = f", its UI at {url}" if url else ""
    stop = f"kill -INT {process}" if process else "Ctrl-C where it was started"
    name = f"process {process}" if process else "a process that has just started"
    return f"a Dagster daemon already works on {home}: {name}{where}; use that one, or end it first with: {stop}"
