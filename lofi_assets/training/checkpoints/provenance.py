"""Where and with what a checkpoint was made: the commit, the packages, the machine (constitution II)."""

import os
import platform
import shlex
import sys
from pathlib import Path

from lofi_assets.constitution.made_with import code, installed_version
from lofi_assets.training.checkpoints.description import Provenance

PACKAGES = (
    "lofi_assets",
    "torch",
    "peft",
    "diffusers",
    "transformers",
    "accelerate",
    "bitsandbytes",
    "prodigyopt",
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
        git_commit=code().git_commit,
        git_diff_sha256=code().git_diff_sha256,
        packages={name: installed_version(name) for name in PACKAGES},
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
