"""What several tests read is built once in a run of the tests, whatever the number of workers, and stays as it was."""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from lofi_assets.files.hashing import sha256_folder


def run_folder(factory: pytest.TempPathFactory) -> Path:
    """The temporary folder that all workers of this run share; pytest-xdist gives each its own below it."""
    own = factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@contextlib.contextmanager
def once_per_run(parent: Path, name: str, build: Callable[[Path], object]) -> Iterator[Path]:
    """The folder `parent`/`name`, filled by the first worker that asks for it; the others wait and take it as it is.

    Tests read it and change copies. At the end the files are compared with what was built.

    Args:
        build: fills the folder, which is there and empty.
    Raises:
        AssertionError: a test added, changed or removed a file.
    """
    folder, listing = parent / name, parent / f"{name}.json"
    with FileLock(parent / f"{name}.lock"):
        if not listing.is_file():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            build(folder)
            listing.write_text(json.dumps(sha256_folder(folder)), encoding="utf-8")
    yield folder
    built, found = json.loads(listing.read_text(encoding="utf-8")), sha256_folder(folder)
    changed = sorted(name for name in built.keys() | found.keys() if built.get(name) != found.get(name))
    assert not changed, f"a test added, changed or removed in {folder}: {', '.join(changed)}"
