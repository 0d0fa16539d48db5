"""Files that are less precise than they say, or do something else: each a change of an honest one, and what it is
refused for.

A change works on whichever file is given, small or exported: on its first linear layer, its first stored number.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lofi_assets.quantization.graph import attribute_of, load, save
from lofi_assets.quantization.int4 import pack_int4
from lofi_assets.quantization.tier_manifest import TierName

Where = tuple[TierName, str]
"""A tier and the component of it."""
INT8: Where = ("int8", "transformer")
INT4: Where = ("int4", "transformer")
VOICE: Where = ("int4", "condition_encoder")
SOUND: Where = ("fp16", "vocoder")
FP8 = TensorProto.FLOAT8E4M3FN


@dataclass(frozen=True)
class Alteration:
    """A change of a component's file, and the words of the violation that it must be refused with."""

    name: str
    where: Where
    change: Callable[[onnx.ModelProto], None]
    reason: str


# --- finding things --------------------------------------------------------------------------------------------------


def layer(model: onnx.ModelProto, *, last: bool = False) -> onnx.NodeProto:
    """A MatMul with a stored weight of the model's own module."""
    stored = {tensor.name for tensor in model.graph.initializer}
    made = {node.output[0]: node for node in model.graph.node if node.op_type in ("DequantizeLinear", "Cast")}
    found = [
        node
        for node in model.graph.node
        if node.op_type == "MatMul"
        if node.input[1] in stored or (node.input[1] in made and made[node.input[1]].input[0] in stored)
    ]
    return found[-1 if last else 0]


def tensor(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def dequantize(model: onnx.ModelProto, kind: int = TensorProto.INT8) -> onnx.NodeProto:
    """The first DequantizeLinear over integers of a type."""
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type == "DequantizeLinear"]
    return next(node for node in nodes if types[node.input[0]] == kind)


def put(model: onnx.ModelProto, name: str, value: np.ndarray) -> None:
    """Other numbers in the place of stored ones."""
    tensor(model, name).CopyFrom(numpy_helper.from_array(value, name))


def value_of(model: onnx.ModelProto, name: str) -> np.ndarray:
    return numpy_helper.to_array(tensor(model, name))


def stored_weight(model: onnx.ModelProto) -> str:
    """Name of the tensor that a layer's weight is stored in."""
    name = layer(model).input[1]
    made = {node.output[0]: node for node in model.graph.node}
    return made[name].input[0] if name in made else name


def between(model: onnx.ModelProto, reader: onnx.NodeProto, position: int, nodes: list[onnx.NodeProto]) -> None:
    """Nodes between a value and its reader: the first reads it, the last one's output is read."""
    nodes[0].input[0] = reader.input[position]
    reader.input[position] = nodes[-1].output[0]
    at = list(model.graph.node).index(reader)
    for node in reversed(nodes):
        model.graph.node.insert(at, node)


def add(model: onnx.ModelProto, name: str, value: np.ndarray) -> str:
    model.graph.initializer.append(numpy_helper.from_array(value, name))
    return name


def weight_type(model: onnx.ModelProto) -> int:
    """FLOAT16 in a graph in half precision."""
    made = {node.output[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"}
    name = layer(model).input[1]
    return tensor(model, made[name].input[1] if name in made else name).data_type


# --- rounding on the way ---------------------------------------------------------------------------------------------


def through(kind: int, position: int) -> Callable[[onnx.ModelProto], None]:
    """A cast to a type and back, of the weight (1) or of the activation (0)."""

    def change(model: onnx.ModelProto) -> None:
        back = weight_type(model)
        casts = [
            helper.make_node("Cast", [""], ["narrow_"], "narrow_", to=kind),
            helper.make_node("Cast", ["narrow_"], ["wide_"], "wide_", to=back),
        ]
        between(model, layer(model), position, casts)

    return change


def quantized_and_back(position: int, kind: type) -> Callable[[onnx.ModelProto], None]:
    """QuantizeLinear and DequantizeLinear, as quantization-aware training leaves them."""

    def change(model: onnx.ModelProto) -> None:
        scale = np.float16 if weight_type(model) == TensorProto.FLOAT16 else np.float32
        names = [add(model, "scale_", np.asarray(scale(0.03))), add(model, "zero_", np.asarray(kind(0)))]
        nodes = [
            helper.make_node("QuantizeLinear", ["", *names], ["rounded_"], "round_"),
            helper.make_node("DequantizeLinear", ["rounded_", *names], ["restored_"], "restore_"),
        ]
        between(model, layer(model), position, nodes)

    return change


def computed(operator: str, position: int, *constants: float) -> Callable[[onnx.ModelProto], None]:
    """An arithmetic operator on the way, with constants of the same type."""

    def change(model: onnx.ModelProto) -> None:
        kind = np.float16 if weight_type(model) == TensorProto.FLOAT16 else np.float32
        names = [add(model, f"constant_{at}_", np.asarray(kind(value))) for at, value in enumerate(constants)]
        between(model, layer(model), position, [helper.make_node(operator, ["", *names], ["made_"], "make_")])

    return change


# --- other numbers ---------------------------------------------------------------------------------------------------


def other_levels(change_levels: Callable[[np.ndarray], np.ndarray]) -> Callable[[onnx.ModelProto], None]:
    """Other integers under the same scales."""

    def change(model: onnx.ModelProto) -> None:
        name = dequantize(model).input[0]
        levels = value_of(model, name)
        put(model, name, change_levels(levels.astype(np.int32)).astype(levels.dtype))

    return change


def other_int4(change_levels: Callable[[np.ndarray], np.ndarray]) -> Callable[[onnx.ModelProto], None]:
    """The same of four bits."""

    def change(model: onnx.ModelProto) -> None:
        name = dequantize(model, TensorProto.INT4).input[0]
        levels = value_of(model, name).astype(np.int8)
        tensor(model, name).CopyFrom(pack_int4(change_levels(levels.astype(np.int32)).astype(np.int8), name))

    return change


def other_scale(value: float, *, every: bool = True, kind: int = TensorProto.INT8) -> Callable[[onnx.ModelProto], None]:
    """Scales times a number, all or one of them."""

    def change(model: onnx.ModelProto) -> None:
        name = dequantize(model, kind).input[1]
        scale = value_of(model, name).copy()
        if every:
            scale = (scale * value).astype(scale.dtype)
        else:
            scale.reshape(-1)[0] *= value
        put(model, name, scale)

    return change


def other_floats(change_values: Callable[[np.ndarray], np.ndarray]) -> Callable[[onnx.ModelProto], None]:
    """Other numbers in a weight of half precision."""

    def change(model: onnx.ModelProto) -> None:
        name = stored_weight(model)
        put(model, name, change_values(value_of(model, name).astype(np.float32)).astype(np.float16))

    return change


def stored_as(kind: int) -> Callable[[onnx.ModelProto], None]:
    """A weight in half precision stored in another type, and cast."""

    def change(model: onnx.ModelProto) -> None:
        name = stored_weight(model)
        values = value_of(model, name).astype(np.float32)
        tensor(model, name).CopyFrom(helper.make_tensor(name, kind, values.shape, values.reshape(-1)))
        between(model, layer(model), 1, [helper.make_node("Cast", [""], ["cast_"], "cast_", to=TensorProto.FLOAT16)])

    return change


def one_scale_for_all(model: onnx.ModelProto) -> None:
    node = dequantize(model)
    levels, scale = value_of(model, node.input[0]).astype(np.float32), value_of(model, node.input[1])
    axis = attribute_of(node, "axis", 1)
    weight = levels * scale.reshape([-1 if at == axis else 1 for at in range(levels.ndim)]).astype(np.float32)
    weight[:, 0] *= 1 + 1e-3
    one = np.abs(weight).max() * 4 / 127
    put(model, node.input[0], np.clip(np.rint(weight / one), -127, 127).astype(np.int8))
    put(model, node.input[1], np.asarray(one, scale.dtype))


def wide_blocks(model: onnx.ModelProto) -> None:
    """A scale for 64 weights instead of 32."""
    node = dequantize(model, TensorProto.INT4)
    levels, scale = value_of(model, node.input[0]).astype(np.float32), value_of(model, node.input[1])
    axis = attribute_of(node, "axis", 1)
    assert isinstance(axis, int)
    weight = levels * np.take(np.repeat(scale, 32, axis=axis), range(levels.shape[axis]), axis=axis)
    rows = np.moveaxis(weight.astype(np.float32), axis, 0)
    blocks = -(-len(rows) // 64)
    padded = np.zeros((blocks * 64, rows.shape[1]), np.float32)
    padded[: len(rows)] = rows
    steps = np.maximum(np.abs(padded.reshape(blocks, 64, -1)).max(axis=1), 1e-6) / 7
    new = np.clip(np.rint(rows / np.repeat(steps, 64, axis=0)[: len(rows)]), -8, 7).astype(np.int8)
    name = node.input[0]
    tensor(model, name).CopyFrom(pack_int4(np.ascontiguousarray(np.moveaxis(new, 0, axis)), name))
    put(model, node.input[1], np.ascontiguousarray(np.moveaxis(steps, 0, axis)).astype(scale.dtype))
    for attribute in node.attribute:
        if attribute.name == "block_size":
            attribute.i = 64


# --- wiring ----------------------------------------------------------------------------------------------------------


def bypassed(model: onnx.ModelProto) -> None:
    """A square layer's input taken for its output; the layer stays in the file, unread."""
    node = square_layer(model)
    for other in model.graph.node:
        for at, name in enumerate(other.input):
            if name == node.output[0]:
                other.input[at] = node.input[0]


def square_layer(model: onnx.ModelProto) -> onnx.NodeProto:
    """A MatMul whose input and output are as wide as each other, somewhere past the first."""
    stored = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    made = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type in ("DequantizeLinear", "Cast")}
    for node in model.graph.node:
        shape = stored.get(made.get(node.input[1], node.input[1])) if node.op_type == "MatMul" else None
        if shape is not None and len(shape) == 2 and shape[0] == shape[1]:
            return node
    raise AssertionError("no square layer")


def removed(model: onnx.ModelProto) -> None:
    """A square layer, and what it was stored in."""
    node = square_layer(model)
    bypassed(model)
    made = [other for other in model.graph.node if other.output[0] == node.input[1]]
    names = {node.input[1], *(name for other in made for name in other.input)}
    for other in [node, *made]:
        model.graph.node.remove(other)
    for stored in [t for t in model.graph.initializer if t.name in names]:
        model.graph.initializer.remove(stored)


def decoy(model: onnx.ModelProto) -> None:
    """The honest weight stays in the file, and another under a name of its own is read."""
    node, name = layer(model), stored_weight(model)
    other = add(model, "val_1", value_of(model, name).copy())
    made = [n for n in model.graph.node if n.output[0] == node.input[1]]
    if made:
        made[0].input[0] = other
    else:
        node.input[1] = other


def two_forms(model: onnx.ModelProto) -> None:
    """The layer reads four bits under the name of its module, and the honest weight is read for nothing."""
    node, name = layer(model), stored_weight(model)
    weight = value_of(model, name).astype(np.float32)
    coarse = add(model, f"{name.removesuffix('_f16')}_f16", (np.rint(weight * 2) / 2).astype(np.float16))
    between(model, node, 0, [helper.make_node("Identity", [""], ["same_"], "same_")])
    helper_node = helper.make_node("MatMul", [node.input[0], coarse], ["more_"], "more_")
    model.graph.node.insert(list(model.graph.node).index(node), helper_node)


def of_zero(model: onnx.ModelProto) -> None:
    """The weight plus nothing of the input: it is no constant any more."""
    node = layer(model)
    kind = np.float16 if weight_type(model) == TensorProto.FLOAT16 else np.float32
    zero = add(model, "nothing_", np.asarray(kind(0)))
    at = list(model.graph.node).index(node)
    value = node.input[0]
    made = [
        helper.make_node("ReduceMax", [value], ["largest_"], "largest_", keepdims=0),
        helper.make_node("Mul", ["largest_", zero], ["none_"], "none_"),
        helper.make_node("Add", [node.input[1], "none_"], ["sum_"], "sum_"),
    ]
    node.input[1] = "sum_"
    for other in reversed(made):
        model.graph.node.insert(at, other)


def as_input(model: onnx.ModelProto) -> None:
    """A weight that a caller may replace."""
    stored = tensor(model, stored_weight(model))
    model.graph.input.append(helper.make_tensor_value_info(stored.name, stored.data_type, list(stored.dims)))


def output_too(model: onnx.ModelProto) -> None:
    node = layer(model)
    model.graph.output.append(helper.make_tensor_value_info(node.output[0], weight_type(model), None))


def renamed_output(model: onnx.ModelProto) -> None:
    name = model.graph.output[0].name
    for node in model.graph.node:
        for at, found in enumerate(node.output):
            if found == name:
                node.output[at] = "other"
        for at, found in enumerate(node.input):
            if found == name:
                node.input[at] = "other"
    model.graph.output[0].name = "other"


def no_node(model: onnx.ModelProto) -> None:
    """A branch that leads nowhere."""
    node = layer(model)
    model.graph.node.append(helper.make_node("Relu", [node.output[0]], ["nowhere_"], "nowhere_"))


def in_a_branch(model: onnx.ModelProto) -> None:
    """The layer inside an If."""
    node = layer(model)
    branches = []
    for side in ("then", "else"):
        inner = helper.make_node("MatMul", list(node.input), [f"{side}_"], f"{side}_")
        result = helper.make_tensor_value_info(f"{side}_", weight_type(model), None)
        branches.append(helper.make_graph([inner], side, [], [result]))
    condition = add(model, "yes_", np.array(True))
    choice = helper.make_node(
        "If", [condition], list(node.output), "choice_", then_branch=branches[0], else_branch=branches[1]
    )
    at = list(model.graph.node).index(node)
    model.graph.node.remove(node)
    model.graph.node.insert(at, choice)


def as_function(model: onnx.ModelProto) -> None:
    """A model-local function in the place of the layer."""
    node = layer(model)
    inner = helper.make_node("MatMul", ["a", "b"], ["c"])
    opset = [helper.make_opsetid("", next(e.version for e in model.opset_import if e.domain in ("", "ai.onnx")))]
    model.functions.append(helper.make_function("own", "Linear", ["a", "b"], ["c"], [inner], opset))
    model.opset_import.append(helper.make_opsetid("own", 1))
    node.op_type, node.domain = "Linear", "own"


def packed_integers(model: onnx.ModelProto) -> None:
    """Weights in INT32, taken apart in the graph; nothing reads the weight in half."""
    node = layer(model)
    shape = value_of(model, stored_weight(model)).shape
    add(model, "packed_", np.zeros(shape, np.int32))
    add(model, "sixteen_", np.asarray(16, np.int32))
    made = [
        helper.make_node("Div", ["packed_", "sixteen_"], ["high_"], "high_"),
        helper.make_node("Cast", ["high_"], ["unpacked_"], "unpack_", to=weight_type(model)),
    ]
    at = list(model.graph.node).index(node)
    node.input[1] = "unpacked_"
    for other in reversed(made):
        model.graph.node.insert(at, other)


def contributed(model: onnx.ModelProto) -> None:
    """ONNX Runtime's own product of four bits."""
    node, weight = layer(model), value_of(model, stored_weight(model))
    rows, columns = weight.shape
    blocks = -(-rows // 32)
    names = [
        add(model, "packed_", np.zeros((columns, blocks, 16), np.uint8)),
        add(model, "scales_", np.ones(columns * blocks, np.float16)),
    ]
    packed = helper.make_node(
        "MatMulNBits", [node.input[0], *names], list(node.output), node.name, domain="com.microsoft",
        K=rows, N=columns, bits=4, block_size=32,
    )  # fmt: skip
    node.CopyFrom(packed)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def zero_point(model: onnx.ModelProto) -> None:
    node = dequantize(model)
    scale = value_of(model, node.input[1])
    node.input.append(add(model, "zeros_", np.full(scale.shape, 3, np.int8)))


def other_axis(model: onnx.ModelProto) -> None:
    node = next(n for n in model.graph.node if n.op_type == "DequantizeLinear" and _square(model, n))
    for attribute in node.attribute:
        if attribute.name == "axis":
            attribute.i = 1 - attribute.i


def _square(model: onnx.ModelProto, node: onnx.NodeProto) -> bool:
    stored = tensor(model, node.input[0])
    return stored.data_type == TensorProto.INT8 and len(stored.dims) == 2 and stored.dims[0] == stored.dims[1]


def swapped(model: onnx.ModelProto) -> None:
    """Two layers of one shape read each other's weights."""
    node = square_layer(model)
    shape = value_of(model, _root(model, node)).shape
    other = next(
        n
        for n in model.graph.node
        if n.op_type == "MatMul"
        and n is not node
        and _root(model, n)
        and value_of(model, _root(model, n)).shape == shape
    )
    first, second = _root(model, node), _root(model, other)
    values = value_of(model, first).copy(), value_of(model, second).copy()
    put(model, first, values[1])
    put(model, second, values[0])


def _root(model: onnx.ModelProto, node: onnx.NodeProto) -> str:
    stored = {tensor.name for tensor in model.graph.initializer}
    made = {n.output[0]: n.input[0] for n in model.graph.node if n.op_type in ("DequantizeLinear", "Cast")}
    name = made.get(node.input[1], node.input[1])
    return name if name in stored else ""


def no_import(model: onnx.ModelProto) -> None:
    del model.opset_import[:]


def opset(version: int) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        model.opset_import[0].version = version

    return change


def twice(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(tensor(model, stored_weight(model)))


def same_names(model: onnx.ModelProto) -> None:
    model.graph.node[1].name = model.graph.node[0].name


def unread(model: onnx.ModelProto) -> None:
    add(model, "spare.weight", np.zeros((4, 4), np.float16))


def attribute(model: onnx.ModelProto) -> None:
    """A mean that keeps its dimension, or no longer does."""
    node = next(n for n in model.graph.node if n.op_type == "ReduceMean")
    other = helper.make_attribute("keepdims", 0 if attribute_of(node, "keepdims", 1) else 1)
    kept = [found for found in node.attribute if found.name != "keepdims"]
    del node.attribute[:]
    node.attribute.extend([*kept, other])


def annotated(model: onnx.ModelProto) -> None:
    model.graph.quantization_annotation.add().tensor_name = stored_weight(model)


def sparse(model: onnx.ModelProto) -> None:
    values = numpy_helper.from_array(np.ones(1, np.float32), "sparse_")
    indices = numpy_helper.from_array(np.zeros(1, np.int64), "indices_")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))


def constant_node(model: onnx.ModelProto) -> None:
    """The weight in a Constant node, of other numbers."""
    node, name = layer(model), stored_weight(model)
    value = numpy_helper.from_array(np.rint(value_of(model, name)).astype(np.float16), name)
    model.graph.initializer.remove(tensor(model, name))
    model.graph.node.insert(0, helper.make_node("Constant", [], [name], "constant_", value=value))
    assert node.input[1] == name


def constant_outside(model: onnx.ModelProto) -> None:
    """A Constant whose numbers lie in a file, which is not among those of the weights."""
    constant_node(model)
    tensor = model.graph.node[0].attribute[0].t
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/hostname")


def float_list(model: onnx.ModelProto) -> None:
    """A Constant that holds its numbers as attributes."""
    made = helper.make_node("Constant", [], ["list_"], "list_", value_float=1.0)
    model.graph.node.insert(0, made)


def extra_layer(model: onnx.ModelProto) -> None:
    """A further layer in the place of an identity."""
    node = square_layer(model)
    width = value_of(model, _root(model, node)).shape[0]
    kind = np.float16 if weight_type(model) == TensorProto.FLOAT16 else np.float32
    add(model, "more.layer.weight", np.eye(width, dtype=kind))
    between(model, node, 0, [helper.make_node("MatMul", ["", "more.layer.weight"], ["again_"], "more.layer")])


def at(where: Where, *rows: tuple[str, Callable[[onnx.ModelProto], None], str]) -> list[Alteration]:
    return [Alteration(f"{where[0]} {where[1]}: {name}", where, change, reason) for name, change, reason in rows]


NAN, INF = float("nan"), float("inf")

ALTERATIONS = [
    *at(
        SOUND,
        ("weight through FP8", through(FP8, 1), "makes FLOAT8E4M3FN of FLOAT16"),
        ("weight through FP8 E5M2", through(TensorProto.FLOAT8E5M2, 1), "makes FLOAT8E5M2 of FLOAT16"),
        ("weight through BF16", through(TensorProto.BFLOAT16, 1), "makes BFLOAT16 of FLOAT16"),
        ("weight through INT8", through(TensorProto.INT8, 1), "makes INT8 of FLOAT16"),
        ("weight through INT64", through(TensorProto.INT64, 1), "makes INT64 of FLOAT16"),
        ("activation through FP8", through(FP8, 0), "rounds to FLOAT8E4M3FN"),
        ("activation through BF16", through(TensorProto.BFLOAT16, 0), "rounds to BFLOAT16"),
        ("activation through INT8", through(TensorProto.INT8, 0), "rounds to INT8"),
        ("weight rounded as in training", quantized_and_back(1, np.int8), "QuantizeLinear 'round_' changes stored"),
        ("activation rounded as in training", quantized_and_back(0, np.int8), "operators differ"),
        ("weight in floor", computed("Floor", 1), "Floor 'make_' changes stored"),
        ("weight clipped", computed("Clip", 1, -0.1, 0.1), "Clip 'make_' changes stored"),
        ("weight times zero", computed("Mul", 1, 0.0), "Mul 'make_' changes stored"),
        ("activation in round", computed("Round", 0), "operators differ from the FP32 file's: Round +1"),
        ("activation times zero", computed("Mul", 0, 0.0), "operators differ from the FP32 file's: Mul +1"),
        ("activation modulo", computed("Sub", 0, 0.5), "operators differ from the FP32 file's: Sub +1"),
        ("stored in BF16", stored_as(TensorProto.BFLOAT16), "stored as BFLOAT16, which no tier uses"),
        ("stored in FP8", stored_as(FP8), "stored as FLOAT8E4M3FN, which no tier uses"),
        ("stored in double", stored_as(TensorProto.DOUBLE), "stored as DOUBLE, which no tier uses"),
        ("seven bits in half", other_floats(lambda w: np.rint(w * 16) / 16), "differs from the FP32 file by"),
        ("another model's weight", other_floats(lambda w: w[::-1]), "differs from the FP32 file by"),
        ("weights of zero", other_floats(lambda w: w * 0), "differs from the FP32 file by"),
        ("not a number", other_floats(lambda w: np.where(w == w.max(), NAN, w)), "not finite"),
        ("infinite", other_floats(lambda w: np.where(w == w.max(), INF, w)), "not finite"),
        ("weight in a Constant", constant_node, "differs from the FP32 file by"),
        ("Constant in a file", constant_outside, "has its value in a data file"),
        ("two forms", two_forms, "is stored in two forms"),
        ("packed in INT32", packed_integers, "Div 'high_' changes stored packed_"),
        ("in a branch", in_a_branch, "has a graph of its own"),
        ("bypassed", bypassed, "nodes reach no output"),
        ("removed", removed, "weights of the FP32 file are not read"),
        ("decoy", decoy, "is read by nothing"),
        ("no constant", of_zero, "weights of the FP32 file are not read"),
        ("extra layer", extra_layer, "weights are not in the FP32 file, first more.layer.weight"),
        ("further output", output_too, "inputs or outputs differ"),
        ("renamed output", renamed_output, "inputs or outputs differ"),
        ("unread tensor", unread, "stored spare.weight is read by nothing"),
    ),
    *at(
        INT8,
        ("scale of zero", other_scale(0.0, every=False), "has a scale of zero"),
        ("scales of zero", other_scale(0.0), "has a scale of zero"),
        ("scale not a number", other_scale(NAN, every=False), "has a scale that is not finite"),
        ("scale infinite", other_scale(INF, every=False), "has a scale that is not finite"),
        ("scales doubled", other_scale(2.0), "differs from the FP32 file by"),
        ("scales of the other sign", other_scale(-1.0), "differs from the FP32 file by"),
        ("four bits in eight", other_levels(lambda q: np.rint(q / 16) * 16), "differs from the FP32 file by"),
        ("seven bits in eight", other_levels(lambda q: np.rint(q / 2) * 2), "differs from the FP32 file by"),
        ("two bits in eight", other_levels(lambda q: np.sign(q) * 64), "differs from the FP32 file by"),
        ("levels of another model", other_levels(lambda q: q[::-1]), "differs from the FP32 file by"),
        ("swapped layers", swapped, "differs from the FP32 file by"),
        ("one scale for all", one_scale_for_all, "differs from the FP32 file by"),
        ("another axis", other_axis, "differs from the FP32 file by"),
        ("zero point", zero_point, "has a zero point"),
        ("restored weight through FP8", through(FP8, 1), "makes FLOAT8E4M3FN of FLOAT"),
        ("activation rounded", quantized_and_back(0, np.int8), "operators differ"),
        ("activation through INT32", through(TensorProto.INT32, 0), "operators differ from the FP32 file's: Cast to"),
        ("opset 18 on the label", opset(18), "tier int8 needs exactly 17"),
        ("opset 16 on the label", opset(16), "tier int8 needs exactly 17"),
        ("no opset", no_import, "imported 0 times"),
        ("function", as_function, "model-local function 'Linear'"),
        ("stored twice", twice, "stored twice"),
        ("weight is an input", as_input, "is an input too"),
        ("nodes of one name", same_names, "several nodes are called"),
        ("branch to nowhere", no_node, "nodes reach no output, first Relu"),
        ("annotation", annotated, "quantization annotation"),
        ("sparse weight", sparse, "sparse weight 'sparse_'"),
        ("numbers in an attribute", float_list, "holds its value in another form"),
        ("another attribute", attribute, "operators differ from the FP32 file's: ReduceMean"),
    ),
    *at(
        INT4,
        ("one bit in four", other_int4(lambda q: np.where(q < 0, -4, 4)), "differs from the FP32 file by"),
        ("three bits in four", other_int4(lambda q: np.clip(np.rint(q / 2) * 2, -8, 6)), "differs from the FP32 file"),
        ("levels of another model", other_int4(lambda q: q[::-1]), "differs from the FP32 file by"),
        ("scales of zero", other_scale(0.0, kind=TensorProto.INT4), "has a scale of zero"),
        ("blocks of 64", wide_blocks, "differs from the FP32 file by"),
        ("contributed operator", contributed, "domain com.microsoft is not standard"),
        ("opset 22 on the label", opset(22), "tier int4 needs exactly 21"),
        ("restored weight through BF16", through(TensorProto.BFLOAT16, 1), "makes BFLOAT16 of FLOAT16"),
    ),
    *at(
        VOICE,
        ("four bits in eight", other_levels(lambda q: np.rint(q / 16) * 16), "differs from the FP32 file by"),
        ("contributed operator", contributed, "domain com.microsoft is not standard"),
        ("removed", removed, "weights of the FP32 file are not read"),
    ),
]  # fmt: skip


def altered(path: Path, alteration: Alteration) -> None:
    """A component's file, changed in place; its data file is written anew if it has one."""
    model = load(path)
    alteration.change(model)
    beside, before = path.with_name(path.name + ".data").is_file(), path.read_bytes()
    content = model.SerializeToString()
    with contextlib.suppress(onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        save(model, path, weights_beside=beside)  # which checks what it has written
    if path.read_bytes() == before and not beside:
        path.write_bytes(content)
