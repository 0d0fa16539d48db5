"""Settings of the environment: blank is unset, a home is expanded, and what cannot be meant is one sentence."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from lofi_assets.cli.main import main
from lofi_assets.constitution.gates import load_gates
from lofi_assets.defs.dagster_home import dagster_home
from lofi_assets.defs.resources import Platform
from lofi_assets.environment import SettingError, folder, seconds, user_cache, variable
from lofi_assets.profiles import load_profile
from lofi_assets.store import CONFIG_DIR, data_root

REPOSITORY = Path(__file__).resolve().parent.parent
PRINT_HOME = (
    "import os; from lofi_assets.defs.dagster_home import dagster_home; "
    'print(dagster_home(), os.environ["DAGSTER_HOME"])'
)


@pytest.mark.parametrize("blank", ["", " ", "\t"])
def test_blank_is_unset(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, blank: str) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("LOFI_DATA_DIR", "LOFI_PROFILE", "LOFI_CONFIG_DIR", "DAGSTER_HOME"):
        monkeypatch.setenv(name, blank)
        assert variable(name) == ""
    assert data_root() == Platform().store.root == Platform(data_dir=blank).store.root == CONFIG_DIR.parent / "data"
    assert load_profile().name == "demo"
    assert folder("LOFI_CONFIG_DIR", CONFIG_DIR) == CONFIG_DIR
    assert list(tmp_path.iterdir()) == []


def test_a_home_is_expanded_and_a_relative_folder_is_below_the_working_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOFI_DATA_DIR", "~/lofi")
    assert data_root() == Platform(data_dir="~/lofi").store.root == tmp_path / "home" / "lofi"
    monkeypatch.setenv("LOFI_DATA_DIR", "data two")
    assert data_root() == tmp_path / "data two"


def test_the_cache_is_the_users_and_a_user_without_a_home_has_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_cache("models") == tmp_path / ".cache" / "lofi_assets" / "models"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    assert user_cache("models") == tmp_path / "elsewhere" / "lofi_assets" / "models"
    assert list(tmp_path.iterdir()) == []
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.getuid", lambda: 4_000_000)
    assert user_cache("models") is None


def test_dagster_is_told_the_whole_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for named in ("~/dagster", "dagster", f"{tmp_path}/dagster"):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("DAGSTER_HOME", named)
        assert dagster_home() == tmp_path / "dagster" and os.environ["DAGSTER_HOME"] == str(tmp_path / "dagster")
        assert (tmp_path / "dagster" / "dagster.yaml").is_file()


def test_a_home_of_nobody_is_refused_and_no_folder_of_that_name_is_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOFI_DATA_DIR", "~no-such-user/x")
    with pytest.raises(SettingError, match=r"LOFI_DATA_DIR=~no-such-user/x: this machine knows no home of that name"):
        data_root()
    asked = CliRunner().invoke(main, ["dataset", "list"])
    assert asked.exit_code == 1 and asked.output.startswith("Error: LOFI_DATA_DIR=~no-such-user/x: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("named", ["/no/such/folder", "~no-such-user/config"])
def test_a_configuration_that_is_not_there_is_one_sentence(tmp_path: Path, named: str) -> None:
    command = [sys.executable, "-m", "lofi_assets.cli.main", "dataset", "list"]
    environment = {**os.environ, "LOFI_CONFIG_DIR": named, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 1 and done.stderr.startswith(f"Error: {named}: no such folder; LOFI_CONFIG_DIR must name")
    assert len(done.stderr.splitlines()) == 1


def test_gates_and_profiles_of_a_configuration_that_is_not_there_say_so(tmp_path: Path) -> None:
    for load in (lambda: load_gates(tmp_path / "gone"), lambda: load_profile("demo", config_dir=tmp_path / "gone")):
        with pytest.raises(SettingError, match=r"gone: no such folder; LOFI_CONFIG_DIR"):
            load()


@pytest.mark.parametrize("given", [{"DAGSTER_HOME": ""}, {"DAGSTER_HOME": " "}, {}], ids=str)
def test_a_blank_home_of_dagster_is_unset_under_make_too(tmp_path: Path, given: dict[str, str]) -> None:
    (tmp_path / "config").mkdir()
    shutil.copyfile(CONFIG_DIR / "dagster.yaml", tmp_path / "config" / "dagster.yaml")
    (tmp_path / "Makefile").write_text(f"include {REPOSITORY}/Makefile\nhome:\n\t@{sys.executable} -c '{PRINT_HOME}'\n")
    environment = {name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"} | given
    environment |= {"LOFI_CONFIG_DIR": str(tmp_path / "config"), "PYTHONPATH": str(REPOSITORY)}
    command = ["make", "--no-print-directory", "home"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=True)
    assert done.stdout == f"{tmp_path}/.dagster {tmp_path}/.dagster\n"


@pytest.mark.parametrize("text", ["abc", "0", "-1", "1.5", "\u00b2", "9" * 5_000])
def test_seconds_are_a_whole_number_or_refused_by_name(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("LOFI_SENSOR_SECONDS", text)
    with pytest.raises(SettingError, match=r"^LOFI_SENSOR_SECONDS=.*: must be seconds"):
        seconds("LOFI_SENSOR_SECONDS", 30)
    for said, meant in ((" 5 ", 5), (" ", 30)):
        monkeypatch.setenv("LOFI_SENSOR_SECONDS", said)
        assert seconds("LOFI_SENSOR_SECONDS", 30) == meant
