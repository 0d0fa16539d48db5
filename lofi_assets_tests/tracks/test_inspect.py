"""`lofi inspect` on what should never have been in a folder of music: one record per file, and no bad file accepted."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import psutil
import pytest
from click.testing import CliRunner

from lofi_assets.cli.inspect import found, inspect
from lofi_assets_tests.audio.hostile import ACCEPTED, READABLE, write_hostile_files

Records = dict[str, dict[str, Any]]


def run(*arguments: str, timeout: float = 300) -> tuple[subprocess.CompletedProcess[bytes], Records]:
    """The command in a process of its own, and its records by path."""
    code = "from lofi_assets.cli.inspect import inspect; inspect()"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, timeout=timeout, stdin=subprocess.DEVNULL
    )
    lines = done.stdout.decode("ascii").splitlines()
    records = [json.loads(line) for line in lines]
    assert len({record["path"] for record in records}) == len(records), "a file has two records"
    return done, {record["path"]: record for record in records}


def compare(folder: Path, records: Records, rules: dict[str, str]) -> None:
    assert {Path(path).name for path in records} == rules.keys()
    verdicts = {name: records[str(folder / name)]["rule"] for name in rules}
    assert {name: rule for name, rule in verdicts.items() if rule != rules[name]} == {}
    for record in records.values():
        assert record.keys() == {"path", "verdict", "rule", "reason", "measures"}
        assert (record["verdict"] == "accepted") == (record["rule"] == "") == (record["reason"] == "")


def test_a_folder_of_hostile_files_gives_one_record_per_file_and_none_is_accepted(tmp_path: Path) -> None:
    rules = write_hostile_files(tmp_path / "bad", seconds=5)
    assert len(rules) >= 60 and ACCEPTED not in rules.values()
    done, records = run("--workers", "2", "--memory", "2", str(tmp_path / "bad"))
    assert (done.returncode, done.stderr) == (0, b"")
    compare(tmp_path / "bad", records, rules)


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--full",)])
def test_hostile_files_of_65_s_are_judged_by_the_deep_stages(tmp_path: Path, options: tuple[str, ...]) -> None:
    rules = write_hostile_files(tmp_path / "bad", seconds=65)
    before = set(Path("/tmp").glob("lofi-inspect-*"))
    started = time.monotonic()
    done, records = run(*options, "--workers", "2", "--memory", "2", str(tmp_path / "bad"), timeout=600)
    print(f"{len(records)} files in {time.monotonic() - started:.0f} s")
    assert (done.returncode, done.stderr) == (0, b"")
    compare(tmp_path / "bad", records, rules)
    fake = records[str(tmp_path / "bad" / "fake_320.flac")]["measures"]
    assert fake["edge_hz"] < 17_500 and fake["edge_drop_db"] > 25
    assert ("frames_drift" in fake) == bool(options)
    assert set(Path("/tmp").glob("lofi-inspect-*")) == before


def test_what_is_not_there_or_no_file_still_has_its_record(tmp_path: Path) -> None:
    too_long = str(tmp_path / ("x" * 5000))
    asked = [str(tmp_path / "missing.wav"), "/dev/zero", "/dev/stdin", "/proc/self/mem", too_long, ""]
    done, records = run(*asked)
    assert done.returncode == 0
    assert {path: record["rule"] for path, record in records.items()} == dict.fromkeys(asked, READABLE)


def test_no_files_and_an_empty_folder_are_no_error(tmp_path: Path) -> None:
    for arguments in ([], [str(tmp_path)]):
        done = CliRunner().invoke(inspect, arguments)
        assert (done.exit_code, done.stdout) == (0, "")


def test_links_below_a_folder_are_not_followed_but_listed(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "deep.wav").touch()
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "given").symlink_to(tmp_path / "a")
    listed = [str(Path(path).relative_to(tmp_path)) for path, fault in found([str(tmp_path / "given")]) if not fault]
    assert listed == ["given/up", "given/b/deep.wav"]


def test_a_file_that_hangs_or_kills_its_worker_is_a_record_too(tmp_path: Path) -> None:
    """The decoder is replaced by one that misbehaves as the file's name says."""
    for name in ("abort.wav", "hang.wav", "hoard.wav", "plain.wav"):
        (tmp_path / name).write_bytes(b"RIFF")
    script = tmp_path / "run.py"
    script.write_text(
        "import os, time\n"
        "import lofi_assets.tracks.inspect_file as inspection\n"
        "def read_audio(path, **_):\n"
        "    name = path.stem\n"
        "    if name == 'abort': os.abort()\n"
        "    if name == 'hang': time.sleep(60)\n"
        "    return bytearray(3 << 30) if name == 'hoard' else 1 / 0\n"
        "inspection.read_audio = read_audio\n"
        "from lofi_assets.cli.inspect import inspect\n"
        "if __name__ == '__main__': inspect()\n"
    )
    files = sorted(str(path) for path in tmp_path.glob("*.wav"))
    done = subprocess.run(
        [sys.executable, script, "--timeout", "2", "--memory", "1", *files], capture_output=True, timeout=60
    )
    records = {Path(line["path"]).stem: line for line in map(json.loads, done.stdout.splitlines())}
    assert done.returncode == 0
    rules = {name: record["rule"] for name, record in records.items()}
    assert rules == dict.fromkeys(("abort", "hang", "hoard"), "audio.worker") | {"plain": READABLE}
    assert "2 s" in records["hang"]["reason"] and "SIGABRT" in records["abort"]["reason"]
    assert "memory" in records["hoard"]["reason"] and "ZeroDivisionError" in records["plain"]["reason"]


def test_the_workers_have_ended_when_it_says_that_it_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(20):
        (tmp_path / f"{index}.wav").write_bytes(b"RIFF")
    alive: list[int] = []

    def echo(line: str, err: bool = False) -> None:
        alive.append(len(multiprocessing.active_children()))
        if not err:
            raise KeyboardInterrupt

    monkeypatch.setattr(click, "echo", echo)
    done = CliRunner().invoke(inspect, ["--workers", "2", str(tmp_path)])
    assert done.exit_code == 130
    assert alive[0] > 0 and alive[1:] == [0]


@pytest.mark.parametrize("delay", [0, 0.3, 0.6])
def test_ctrl_c_ends_it_with_whole_lines_no_traceback_and_no_workers(tmp_path: Path, delay: float) -> None:
    for index in range(900):
        (tmp_path / f"{index}.wav").write_bytes(b"RIFF")
    # A shell that starts the tests in the background lets them inherit an ignored SIGINT.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from lofi_assets.cli.inspect import inspect; inspect()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "--workers", "2", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        # What a buffered readline took too much, communicate would not give back.
        bufsize=0,
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    # Later the first workers have had their two hundred files, and new ones start.
    time.sleep(delay)
    children = psutil.Process(process.pid).children(recursive=True)
    # To the whole group, as a terminal does it.
    os.killpg(process.pid, signal.SIGINT)
    rest, errors = process.communicate(timeout=20)
    assert process.returncode in (0, 130) and b"Traceback" not in errors
    assert all(json.loads(line)["rule"] == READABLE for line in (first + rest).splitlines())
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
