"""kill -9 at any moment of processing, and then again: files and tables end as if nothing had happened."""

import ctypes
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile

from lofi_assets.audio.synth.song import Song, render
from lofi_assets.constitution.gates import load_gates
from lofi_assets.defs.resources import Workers
from lofi_assets.files.hashing import sha256_file
from lofi_assets.files.writing import link_or_copy
from lofi_assets.profiles import AudioSettings
from lofi_assets.store import Store
from lofi_assets.tracks.processed_tracks import FILE_HASHES, process_library
from lofi_assets.tracks.track_table import read_tracks
from lofi_assets_tests.stage_rows import source_row, write_sources

RATE = 22_050
KILLS = 20
SETTINGS = AudioSettings(workers=2, timeout_s=120, memory_gb=4, lossless=True, segment=True)


def process(root: str) -> None:
    """What the killed processes do."""
    process_library(
        Store(Path(root)),
        gates=load_gates(),
        settings=SETTINGS,
        tempo_ranges={},
        style_of=lambda rows: {row.track_id: "core" for row in rows},
        map_tracks=Workers().map_tracks(SETTINGS),
    )


def start(function: str, *arguments: str) -> "subprocess.Popen[bytes]":
    """A function of this module in a process group of its own."""
    call = f"{function}({', '.join(map(repr, arguments))})"
    code = f"from lofi_assets_tests.tracks.test_processing_kills import {function}; {call}"
    return subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stderr=subprocess.PIPE)


def finish(root: Path) -> float:
    started = time.monotonic()
    process = start("process", str(root))
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors.decode()
    return time.monotonic() - started


def write_library(raw: Path) -> None:
    """Four songs, a quieter copy, one too short, one clipped, and one that is cut into two."""
    raw.mkdir(parents=True)
    sounds = {f"song{seed}": render(Song(seed, 70 + 4 * seed, seed, "minor", 31, RATE)) for seed in range(4)}
    sounds["twin"] = sounds["song0"] * np.float32(0.5)
    sounds["short"] = sounds["song1"][:, : 9 * RATE]
    sounds["clipped"] = np.clip(sounds["song2"] * 9, -1, 1)
    sounds["long"] = render(Song(9, 90, 2, "major", 185, RATE))
    for track_id, samples in sounds.items():
        soundfile.write(raw / f"{track_id}.wav", samples.T, RATE, subtype="PCM_16")


def data_root(root: Path, raw: Path) -> Path:
    """A data root over those raw files, with their inventory."""
    store, rows = Store(root), []
    for path in sorted(raw.iterdir()):
        link_or_copy(path, store.raw / path.name)
        rows.append(source_row(path.stem, sha256=sha256_file(path)))
    write_sources(store, rows)
    return root


def tree(root: Path) -> dict[str, str]:
    """Every file of the data root with the hash of its bytes, temporary ones too; not the file that holds times."""
    times = root / "cache" / FILE_HASHES
    files = (path for path in root.rglob("*") if path.is_file() and path != times)
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.slow
def test_twenty_kills_leave_the_same_files_and_tables_as_none(tmp_path: Path) -> None:
    write_library(tmp_path / "raw")
    undisturbed = data_root(tmp_path / "undisturbed", tmp_path / "raw")
    seconds = finish(undisturbed)
    expected = tree(undisturbed)
    rows = {row.track_id: row for row in read_tracks(Store(undisturbed))}
    assert {row.track_id for row in rows.values() if not row.accepted} == {"twin", "short", "clipped"}
    assert rows["long_s01"].lossless_path in expected

    moments, kills, rounds, dirty = random.Random(0), 0, 0, 0
    while kills < KILLS:
        root = data_root(tmp_path / f"killed{rounds}", tmp_path / "raw")
        while kills < KILLS:
            process = start("process", str(root))
            try:
                _, errors = process.communicate(timeout=moments.uniform(0.5, seconds))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                kills += 1
                dirty += any(name.endswith(".part") for name in tree(root))
            else:
                assert process.returncode == 0, errors.decode()
                break
        finish(root)
        assert tree(root) == expected
        rounds += 1
    print(f"{kills} kills in {rounds} libraries, {dirty} left a temporary file; a run takes {seconds:.1f} s")


def test_a_second_run_over_the_same_files_writes_the_same_tables(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    for name in ("short", "silent"):
        samples = np.zeros((RATE * (31 if name == "silent" else 3), 1))
        soundfile.write(raw / f"{name}.wav", samples, RATE, subtype="PCM_16")
    root = data_root(tmp_path / "data", raw)
    process(str(root))
    first = tree(root)
    process(str(root))
    assert tree(root) == first


# --- orphans ---------------------------------------------------------------------------------------------------------


def hold_the_lock(marker: str) -> None:
    """A hang inside C code that keeps the interpreter's lock: no Python thread of the worker runs any more."""
    Path(marker).write_text(str(os.getpid()), encoding="utf-8")
    ctypes.PyDLL(None).sleep(60)


def hang(folder: str) -> None:
    """What the killed parent of the next test does."""
    from lofi_assets.workers.process_pool import LocalProcesses

    markers = [f"{folder}/{number}" for number in range(2)]
    for _ in LocalProcesses(2, 50, 2)(hold_the_lock, markers, label="test"):
        pass


def test_workers_that_hang_in_c_die_with_their_killed_parent(tmp_path: Path) -> None:
    parent = start("hang", str(tmp_path))
    deadline = time.monotonic() + 60
    while len(pids := [text for path in tmp_path.iterdir() if (text := path.read_text())]) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    workers = [psutil.Process(int(pid)) for pid in pids]
    time.sleep(0.5)
    # The parent alone: nothing else reaches the workers.
    os.kill(parent.pid, signal.SIGKILL)
    parent.communicate()
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive
