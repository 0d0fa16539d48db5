"""How files are written, so that a killed process, a full disk or a second run never leaves half of one."""

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from lofi_assets.files.documents import read_json, write_json, write_text
from lofi_assets.files.hashing import hash_of, remembered, sha256_file, sha256_folder
from lofi_assets.files.tables import read_columns, write_table
from lofi_assets.files.writing import StoreError, atomic_folder, atomic_path, link_or_copy
from lofi_assets.store import Increment, Store

REPOSITORY = Path(__file__).resolve().parent.parent
VALUES = ({"b": 1, "a": [1.5, None, True]}, "ü – ☂", ("x", 2), {"nested": {"z": 0.1, "y": -0.0}})


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.endswith(".part")]


def run_python(code: str, *arguments: object, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
        cwd=REPOSITORY,
        env={**os.environ, **environment},
    )
    return done.stdout.strip()


# --- atomic writes ---------------------------------------------------------------------------------------------------


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    path.write_text("before")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half of it")
        raise RuntimeError
    assert path.read_text() == "before" and leftovers(tmp_path) == []


def test_a_write_that_ends_replaces_the_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "table.json"
    with atomic_path(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole" and [entry.name for entry in path.parent.iterdir()] == ["table.json"]


def test_a_folder_that_fails_leaves_the_one_before(tmp_path: Path) -> None:
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "model.onnx").write_text("before")
    with pytest.raises(RuntimeError), atomic_folder(folder) as temporary:
        (temporary / "model.onnx").write_text("half")
        raise RuntimeError
    assert (folder / "model.onnx").read_text() == "before" and leftovers(tmp_path) == []


def test_a_folder_that_ends_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    folder = tmp_path / "export"
    for content in ("first", "second"):
        with atomic_folder(folder) as temporary:
            (temporary / f"{content}.onnx").write_text(content)
    assert [path.name for path in folder.iterdir()] == ["second.onnx"] and leftovers(tmp_path) == []


KILLED_IN_A_FILE = """
import sys, time
from pathlib import Path
from lofi_assets.files.documents import write_text
path = Path(sys.argv[1])
print("ready", flush=True)
for turn in range(100_000):
    write_text(path, str(turn % 10) * 200_000)
"""


def test_a_killed_process_leaves_the_whole_old_or_the_whole_new_file(tmp_path: Path) -> None:
    path = tmp_path / "quality_scores.json"
    path.write_text("0" * 200_000)
    for delay in (0.02, 0.05, 0.11):
        command = [sys.executable, "-c", KILLED_IN_A_FILE, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=REPOSITORY) as writer:
            assert writer.stdout is not None and writer.stdout.readline() == b"ready\n"
            time.sleep(delay)
            writer.send_signal(signal.SIGKILL)
        content = path.read_text()
        assert len(content) == 200_000 and len(set(content)) == 1


KILLED_IN_A_FOLDER = """
import os, sys
from pathlib import Path
from lofi_assets.files.writing import atomic_folder
with atomic_folder(Path(sys.argv[1])) as temporary:
    (temporary / "a").write_text("new")
    os.kill(os.getpid(), 9)
"""


def test_a_process_killed_while_filling_a_folder_leaves_the_old_one(tmp_path: Path) -> None:
    folder = tmp_path / "dataset"
    folder.mkdir()
    (folder / "a").write_text("old")
    done = subprocess.run([sys.executable, "-c", KILLED_IN_A_FOLDER, str(folder)], check=False, cwd=REPOSITORY)
    assert done.returncode == -signal.SIGKILL
    assert (folder / "a").read_text() == "old"


def test_a_folder_is_never_absent_while_it_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between any two renames the process may be killed; a reader must find the old folder or the new one."""
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "a").write_text("old")
    seen = []
    rename = Path.replace

    def spied(self: Path, target: Path) -> Path:
        moved = rename(self, target)
        seen.append((folder / "a").is_file())
        return moved

    monkeypatch.setattr(Path, "replace", spied)
    with atomic_folder(folder) as temporary:
        (temporary / "a").write_text("new")
    assert (folder / "a").read_text() == "new" and all(seen)


def test_an_identical_text_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "prompt.txt"
    assert write_text(path, "lofi, chill") is True
    before = path.stat()
    assert write_text(path, "lofi, chill") is False
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert write_text(path, "lofi, sad") is True


# --- JSON and tables -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_never_written_as_json(tmp_path: Path, number: float) -> None:
    path = tmp_path / "metrics.json"
    write_json(path, {"fad": 3.0})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"fad": number})
    assert read_json(path) == {"fad": 3.0} and leftovers(tmp_path) == []


def test_json_keeps_every_script_readable(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"provider": "夜の音"})
    assert "夜の音" in (tmp_path / "a.json").read_text(encoding="utf-8")
    assert read_json(tmp_path / "a.json") == {"provider": "夜の音"}


def test_an_absent_json_file_is_its_default_and_a_broken_one_is_named(tmp_path: Path) -> None:
    assert read_json(tmp_path / "absent.json", default=[]) == []
    for content in (b"{", b"\xff\xfe"):
        (tmp_path / "broken.json").write_bytes(content)
        with pytest.raises(StoreError, match=r"broken\.json.*mend or remove"):
            read_json(tmp_path / "broken.json")


def test_the_same_rows_are_the_same_bytes(tmp_path: Path) -> None:
    rows = [{"track_id": "a", "duration": 31.5, "status": "accepted"}, {"track_id": "b", "duration": 60.0}]
    write_table(tmp_path / "one.parquet", pd.DataFrame(rows))
    write_table(tmp_path / "two.parquet", pd.DataFrame(rows, index=[7, 9]))
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    assert read_columns(tmp_path / "one.parquet", *rows[0])[0] == rows[0]


def test_an_absent_table_is_empty_and_a_broken_one_is_named(tmp_path: Path) -> None:
    assert read_columns(tmp_path / "absent.parquet", "a") == []
    (tmp_path / "broken.parquet").write_text("no table")
    with pytest.raises(StoreError, match=r"broken\.parquet"):
        read_columns(tmp_path / "broken.parquet", "a")


def test_a_table_without_rows_is_a_table(tmp_path: Path) -> None:
    write_table(tmp_path / "empty.parquet", pd.DataFrame([]))
    assert read_columns(tmp_path / "empty.parquet", "a") == []


# --- increments and hashes -------------------------------------------------------------------------------------------


def test_a_few_columns_are_read_or_it_is_said_which_are_missing(tmp_path: Path) -> None:
    path, rows = tmp_path / "one.parquet", [{"a": "x", "b": 1, "c": 2.0}, {"a": "y", "b": 2, "c": 3.0}]
    write_table(path, pd.DataFrame(rows))
    assert read_columns(path, "a", "c") == [{"a": "x", "c": 2.0}, {"a": "y", "c": 3.0}]
    with pytest.raises(StoreError, match=r"one\.parquet: lacks d; materialise"):
        read_columns(path, "a", "d")
    write_table(path, pd.DataFrame([]))
    assert read_columns(path, "a") == read_columns(tmp_path / "absent.parquet", "a") == []
    path.write_bytes(b"half")
    with pytest.raises(StoreError, match="not a Parquet table"):
        read_columns(path, "a")


def test_an_increment_tells_new_stale_unchanged_and_orphaned_apart() -> None:
    increment = Increment.between(
        wanted={"new": "1", "stale": "2", "same": "3", "also new": "4"},
        recorded={"stale": "1", "same": "3", "gone": "9"},
    )
    assert increment.new == ("also new", "new")
    assert (increment.stale, increment.unchanged, increment.orphaned) == (("stale",), ("same",), ("gone",))
    assert increment.todo == ("also new", "new", "stale")
    assert increment.counts() == {"new": 2, "stale": 1, "unchanged": 1, "orphaned": 1}


def test_nothing_changed_is_nothing_to_do() -> None:
    assert Increment.between(wanted={"a": "1"}, recorded={"a": "1"}).todo == ()


def test_a_hash_is_the_same_in_every_process() -> None:
    code = f"from lofi_assets.files.hashing import hash_of; print(hash_of(*{VALUES!r}))"
    found = {run_python(code, PYTHONHASHSEED=seed) for seed in ("0", "1", "2")}
    assert found == {hash_of(*VALUES)}


def test_a_fingerprint_ignores_the_order_of_keys_and_nothing_else() -> None:
    assert hash_of({"a": 1, "b": 2}) == hash_of({"b": 2, "a": 1})
    different = [hash_of(*parts) for parts in (("ab",), ("a", "b"), (["a", "b"],), ("b", "a"), (1,), ("1",), ())]
    assert len(set(different)) == len(different)


def test_a_set_is_refused_or_has_one_hash_in_every_process() -> None:
    code = (
        "from lofi_assets.files.hashing import hash_of\n"
        "try:\n    print(hash_of({str(n) for n in range(20)}))\nexcept TypeError:\n    print('refused')"
    )
    assert len({run_python(code, PYTHONHASHSEED=seed) for seed in ("1", "2")}) == 1


def test_a_folders_hash_names_every_file(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "two").write_bytes(b"2")
    (tmp_path / "one").write_bytes(b"1")
    found = sha256_folder(tmp_path)
    assert list(found) == ["b/two", "one"] and found["one"] == sha256_file(tmp_path / "one")


def test_an_unchanged_file_is_remembered_and_a_touched_one_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "track.wav"
    path.write_bytes(b"RIFF")
    key, digest = remembered(path, sha256_file, {})
    assert remembered(path, lambda _: "read again", {str(path): (key, digest)}) == (key, digest)
    os.utime(path, (1, 1))
    assert remembered(path, lambda _: "read again", {str(path): (key, digest)})[1] == "read again"


# --- links -----------------------------------------------------------------------------------------------------------


def test_a_link_costs_no_space_and_is_made_once(tmp_path: Path) -> None:
    source, target = tmp_path / "a.mp3", tmp_path / "final" / "a.mp3"
    source.write_bytes(b"music")
    assert link_or_copy(source, target) is True and target.samefile(source)
    assert link_or_copy(source, target) is False


def test_where_links_are_impossible_the_bytes_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "a.mp3", tmp_path / "b.mp3"
    source.write_bytes(b"music")
    target.write_bytes(b"older")

    def no_links(*_: object) -> None:
        raise OSError("cross-device link")

    monkeypatch.setattr(os, "link", no_links)
    assert link_or_copy(source, target) is True
    assert target.read_bytes() == b"music" and not target.samefile(source)
    assert link_or_copy(source, target) is False and leftovers(tmp_path) == []


def test_the_data_root_may_be_moved(tmp_path: Path) -> None:
    store = Store(tmp_path / "data")
    assert store.relative(store.processed / "core" / "a.mp3") == "processed/core/a.mp3"
    assert (
        Store(tmp_path / "moved").root / "processed/core/a.mp3" == tmp_path / "moved" / "processed" / "core" / "a.mp3"
    )


def test_the_layout_is_the_data_models(tmp_path: Path) -> None:
    store = Store(tmp_path)
    named = ("raw", "processed", "final", "validation", "checkpoints")
    assert [getattr(store, name).name for name in named] == list(named)
    assert store.relative(store.metadata("sources.json")) == "metadata/sources.json"
