"""Whether what changed among the files that an asset alone writes was written by a run of it.

A run that keeps what is there would else vouch for whatever was put in its place. A run that was killed, or that failed
after it had written, leaves files without evidence: the next one keeps them, and may vouch for those.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lofi_assets.errors import LofiError
from lofi_assets.store import Store
from lofi_assets.wording import named

SLACK_S = 1.0
"""By which times of files and of events may differ: those of files are kept in steps, and one is asked for later."""


class NotMadeHereError(LofiError, RuntimeError):
    """A file is not what the asset made of it, and no run of the asset made it; the message names it."""


@dataclass(frozen=True)
class Attempt:
    """From when to when a run worked on an asset, in seconds since 1970 by the clock of the machine."""

    start: float
    end: float


def require_made_here(
    store: Store,
    asset: str,
    files: Mapping[str, str],
    recorded: Mapping[str, str],
    attempts: Callable[[], Iterable[Attempt]],
    *,
    lost: str = "",
) -> None:
    """Compare the files of an asset with what its last evidence says of them.

    A file counts as written when the system last changed it or gave it its name (`st_ctime`), which nobody can set.

    Args:
        files, recorded: name in the data root -> sha256, now and by the last evidence.
        attempts: of the runs since that evidence, this one first; asked for until they explain every file that changed.
        lost: why nothing is recorded: then each file must have been written since, as on a new data root all are.
    Raises:
        NotMadeHereError: a file has changed, and not while a run worked on the asset.
    """
    changed = [name for name, digest in files.items() if lost or recorded.get(name, digest) != digest]
    foreign = _written(store, changed)
    for one in attempts() if foreign else ():
        earliest, latest = one.start - SLACK_S, one.end + SLACK_S
        foreign = {name: written for name, written in foreign.items() if not earliest <= written <= latest}
        if not foreign:
            break
    if foreign and lost:
        raise NotMadeHereError(
            f"{lost}: nothing says whether {named(list(foreign))} {'is' if len(foreign) == 1 else 'are'} still what "
            f"was made. Restore metadata/evidence from a copy, or remove the files and materialise {asset}, which "
            f"makes them again; if Dagster made {asset} on another data root, give this one a DAGSTER_HOME of its own"
        )
    if foreign:
        raise NotMadeHereError(
            f"{named(list(foreign))}: changed since a run made it, and not by a run of {asset}: restore it from a "
            f"copy, or remove it (with its folder where it has one for itself) and materialise {asset}, which makes it "
            "again"
        )


def _written(store: Store, names: Iterable[str]) -> dict[str, float]:
    """When files were written, by the clock of this machine: the server of a network file system has its own."""
    ahead: dict[int, float] = {}
    found = {}
    for name in names:
        path = store.root / name
        status = path.stat()
        if status.st_dev not in ahead:
            ahead[status.st_dev] = _clock_ahead(path.resolve().parent)
        found[name] = status.st_ctime - ahead[status.st_dev]
    return found


def _clock_ahead(folder: Path) -> float:
    """Seconds by which the clock of a folder's file system is ahead of this machine's."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".", suffix=".part") as file:
        return os.fstat(file.fileno()).st_ctime - time.time()
