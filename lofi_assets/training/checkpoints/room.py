"""Whether a disk has room for what is about to be written, asked before and not found out half-way.

Imports without torch.
"""

import errno
import shutil
from pathlib import Path

from lofi_assets.errors import DiskError, megabytes

SPARE_BYTES = 16e6
"""Left free beside what is asked for: logs, curves, the manifest."""


def free_bytes(folder: Path) -> int:
    """What the file system of `folder`, or of the next folder above it that is there, has free."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    return shutil.disk_usage(there).free


def require_room(folder: Path, needed: float, *, what: str, remedy: str) -> None:
    """Do nothing if `needed` bytes and `SPARE_BYTES` fit.

    Args:
        what: takes the space, as a sentence begins: "the checkpoint of step 5".
        remedy: what a person does.
    Raises:
        DiskError: with needed and free bytes.
    """
    free = free_bytes(folder)
    if free >= needed + SPARE_BYTES:
        return
    fault = DiskError(
        f"{folder}: the disk is full: {what} takes {megabytes(needed + SPARE_BYTES)}, and {megabytes(free)} are free; "
        f"{remedy}"
    )
    fault.errno = errno.ENOSPC
    raise fault
