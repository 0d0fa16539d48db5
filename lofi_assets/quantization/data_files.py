"""The bytes of an ONNX file and of its external data: regular files, every tensor whole, inside, apart from others.

Neither ONNX's checker nor ONNX Runtime asks whether a data file is longer than its tensors, whether two of them
overlap, or whether it is a link.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import TensorProto

from lofi_assets.quantization.graph import BITS, elements
from lofi_assets.quantization.shards import component_of, data_files, data_names, too_large

PADDING = 65_536
"""Bytes between two tensors that alignment explains."""
MOST_SHARDS = 1_000
"""A name that counts more of them is not believed."""


def data_faults(path: Path, model: onnx.ModelProto) -> list[str]:
    """What is wrong with the file and with the data files beside it.

    Args:
        model: of the file, external data not loaded.
    """
    return [*_links(path), *_inside(model), *_external(path, model)]


def _links(path: Path) -> Iterator[str]:
    if path.is_symlink():
        yield f"{path.name} is a link"


def _inside(model: onnx.ModelProto) -> Iterator[str]:
    for tensor in model.graph.initializer:
        here = tensor.data_location != TensorProto.EXTERNAL and tensor.HasField("raw_data")
        if here and len(tensor.raw_data) != _bytes(tensor):
            yield f"{tensor.name} has {len(tensor.raw_data)} bytes, its shape needs {_bytes(tensor)}"


def _external(path: Path, model: onnx.ModelProto) -> Iterator[str]:
    component = component_of(path.name)
    tensors = [tensor for tensor in model.graph.initializer if tensor.data_location == TensorProto.EXTERNAL]
    entries = [{entry.key: entry.value for entry in tensor.external_data} for tensor in tensors]
    own = _own(component, {str(entry.get("location")) for entry in entries})
    places: dict[str, list[tuple[int, int, str]]] = {}
    for tensor, entry in zip(tensors, entries, strict=True):
        name = str(entry.get("location"))
        if name not in own:
            whole = data_names(component, 1)[0]
            yield f"{tensor.name} lies in {name!r}, only {whole} beside the graph, or its shards, may hold weights"
            continue
        try:
            start, length = int(entry.get("offset", "0")), int(entry.get("length", "-1"))
        except ValueError:
            yield f"{tensor.name} has an offset or length that is no number"
            continue
        if start < 0 or length != _bytes(tensor):
            yield f"{tensor.name} has {length} bytes from {start} on, its shape needs {_bytes(tensor)}"
        places.setdefault(name, []).append((start, start + length, tensor.name))
    for name in own if places else ():
        if name in places:
            yield from _file(path.with_name(name), sorted(places[name]))
        else:
            yield f"no tensor lies in {name}, which the names of the others count"
    for data in data_files(path.parent, component) if path.name == f"{component}.onnx" else ():
        if data.name not in own or not tensors:
            yield f"{data.name} is called as the component's data file, but no tensor lies in it"


def _own(component: str, read: set[str]) -> list[str]:
    """The data files that a component has, by those that its tensors name: one, or as many as a shard's name counts."""
    for name in sorted(read):
        found = re.fullmatch(re.escape(component) + r"-\d{5}-of-(\d{5})\.onnx\.data", name)
        if found and 1 < int(found[1]) <= MOST_SHARDS and name in (own := data_names(component, int(found[1]))):
            return own
    return data_names(component, 1)


def _file(data: Path, places: list[tuple[int, int, str]]) -> Iterator[str]:
    if data.is_symlink() or not data.is_file():
        yield f"{data.name} is {'a link' if data.is_symlink() else 'absent'}"
        return
    end, size = 0, data.stat().st_size
    for start, stop, name in places:
        if start < end:
            yield f"{name} overlaps the tensor before it in {data.name}"
        elif start - end > PADDING:
            yield f"{start - end} bytes before {name} in {data.name} belong to no tensor"
        end = max(end, stop)
    if size != end:
        yield f"{data.name} has {size} bytes, its tensors need {end}"
    if too_large(size):
        yield f"{data.name} has {size} bytes; 2 GB and more go into several files, so build the tier again"


def _bytes(tensor: TensorProto) -> int:
    return -(-elements(tensor) * (BITS | _INDEX_BITS).get(int(tensor.data_type), 8) // 8)


_INDEX_BITS: dict[int, int] = {
    TensorProto.INT32: 32,
    TensorProto.UINT32: 32,
    TensorProto.INT64: 64,
    TensorProto.UINT64: 64,
}
