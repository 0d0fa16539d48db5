"""What is recorded of the code that a checkpoint was made with."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

import lofi_assets
from lofi_assets.constitution import made_with
from lofi_assets.constitution.made_with import Code, code, constitution_in_force
from lofi_assets.defs.faults import explained
from lofi_assets.files.git import changes
from lofi_assets.store import PACKAGE
from lofi_assets.training.checkpoints import trainer_record
from lofi_assets.training.checkpoints.description import CheckpointDescription
from lofi_assets.training.checkpoints.files import checkpoint_id
from lofi_assets.training.trainer.loop import train
from lofi_assets_tests.training.fixtures import MakeRun


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
    (package / name).write_text("x = 2\n")
    assert first and changes(package) not in (None, first)


def test_without_a_change_in_the_package_there_is_none(package: Path) -> None:
    (package.parent / "README.md").write_text("read again\n")
    assert changes(package) is None


def test_the_package_is_the_whole_one_however_deep_its_modules_are() -> None:
    assert Path(lofi_assets.__file__).parent == PACKAGE
    assert (PACKAGE / "definitions.py").is_file() and PACKAGE.name == "lofi_assets"


@pytest.fixture
def running(package: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The package of a process that has just begun."""
    monkeypatch.setattr(made_with, "PACKAGE", package)
    code.cache_clear()
    yield package
    code.cache_clear()


def now_there() -> Code:
    """What lies in the package by now."""
    return code.__wrapped__()


def test_an_edit_while_it_trains_is_no_part_of_what_a_checkpoint_was_made_with(
    running: Path, make_run: MakeRun
) -> None:
    run, began = make_run(max_steps=2, checkpoint_interval=2), now_there()

    def edit_after_a_step() -> bool:
        (running / "root.py").write_text("x = 2\n")
        return False

    train(run, say=lambda _: None, stop=edit_after_a_step)
    assert now_there() != began and began.git_diff_sha256 is None
    made = CheckpointDescription.read(run.checkpoints_dir / checkpoint_id(2)).provenance
    assert (made.git_commit, made.git_diff_sha256) == (began.git_commit, None)
    (document,) = trainer_record.chain(run)[checkpoint_id(2)]
    assert document.source_sha256 == began.source_sha256


def test_an_edit_while_an_asset_is_made_is_no_part_of_its_evidence(
    running: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    constitution = {"version": "1.0.0"}
    monkeypatch.setattr(made_with, "load_constitution", lambda _: constitution)
    constitution_in_force.cache_clear()
    began = now_there()

    @dg.asset
    @explained
    def long_work(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        (running / "root.py").write_text("x = 2\n")
        constitution["version"] = "2.0.0"
        return dg.MaterializeResult(
            metadata={"source": code().source_sha256, "constitution": constitution_in_force().version}
        )

    with dg.DagsterInstance.ephemeral() as instance:
        (made,) = dg.materialize([long_work], instance=instance).asset_materializations_for_node("long_work")
    constitution_in_force.cache_clear()
    assert made.metadata["source"].value == began.source_sha256 != now_there().source_sha256
    assert made.metadata["constitution"].value == "1.0.0"
