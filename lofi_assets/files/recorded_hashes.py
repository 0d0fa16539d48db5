"""Whether files are still the bytes that were recorded, and where a sound copy is if they are not.

Hashes are remembered by size and times (`hashing.py` computes them); a file is put back from its copy.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from lofi_assets.files.documents import read_json, write_json
from lofi_assets.files.hashing import sha256_file, stat_key
from lofi_assets.files.writing import copy_file
from lofi_assets.wording import shortened

SHOWN = 50
"""Files that a message names."""


class FileHashes:
    """sha256 of files below a folder; one is read again only if its size or times say that it was written to.

    Remembered in a file, by paths relative to the folder: without it every file is read again.
    """

    def __init__(self, root: Path, remembered: Path) -> None:
        self._root, self._path = f"{root}/", remembered
        self._before = _remembered(read_json(self._path, default={}))
        self._now: dict[str, list[str]] = {}

    def __call__(self, path: Path) -> str:
        """sha256 of a file, "" if there is none."""
        name = self._name(path)
        try:
            key = stat_key(path)
            known = self._now.get(name) or self._before.get(name) or ["", ""]
            self._now[name] = known if known[0] == key else [key, sha256_file(path)]
        except (FileNotFoundError, NotADirectoryError):
            return ""
        return self._now[name][1]

    def is_own(self, path: Path, digest: str) -> bool:
        """Whether a file has this hash and is no link to another: who opens it can change nothing but it."""
        return self(path) == digest and path.stat().st_nlink == 1

    def had(self, path: Path) -> str:
        """What a file hashed to when it was last remembered, "" if it never was."""
        return self._before.get(self._name(path), ["", ""])[1]

    def record(self, path: Path, digest: str) -> None:
        """Remember a file that was just read or written."""
        self._now[self._name(path)] = [stat_key(path), digest]

    def _name(self, path: Path) -> str:
        """As `Store.relative`, ten thousands of times."""
        return str(path).removeprefix(self._root)

    def save(self) -> None:
        """Remember what was asked for or recorded since, and forget the rest."""
        if self._now != self._before:
            write_json(self._path, self._now)


def _remembered(data: object) -> dict[str, list[str]]:
    """What `save` writes, name -> [state, hash]; of anything else nothing, so that those files are read again."""
    if not isinstance(data, dict):
        return {}
    return {
        name: entry
        for name, entry in data.items()
        if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str) and isinstance(entry[1], str)
    }


def put_back(path: Path, digest: str, *, sources: Iterable[Path], hashes: FileHashes) -> Path | None:
    """Make `path` a copy, of its own, of the first source that has this hash; returns that source, None if none has.

    The copy is read before it takes the place of what is there.
    """
    temporary = path.with_name(f".{path.name}.sound.part")
    for source in sources:
        if not source.is_file():
            continue
        try:
            copy_file(source, temporary)
            if sha256_file(temporary) == digest:
                temporary.replace(path)
                hashes.record(path, digest)
                return source
        finally:
            temporary.unlink(missing_ok=True)
    return None


def mended_text(mended: Sequence[str]) -> str | None:
    """What a person is told of files that were put back; None if there were none."""
    if not mended:
        return None
    return "\n".join(f"- {line}" for line in shortened(mended, most=SHOWN))
