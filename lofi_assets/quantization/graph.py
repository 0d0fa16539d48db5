"""What the quantization modules share about ONNX files: precision of a type, walking, loading and saving.

Nothing here changes what a model computes.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx
from onnx import TensorProto

from lofi_assets.errors import LofiError
from lofi_assets.quantization.shards import data_files, data_names, shards
from lofi_assets.quantization.spool import LARGE, hold, place, raw, refer

BITS: dict[int, int] = {
    TensorProto.DOUBLE: 64,
    TensorProto.FLOAT: 32,
    TensorProto.FLOAT16: 16,
    TensorProto.BFLOAT16: 16,
    TensorProto.INT16: 16,
    TensorProto.UINT16: 16,
    TensorProto.INT8: 8,
    TensorProto.UINT8: 8,
    TensorProto.FLOAT8E4M3FN: 8,
    TensorProto.FLOAT8E4M3FNUZ: 8,
    TensorProto.FLOAT8E5M2: 8,
    TensorProto.FLOAT8E5M2FNUZ: 8,
    TensorProto.INT4: 4,
    TensorProto.UINT4: 4,
    TensorProto.FLOAT4E2M1: 4,
    TensorProto.INT2: 2,
    TensorProto.UINT2: 2,
}
"""Bits per element of every type that can hold a weight. Index types (int32, int64, bool) are absent: they hold
none."""

FLOAT_TYPES = frozenset({TensorProto.DOUBLE, TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16})

WEIGHTED = frozenset({"MatMul", "Gemm", "Conv", "ConvTranspose", "Gather"})
"""Operators whose one large constant is a module's weight."""

EXTERNAL_DATA_FROM = 64 * 2**20
"""Weights of 64 MiB and more go to a .data file beside the model: protobuf ends at 2 GiB and is copied whole when
parsed."""


class GraphError(LofiError, ValueError):
    """An ONNX graph that a pass cannot handle; the message names the node and what to do."""


def opset_of(model: onnx.ModelProto) -> int:
    """The version imported of the default operator domain.

    Raises:
        GraphError: the default domain is not imported exactly once.
    """
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if len(versions) != 1:
        raise GraphError(
            f"the default operator domain is imported {len(versions)} times; write exactly one opset_import"
        )
    return int(versions[0])


def all_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and every graph nested in its nodes' attributes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            nested = list(attribute.graphs)
            if attribute.HasField("g"):
                nested.append(attribute.g)
            for inner in nested:
                yield from all_graphs(inner)


def attribute_of(node: onnx.NodeProto, name: str, default: object = None) -> object:
    """The value of an attribute, or the default when the node does not carry it."""
    for attribute in node.attribute:
        if attribute.name == name:
            return onnx.helper.get_attribute_value(attribute)
    return default


def drop_attribute(node: onnx.NodeProto, *names: str) -> None:
    """Remove the named attributes where present."""
    kept = [attribute for attribute in node.attribute if attribute.name not in names]
    del node.attribute[:]
    node.attribute.extend(kept)


def set_opset(model: onnx.ModelProto, version: int) -> None:
    """Label the model with a version of the default domain; says nothing about whether its nodes agree."""
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = version


def replace_nodes(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto]) -> None:
    """Put nodes in the place of a graph's, some of which may be among them."""
    kept = list(nodes)
    del graph.node[:]
    graph.node.extend(kept)


def drop_unused_initializers(graph: onnx.GraphProto) -> None:
    """Remove initializers that no node, nested graph or output reads."""
    used = {name for inner in all_graphs(graph) for node in inner.node for name in node.input}
    used |= {output.name for inner in all_graphs(graph) for output in inner.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    if len(kept) != len(graph.initializer):
        del graph.initializer[:]
        graph.initializer.extend(kept)


def elements(tensor: onnx.TensorProto) -> int:
    """Number of elements, from the dims alone."""
    count = 1
    for size in tensor.dims:
        count *= size
    return count


def load(path: Path, *, weights: bool = True) -> onnx.ModelProto:
    """Read a model; with `weights=False` external tensors stay on disk (their types and shapes are known all the
    same)."""
    return onnx.load(str(path), load_external_data=weights)


def open_graph(path: Path) -> onnx.ModelProto:
    """Read a model to derive another from it: external tensors stay on disk, and it refers to them by absolute path."""
    model = load(path, weights=False)
    for tensor in model.graph.initializer:
        if where := place(tensor):
            name, offset, length = where
            refer(tensor, path.resolve().parent / name, offset, length)
    return model


def save(model: onnx.ModelProto, path: Path, *, weights_beside: bool = False) -> None:
    """Write a model, its weights beside it in data files (`shards`) when they are large, and check the written file.

    Numbers are copied tensor by tensor from wherever they lie, which must not be the files that are written. The model
    then refers to those.

    Args:
        weights_beside: put them there however small they are, for other graphs to share (`save_sharing`).
    Raises:
        GraphError: a tensor is too large for a data file.
        onnx.checker.ValidationError: the model is not valid for the opset it declares.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for before in data_files(path.parent, path.name.removesuffix(".onnx")):
        before.unlink()
    weight_bytes = sum(elements(tensor) * BITS.get(tensor.data_type, 64) // 8 for tensor in model.graph.initializer)
    if weights_beside or weight_bytes >= EXTERNAL_DATA_FROM:
        _write_data(model, path)
    else:
        for tensor in model.graph.initializer:
            hold(tensor)
    onnx.save_model(model, str(path))
    onnx.checker.check_model(str(path), full_check=True)


def _write_data(model: onnx.ModelProto, path: Path) -> None:
    large = [
        tensor
        for tensor in model.graph.initializer
        if place(tensor) is not None or (tensor.HasField("raw_data") and len(tensor.raw_data) >= LARGE)
    ]
    try:
        plan = shards([len(raw(tensor)) for tensor in large])
    except ValueError as error:
        raise GraphError(f"{path.name}: {error}") from error
    for name, members in zip(data_names(path.name.removesuffix(".onnx"), len(plan)), plan, strict=True):
        with path.with_name(name).open("wb") as data:
            for tensor in large[members.start : members.stop]:
                offset, numbers = data.tell(), raw(tensor)
                data.write(numbers)
                refer(tensor, name, offset, len(numbers))


def save_sharing(model: onnx.ModelProto, path: Path) -> None:
    """Write a graph that was loaded without weights beside the file that it came from: it reads the same data file.

    Raises:
        onnx.checker.ValidationError: the model is not valid, or the data file is elsewhere.
    """
    onnx.save_model(model, str(path))
    onnx.checker.check_model(str(path), full_check=True)


def stored_bytes(path: Path) -> int:
    """Size on disk of a model with its data files."""
    beside = data_files(path.parent, path.name.removesuffix(".onnx"))
    return path.stat().st_size + sum(data.stat().st_size for data in beside)
