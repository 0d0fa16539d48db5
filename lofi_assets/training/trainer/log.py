"""The run's log: one JSON object per line, each step once however often the run was killed.

A run that goes on cuts the log back to the step it goes on from. Progress for people is in `lofi_assets.progress`.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lofi_assets.errors import name_disk_fault
from lofi_assets.files.writing import atomic_path
from lofi_assets.training.trainer.curves import open_curves


class StepLog:
    """Appends lines to a file; a line is whole once `write` returned, and on disk once `sync` did.

    The same numbers go to TensorBoard, into the folder of the file's name without its suffix.
    """

    def __init__(self, path: Path, *, after_step: int) -> None:
        """Open `path`, keeping only lines up to `after_step`: later ones come again."""
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [line for line in read_log(path) if line["step"] <= after_step]
        with atomic_path(path) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        self._file = path.open("a", encoding="utf-8")
        self._curves = open_curves(path.with_suffix(""), after_step=after_step)

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Append one line.

        Raises:
            DiskError: the disk takes no more.
        """
        try:
            self._file.write(json.dumps({"step": step, **values}) + "\n")
            self._file.flush()
        except OSError as error:
            name_disk_fault(error, self._path, partial=self._path)
            raise
        if self._curves:
            self._curves.write(step, values)

    def sync(self) -> None:
        """Bring what was written to disk, before a state is saved that counts on it."""
        os.fsync(self._file.fileno())
        if self._curves:
            self._curves.sync()

    def close(self) -> None:
        """Close the file; a line that a full disk did not take is gone."""
        with contextlib.suppress(OSError):
            self._file.close()
        if self._curves:
            self._curves.close()


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """Lines of a log, without a last one that a killed process left unfinished."""
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            return
