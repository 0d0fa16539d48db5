"""This machine as one whose CPU has no AVX-512, VNNI or AMX: the same libraries, with the kernels that they pick there.

    python -m lofi_assets_tests.other_cpu .venv/bin/lofi demo

At full speed: only the instruction CPUID, by which libraries choose their kernels, is answered otherwise (`cpuid.c`).
Of x86-64 Linux whose CPU lets CPUID fault ("cpuid_fault" in /proc/cpuinfo), with a C compiler.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

SOURCE = Path(__file__).with_name("cpuid.c")


class NoOtherCpu(Exception):
    """This machine cannot stand for another; the message says why."""


def environment(folder: Path) -> Mapping[str, str]:
    """The variables of a process that sees the other CPU, and of all that it starts.

    Args:
        folder: where the library that answers is built.

    Raises:
        NoOtherCpu: the system, the CPU or the compiler does not do it.
    """
    compiler = shutil.which("cc")
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise NoOtherCpu(
            f"CPUID can be answered on x86-64 Linux only, this is {platform.system()} {platform.machine()}"
        )
    if "cpuid_fault" not in Path("/proc/cpuinfo").read_text(encoding="utf-8").split():
        raise NoOtherCpu("this CPU (or its hypervisor) does not let CPUID fault: no cpuid_fault in /proc/cpuinfo")
    if compiler is None:
        raise NoOtherCpu("no C compiler (cc) is on the PATH")
    library = folder / "cpuid.so"
    made = subprocess.run(
        [compiler, "-O2", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], capture_output=True, text=True
    )
    if made.returncode:
        raise NoOtherCpu(f"{compiler} does not compile {SOURCE}: {made.stderr.strip()[-500:]}")
    preloaded = os.environ.get("LD_PRELOAD", "")
    return {**os.environ, "LD_PRELOAD": f"{library} {preloaded}".strip()}
