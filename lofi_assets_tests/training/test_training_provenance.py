"""What is recorded of the code that a checkpoint was made with."""

import subprocess
from pathlib import Path

import pytest

import lofi_assets
from lofi_assets.files.git import changes, git
from lofi_assets.store import PACKAGE


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package in a repository, committed, with a module at its root and one deep below it."""
    package = tmp_path / "repository" / "package"
    for name in ("root.py", "a/b/c/deep.py"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text("x = 1\n")
    (package.parent / "README.md").write_text("read\n")
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "first"]):
        author = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", "-C", str(package.parent), *author, *command], check=True)
    return package


@pytest.mark.parametrize("name", ["root.py", "a/b/c/deep.py"])
def test_a_change_anywhere_in_the_package_is_seen(package: Path, name: str) -> None:
    (package / name).write_text("x = 2\n")
    assert changes(package)


@pytest.mark.parametrize("name", ["a/new.py", "ein Gerät.py"])
def test_a_module_that_was_never_added_is_seen_with_its_content(package: Path, name: str) -> None:
    (package / name).write_text("x = 1\n")
    first = changes(package)
    git.cache_clear()
    (package / name).write_text("x = 2\n")
    assert first and changes(package) not in (None, first)


def test_without_a_change_in_the_package_there_is_none(package: Path) -> None:
    (package.parent / "README.md").write_text("read again\n")
    assert changes(package) is None


def test_the_package_is_the_whole_one_however_deep_its_modules_are() -> None:
    assert Path(lofi_assets.__file__).parent == PACKAGE
    assert (PACKAGE / "definitions.py").is_file() and PACKAGE.name == "lofi_assets"
