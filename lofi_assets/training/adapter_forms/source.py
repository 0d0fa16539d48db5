"""From a path to the one file that holds the weights, opened as safetensors; whatever could run code is refused.

What belongs here: which file is meant, and the limits of what is opened. What does not: what its names mean (`names`),
how strongly it is applied (`strength`).
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lofi_assets.errors import megabytes
from lofi_assets.files.hashing import hash_of, sha256_file
from lofi_assets.training.adapter_forms.adapter import AdapterError, Settings
from lofi_assets.training.checkpoints.files import DIFFUSERS_WEIGHTS, PEFT_CONFIG, PEFT_WEIGHTS

MAX_BYTES = 16e9
"""Of a file; the constitution's adapter of rank 256 takes 1.05 GB in float32."""
MAX_CONFIG_BYTES = 1_000_000
"""Of an adapter_config.json."""
MAX_TENSORS = 20_000
"""In a file; the constitution's adapter has 422."""
PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})
_PICKLED = (b"PK\x03\x04", b"\x80")
"""How torch's archives and plain pickles begin."""


@dataclass(frozen=True)
class Source:
    """The files of an adapter."""

    weights: Path
    config: Path | None
    """adapter_config.json beside PEFT's weights."""

    @property
    def files(self) -> tuple[Path, ...]:
        """Both, or the one there is."""
        return (self.weights, self.config) if self.config else (self.weights,)

    @property
    def sha256(self) -> str:
        """Of the file; of both where the strength stands in the second."""
        hashes = [sha256_file(path) for path in self.files]
        return hash_of(*hashes) if len(hashes) > 1 else hashes[0]

    @property
    def settings(self) -> Settings | None:
        """PEFT's configuration.

        Raises:
            AdapterError: it is no JSON object, or too large to be one.
        """
        if self.config is None:
            return None
        if self.config.stat().st_size > MAX_CONFIG_BYTES:
            raise AdapterError(f"{self.config}: {megabytes(self.config.stat().st_size)} are no LoRA's configuration")
        return as_settings(self.config.read_bytes(), where=str(self.config))


def find_source(path: Path) -> Source:
    """The files that a path means: a safetensors file, or a folder with one.

    Raises:
        AdapterError: nothing there, a pickle, or several files to choose from.
    """
    weights = _in_folder(path) if path.is_dir() else path
    if not weights.is_file():
        raise AdapterError(f"{weights}: no such file; name a LoRA's .safetensors file or its folder")
    with weights.open("rb") as file:
        start = file.read(4)
    if weights.suffix in PICKLES or start.startswith(_PICKLED):
        raise AdapterError(
            f"{weights}: a pickle, which can run any code when it is opened, so it is never opened here; "
            "ask whoever made it for safetensors"
        )
    size = weights.stat().st_size
    if size > MAX_BYTES:
        raise AdapterError(f"{weights}: {megabytes(size)}, and a LoRA has at most {megabytes(MAX_BYTES)}")
    config = weights.with_name(PEFT_CONFIG)
    return Source(weights, config if weights.name == PEFT_WEIGHTS and config.is_file() else None)


def _in_folder(folder: Path) -> Path:
    for name in (PEFT_WEIGHTS, DIFFUSERS_WEIGHTS):
        if (folder / name).is_file():
            return folder / name
    found = sorted(folder.glob("*.safetensors"))
    if len(found) == 1:
        return found[0]
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    if not found and pickles:
        raise AdapterError(
            f"{folder}: holds {pickles[0]}, a pickle, which can run any code when it is opened, and no safetensors; "
            "ask whoever made it for safetensors"
        )
    raise AdapterError(
        f"{folder}: {len(found)} safetensors files, none called {PEFT_WEIGHTS} or {DIFFUSERS_WEIGHTS}; name the file"
    )


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A safetensors file for torch; tensors are read one at a time.

    Raises:
        AdapterError: not safetensors, damaged, or with more tensors than a LoRA has.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            count = len(file.keys())
            if not 0 < count <= MAX_TENSORS:
                raise AdapterError(f"{path}: {count:,} tensors; a LoRA has between 1 and {MAX_TENSORS:,}")
            yield file
    except SafetensorError as error:
        raise AdapterError(f"{path}: no safetensors file, or a damaged one ({error}); fetch it again") from error


def as_settings(text: bytes | str, *, where: str) -> Settings:
    """A LoraConfig from JSON.

    Raises:
        AdapterError: it is no JSON object.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise AdapterError(f"{where}: holds no JSON ({type(error).__name__})") from error
    if not isinstance(data, dict):
        raise AdapterError(f"{where}: holds no JSON object, so no LoRA's configuration")
    return data


def quoted(name: str) -> str:
    """A name out of an untrusted file, as it can be printed."""
    return ascii(name if len(name) <= 160 else f"{name[:157]}...")
