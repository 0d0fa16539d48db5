"""A private copy of what is released: regular files, opened without following links and hashed while they are copied.

What belongs here: how a file of the data root comes into the copy, and what is refused on the way. What does not: which
files (`contents.py`). Whatever is uploaded is read from here, so a file that changes after it was checked changes
nothing; and what the Hub holds is compared with the hashes kept in memory, so neither does a change of the copy.
"""

import errno
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from lofi_assets.errors import name_disk_fault
from lofi_assets.files.hashing import READ_BLOCK
from lofi_assets.files.writing import locked
from lofi_assets.release.files import ReleasedFile, ReleaseError
from lofi_assets.store import Store

PREFIX = ".sealed-"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""Without O_NONBLOCK, opening a pipe would wait for somebody to write into it."""
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@dataclass(frozen=True)
class SealedFile:
    """A file of the copy, as it was when it was written."""

    bytes: int
    sha256: str
    blob: str
    """git's name for the content (sha1), by which the Hub names a small file."""
    links: int = 1
    """Names that the source had on its file system: by another of them its bytes can be changed, not the copy's."""

    @property
    def released(self) -> ReleasedFile:
        """What the record says of it."""
        return ReleasedFile(self.bytes, self.sha256)


@dataclass
class SealedCopy:
    """The copy under way."""

    folder: Path
    """Mode 0700."""
    root: Path
    """The data root, which sources are below."""
    files: dict[str, SealedFile] = field(default_factory=dict)
    """By path in the copy."""
    cleared: Mapping[str, str] | None = None
    """File below the data root -> sha256 that the guard hashed; None where nothing goes (a preview)."""

    def path(self, name: str) -> Path:
        """Where a file or folder of the copy lies."""
        return self.folder / name

    def take(self, source: Path, name: str, *, sha256: str | None, remedy: str) -> SealedFile:
        """Copy a file of the data root.

        Args:
            sha256: what the record says that it is; None where the content itself is examined, in the copy.
            remedy: what a person does about a file that is not what the record says.
        Raises:
            ReleaseError: absent, reached through a link, no regular file, or not the bytes on record.
        """
        descriptor = open_below(self.root, source)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                kind = _KINDS.get(stat.S_IFMT(status.st_mode), "no regular file")
                raise ReleaseError(f"{source}: is {kind}; a release takes regular files alone")
            with os.fdopen(descriptor, "rb", closefd=False) as reading:
                made = self._write(name, iter(lambda: reading.read(READ_BLOCK), b""), links=status.st_nlink)
        finally:
            os.close(descriptor)
        if sha256 is not None and made.sha256 != sha256:
            raise ReleaseError(
                f"{source}: has sha256 {made.sha256[:12]}, and the record says {sha256[:12]}: it was changed since; "
                f"{remedy}"
            )
        self._require_cleared(source, made)
        return made

    def _require_cleared(self, source: Path, made: SealedFile) -> None:
        if self.cleared is None or source.is_relative_to(self.folder):
            return
        known = self.cleared.get(source.relative_to(self.root).as_posix())
        if known is None:
            raise ReleaseError(f"{source}: no evidence says what made it; materialise the asset that writes it")
        if known != made.sha256:
            raise ReleaseError(f"{source}: was changed since the guard read it; publish again")

    def write(self, name: str, content: bytes) -> SealedFile:
        """Put a file there that is made for the release."""
        return self._write(name, iter([content]))

    def write_blocks(self, name: str, blocks: Iterator[bytes]) -> SealedFile:
        """The same, of a file that need not fit into memory."""
        return self._write(name, blocks)

    def drop(self, folder: str) -> None:
        """Remove a folder of the copy that is not published, for the room that it takes."""
        shutil.rmtree(self.path(folder))
        for name in [name for name in self.files if name.startswith(f"{folder}/")]:
            del self.files[name]

    def _write(self, name: str, blocks: Iterator[bytes], *, links: int = 1) -> SealedFile:
        target = self.path(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(target, "xb", opener=_private) as writing:
                size, sha256 = 0, hashlib.sha256()
                for block in blocks:
                    writing.write(block)
                    sha256.update(block)
                    size += len(block)
        except FileExistsError as error:
            raise ReleaseError(f"{name}: two files of the release would have this name") from error
        except OSError as error:
            name_disk_fault(error, target, partial=target)
            raise
        with target.open("rb") as written:
            again, blob, _ = _digests(iter(lambda: written.read(READ_BLOCK), b""), size)
        if again != sha256.hexdigest():
            raise ReleaseError(f"{target}: does not hold what was written into it; look at the disk")
        self.files[name] = SealedFile(size, again, blob, links)
        return self.files[name]


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, mode=0o600)


def _digests(blocks: Iterator[bytes], size: int) -> tuple[str, str, int]:
    """sha256, git's sha1 of a blob of this size, and the bytes read."""
    sha256, sha1, read = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size), 0
    for block in blocks:
        sha256.update(block)
        sha1.update(block)
        read += len(block)
    return sha256.hexdigest(), sha1.hexdigest(), read


def open_below(root: Path, path: Path) -> int:
    """A descriptor of a file below `root`, each folder opened from the one above it and no link followed on the way.

    Links above `root` are the administrator's, who said where the data root is.

    Raises:
        ReleaseError: a link, a folder that is none, or nothing there.
    """
    relative = PurePosixPath(path.relative_to(root)) if path.is_relative_to(root) else PurePosixPath("..")
    if not relative.parts or ".." in relative.parts:
        raise ReleaseError(f"{path}: is no file below the data root {root}")
    folder, reached = os.open(root, _FOLDER), root
    try:
        for part in relative.parts[:-1]:
            reached = reached / part
            below = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = below
        reached = path
        return os.open(relative.name, _FILE, dir_fd=folder)
    except OSError as error:
        raise ReleaseError(_refused(error, reached)) from error
    finally:
        os.close(folder)


def _refused(error: OSError, path: Path) -> str:
    if error.errno in (errno.ELOOP, errno.ENOTDIR) and path.is_symlink():
        return (
            f"{path}: is a link to {path.readlink()}; a release follows none, since what it leads to can be anything: "
            "put the file or folder itself there (mount --bind for another disk)"
        )
    if error.errno == errno.ENOENT:
        return f"{path}: absent; materialise the asset that writes it"
    return f"{path}: cannot be opened for a release ({error.strerror})"


@contextmanager
def sealed_copy(store: Store, *, cleared: Mapping[str, str] | None = None) -> Iterator[SealedCopy]:
    """An empty copy below `release/`, removed after the block; what killed processes left is removed before it.

    Args:
        cleared: file below the data root -> sha256 that the guard hashed; None where nothing goes.
    Raises:
        ReleaseError: another release of this data root is being made.
    """
    busy = ReleaseError(f"{store.release}: another release is being made here; wait until it has ended")
    with locked(store.release, busy=busy):
        for left in store.release.glob(f"{PREFIX}*"):
            shutil.rmtree(left, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=store.release))
        try:
            yield SealedCopy(folder, store.root, cleared=cleared)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
