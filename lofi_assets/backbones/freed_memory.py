"""What becomes of the memory of a large array on a CPU when the array is done with."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Of glibc's malloc.h; mallopt(3)."""
KEPT = 2**31 - 1
"""Bytes free at the end of the heap from which on they are given back after all: the largest that mallopt takes."""


def keep_freed_memory() -> bool:
    """From here on this process uses the memory of arrays that are done with for its next ones.

    By default glibc maps each array above 32 MB anew and gives it back at once. The system hands such memory out page
    by page, each filled with zeros first: half of a vocoder's time on a virtual machine's CPU, whose arrays are 100 MB
    and short-lived. No number changes; the process stays as large as it once was (1.97 GB there for 1.71).

    Returns:
        Whether the C library is one that can be told so; False changes nothing.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, KEPT))
