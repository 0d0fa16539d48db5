"""Files that only grow: a line on the disk before anything goes on, and half a line after a kill is no line.

A session's lines are numbered and carry an HMAC under the test's key. A line that was edited, moved, doubled or copied
from another session is void; it voids itself alone and is named.
"""

import fcntl
import hashlib
import hmac
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lofi_assets.errors import name_disk_fault
from lofi_assets.files.hand_written import HandWrittenError, decoded, parse_json
from lofi_assets.files.writing import linked_to, make_folder

Line = Mapping[str, Any]


def append(path: Path, line: Line) -> None:
    """Add a line; on the disk before this returns. What a killed process left half written is cut off first.

    Raises:
        DiskError: the disk is full, or fails; nothing was added.
    """
    path = linked_to(path)
    make_folder(path.parent)
    fresh = not path.exists()
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        size = os.fstat(file.fileno()).st_size
        if size and os.pread(file.fileno(), 1, size - 1) != b"\n":
            os.ftruncate(file.fileno(), os.pread(file.fileno(), size, 0).rfind(b"\n") + 1)
            size = os.fstat(file.fileno()).st_size
        try:
            file.write(_text(line).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        except OSError as error:
            os.ftruncate(file.fileno(), size)
            name_disk_fault(error, path, partial=path)
            raise
    if fresh:
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)


def read_lines(path: Path) -> list[bytes]:
    """The whole lines of a file, without what stands after the last newline; none if it is absent."""
    path = linked_to(path)
    return path.read_bytes().split(b"\n")[:-1] if path.is_file() else []


def parsed_line(line: bytes) -> Line:
    """One line as an object.

    Raises:
        ValueError: no strict JSON object.
    """
    found = parse_json(decoded(line, where="the line"), where="the line")
    if not isinstance(found, dict):
        raise ValueError("not a JSON object")
    return found


@dataclass(frozen=True)
class Journal:
    """One session's lines under the key of its test."""

    path: Path
    key: bytes

    @property
    def session(self) -> str:
        """Whose it is: the name of the file."""
        return self.path.stem

    def add(self, number: int, **content: Any) -> Line:
        """Append line `number` (from 0), signed; returns it as it is read again."""
        line = {"n": number, **content}
        signed = line | {"mac": self._mac(line)}
        append(self.path, signed)
        return line

    def read(self) -> tuple[list[Line], tuple[str, ...]]:
        """The lines that hold, and what is void: `line 7: was changed`."""
        lines: list[Line] = []
        void: list[str] = []
        for place, raw in enumerate(read_lines(self.path), start=1):
            try:
                line = dict(parsed_line(raw))
                self._check(line, after=lines[-1]["n"] if lines else -1)
            except (HandWrittenError, ValueError) as error:
                void.append(f"{self.session}, line {place}: {error}")
                continue
            lines.append(line)
        numbers = [line["n"] for line in lines]
        if lines and (missing := numbers[-1] + 1 - len(numbers) - len(void)) > 0:
            void.append(f"{self.session}: {missing} lines are gone")
        return lines, tuple(void)

    def _check(self, line: dict[str, Any], *, after: int) -> None:
        mac = line.pop("mac", None)
        if not isinstance(mac, str) or not hmac.compare_digest(mac.encode(), self._mac(line).encode()):
            raise ValueError("was not written by the server, or was changed")
        if not isinstance(line.get("n"), int) or line["n"] <= after:
            raise ValueError("stands there twice, or in another place than it was written")

    def _mac(self, line: Line) -> str:
        return hmac.new(self.key, f"{self.session}\n{_text(line)}".encode(), hashlib.sha256).hexdigest()


def _text(line: Line) -> str:
    return json.dumps(line, sort_keys=True, allow_nan=False, separators=(",", ":"))


def chained(lines: Sequence[bytes]) -> str:
    """SHA-256 of the last line, which every next one names; of nothing before the first."""
    return hashlib.sha256(lines[-1] if lines else b"").hexdigest()
