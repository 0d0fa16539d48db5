"""The bytes of an ONNX file and of its external data: regular files, every tensor whole, inside, apart from others.

Neither ONNX's checker nor ONNX Runtime asks whether a data file is longer than its tensors, whether two of them
overlap, or whether it is a link.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import TensorProto

from lofi_assets.quantization.graph import BITS, elements

PADDING = 65_536
"""Bytes between two tensors that alignment explains."""


def data_faults(path: Path, model: onnx.ModelProto) -> list[str]:
    """What is wrong with the file and with the data file beside it.

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
    own = f"{path.name.removesuffix('.onnx').removesuffix('.cpu')}.onnx.data"
    places: list[tuple[int, int, str]] = []
    for tensor in model.graph.initializer:
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        if entries.get("location") != own:
            yield f"{tensor.name} lies in {entries.get('location')!r}, only {own} beside the graph may hold weights"
            continue
        try:
            start, length = int(entries.get("offset", "0")), int(entries.get("length", "-1"))
        except ValueError:
            yield f"{tensor.name} has an offset or length that is no number"
            continue
        if start < 0 or length != _bytes(tensor):
            yield f"{tensor.name} has {length} bytes from {start} on, its shape needs {_bytes(tensor)}"
        places.append((start, start + length, tensor.name))
    if places:
        yield from _file(path.with_name(own), sorted(places))


def _file(data: Path, places: list[tuple[int, int, str]]) -> Iterator[str]:
    if data.is_symlink() or not data.is_file():
        yield f"{data.name} is {'a link' if data.is_symlink() else 'absent'}"
        return
    end = 0
    for start, stop, name in places:
        if start < end:
            yield f"{name} overlaps the tensor before it in {data.name}"
        elif start - end > PADDING:
            yield f"{start - end} bytes before {name} in {data.name} belong to no tensor"
        end = max(end, stop)
    if data.stat().st_size != end:
        yield f"{data.name} has {data.stat().st_size} bytes, its tensors need {end}"


def _bytes(tensor: TensorProto) -> int:
    return -(-elements(tensor) * (BITS | _INDEX_BITS).get(int(tensor.data_type), 8) // 8)


_INDEX_BITS: dict[int, int] = {
    TensorProto.INT32: 32,
    TensorProto.UINT32: 32,
    TensorProto.INT64: 64,
    TensorProto.UINT64: 64,
}
