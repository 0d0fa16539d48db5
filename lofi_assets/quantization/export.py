"""From torch modules to ONNX: a component exported once in float32 and once in half precision, at opset 18.

Weights stay in the files that they were loaded from, half precision in files of its own, and numbers go from there to a
spool tensor by tensor: an export takes the memory of its largest tensor, whatever the size of the model.

Half precision is exported from the `.half()` module, so that sums which the model takes in float32 stay in float32; a
converter run over a float32 graph cannot know of them. What does not belong here: which components there are
(`backbones/`), opsets other than the exporter's own (`opset`), fewer bits (`int8`, `int4`).
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import Any, Literal
from unittest.mock import patch

import onnx
import onnx_ir as ir
import torch
from onnxscript.rewriter.rules.common import slice_split_rule
from torch.fx import Interpreter, Node
from torch.onnx._internal.exporter import _fx_passes, _registration
from torch.onnx._internal.fx.passes import type_promotion

from lofi_assets.backbones.export import Exportable
from lofi_assets.errors import LofiError
from lofi_assets.quantization.decompositions import decompose
from lofi_assets.quantization.graph import GraphError, opset_of
from lofi_assets.quantization.half_range import keep_in_float
from lofi_assets.quantization.mapped import halve
from lofi_assets.quantization.spool import LARGE, Spool
from lofi_assets.quantization.stable_names import give_stable_names

EXPORT_OPSET = 18
_FROM_TORCHLIB = _registration.ONNXRegistry.from_torchlib

Precision = Literal["float32", "half"]


class ExportError(LofiError, RuntimeError):
    """A component that could not be exported as asked; the message says which and why."""


def export(
    exportable: Exportable, *, precision: Precision, islands: Sequence[str] = (), spool: Spool | None = None
) -> onnx.ModelProto:
    """The component as an ONNX model at opset 18 with stable names.

    For `half`, the module is converted in place and stays so.

    Args:
        islands: modules that stay in float32 in half precision (`half_range`).
        spool: takes the numbers; without it they are in the model, which ends at 2 GB.

    Raises:
        ExportError: the exporter returned another opset than asked for.
        GraphError: names clash.
    """
    module = exportable.module
    if precision == "half":
        halve(module, kept_in_float=exportable.kept_in_float, folder=spool.folder if spool else None)
        keep_in_float(module, islands)
    arguments = tuple(exportable.inputs.values())
    # Torch's cache of what operators answer costs more here than it spares: a fifth of the time, with free dimensions.
    with (
        torch.no_grad(),
        _quiet(),
        _faster(),
        torch._dynamo.config.patch(fake_tensor_cache_enabled=False),
    ):
        program = torch.onnx.export(
            module,
            arguments,
            dynamo=True,
            opset_version=EXPORT_OPSET,
            input_names=list(exportable.inputs),
            output_names=list(exportable.outputs),
            dynamic_shapes=exportable.free,
            verbose=False,
        )
    if program is None:
        raise ExportError("the exporter returned no program")
    if spool is not None:
        _spool(program.model.graph, spool)
    proto = program.model_proto
    if opset_of(proto) != EXPORT_OPSET:
        raise ExportError(f"asked for opset {EXPORT_OPSET}, the exporter returned {opset_of(proto)}")
    if proto.functions:
        raise GraphError(f"{len(proto.functions)} functions were not inlined; the passes read one graph only")
    give_stable_names(proto, wrapper="model")
    return proto


def _spool(graph: ir.Graph, spool: Spool) -> None:
    """Move the large numbers of a graph to disk; a transposed weight is until then a view of the weight."""
    for value in graph.initializers.values():
        tensor = value.const_value
        if tensor is None or tensor.nbytes < LARGE:
            continue
        path, offset, length = spool.append(tensor.tobytes())
        value.const_value = ir.ExternalTensor(
            path, offset, length, tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), name=tensor.name or ""
        )


@contextlib.contextmanager
def _faster() -> Iterator[None]:
    """Four steps of the exporter done once, or only where they change something; the graph is the same."""
    with (
        patch.object(type_promotion._TypePromotionInterpreter, "run_node", _promoted),
        patch.object(_fx_passes, "decompose_with_registry", decompose),
        patch.object(_registration.ONNXRegistry, "from_torchlib", staticmethod(_translations)),
        patch.object(slice_split_rule, "try_rewrite", partial(_at_slices, slice_split_rule.try_rewrite)),
    ):
        yield


def _promoted(interpreter: type_promotion._TypePromotionInterpreter, node: Node) -> Any:
    """A node whose arguments have one type, after those of another were cast, and its value.

    The exporter computes all values of the graph anew for the few nodes that need a cast: a fifth of the time. A cast
    changes no value after it: what a node returns keeps its type.
    """
    if node.op != "call_function":
        return Interpreter.run_node(interpreter, node)
    with interpreter._set_current_node(node):
        if rule := type_promotion.get_type_promotion_rule(node, interpreter.type_promotion_table):
            interpreter._maybe_promote_node(node, rule)
    return node.meta["val"] if "val" in node.meta else Interpreter.run_node(interpreter, node)


@cache
def _translations(opset_version: int) -> _registration.ONNXRegistry:
    """The exporter reads the source of its 700 translations at each export: 2 s."""
    return _FROM_TORCHLIB(opset_version=opset_version)


def _at_slices(rewrite: Callable[..., Any], model: ir.Model, graph: ir.Graph, node: ir.Node, **options: Any) -> Any:
    """The exporter's rule for pairs of `Slice` nodes reads the whole graph at every node, whatever it is: a quarter of
    the time of a transformer. Asked at slices alone, where it can apply, it answers the same."""
    return rewrite(model, graph, node, **options) if node.op_type == "Slice" else None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's notes on axis names and missing torchvision say nothing that the caller can act on."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
