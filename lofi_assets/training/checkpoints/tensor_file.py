"""A safetensors file written and hashed in one pass, so that its digest costs no second reading.

The library writes a file in one call and gives no way to look on; its format is small
(https://huggingface.co/docs/safetensors, "Format"). What is hashed are the bytes in memory: a disk that takes them and
keeps others is found when the file is read.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

BLOCK = 16 << 20
"""Bytes that are written, and meanwhile hashed by another thread, at a time."""
NAMES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}
"""torch's name of a number's type -> the format's."""


def write_hashed(tensors: "Mapping[str, torch.Tensor]", path: Path) -> str:
    """Write contiguous CPU tensors, the same bytes for the same tensors; returns the sha256 (hex) of the file.

    Writing and hashing both leave the interpreter's lock, so that the call takes as long as the slower of the two.
    """
    digest, pending = hashlib.sha256(), list[Future[None]]()
    hasher = ThreadPoolExecutor(1, thread_name_prefix="sha256")
    try:
        with path.open("wb") as file:
            for block in _blocks(tensors):
                pending.append(hasher.submit(digest.update, block))
                file.write(block)
        for hashed in pending:
            hashed.result()
    finally:
        hasher.shutdown(cancel_futures=True)
    return digest.hexdigest()


def _blocks(tensors: "Mapping[str, torch.Tensor]") -> Iterator[memoryview]:
    """The file from its beginning: the header, then the tensors, the widest numbers first, so that each is aligned."""
    import torch

    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    header, end = {}, 0
    for name, tensor in ordered:
        start, end = end, end + tensor.numel() * tensor.element_size()
        kind = NAMES[str(tensor.dtype).removeprefix("torch.")]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text = text.ljust(-(-len(text) // 8) * 8)
    yield memoryview(len(text).to_bytes(8, "little") + text)
    for _, tensor in ordered:
        content = tensor.reshape(-1).view(torch.uint8).numpy().data
        for first in range(0, len(content), BLOCK):
            yield content[first : first + BLOCK]
