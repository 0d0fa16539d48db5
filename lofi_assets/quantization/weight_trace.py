"""Which stored numbers an ONNX file computes with, and how few bits each passes on its way: read from the file alone.

Only what reaches an output counts. Every stored number is followed from its storage, through the few operators that may
stand between, to the node that computes with it; whatever else is found is a fault. Names, manifests and recipes are
not believed. `policy` judges what is found here, `weight_values` what the numbers are.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import onnx
from onnx import TensorProto

from lofi_assets.quantization.graph import BITS, attribute_of, elements

STORED_TYPES: Final = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT8, TensorProto.INT4})
"""Types that a weight may be stored in. BFLOAT16 is not half precision: it has 8 significant bits of 11; FP8 has 4."""
FLOATS: Final = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16})
INDICES: Final = frozenset({TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL})
"""Types of shapes, positions and masks."""
UNKNOWN: Final = 1
"""Bits of numbers that cannot be followed: none can be proven."""
LARGEST_INDEX: Final = 1024
"""Elements of a constant of integers; more of them could hold packed weights."""

ON_THE_WAY: Final = frozenset({"Cast", "Transpose", "DequantizeLinear"})
"""Operators between storage and reader: the only ones that may be applied to stored numbers alone."""

GONE_AT_17: Final = frozenset({"axes", "num_outputs", "noop_with_empty_axes", "antialias", "keep_aspect_ratio_policy"})
"""Attributes that `opset` adds or drops on the way to opset 17, which change nothing."""

LINEAR_OPS: Final = frozenset({"MatMul", "Gemm"})
WEIGHT_AT: Final = {"MatMul": 1, "Gemm": 1, "Conv": 1, "ConvTranspose": 1, "Gather": 0}
"""Operators of modules that have a weight, and which input it is."""

_STORED_SUFFIX = re.compile(r"_(q8|q4|f16)$")


@dataclass(frozen=True)
class Constant:
    """Stored numbers, and what is done to them alone."""

    tensor: onnx.TensorProto
    bits: int
    """The fewest that they pass, from storage on; 0 of indices."""
    type: int
    """As they are read."""
    steps: tuple[onnx.NodeProto, ...] = ()
    scale: onnx.TensorProto | None = None
    """By which integers are multiplied."""

    @property
    def name(self) -> str:
        """As the torch module names it: the suffix for its stored form is cut."""
        return _STORED_SUFFIX.sub("", self.tensor.name)


@dataclass(frozen=True)
class Weight:
    """A constant of float numbers at the node that computes with it."""

    name: str
    bits: int
    elements: int
    rank: int
    operator: str
    node: str
    position: int
    """Which input of the node it is."""
    constant: Constant

    @property
    def of_a_module(self) -> bool:
        """Whether it has the name of a module's parameter; the exporter's own constants have none."""
        return "." in self.name and "/" not in self.name

    @property
    def multiplied(self) -> bool:
        """Whether it is the weight of a linear layer, a convolution or a table."""
        return self.of_a_module and WEIGHT_AT.get(self.operator) == self.position


@dataclass(frozen=True)
class Trace:
    """What a file computes with."""

    weights: tuple[Weight, ...]
    operators: Mapping[str, int]
    """Operator with its attributes, as in 'Softmax(axis=-1)' -> how many nodes on the way to an output, without
    `ON_THE_WAY` over stored numbers. A cast to an index type is called after it ('Cast to INT64'): it rounds, while one
    between float types is 'Cast'."""
    domains: frozenset[str]
    """Domains of the nodes, the default one as 'ai.onnx'."""
    faults: tuple[str, ...]
    """Where precision could be lost unseen, and what reaches no output."""


def trace(model: onnx.ModelProto) -> Trace:
    """Follow every stored number of the model; external data need not be loaded."""
    graph = model.graph
    walker = _Walker(graph)
    for kind, found in (
        ("model-local function", [function.name for function in model.functions]),
        ("training graph", ["" for _ in model.training_info]),
        ("sparse weight", [tensor.values.name for tensor in graph.sparse_initializer]),
        ("quantization annotation", [entry.tensor_name for entry in graph.quantization_annotation]),
    ):
        walker.faults += [f"{kind} {name!r}, which the proof does not read" for name in found]
    walker.walk()
    return Trace(tuple(walker.weights), walker.operators, frozenset(walker.domains), tuple(walker.faults))


def reached(graph: onnx.GraphProto) -> set[str]:
    """Names of the values that an output is computed from."""
    makers = {name: node for node in graph.node for name in node.output if name}
    waiting, names = [output.name for output in graph.output], set[str]()
    while waiting:
        name = waiting.pop()
        if name and name not in names:
            names.add(name)
            waiting += makers[name].input if name in makers else []
    return names


@dataclass
class _Walker:
    """Accumulates over the nodes of a graph."""

    graph: onnx.GraphProto
    weights: list[Weight] = field(default_factory=list)
    operators: Counter[str] = field(default_factory=Counter)
    domains: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)
    known: dict[str, Constant] = field(default_factory=dict)

    def walk(self) -> None:
        names = reached(self.graph)
        self._initializers(names)
        unread = [node for node in self.graph.node if not names & set(node.output)]
        if unread:
            self.faults.append(f"{len(unread)} nodes reach no output, first {_called(unread[0])}")
        self.domains |= {node.domain or "ai.onnx" for node in self.graph.node}
        for node in self.graph.node:
            if any(attribute.graphs or attribute.HasField("g") for attribute in node.attribute):
                self.faults.append(f"{_called(node)} has a graph of its own, which the proof does not read")
            self._visit(node)

    def _initializers(self, names: set[str]) -> None:
        given = {value.name for value in self.graph.input}
        for tensor in self.graph.initializer:
            if tensor.name not in names:
                self.faults.append(f"stored {tensor.name} is read by nothing")
            if tensor.name in given:
                self.faults.append(f"weight {tensor.name} is an input too, so that a caller can replace it")
            if tensor.name in self.known:
                self.faults.append(f"{tensor.name} is stored twice")
            self.known[tensor.name] = self._stored(tensor)

    def _stored(self, tensor: onnx.TensorProto) -> Constant:
        kind = tensor.data_type
        if kind in INDICES:
            if elements(tensor) > LARGEST_INDEX:
                self.faults.append(f"{tensor.name} holds {elements(tensor)} integers, which could be packed weights")
            return Constant(tensor, 0, kind)
        if kind not in STORED_TYPES:
            self.faults.append(f"{tensor.name} is stored as {_type(kind)}, which no tier uses")
            return Constant(tensor, UNKNOWN, kind)
        return Constant(tensor, BITS[kind], kind)

    def _visit(self, node: onnx.NodeProto) -> None:
        if node.op_type == "Constant":
            value = attribute_of(node, "value")
            if isinstance(value, TensorProto):
                named = TensorProto()
                named.CopyFrom(value)
                named.name = node.output[0]
                self.known[node.output[0]] = self._stored(named)
                if value.data_location == TensorProto.EXTERNAL:
                    self.faults.append(f"{_called(node)} has its value in a data file")
            else:
                self.faults.append(f"{_called(node)} holds its value in another form than a tensor")
            return
        inputs = [name for name in node.input if name]
        if inputs and all(name in self.known for name in inputs):
            self._on_the_way(node)
            return
        self._count(node)
        for position, name in enumerate(node.input):
            if (constant := self.known.get(name)) is not None:
                self._use(node, position, constant)

    def _count(self, node: onnx.NodeProto) -> None:
        kind = attribute_of(node, "to") if node.op_type == "Cast" else None
        if kind is not None and kind not in FLOATS | INDICES:
            self.faults.append(f"{_called(node)} rounds to {_type(kind)}")
        self.operators["Cast" if kind in FLOATS else f"Cast to {_type(kind)}" if kind else _form(node)] += 1
        if attribute_of(node, "stash_type", TensorProto.FLOAT) != TensorProto.FLOAT:
            self.faults.append(f"{_called(node)} sums in {_type(attribute_of(node, 'stash_type'))}")

    def _on_the_way(self, node: onnx.NodeProto) -> None:
        """Applied to stored numbers alone."""
        first = self.known[node.input[0]]
        kind, bits, scale = first.type, first.bits, first.scale
        if node.op_type not in ON_THE_WAY:
            self.faults.append(f"{_called(node)} changes stored {first.name}: only {', '.join(sorted(ON_THE_WAY))} may")
            bits = UNKNOWN
        if node.op_type == "Cast":
            to = attribute_of(node, "to")
            kind = to if isinstance(to, int) else TensorProto.UNDEFINED
            if first.type not in FLOATS or kind not in FLOATS:
                self.faults.append(f"{_called(node)} makes {_type(kind)} of {_type(first.type)} {first.name}")
            bits = min(bits, BITS[kind] if kind in FLOATS else UNKNOWN)
        elif node.op_type == "DequantizeLinear":
            kind, scale = self._scale(node, first)
        for name in node.output:
            self.known[name] = Constant(first.tensor, bits, kind, (*first.steps, node), scale)

    def _scale(self, node: onnx.NodeProto, first: Constant) -> tuple[int, onnx.TensorProto | None]:
        if first.steps or first.type not in (TensorProto.INT8, TensorProto.INT4):
            self.faults.append(f"{_called(node)} reads {_type(first.type)} {first.name}, not integers as stored")
        if len([name for name in node.input if name]) > 2:
            self.faults.append(f"{_called(node)} has a zero point; weights are symmetric in every tier")
        scale = self.known[node.input[1]]
        if scale.steps or scale.type not in FLOATS:
            self.faults.append(f"{_called(node)} has a scale that is not stored in float")
        return scale.type, scale.tensor

    def _use(self, node: onnx.NodeProto, position: int, constant: Constant) -> None:
        if constant.type in INDICES:
            return
        if constant.type not in FLOATS:
            self.faults.append(f"{_called(node)} takes the {_type(constant.type)} of {constant.name} apart")
        size, rank = elements(constant.tensor), len(constant.tensor.dims)
        self.weights.append(
            Weight(constant.name, constant.bits, size, rank, node.op_type, node.name, position, constant)
        )


def _form(node: onnx.NodeProto) -> str:
    told = {attribute.name: attribute_of(node, attribute.name) for attribute in node.attribute}
    kept = [f"{name}={value}" for name, value in sorted(told.items()) if name not in GONE_AT_17]
    return f"{node.op_type}({', '.join(kept)})" if kept else node.op_type


def _called(node: onnx.NodeProto) -> str:
    return f"{node.op_type} {node.name!r}"


def _type(kind: object) -> str:
    known = isinstance(kind, int) and kind in TensorProto.DataType.values()
    return TensorProto.DataType.Name(kind) if known else f"type {kind}"
