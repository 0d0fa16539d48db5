"""Where and with what a checkpoint was made: the commit, the packages, the machine (constitution II)."""

import hashlib
import os
import platform
import shlex
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from lofi_assets.files.hashing import sha256_file
from lofi_assets.store import PACKAGE
from lofi_assets.training.checkpoints.description import Provenance

PACKAGES = (
    "lofi_assets",
    "torch",
    "peft",
    "diffusers",
    "transformers",
    "accelerate",
    "bitsandbytes",
    "safetensors",
    "numpy",
)
"""Packages whose version can change a weight; null for one that is not installed."""
ENVIRONMENT = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "MKL_CBWR",
    "ATEN_CPU_CAPABILITY",
    "CUBLAS_WORKSPACE_CONFIG",
    "NVIDIA_TF32_OVERRIDE",
    "LOFI_PROFILE",
)
"""Variables that choose kernels or settings."""


def provenance(*, device: str, threads: int) -> Provenance:
    """Of this process."""
    return Provenance(
        git_commit=_git(PACKAGE, "rev-parse", "HEAD"),
        git_diff_sha256=changes(PACKAGE),
        packages={name: _version(name) for name in PACKAGES},
        command=shlex.join([sys.executable, *sys.argv]),
        working_directory=str(Path.cwd()),
        python=platform.python_version(),
        machine=f"{platform.system()} {platform.machine()}",
        device=device,
        threads=threads,
        kernels=_kernels(),
        environment={name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
    )


def _kernels() -> dict[str, str | None]:
    """What decides which of several kernels computes a product, and so its last bits."""
    import torch

    return {
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        "float32_matmul": torch.get_float32_matmul_precision(),
    }


def changes(package: Path) -> str | None:
    """sha256 of what the commit has not got below a package's folder: changes, and files not added; None without any.

    With them, the commit is not what ran.
    """
    difference = _git(package, "diff", "HEAD", "--", ".") or ""
    unadded = (_git(package, "ls-files", "--others", "--exclude-standard", "-z", "--", ".") or "").split("\0")
    contents = [f"{name} {sha256_file(package / name)}" for name in unadded if (package / name).is_file()]
    found = "\n".join(filter(None, (difference, *contents)))
    return hashlib.sha256(found.encode()).hexdigest() if found else None


@cache
def _git(folder: Path, *arguments: str) -> str | None:
    """Output of git in a folder, None outside a repository (an installed wheel) or without git."""
    try:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
