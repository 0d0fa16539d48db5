"""Moving a model between opsets: down to 17 for INT8, up to 21 for INT4 (constitution, Export Requirements).

`torch.onnx.export` builds at opset 18 and, asked for 17, returns 18 with a log line: its converter has no step down for
Split. The steps here are rewrites of nodes, or refusals; none of them changes a number.
"""

import onnx
from onnx import numpy_helper

from lofi_assets.quantization.graph import (
    GraphError,
    all_graphs,
    attribute_of,
    drop_attribute,
    drop_unused_initializers,
    opset_of,
    set_opset,
)

NEW_IN_18 = frozenset(
    {
        "BitwiseAnd",
        "BitwiseNot",
        "BitwiseOr",
        "BitwiseXor",
        "CenterCropPad",
        "Col2Im",
        "GroupNormalization",
        "LpPool",
        "Mish",
    }
)
"""Operators that 17 lacks or (LpPool) that gained arguments; exports of our components have none of them."""

AXES_BECAME_INPUT_IN_18 = frozenset(
    {
        "ReduceL1",
        "ReduceL2",
        "ReduceLogSum",
        "ReduceLogSumExp",
        "ReduceMax",
        "ReduceMean",
        "ReduceMin",
        "ReduceProd",
        "ReduceSumSquare",
    }
)

CHANGED_IN_19_TO_21 = frozenset({"DFT", "GridSample", "GroupNormalization"})
"""Operators whose meaning or signature changed between 18 and 21; every other one only took more types."""

IR_VERSION = {17: 8, 18: 8, 19: 9, 20: 9, 21: 10, 22: 10}


def lower_to_17(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of an opset 18 model that is valid opset 17 and computes the same, bit for bit.

    Raises:
        GraphError: the model is not opset 18, or a node has no equal form at 17.
    """
    _expect_18(model)
    lowered = onnx.ModelProto()
    lowered.CopyFrom(model)
    if lowered.functions:
        raise GraphError("model-local functions cannot be lowered; export with optimize=True, which inlines them")
    for graph in all_graphs(lowered.graph):
        for node in graph.node:
            if node.domain in ("", "ai.onnx"):
                _lower_node(node, graph, lowered.graph)
            del node.metadata_props[:]  # a field of IR 10
        del graph.metadata_props[:]
        for value in [*graph.input, *graph.output, *graph.value_info, *graph.initializer]:
            del value.metadata_props[:]
        del graph.value_info[:]
    drop_unused_initializers(lowered.graph)
    set_opset(lowered, 17)
    lowered.ir_version = IR_VERSION[17]
    return lowered


def raise_from_18(model: onnx.ModelProto, *, opset: int = 21) -> onnx.ModelProto:
    """A copy of an opset 18 model labelled with a later opset, up to 22; its nodes stay as they are.

    Raises:
        GraphError: the model is not opset 18, the target is unknown, or a node's meaning changed on the way.
    """
    _expect_18(model)
    if opset not in IR_VERSION or opset < 18:
        raise GraphError(f"opset {opset} is not one of {sorted(IR_VERSION)}, from 18 up")
    for graph in all_graphs(model.graph):
        for node in graph.node:
            if node.op_type in CHANGED_IN_19_TO_21:
                raise GraphError(f"{node.op_type} {node.name!r} changed after opset 18; export it at {opset} instead")
    raised = onnx.ModelProto()
    raised.CopyFrom(model)
    set_opset(raised, opset)
    raised.ir_version = max(raised.ir_version, IR_VERSION[opset])
    return raised


def _expect_18(model: onnx.ModelProto) -> None:
    found = opset_of(model)
    if found != 18:
        raise GraphError(f"expected a model at opset 18, found {found}; export at 18 and convert from there")


def _lower_node(node: onnx.NodeProto, graph: onnx.GraphProto, root: onnx.GraphProto) -> None:
    if node.op_type in NEW_IN_18:
        raise GraphError(f"{node.op_type} {node.name!r} does not exist at opset 17; rewrite the module that exports it")
    if node.op_type == "Split":
        _lower_split(node, graph)
    elif node.op_type in AXES_BECAME_INPUT_IN_18:
        _lower_reduction(node, graph, root)
    elif node.op_type == "Pad":
        _lower_pad(node)
    elif node.op_type == "Resize":
        _lower_resize(node)
    elif node.op_type in ("ScatterND", "ScatterElements") and attribute_of(node, "reduction") in (b"max", b"min"):
        raise GraphError(f"{node.op_type} {node.name!r} reduces with max or min, which opset 17 lacks")


def _lower_split(node: onnx.NodeProto, graph: onnx.GraphProto) -> None:
    """17 splits into as many equal parts as there are outputs; 18 may leave a smaller last part, which 17 cannot."""
    if attribute_of(node, "num_outputs") is None:
        return
    axis = attribute_of(node, "axis", 0)
    assert isinstance(axis, int)
    sizes = [_static_size(graph, name, axis) for name in node.output]
    if None in sizes or len(set(sizes)) != 1:
        raise GraphError(f"Split {node.name!r} has parts {sizes} on axis {axis}; opset 17 needs known, equal parts")
    drop_attribute(node, "num_outputs")


def _static_size(graph: onnx.GraphProto, name: str, axis: int) -> int | None:
    for value in [*graph.value_info, *graph.output]:
        if value.name == name:
            dims = value.type.tensor_type.shape.dim
            if -len(dims) <= axis < len(dims) and dims[axis].HasField("dim_value"):
                return int(dims[axis].dim_value)
    return None


def _lower_reduction(node: onnx.NodeProto, graph: onnx.GraphProto, root: onnx.GraphProto) -> None:
    axes_name = node.input[1] if len(node.input) > 1 else ""
    axes = _constant_ints(graph, root, axes_name) if axes_name else []
    if axes is None:
        raise GraphError(f"{node.op_type} {node.name!r} computes its axes; opset 17 needs them constant")
    if not axes and attribute_of(node, "noop_with_empty_axes", 0):
        raise GraphError(f"{node.op_type} {node.name!r} reduces nothing when it has no axes; opset 17 would reduce all")
    data = node.input[0]
    del node.input[:]
    node.input.append(data)
    drop_attribute(node, "noop_with_empty_axes")
    if axes:
        node.attribute.append(onnx.helper.make_attribute("axes", axes))


def _constant_ints(graph: onnx.GraphProto, root: onnx.GraphProto, name: str) -> list[int] | None:
    for owner in (graph, root):
        for tensor in owner.initializer:
            if tensor.name == name:
                return [int(value) for value in numpy_helper.to_array(tensor).reshape(-1)]
        for node in owner.node:
            if node.op_type == "Constant" and name in node.output:
                value = attribute_of(node, "value")
                if isinstance(value, onnx.TensorProto):
                    return [int(item) for item in numpy_helper.to_array(value).reshape(-1)]
                ints = attribute_of(node, "value_ints")
                return [int(item) for item in ints] if isinstance(ints, list) else None
    return None


def _lower_pad(node: onnx.NodeProto) -> None:
    if len(node.input) > 3 and node.input[3]:
        raise GraphError(f"Pad {node.name!r} names its axes; opset 17 pads all of them")
    del node.input[3:]


def _lower_resize(node: onnx.NodeProto) -> None:
    if attribute_of(node, "antialias", 0):
        raise GraphError(f"Resize {node.name!r} uses antialias, which opset 17 lacks")
    if attribute_of(node, "axes"):
        raise GraphError(f"Resize {node.name!r} names its axes; opset 17 resizes all of them")
    if attribute_of(node, "keep_aspect_ratio_policy", b"stretch") != b"stretch":
        raise GraphError(f"Resize {node.name!r} keeps the aspect ratio, which opset 17 lacks")
    drop_attribute(node, "antialias", "keep_aspect_ratio_policy")
