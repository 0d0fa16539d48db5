"""The data files of a component: what they are called, and which tensor goes into which.

    transformer.onnx.data                      everything, where that is under 2 GB
    transformer-00001-of-00006.onnx.data ...   otherwise, in the order of the graph's tensors, each under 2 GB

Runtimes that read a data file whole, as in a browser, end at 2 GB, and so do file systems and protobuf.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

SHARD_BYTES: Final = 2_000_000_000
"""A data file has fewer."""


def component_of(graph: str) -> str:
    """File's name of a graph -> the component whose data files it reads: a CPU's graph reads the other one's."""
    return graph.removesuffix(".onnx").removesuffix(".cpu")


def data_names(component: str, count: int) -> list[str]:
    """The names of a component's data files, if there are so many."""
    if count <= 1:
        return [f"{component}.onnx.data"] * count
    return [f"{component}-{number:05d}-of-{count:05d}.onnx.data" for number in range(1, count + 1)]


def data_files(folder: Path, component: str) -> list[Path]:
    """Whatever in a folder is called as a data file of a component, one that is too many as well, by name."""
    named = re.compile(re.escape(component) + r"(-\d+-of-\d+)?\.onnx\.data")
    return sorted(path for path in folder.iterdir() if named.fullmatch(path.name)) if folder.is_dir() else []


def too_large(size: int) -> bool:
    """Whether so many bytes are more than a data file has."""
    return size >= SHARD_BYTES


def shards(sizes: Sequence[int]) -> list[range]:
    """Tensors of so many bytes -> those of each file, in order; a file is filled until the next would not fit.

    Raises:
        ValueError: a tensor is as large as a file may not be.
    """
    if sizes and too_large(max(sizes)):
        raise ValueError(f"a tensor of {max(sizes)} bytes fits in no data file, which has less than {SHARD_BYTES}")
    found: list[range] = []
    start = held = 0
    for index, size in enumerate(sizes):
        if too_large(held + size):
            found.append(range(start, index))
            start, held = index, 0
        held += size
    return [*found, range(start, len(sizes))] if len(sizes) > start else found
