"""Arrays that come and go do not cost the system's work each time."""

import ctypes
import subprocess
import sys

import pytest

from lofi_assets.backbones import freed_memory

FAULTS = """
import resource
import numpy
from lofi_assets.backbones.freed_memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        numpy.ones(16_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

given_back = faults()
assert keep_freed_memory()
numpy.ones(16_000_000)
print(given_back, faults())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="this C library has no mallopt: nothing to keep")
def test_memory_that_was_used_once_is_used_again() -> None:
    ended = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    given_back, kept = map(int, ended.stdout.split())
    assert kept < given_back / 10, "pages of 5 arrays of 128 MB, asked for from the system"


def test_another_c_library_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    assert not freed_memory.keep_freed_memory()
