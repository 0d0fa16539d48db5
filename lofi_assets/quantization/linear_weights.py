"""The linear weights of a graph, and how one is replaced by a quantized form that leaves its readers untouched.

A replaced weight keeps its name: it becomes the output of a DequantizeLinear (or Cast) over a smaller tensor, so node
inputs and names stay as they were. Used by `int8` and `int4`, which decide the numbers.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from lofi_assets.quantization.graph import FLOAT_TYPES, WEIGHTED, attribute_of, elements, replace_nodes
from lofi_assets.quantization.spool import Spool, keep, numbers

HALF_FROM = 1024
"""Smaller tensors stay as they are: nothing to gain."""

HALF_LIMIT = 65504.0

SQUARED = 2**24


@dataclass(frozen=True)
class LinearWeight:
    """A 2-d weight constant that MatMul or Gemm multiplies with."""

    name: str
    """The initializer, `<module>.weight`."""
    module: str
    reduce_axis: int
    """The axis that is summed over (input features): 0 for (K, N), 1 for (N, K)."""
    float_type: int
    """FLOAT or FLOAT16: what the graph computes in there, hence the type of the scales."""


@dataclass(frozen=True)
class Stored:
    """How a weight is now stored: its name, bits, element count, and the root mean square error over that of the
    weight."""

    name: str
    bits: int
    elements: int
    relative_error: float


def linear_weights(model: onnx.ModelProto) -> list[LinearWeight]:
    """Every float weight matrix of the main graph that a MatMul or Gemm reads directly, once each, in graph order."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    found: dict[str, LinearWeight] = {}
    for node in model.graph.node:
        if node.op_type not in ("MatMul", "Gemm") or len(node.input) < 2:
            continue
        tensor = constants.get(node.input[1])
        if tensor is None or len(tensor.dims) != 2 or tensor.data_type not in FLOAT_TYPES:
            continue
        axis = 1 if node.op_type == "Gemm" and attribute_of(node, "transB", 0) else 0
        found.setdefault(tensor.name, LinearWeight(tensor.name, module_of(tensor.name), axis, tensor.data_type))
    return list(found.values())


def module_of(weight: str) -> str:
    """`a.b.weight` -> `a.b`."""
    return weight.rpartition(".")[0] or weight


def weight_array(model: onnx.ModelProto, name: str) -> NDArray[np.float32]:
    """A constant of the main graph in float32.

    Raises:
        KeyError: no initializer has that name.
    """
    for tensor in model.graph.initializer:
        if tensor.name == name:
            return numbers(tensor).astype(np.float32)
    raise KeyError(f"the graph has no initializer {name!r}")


def numpy_float(float_type: int) -> type[np.float32] | type[np.float16]:
    """The numpy type of a graph's float type."""
    return np.float16 if float_type == TensorProto.FLOAT16 else np.float32


def relative_error(weight: NDArray[np.float32], restored: NDArray[np.float32]) -> float:
    """Root mean square of the difference over that of the weight; 0 for an all-zero weight restored exactly."""
    size, error = root_mean_square(weight), root_mean_square(weight, restored)
    return error / size if size else error


def root_mean_square(values: NDArray[np.float32], other: NDArray[np.float32] | None = None) -> float:
    """Of an array, or of its difference to another; 0 of an empty one.

    Squares are taken in float64, for `SQUARED` numbers at a time: those of an embedding table would take 1.6 GB.
    """
    if not values.size:
        return 0.0
    rows = max(1, SQUARED // max(1, values[:1].size)) if values.ndim else 1
    total = 0.0
    for start in range(0, len(values) if values.ndim else 1, rows):
        part = values[start : start + rows] if values.ndim else values
        if other is not None:
            part = part - (other[start : start + rows] if values.ndim else other)
        total += float(np.square(part, dtype=np.float64).sum())
    return float(np.sqrt(total / values.size))


def replace_weights(
    model: onnx.ModelProto,
    replaced: Iterable[str],
    tensors: Iterable[onnx.TensorProto],
    nodes: Iterable[onnx.NodeProto],
) -> None:
    """Put new constants in the place of initializers; `nodes` compute values of the old names and run first."""
    gone = set(replaced)
    kept = [tensor for tensor in model.graph.initializer if tensor.name not in gone]
    del model.graph.initializer[:]
    model.graph.initializer.extend([*kept, *tensors])
    replace_nodes(model.graph, [*nodes, *model.graph.node])
    shapes = [value for value in model.graph.value_info if value.name not in gone]
    del model.graph.value_info[:]
    model.graph.value_info.extend(shapes)


def store_rest_as_half(model: onnx.ModelProto, *, spool: Spool | None = None) -> list[Stored]:
    """Store the large float32 weights that are left in float16, in place; they are cast back where they are read.

    Weights are what products, convolutions and look-ups read; norms and modulation tables stay in float32.

    An embedding table is read first and its few rows cast after, so that the table is never held in float32.

    Args:
        spool: takes their numbers.
    Raises:
        ValueError: a weight exceeds float16's range.
    """
    graph = model.graph
    read = {name for node in graph.node if node.op_type in WEIGHTED for name in node.input}
    large = {
        tensor.name: tensor
        for tensor in graph.initializer
        if tensor.data_type == TensorProto.FLOAT and tensor.name in read
        if len(tensor.dims) >= 2 and elements(tensor) >= HALF_FROM
    }
    gathered = _tables_only_gathered(graph, set(large))
    stored, tensors, casts = [], [], []
    for name, tensor in large.items():
        weight = numbers(tensor)
        if np.abs(weight).max() > HALF_LIMIT:
            raise ValueError(f"weight {name} exceeds float16's range of ±{HALF_LIMIT:.0f}; keep it in float32")
        half = weight.astype(np.float16)
        tensors.append(keep(numpy_helper.from_array(half, f"{name}_f16"), spool))
        stored.append(Stored(name, 16, weight.size, relative_error(weight, half.astype(np.float32))))
        if name not in gathered:
            casts.append(helper.make_node("Cast", [f"{name}_f16"], [name], f"{name}/cast", to=TensorProto.FLOAT))
    replace_weights(model, large, tensors, casts)
    _cast_gathered_rows(graph, gathered)
    return stored


def _tables_only_gathered(graph: onnx.GraphProto, names: set[str]) -> set[str]:
    readers = [(node, name) for node in graph.node for name in node.input if name in names]
    tables = {name for node, name in readers if node.op_type == "Gather" and node.input[0] == name}
    return tables - {name for node, name in readers if node.op_type != "Gather"}


def _cast_gathered_rows(graph: onnx.GraphProto, tables: set[str]) -> None:
    body = []
    for node in graph.node:
        body.append(node)
        if node.op_type == "Gather" and node.input[0] in tables:
            rows, name = node.output[0], node.input[0]
            node.input[0], node.output[0] = f"{name}_f16", f"{rows}_f16"
            body.append(helper.make_node("Cast", [f"{rows}_f16"], [rows], f"{node.name}/cast", to=TensorProto.FLOAT))
    replace_nodes(graph, body)
