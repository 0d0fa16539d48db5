"""Shared material: built once, by whoever comes first, and a test that changes it is found out."""

from pathlib import Path

import pytest

from lofi_assets_tests.once_per_run import once_per_run, run_folder


def write(folder: Path) -> None:
    (folder / "weights").write_text("as built", encoding="utf-8")


def test_the_second_who_asks_gets_what_the_first_built(tmp_path: Path) -> None:
    built: list[Path] = []

    def build(folder: Path) -> None:
        write(folder)
        built.append(folder)

    for _ in range(2):
        with once_per_run(tmp_path, "base", build) as folder:
            assert (folder / "weights").read_text(encoding="utf-8") == "as built"
    assert built == [tmp_path / "base"]


def test_a_build_that_failed_is_done_again_from_the_start(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"), once_per_run(tmp_path, "base", fail):
        pass
    with once_per_run(tmp_path, "base", write) as folder:
        assert [path.name for path in folder.iterdir()] == ["weights"]


@pytest.mark.parametrize("change", ["changed", "added", "removed"])
def test_a_test_that_changes_shared_material_is_found_out(tmp_path: Path, change: str) -> None:
    name = "more" if change == "added" else "weights"
    with pytest.raises(AssertionError, match=f"base: {name}$"), once_per_run(tmp_path, "base", write) as folder:
        if change == "changed":
            (folder / "weights").write_text("other", encoding="utf-8")
        elif change == "added":
            (folder / "more").touch()
        else:
            (folder / "weights").unlink()


def test_workers_share_one_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path_factory.getbasetemp()
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    assert run_folder(tmp_path_factory) == own
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw1")
    assert run_folder(tmp_path_factory) == own.parent


@pytest.mark.xdist_group("told")
def test_the_scheduler_is_told_the_group_of_a_test(request: pytest.FixtureRequest) -> None:
    """Without it `--dist loadgroup` builds the fixtures of a file on every worker, and says nothing."""
    grouped = request.config.getoption("loadgroup", default=False)
    assert request.node.nodeid.endswith("_of_a_test@told") == grouped
