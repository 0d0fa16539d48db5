"""The environment of a bundle: exact, made from nothing else, made once; and what pip's refusals mean."""

import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from lofi_assets.release.bundle_environment import (
    RequirementsError,
    environment,
    exact_requirements,
    versions_in,
)


def pip(calls: list[list[str]], *, code: int = 0, said: str = "", brings: Sequence[str] = ("numpy==1",)) -> Any:
    """Stands in for pip alone: it notes what it is called with and puts metadata of distributions in place."""
    real = subprocess.run

    def run(command: list[str], **options: Any) -> "subprocess.CompletedProcess[str]":
        if "pip" not in command:
            return real(command, **options)
        calls.append(command)
        (packages,) = Path(command[command.index("--python") + 1]).parents[1].glob("lib/python*/site-packages")
        for name, version in (line.split("==") for line in brings):
            about = packages / f"{name}-{version}.dist-info" / "METADATA"
            about.parent.mkdir()
            about.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
        return subprocess.CompletedProcess(command, code, "", said)

    return run


def test_requirements_name_everything_with_the_version_that_is_installed() -> None:
    lines = exact_requirements(["onnxruntime"]).splitlines()
    assert lines[0].startswith("# Exact, as it was run with: Python ")
    assert f"onnxruntime=={metadata.version('onnxruntime')}" in lines and f"numpy=={metadata.version('numpy')}" in lines
    assert lines[1:] == sorted(lines[1:]) and not any(line.startswith("torch") for line in lines)


def test_a_requirement_that_is_not_installed_cannot_be_pinned() -> None:
    with pytest.raises(RequirementsError, match="no-such-distribution-of-lofi: a bundle needs it"):
        exact_requirements(["no-such-distribution-of-lofi"])


def test_an_environment_is_made_once_for_the_same_requirements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", pip(calls))
    first, again = environment("numpy==1\n", tmp_path), environment("numpy==1\n", tmp_path)
    other = environment("# later\nnumpy==1\n", tmp_path)
    assert first == again != other and len(calls) == 2
    assert str(first) in calls[0] and "--only-binary" in calls[0]
    assert (first.parents[1] / "requirements.txt").read_text(encoding="utf-8") == "numpy==1\n"


def test_two_that_ask_at_once_make_one_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes: the lock is of the open file, so that threads stand for them."""
    calls: list[list[str]] = []
    installed = pip(calls)

    def slow(command: list[str], **options: Any) -> Any:
        if "pip" in command:
            time.sleep(0.3)  # so that a second one would come in between
        return installed(command, **options)

    monkeypatch.setattr(subprocess, "run", slow)
    with ThreadPoolExecutor(2) as two:
        first, second = two.map(environment, ["numpy==1\n"] * 2, [tmp_path] * 2)
    assert first == second and len(calls) == 1


@pytest.mark.parametrize(
    ("brings", "told"), [((), "numpy"), (("numpy==2",), "numpy"), (("numpy==1", "torch==2"), "torch")]
)
def test_requirements_that_are_not_all_that_they_bring_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, brings: Sequence[str], told: str
) -> None:
    monkeypatch.setattr(subprocess, "run", pip([], brings=brings))
    with pytest.raises(RequirementsError, match=f"requirements.txt is not what it brings: {told}$"):
        environment("numpy==1\n", tmp_path)


def test_an_environment_that_was_changed_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", pip(calls))
    python = environment("numpy==1\n", tmp_path)
    (about,) = python.parents[1].rglob("METADATA")
    about.write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 3\n", encoding="utf-8")
    assert environment("numpy==1\n", tmp_path) == python and len(calls) == 2


@pytest.mark.parametrize(
    "said",
    [
        "ERROR: Could not find a version that satisfies x==1 (from versions: 0.8, 0.9)",
        "ERROR: Cannot install a==1 and b==2: ResolutionImpossible",
    ],
)
def test_what_pip_refuses_is_a_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", pip(calls, code=1, said=said))
    for _ in range(2):
        with pytest.raises(RequirementsError, match=said.splitlines()[-1].removeprefix("ERROR: ")[:12]):
            environment("x==1\n", tmp_path)
    assert len(calls) == 2, "an environment that was not finished is made again"


@pytest.mark.parametrize(
    "said",
    [
        "ERROR: Could not find a version that satisfies x==1 (from versions: none)",
        "WARNING: Retrying after NewConnectionError\nERROR: No matching distribution",
        "/usr/bin/python: No module named pip",
    ],
)
def test_without_an_index_what_is_installed_here_is_copied_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    requirements = exact_requirements(["packaging"])
    monkeypatch.setattr(subprocess, "run", pip([], code=1, said=said, brings=()))
    python = environment(requirements, tmp_path)
    assert versions_in(python) == {"packaging": metadata.version("packaging")}
    script = "import packaging.version as v; print(v.__file__); import click"
    done = subprocess.run([str(python), "-I", "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.startswith(str(tmp_path)) and "No module named 'click'" in done.stderr


def test_a_copied_file_that_was_changed_since_it_was_installed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", pip([], code=1, said="No module named pip", brings=()))
    monkeypatch.setattr("lofi_assets.release.bundle_environment._record_hash", lambda path, mode: "another")
    with pytest.raises(RequirementsError, match="is not what the wheel of packaging brought"):
        environment(exact_requirements(["packaging"]), tmp_path)


def test_an_environment_holds_nothing_of_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that tests run in has torch and lofi_assets, the latter as an editable package."""
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "run", pip([], brings=()))
        python = environment("", tmp_path)
    assert versions_in(python) == {}
    for name in ("torch", "lofi_assets", "numpy"):
        command = [str(python), "-I", "-c", f"import {name}"]
        assert "No module named" in subprocess.run(command, capture_output=True, text=True, check=False).stderr
    assert Path(sys.prefix) not in python.parents
