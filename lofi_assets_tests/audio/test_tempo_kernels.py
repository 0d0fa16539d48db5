"""Kernels are compiled by one process at a time, and once."""

import os
import subprocess
import sys
from pathlib import Path

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
