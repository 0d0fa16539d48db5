"""How a demo begins: what is prepared while other processes make the corpus."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from lofi_assets.backbones import ACE_STEP_V1, backbone_of
from lofi_assets.cli.main import main
from lofi_assets.demo import beginning
from lofi_assets.demo.corpus import files
from lofi_assets.release import onnx_artifacts
from lofi_assets.release.bundle_environment import UnreachableError, exact_requirements
from lofi_assets.store import Store


def test_the_corpus_waits_for_no_library_of_what_follows() -> None:
    seen = "import sys, lofi_assets.cli.main, lofi_assets.demo.beginning; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", seen], check=True, capture_output=True, text=True)
    assert not {"dagster", "torch", "diffusers"} & set(found.stdout.split())


def test_a_home_that_cannot_be_used_is_told_before_the_corpus_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").write_text("a file")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LOFI_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(files, "write_demo_corpus", lambda root: pytest.fail("a minute of work"))
    ended = CliRunner().invoke(main, ["demo"])
    assert ended.exit_code == 1 and "home" in ended.output and "Traceback" not in ended.output


@pytest.mark.parametrize("features_are_there", [False, True])
def test_a_demo_that_has_its_features_prepares_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, features_are_there: bool
) -> None:
    done: list[str] = []
    monkeypatch.setattr(files, "write_demo_corpus", lambda root: done.append(f"corpus in {root}"))
    monkeypatch.setattr(beginning, "_prepare", lambda store: done.append("prepared"))
    if features_are_there:
        store.features.mkdir(parents=True)
    beginning.write_corpus(store.root)
    assert (f"corpus in {store.root}" in done, "prepared" in done) == (True, not features_are_there)


def test_what_is_prepared_meanwhile_is_there_after_the_block() -> None:
    entered, done = threading.Event(), list[str]()
    with beginning._meanwhile(lambda: (entered.wait(10), done.append("prepared"))[1]):
        assert done == []
        entered.set()
    assert done == ["prepared"]


def test_what_takes_too_long_to_prepare_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beginning, "PATIENCE_S", 0.01)
    going_on, ended = threading.Event(), threading.Event()
    with beginning._meanwhile(lambda: (going_on.wait(10), ended.set())[1]):
        pass
    assert not ended.is_set()
    going_on.set()
    assert ended.wait(10)


@pytest.mark.parametrize("error", [ImportError("no torch"), UnreachableError("no index"), OSError(28, "disk full")])
def test_what_cannot_be_prepared_is_left_to_the_step_that_needs_it(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    uncaught: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", uncaught.append)

    def fail() -> None:
        raise error

    with beginning._meanwhile(fail):
        pass
    assert not uncaught


def test_the_environment_of_the_first_bundle_is_the_one_that_is_prepared(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, Path]] = []
    monkeypatch.setattr(onnx_artifacts, "environment", lambda text, root: asked.append((text, root)))
    monkeypatch.setenv("LOFI_PROFILE", "demo")
    beginning._prepare(store)
    ((text, root),) = asked
    assert text == exact_requirements(backbone_of(ACE_STEP_V1).release_runtime().requirements)
    assert root == store.cache / "bundle_environments"
