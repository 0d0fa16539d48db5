"""Kernels are compiled by one process at a time, and once."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from lofi_assets.audio import tempo

ESTIMATE = """
import numpy as np
from lofi_assets.audio.tempo import estimate_tempo
clicks = np.zeros(22_050 * 20, dtype=np.float32)
clicks[::11_025] = 1
print(estimate_tempo(clicks, sample_rate=22_050).bpm)
"""


@pytest.fixture
def compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes each time that kernels are compiled, in a cache of this test's own."""
    calls: list[str] = []
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(tempo, "_take_every_way", lambda: calls.append("compiled"))
    # whatever another test imported first
    monkeypatch.setattr(tempo, "_kept_where_asked", lambda: True)
    return calls


def prepare_in_a_new_process() -> None:
    tempo._prepare_kernels.cache_clear()
    tempo._prepare_kernels()


def test_kernels_are_compiled_once_and_again_for_another_processor(
    compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare_in_a_new_process()
    prepare_in_a_new_process()
    assert compiled == ["compiled"]
    monkeypatch.setattr(tempo, "_what_decides_kernels", lambda librosa: "another processor")
    prepare_in_a_new_process()
    assert compiled == ["compiled"] * 2
    tempo._prepare_kernels.cache_clear()


def test_kernels_kept_elsewhere_are_compiled_alone_too_whatever_the_note_says(
    compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare_in_a_new_process()
    monkeypatch.setattr(tempo, "_kept_where_asked", lambda: False)
    prepare_in_a_new_process()
    assert compiled == ["compiled"] * 2
    tempo._prepare_kernels.cache_clear()


def test_without_a_place_that_can_be_written_they_are_compiled_alone_beside_librosa(
    compiled: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    held: list[Path] = []

    @contextmanager
    def lock(place: Path, *, busy: str | None) -> Iterator[None]:
        held.append(place)
        yield

    monkeypatch.setattr(tempo, "locked", lock)
    (tmp_path / "file").touch()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file" / "below"))
    prepare_in_a_new_process()
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "home"))
    prepare_in_a_new_process()
    beside = Path(tempo._librosa().__file__).parent
    assert compiled == ["compiled"] * 2 and held == [beside, beside] and not list(beside.glob("compiled-*"))
    tempo._prepare_kernels.cache_clear()


@pytest.mark.parametrize(
    ("imported", "kept"), [((), True), (("numba",), True), (("librosa",), True), (("numba", "librosa"), False)]
)
def test_where_kernels_are_kept_was_decided_when_librosa_was_imported(
    imported: tuple[str, ...], kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """numba reads the environment at its import, librosa's modules ask it at theirs."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/kept")
    config = SimpleNamespace(CACHE_DIR="")
    config.reload_config = lambda: setattr(config, "CACHE_DIR", os.environ["NUMBA_CACHE_DIR"])
    for name in ("numba", "librosa"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    for name in imported:
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(config=config))
    assert tempo._kept_where_asked.__wrapped__() is kept
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    config.reload_config = lambda: setattr(config, "CACHE_DIR", "")
    assert not tempo._kept_where_asked.__wrapped__()


def test_kernels_that_did_not_compile_are_not_taken_for_compiled(
    compiled: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempo, "_take_every_way", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        prepare_in_a_new_process()
    assert not list(tmp_path.glob("compiled-*"))
    tempo._prepare_kernels.cache_clear()


def test_a_cache_that_cannot_be_written_costs_compiling_and_not_the_estimate(
    compiled: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)
    prepare_in_a_new_process()
    assert compiled == [] and not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file" / "below"))
    prepare_in_a_new_process()
    assert compiled == []
    tempo._prepare_kernels.cache_clear()


SCORES = """
import hashlib, sys
from lofi_assets.audio import tempo
tempo._prepare_kernels()
if sys.argv[1] == "kept":
    tempo._beat_track()
import librosa.beat
import numpy as np
digest = hashlib.sha256()
for seed in range(60):
    random = np.random.default_rng(seed)
    kind = (np.float32, np.float64)[seed % 2]
    onsets = np.abs(random.normal(size=random.integers(200, 3000))).astype(kind)
    beats = random.uniform(10, 60, size=len(onsets) if seed % 3 else 1).astype(kind)
    digest.update(vars(librosa.beat)["__beat_local_score"](onsets, beats).tobytes())
print(digest.hexdigest())
"""


def scores(how: str) -> tuple[list[str], str]:
    """What numba says of its cache in a new process, and the digest of the kernel's results."""
    environment = {**os.environ, "NUMBA_DEBUG_CACHE": "1"}
    command = [sys.executable, "-c", SCORES, how]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=300)
    *said, digest = done.stdout.splitlines()
    return [line for line in said if "__beat_local_score" in line], digest


def test_the_kernel_that_librosa_compiles_in_every_process_is_read_from_the_disk() -> None:
    tempo._prepare_kernels()
    said, _ = scores("kept")
    assert any("data loaded" in line for line in said) and not any("saved" in line for line in said)


@pytest.mark.slow
def test_a_kernel_from_the_disk_computes_the_bits_of_one_compiled_here() -> None:
    tempo._prepare_kernels()
    (_, kept), (said, compiled) = scores("kept"), scores("as librosa does it")
    assert kept == compiled and not said


@pytest.mark.slow
def test_processes_that_start_on_an_empty_cache_together_leave_one_that_works(tmp_path: Path) -> None:
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    environment.pop("NUMBA_CACHE_DIR", None)
    for _ in range(2):
        started = [
            subprocess.Popen([sys.executable, "-c", ESTIMATE], env=environment, stdout=subprocess.PIPE, text=True)
            for _ in range(3)
        ]
        heard = [float(process.communicate(timeout=300)[0]) for process in started]
        assert heard == pytest.approx([60.0] * 3, rel=0.01)
        assert [process.returncode for process in started] == [0] * 3
