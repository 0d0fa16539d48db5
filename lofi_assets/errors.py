"""Faults that a message explains: the base of the project's errors, and the sentence that people read.

Here too are the sentences for what the machine refuses (a full disk, missing permissions). Any other error is a defect
and keeps its traceback. The sentence is shown by `cli.main.Explaining` and `defs/faults.py`.
"""

import errno
import getpass
import re
import shutil
from pathlib import Path


class LofiError(Exception):
    """Something is not as it must be. The message is all a person needs: what, which file or key, what to do next."""


class DiskError(LofiError, OSError):
    """The machine does not take or give a file: full, read-only, forbidden, failing."""


def explanation(error: BaseException) -> str | None:
    """The sentence for a person; None for an error that nothing explains, whose traceback is needed."""
    if isinstance(error, LofiError):
        return str(error)
    refused = _refused(error)
    if refused is None:
        return None
    number, path = refused
    return _sentence(number, path)


def name_disk_fault(error: BaseException, path: Path, *, partial: Path) -> None:
    """Where writing `path` failed because the machine refused, say so with the file and the space; else do nothing.

    Args:
        partial: what was written so far, a file or a folder.
    Raises:
        DiskError: from `error`.
    """
    refused = None if isinstance(error, LofiError) else _refused(error)
    if refused is not None:
        fault = DiskError(_sentence(refused[0], path, written=_size(partial)))
        fault.errno = refused[0]
        raise fault from error


REMEDIES = {
    errno.ENOSPC: "the disk is full{space}; make room and run again",
    errno.EDQUOT: "the disk quota is used up{space}; make room or have it raised, and run again",
    errno.EROFS: "its file system is read-only; mount it writable, or set LOFI_DATA_DIR to a folder that is",
    errno.EACCES: "{user} may not; give this user the permission, or run as the one who owns it",
    errno.EPERM: "{user} may not; give this user the permission, or run as the one who owns it",
    errno.EIO: "the disk reports an error; see `dmesg`, and bring the data to another disk",
    errno.ENOTDIR: "a file stands where a folder must be; move it away, or correct the path",
    errno.EISDIR: "a folder stands where a file must be; move it away, or correct the path",
    errno.EMFILE: "this process may not open more files; raise the limit (`ulimit -n`) and run again",
    errno.ENFILE: "the machine cannot open more files; end what opens so many and run again",
}
"""What the machine refuses -> what it is, and what to do. A file that is absent is not among it: that is a defect where
the code counts on it, and an error with its own sentence where people bring it."""
_IN_TEXT = re.compile(r"\(os error (\d+)\)")
"""How libraries written in Rust (safetensors, tokenizers) pass on the system's error."""


def _refused(error: BaseException | None) -> tuple[int, str | None] | None:
    """(errno, file if known) of what the machine refused, the error itself or what it was raised from."""
    while error is not None:
        if isinstance(error, OSError):
            number = error.errno
        else:
            found = _IN_TEXT.search(str(error))
            number = int(found[1]) if found else None
        if number in REMEDIES:
            name = getattr(error, "filename", None)
            return number, None if name is None else str(name)
        error = error.__cause__
    return None


def _sentence(number: int, path: str | Path | None, *, written: int | None = None) -> str:
    what = str(path) if path is not None else "a file (which one is not known)"
    remedy = REMEDIES[number].format(space=_space(path, written), user=_user())
    return f"{what}: {remedy}"


def _space(path: str | Path | None, written: int | None) -> str:
    """` (0.0 MB free after 3.0 MB of it were written, and it needs more)`; what was written is removed again."""
    if path is None:
        return ""
    folder = next(parent for parent in (Path(path), *Path(path).absolute().parents) if parent.is_dir())
    needed = f" after {megabytes(written)} of it were written, and it needs more" if written else ""
    return f" ({megabytes(shutil.disk_usage(folder).free)} free{needed})"


def megabytes(size: float) -> str:
    """Bytes as people read them: `4.2 MB`, `1.30 GB`."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _user() -> str:
    try:
        return f"user {getpass.getuser()!r}"
    except (KeyError, OSError):  # a container's user without a name
        return "this process's user"
