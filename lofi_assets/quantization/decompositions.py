"""The second step of an export, where it is needed: calls that ONNX has no translation for are taken apart in place.

torch's own second step (`ExportedProgram.run_decompositions`) traces the whole module again for the sake of a fifth of
its calls: half of the time of an export with free dimensions. Here each of those calls is traced by itself, and what it
consists of is put in its place. What does not belong here: the first trace and the translation (`export.py`).
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch._export.utils import _check_valid_to_preserve, _is_cia_op
from torch._guards import detect_fake_mode
from torch._ops import HigherOrderOperator, OpOverload
from torch.export import ExportedProgram
from torch.func import functionalize
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.node import map_arg
from torch.onnx._internal.exporter import _decomp, _fx_passes

from lofi_assets.errors import LofiError

LOG = logging.getLogger(__name__)

Table = dict[Any, Callable[..., Any]]
"""Operator -> what torch takes it apart into."""

traced_again = _fx_passes.decompose_with_registry
"""What torch does, for any program."""


class _NotAloneError(LofiError, ValueError):
    """A call that cannot be taken apart without the others; the message says why."""


@dataclass(frozen=True)
class _Parts:
    """What a call consists of."""

    module: GraphModule
    inputs: list[Node]
    """The call's arguments, in the order of the graph's."""


def decompose(program: ExportedProgram, registry: Any) -> ExportedProgram:
    """The program in operators that have a translation, changed in place; without its assertions, which ONNX has not.

    A program is traced again if a call cannot be taken apart alone: it writes into what something else may read, holds
    another program, or makes a size that depends on data.

    Args:
        registry: torch's `ONNXRegistry`, which knows what has a translation.
    """
    translated = set(_decomp.get_onnx_implemented_overloads(registry))
    table: Table = _decomp.create_onnx_friendly_decomposition_table(translated)
    functional = {target: made for target, made in table.items() if not target._schema.is_mutable}
    graph = program.graph_module.graph
    calls = [node for node in graph.nodes if isinstance(node.target, OpOverload)]
    asserts = {node for node in calls if not node.target._schema.returns and not node.target._schema.is_mutable}
    traced: dict[Hashable, GraphModule] = {}
    try:
        if any(isinstance(node.target, HigherOrderOperator) for node in graph.nodes):
            raise _NotAloneError("it holds other programs")
        parts = {
            node: _parts(node, functional, traced)
            for node in calls
            if node not in asserts and (node.target not in translated or _is_never_kept(node.target))
        }
    except _NotAloneError as reason:
        LOG.info("the whole module is traced again: %s", reason)
        return traced_again(program, registry)
    for node in asserts:
        graph.erase_node(node)
    replaced: dict[Node, Node] = {}
    for node, found in parts.items():
        inputs = [replaced.get(given, given) for given in found.inputs]
        replaced |= _replace(node, _inlined(node, found.module, inputs), program)
    _read_sizes_once(program.graph_module)
    graph.eliminate_dead_code()
    graph.lint()
    program.graph_module.recompile()
    return program


def _is_never_kept(target: OpOverload) -> bool:
    """Whether torch keeps no call of an operator: it writes into its argument, or may return it."""
    return target._schema.is_mutable or (_is_cia_op(target) and not _check_valid_to_preserve(target))


def _parts(node: Node, table: Table, traced: dict[Hashable, GraphModule]) -> _Parts:
    """What a call consists of; one like an earlier one, of another block, consists of the same."""
    if node.meta.get("unbacked_bindings"):
        raise _NotAloneError(f"{node} makes a size that depends on data")
    inputs = list(node.all_input_nodes)
    writes = node.target._schema.is_mutable  # type: ignore[union-attr]
    if writes and not _writes_unseen(node):
        raise _NotAloneError(f"{node} writes into a tensor that something else may read")

    alike = _call_of(node, inputs)
    if alike not in traced:
        traced[alike] = _traced(node, inputs, table, writes=writes)
    return _Parts(traced[alike], inputs)


def _call_of(node: Node, inputs: Sequence[Node]) -> Hashable:
    """What is called with what, but for the numbers in tensors."""
    places = {given: f"%{number}" for number, given in enumerate(inputs)}
    args, kwargs = (map_arg(given, places.__getitem__) for given in (node.args, node.kwargs))
    return node.target, repr(args), repr(kwargs), tuple(_form(given.meta["val"]) for given in inputs)


def _form(value: Any) -> Hashable:
    if not isinstance(value, torch.Tensor):
        return repr(value)
    return repr((value.dtype, value.device, value.layout, value.shape, value.stride(), value.storage_offset()))


def _traced(node: Node, inputs: Sequence[Node], table: Table, *, writes: bool) -> GraphModule:
    def call(*values: Any) -> Any:
        of_node = dict(zip(inputs, values, strict=True))
        args: Any = map_arg(node.args, of_node.__getitem__)
        kwargs: Any = map_arg(node.kwargs, of_node.__getitem__)
        return node.target(*((args[0].clone(), *args[1:]) if writes else args), **kwargs)  # type: ignore[operator]

    values = [given.meta["val"] for given in inputs]
    fake = detect_fake_mode(values)
    if fake is None:
        raise _NotAloneError(f"{node} takes no tensor")
    with fake, torch.no_grad():
        module = make_fx(call, decomposition_table=table)(*values)
        if any(isinstance(part.target, OpOverload) and part.target._schema.is_mutable for part in module.graph.nodes):
            module = make_fx(functionalize(module, remove="mutations"))(*values)
    if any(part.op == "get_attr" for part in module.graph.nodes):
        raise _NotAloneError(f"{node} brings constants of its own")
    return module


def _writes_unseen(node: Node) -> bool:
    """Whether a call writes into its first argument alone, a new tensor, and whoever else reads that has done so."""
    written = [at for at, argument in enumerate(node.target._schema.arguments) if argument.is_write]  # type: ignore[union-attr]
    into = node.args[0]
    if written != [0] or not isinstance(into, Node) or not _is_new(into):
        return False
    return all(user is node or (user < node and _is_new(user)) for user in into.users)


def _is_new(node: Node) -> bool:
    """Whether a call returns memory of its own, not that of an argument; or will, once it writes into a copy."""
    target = node.target
    if not isinstance(target, OpOverload):
        return False
    if _is_never_kept(target):
        return target._schema.is_mutable and _writes_unseen(node)
    return all(returned.alias_info is None for returned in target._schema.returns)


def _inlined(node: Node, parts: GraphModule, inputs: Sequence[Node]) -> Any:
    """Put the parts of a call in front of it; their result, a node or several."""
    arguments = iter(inputs)
    placed: dict[Node, Node] = {}
    result: Any = None
    with node.graph.inserting_before(node):
        for part in parts.graph.nodes:
            if part.op == "placeholder":
                placed[part] = next(arguments)
            elif part.op == "output":
                result = map_arg(part.args[0], placed.__getitem__)
            else:
                placed[part] = node.graph.node_copy(part, placed.__getitem__)
                placed[part].meta = {**node.meta, "val": part.meta["val"]}
    return result


def _replace(node: Node, result: Any, program: ExportedProgram) -> dict[Node, Node]:
    """Let whatever reads a call read the result instead; where it is several nodes, each by itself. Old node -> new."""
    replaced = {}
    if isinstance(result, Node):
        program.graph_signature.replace_all_uses(node.name, result.name)
        node.replace_all_uses_with(result)
        replaced[node] = result
    else:
        for picked in list(node.users):
            assert picked.target is operator.getitem
            replaced |= _replace(picked, result[picked.args[1]], program)
    node.graph.erase_node(node)
    return replaced


def _read_sizes_once(module: GraphModule) -> None:
    """Let each size be read where it is first: a call that was traced by itself reads those of its arguments again."""
    first: dict[Any, Node] = {}
    for node in module.graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, torch.SymInt) and node.op == "call_function":
            known = first.setdefault(value.node.expr, node)
            if known is not node:
                node.replace_all_uses_with(known)
