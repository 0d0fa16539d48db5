"""How the trainer ended, for whoever started its process and for whoever looks later: `<config>.ending.json`.

An exit code alone does not say what to do, and standard error is in another place for each way of starting. The file is
there from the start: until somebody writes the end, it says that the trainer is at work, or was ended so that nobody
could write it (`death` is what its parent then knows). Imports without torch.
"""

import os
import socket
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic.dataclasses import dataclass

from lofi_assets.errors import DiskError
from lofi_assets.files.typed import STORED, read_typed, write_typed
from lofi_assets.files.writing import StoreError

DONE, CRASHED, CONFIGURATION, DIVERGED, FILES, INTERRUPTED = 0, 1, 2, 3, 4, 75
KILLED = 128
"""And the number of the signal, as a shell has it."""
SAID = (DONE, CONFIGURATION, DIVERGED, FILES, INTERRUPTED)
"""Codes that the trainer itself ends with: its sentence is on standard error, though a full disk may not take it."""

Kind = Literal[
    "unsaid",
    "started",
    "complete",
    "interrupted",
    "configuration",
    "out of memory",
    "diverged",
    "disk full",
    "files",
    "killed",
    "unknown",
]
"""unsaid: by a version that wrote no kind; files: one is missing or damaged, or cannot be written; unknown: an error
that no message explains, a defect."""


@dataclass(frozen=True, config=STORED)
class Ending:
    """The end of a call of the trainer."""

    code: int
    message: str
    kind: Kind = "unsaid"
    start: str = ""
    """Which call it is of (`_this_start`)."""

    @property
    def explained(self) -> bool:
        """Whether the trainer knew why it ended, so that starting it again changes nothing by itself."""
        return self.kind not in ("killed", "unknown")


def killed(code: int | None, account: str, *, who: str = "") -> Ending:
    """The end of a trainer that could not say so itself.

    Args:
        code: as `subprocess` has it; None if it is not known.
        account: of `death.Watch`.
    """
    return Ending(KILLED if code is None else shell_code(code), who + account, "killed")


def shell_code(code: int) -> int:
    """An exit code of `subprocess`, which is negative for a signal, as a shell has it."""
    return code if code >= 0 else KILLED - code


def begin(config: Path) -> None:
    """Put down that the trainer starts, in place of how the last call ended; a copy of this start leaves it alone."""
    with suppress(DiskError):
        found = _replaced(config)
        if found is not None and found.start == _this_start() and _is_copy():
            return
        _file(config).unlink(missing_ok=True)  # a full disk takes no other sentence, and this one is not of this call
        now = datetime.now(UTC).isoformat(timespec="seconds")
        message = (
            f"the trainer (process {os.getpid()} on {socket.gethostname()}, started {now}) has not said how it ended: "
            "it is at work, or it was killed, or the machine stopped; what it saved is kept, and the same command goes "
            "on from there"
        )
        write_typed(_file(config), Ending(KILLED, message, "started", _this_start()))


def write_ending(config: Path, ending: Ending, *, start: str | None = None) -> None:
    """Keep how the run of `config` ended. Of one start the first word stays: the other processes end because of it.

    That one was killed is an exception: its parent says it last, and it came first.

    Args:
        start: of the call that ended, if that is another process's than this one's (`start_of`).
    Raises:
        DiskError: the disk is full.
    """
    start = _this_start() if start is None else start
    found = _replaced(config)
    if found is None or found.kind == "started" or found.start != start or ending.kind == "killed":
        write_typed(_file(config), replace(ending, start=start))


def read_ending(config: Path) -> Ending | None:
    """How the last call ended; None before any, while it runs, and where nobody could write it.

    Raises:
        StoreError: the file is broken.
    """
    found = _read(config)
    return None if found is None or found.kind == "started" else found


def start_of(config: Path) -> str:
    """Which call of the trainer the file is of; "" for none."""
    found = _read(config)
    return found.start if found else ""


def _read(config: Path) -> Ending | None:
    return read_typed(_file(config), Ending, remedy="remove it; the next start writes it anew")


def _replaced(config: Path) -> Ending | None:
    """What a start or an end takes the place of; a broken file is one that nobody reads any more."""
    with suppress(StoreError):
        return _read(config)
    return None


def _this_start() -> str:
    """The process that was started, which for one of several that train together is the one that launched it."""
    process = os.getppid() if _is_copy() else os.getpid()
    return f"{process}@{socket.gethostname()}#{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"


def _is_copy() -> bool:
    """Whether this is one of several processes that a launcher started."""
    return "WORLD_SIZE" in os.environ


def _file(config: Path) -> Path:
    return config.with_suffix(".ending.json")
