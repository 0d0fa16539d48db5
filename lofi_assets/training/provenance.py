"""Where and with what a checkpoint was made (constitution II: command and hyperparameters are recorded).

What belongs here: the commit, the packages, the machine. What does not: the run's own settings (`config`).
"""

import os
import platform
import shlex
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("lofi_assets", "torch", "peft", "diffusers", "transformers", "safetensors", "numpy")
"""Packages whose version can change a weight."""


def provenance(*, device: str, threads: int) -> dict[str, Any]:
    """Plain JSON data: git commit, package versions, command line, Python, machine, device, CPU threads.

    Bit-identical weights are promised for the same values of all of these.
    """
    return {
        "git_commit": _git("rev-parse", "HEAD"),
        "git_dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "packages": {name: _version(name) for name in PACKAGES},
        "command": shlex.join([sys.executable, *sys.argv]),
        "working_directory": str(Path.cwd()),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "device": device,
        "threads": threads,
        "environment": {name: os.environ[name] for name in ("OMP_NUM_THREADS", "LOFI_PROFILE") if name in os.environ},
    }


@cache
def _git(*arguments: str) -> str | None:
    """Output of git in this package's folder, None outside a repository (an installed wheel) or without git."""
    try:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
