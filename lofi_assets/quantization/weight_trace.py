"""Which weights an ONNX file multiplies with, and in how many bits each is stored: read from the file alone.

Every constant is followed from where it is stored, through casts, transposes and dequantization, into nested graphs,
to the node that computes with it. Names, manifests and recipes are not believed. `policy` judges what is found here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import onnx

from lofi_assets.quantization.graph import BITS, FLOAT_TYPES, attribute_of, elements

QUANTIZED_OPS: Final = frozenset(
    {
        "DequantizeLinear",
        "QuantizeLinear",
        "DynamicQuantizeLinear",
        "MatMulInteger",
        "ConvInteger",
        "QLinearMatMul",
        "QLinearConv",
        "MatMulNBits",
        "GatherBlockQuantized",
    }
)
PACKED_OPS: Final = frozenset({"MatMulNBits", "GatherBlockQuantized"})
"""Contributed operators that keep several values in one UINT8: their `bits` attribute tells, the tensor's type does
not."""

FOLLOWED: Final = frozenset(
    {
        "Cast",
        "Transpose",
        "Reshape",
        "Identity",
        "Squeeze",
        "Unsqueeze",
        "Slice",
        "Flatten",
        "Expand",
        "DequantizeLinear",
        "QuantizeLinear",
    }
)
"""Operators whose result is their first input in another form."""

READS_INTEGERS: Final = FOLLOWED | QUANTIZED_OPS | {"Gather", "Concat", "Split"}

WEIGHT_INPUTS: Final = {
    "MatMulInteger": (0, 1),
    "ConvInteger": (0, 1),
    "QLinearMatMul": (0, 3),
    "QLinearConv": (0, 3, 8),
    "MatMulNBits": (0, 1),
    "GatherBlockQuantized": (0,),
}
"""Of operators that also take scales and zero points: the inputs that are data."""

LINEAR_OPS: Final = frozenset({"MatMul", "Gemm", "MatMulInteger", "QLinearMatMul", "MatMulNBits"})

_STORED_SUFFIX = re.compile(r"_(q8|q4|f16)$")


@dataclass(frozen=True)
class Weight:
    """A stored constant of a type that can hold weights, at the node that computes with it."""

    name: str
    """As the torch module names it: the suffix for its stored form is cut."""
    bits: int
    elements: int
    rank: int
    integer: bool
    operator: str = ""


@dataclass(frozen=True)
class Trace:
    """What a file computes with."""

    weights: tuple[Weight, ...]
    operators: frozenset[str]
    domains: frozenset[str]
    """Domains of the nodes, the default one as 'ai.onnx'."""
    unreadable: tuple[str, ...]
    """Places where bits could hide: an operator takes integers apart, or a function wraps nodes."""


def trace(model: onnx.ModelProto) -> Trace:
    """Follow every constant of the model; external data need not be loaded."""
    walker = _Walker()
    walker.walk(model.graph, {})
    unreadable = [*walker.unreadable, *(f"model-local function {function.name}" for function in model.functions)]
    return Trace(
        tuple(walker.weights.values()), frozenset(walker.operators), frozenset(walker.domains), tuple(unreadable)
    )


Known = dict[str, tuple[Weight, ...]]
"""Values known to be constant, with the weights that they derive from (none for shapes and indices)."""


class _Walker:
    """Accumulates over a graph and the graphs nested in it."""

    def __init__(self) -> None:
        self.weights: dict[tuple[str, int, str], Weight] = {}
        self.operators: set[str] = set()
        self.domains: set[str] = set()
        self.unreadable: list[str] = []

    def walk(self, graph: onnx.GraphProto, outer: Known) -> None:
        known = dict(outer)
        for tensor in graph.initializer:
            known[tensor.name] = _sources(tensor, tensor.name)
        for node in graph.node:
            self.operators.add(node.op_type)
            self.domains.add(node.domain or "ai.onnx")
            self._visit(node, known)
            for attribute in node.attribute:
                for nested in [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]:
                    self.walk(nested, known)

    def _visit(self, node: onnx.NodeProto, known: Known) -> None:
        if node.op_type == "Constant":
            known[node.output[0]] = tuple(_constant(node))
            return
        inputs = [name for name in node.input if name]
        integers = [weight.name for name in inputs for weight in known.get(name, ()) if weight.integer]
        if integers and node.op_type not in READS_INTEGERS:
            self.unreadable.append(f"{node.op_type} {node.name!r} takes the integers of {integers[0]} apart")
        if node.op_type in FOLLOWED and inputs and inputs[0] in known:
            known[node.output[0]] = _rewritten(node, known)
        elif inputs and node.op_type not in QUANTIZED_OPS and all(name in known for name in inputs):
            union = tuple(weight for name in inputs for weight in known[name])
            known.update(dict.fromkeys(node.output, union))
        else:
            self._use(node, known)

    def _use(self, node: onnx.NodeProto, known: Known) -> None:
        positions = WEIGHT_INPUTS.get(node.op_type, range(len(node.input)))
        for position in positions:
            if position >= len(node.input):
                continue
            for weight in known.get(node.input[position], ()):
                used = replace(_unpacked(node, weight), operator=node.op_type)
                self.weights.setdefault((used.name, used.bits, used.operator), used)


def _sources(tensor: onnx.TensorProto, name: str) -> tuple[Weight, ...]:
    if tensor.data_type not in BITS:
        return ()
    integer = tensor.data_type not in FLOAT_TYPES
    shape = (BITS[tensor.data_type], elements(tensor), len(tensor.dims), integer)
    return (Weight(_STORED_SUFFIX.sub("", name), *shape),)


def _constant(node: onnx.NodeProto) -> Iterator[Weight]:
    value = attribute_of(node, "value")
    if isinstance(value, onnx.TensorProto):
        yield from _sources(value, node.output[0])
    for name in ("value_float", "value_floats"):
        number = attribute_of(node, name)
        if number is not None:
            yield Weight(node.output[0], 32, len(number) if isinstance(number, list) else 1, 0, False)


def _rewritten(node: onnx.NodeProto, known: Known) -> tuple[Weight, ...]:
    """Dequantized integers are numbers again; their bits stay what they were stored in. Rounding leaves fewer."""
    weights = known[node.input[0]]
    if node.op_type == "DequantizeLinear":
        return tuple(replace(weight, integer=False) for weight in weights)
    if node.op_type == "QuantizeLinear":
        zero = known.get(node.input[2], ()) if len(node.input) > 2 else ()
        bits = min((weight.bits for weight in zero), default=8)
        return tuple(replace(weight, integer=True, bits=min(weight.bits, bits)) for weight in weights)
    return weights


def _unpacked(node: onnx.NodeProto, weight: Weight) -> Weight:
    if node.op_type not in PACKED_OPS or not weight.integer:
        return weight
    bits = attribute_of(node, "bits", 4)
    assert isinstance(bits, int)
    return replace(weight, bits=bits, elements=weight.elements * 8 // bits, rank=2)
