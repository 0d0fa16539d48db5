"""INT8 weights: symmetric, one scale per output channel, activations left in float (tier 2, and the floor parts of
tier 3). And the same weights for a CPU, which multiplies faster in integers: activations rounded as they come.

Standard operators, so any runtime at opset 13 and later reads it. Activations in float keep 4 dB more signal than
rounded ones (decision 012); neither needs calibration.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from lofi_assets.quantization.graph import attribute_of, replace_nodes
from lofi_assets.quantization.linear_weights import (
    LinearWeight,
    Stored,
    linear_weights,
    numpy_float,
    relative_error,
    replace_weights,
    weight_array,
)
from lofi_assets.quantization.spool import Spool, keep

LARGEST = 127
STEP, MIDDLE, LEAST = "rounding/step", "rounding/middle", "rounding/least"
"""Constants of `multiply_in_integers`: scale and zero of rounded rows, and the least that a row is divided by."""
EXACT, NONE, COLUMNS, AXIS, ONE = (f"kernel/{name}" for name in ("exact", "none", "columns", "axis", "one"))
"""Values of `_known_answer`: whether this CPU's kernel for unsigned times signed integers is exact; the first column
and the end of those that are wanted unsigned, none or all, and their axis; the scale that leaves integers alone."""


def quantize_channels(
    weight: NDArray[np.float32], *, reduce_axis: int, scale_type: type[np.float32] | type[np.float16] = np.float32
) -> tuple[NDArray[np.int8], NDArray[np.floating]]:
    """Round each output channel of a 2-d weight to integers in [-127, 127].

    Returns:
        The integers, shaped as the weight, and one positive scale per output channel (1 for a channel of zeros).
    """
    largest = np.abs(weight).max(axis=reduce_axis, keepdims=True)
    scale = (largest / LARGEST).astype(scale_type)
    scale[scale == 0] = 1
    levels = np.clip(np.rint(weight / scale.astype(np.float32)), -LARGEST, LARGEST).astype(np.int8)
    return levels, scale.reshape(-1)


def quantize_int8(model: onnx.ModelProto, *, wanted: Callable[[str], bool], spool: Spool | None = None) -> list[Stored]:
    """Quantize, in place, the linear weights of the modules that `wanted` accepts by name; returns what was done.

    A float16 graph needs opset 19 or later: DequantizeLinear gives float32 only before that.

    Args:
        spool: takes their numbers.
    """
    chosen = [weight for weight in linear_weights(model) if wanted(weight.module)]
    stored, tensors, nodes = [], [], []
    for linear in chosen:
        weight = weight_array(model, linear.name)
        levels, scale = quantize_channels(
            weight, reduce_axis=linear.reduce_axis, scale_type=numpy_float(linear.float_type)
        )
        tensors += [
            keep(numpy_helper.from_array(levels, f"{linear.name}_q8"), spool),
            keep(numpy_helper.from_array(scale, f"{linear.name}_scale"), spool),
        ]
        nodes.append(_dequantize(linear))
        shape = (1, -1) if linear.reduce_axis == 0 else (-1, 1)
        restored = levels * scale.astype(np.float32).reshape(shape)
        stored.append(Stored(linear.name, 8, weight.size, relative_error(weight, restored)))
    replace_weights(model, [weight.name for weight in chosen], tensors, nodes)
    return stored


def _dequantize(linear: LinearWeight) -> onnx.NodeProto:
    return helper.make_node(
        "DequantizeLinear",
        [f"{linear.name}_q8", f"{linear.name}_scale"],
        [linear.name],
        f"{linear.name}/dequantize",
        axis=1 - linear.reduce_axis,
    )


def multiply_in_integers(model: onnx.ModelProto) -> int:
    """Round activations to 8 bits where a MatMul reads INT8 weights, in place; returns how many products changed.

    The weights stay the tensors they were and need not be loaded. Each row of an activation, a token, has a scale of
    its own: one scale for all cost 6 dB on a trained model, and made an item depend on what else is in its batch.
    Gemm and float16 graphs stay as they are.

    The sums are exact on every CPU. ONNX Runtime adds unsigned times signed products in pairs in 16 bits on x86 without
    VNNI, and saturates; unsigned times unsigned ones in 32 bits, which is exact everywhere but leaves VNNI and AMX
    unused. So the graph asks the CPU (`_known_answer`), and has both products (decision 012).
    """
    weights = _int8_columns(model)
    body: list[onnx.NodeProto] = []
    rounded: set[str] = set()
    changed = 0
    for node in model.graph.node:
        if node.op_type != "MatMul" or node.input[1] not in weights:
            body.append(node)
            continue
        activation, (levels, scale) = node.input[0], weights[node.input[1]]
        if activation not in rounded:
            rounded.add(activation)
            body += _rounded_rows(activation)
        body += _integer_product(node, levels, scale)
        changed += 1
    if changed:
        question, constants = _known_answer()
        read = {name for node in body for name in node.input}
        kept = [node for node in body if node.op_type != "DequantizeLinear" or node.output[0] in read]
        replace_nodes(model.graph, [*question, *kept])
        constants |= {STEP: np.float32(1 / LARGEST), MIDDLE: np.uint8(128), LEAST: np.float32(1e-12)}
        model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items())
    return changed


def _known_answer() -> tuple[list[onnx.NodeProto], dict[str, NDArray[Any] | np.generic]]:
    """The nodes that find `EXACT` with a product whose pairs leave 16 bits, and their constants.

    No input reaches them: ONNX Runtime computes them once, as it loads the model, by the kernel that the products will
    take, and keeps one branch of each.
    """
    rows, levels, sums, least, right, every = (
        f"kernel/{name}" for name in ("rows", "levels", "sums", "least", "right", "every")
    )
    nodes = [
        _filled(rows, np.uint8(255)),
        _filled(levels, np.int8(LARGEST)),
        helper.make_node("MatMulInteger", [rows, levels], [sums], sums),
        helper.make_node("ReduceMin", [sums], [least], least, keepdims=0),
        helper.make_node("Equal", [least, right], [EXACT], EXACT),
        helper.make_node("Where", [EXACT, NONE, every], [COLUMNS], COLUMNS),
    ]
    constants: dict[str, NDArray[Any] | np.generic] = {
        f"{rows}/shape": np.array([2, 4]),
        f"{levels}/shape": np.array([4, 2]),
        right: np.int32(4 * 255 * LARGEST),
        NONE: np.array([0]),
        every: np.array([np.iinfo(np.int32).max], np.int64),
        AXIS: np.array([1]),
        ONE: np.float32(1),
    }
    return nodes, constants


def _filled(name: str, value: np.generic) -> onnx.NodeProto:
    one = numpy_helper.from_array(np.array([value]))
    return helper.make_node("ConstantOfShape", [f"{name}/shape"], [name], name, value=one)


def _int8_columns(model: onnx.ModelProto) -> dict[str, tuple[str, str]]:
    """Dequantized (K, N) weight -> its integers and its float32 scales, one per column."""
    types = {tensor.name: (tensor.data_type, len(tensor.dims)) for tensor in model.graph.initializer}
    return {
        node.output[0]: (node.input[0], node.input[1])
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and len(node.input) == 2 and attribute_of(node, "axis", 1) == 1
        if types.get(node.input[0]) == (onnx.TensorProto.INT8, 2)
        if types.get(node.input[1]) == (onnx.TensorProto.FLOAT, 1)
    }


def _rounded_rows(activation: str) -> list[onnx.NodeProto]:
    """x -> x/u8, 1 to 255 with 0 at 128, and x/row, by which each row was divided."""
    size, largest, row, unit = (f"{activation}/{part}" for part in ("size", "largest", "row", "unit"))
    return [
        helper.make_node("Abs", [activation], [size], f"{activation}/abs"),
        helper.make_node("ReduceMax", [size], [largest], f"{activation}/reduce", axes=[-1], keepdims=1),
        helper.make_node("Max", [largest, LEAST], [row], f"{activation}/max"),
        helper.make_node("Div", [activation, row], [unit], f"{activation}/divide"),
        helper.make_node("QuantizeLinear", [unit, STEP, MIDDLE], [f"{activation}/u8"], f"{activation}/round"),
    ]


def _integer_product(node: onnx.NodeProto, levels: str, scale: str) -> list[onnx.NodeProto]:
    activation, output = node.input[0], node.output[0]
    integers, product, step, unit = (f"{output}/{part}" for part in ("i32", "i32_float", "i32_step", "i32_unit"))
    name = node.name or output
    signed, unsigned = _signed(name, f"{activation}/u8", levels), _unsigned(name, f"{activation}/u8", levels)
    return [
        helper.make_node("If", [EXACT], [integers], f"{name}/integers", then_branch=signed, else_branch=unsigned),
        helper.make_node("Cast", [integers], [product], f"{name}/float", to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", [STEP, scale], [step], f"{name}/step"),
        helper.make_node("Mul", [product, step], [unit], f"{name}/scale"),
        helper.make_node("Mul", [unit, f"{activation}/row"], [output], f"{name}/rows"),
    ]


def _signed(name: str, rows: str, levels: str) -> onnx.GraphProto:
    """The product with the weights as they are stored."""
    return _branch(helper.make_node("MatMulInteger", [rows, levels, MIDDLE], [f"{name}/s8"], f"{name}/signed"))


def _unsigned(name: str, rows: str, levels: str) -> onnx.GraphProto:
    """The product with 128 added to the weights, and 128 for their zero.

    Both branches are prepared on loading, so the columns are cut off first where this one is not wanted: at the real
    size that saves 20 s.
    """
    columns, numbers, shifted = (f"{name}/{part}" for part in ("columns", "float", "u8"))
    return _branch(
        helper.make_node("Slice", [levels, NONE, COLUMNS, AXIS], [columns], f"{name}/slice"),
        helper.make_node("Cast", [columns], [numbers], f"{name}/widen", to=onnx.TensorProto.FLOAT),
        helper.make_node("QuantizeLinear", [numbers, ONE, MIDDLE], [shifted], f"{name}/shift"),
        helper.make_node("MatMulInteger", [rows, shifted, MIDDLE, MIDDLE], [f"{name}/i32"], f"{name}/unsigned"),
    )


def _branch(*nodes: onnx.NodeProto) -> onnx.GraphProto:
    """A graph that gives the last node's integers; it reads the values of the graph around it."""
    result = helper.make_tensor_value_info(nodes[-1].output[0], onnx.TensorProto.INT32, None)
    return helper.make_graph(nodes, nodes[-1].name, [], [result])
