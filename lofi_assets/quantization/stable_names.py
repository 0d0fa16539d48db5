"""Names that survive: nodes and weights of an exported graph called after the torch modules they came from.

The exporter numbers nodes anew on each export and calls folded weights `val_149`. Precision is decided and proven by
name, so every weight gets its module's name before anything is quantized.
"""

import ast
import re
from collections import Counter

import onnx

from lofi_assets.quantization.graph import BITS, WEIGHTED, GraphError, all_graphs

SCOPES = "pkg.torch.onnx.name_scopes"
_ANONYMOUS = re.compile(r"^[a-z_]+(_\d+)?$")


def give_stable_names(model: onnx.ModelProto, *, wrapper: str) -> None:
    """Rename nodes and initializers in place to module names; drop the exporter's traces from the file.

    A linear layer's node is called `transformer_blocks.0.attn.to_q`, its weight
    `transformer_blocks.0.attn.to_q.weight`, also where the exporter had folded a transpose into it. Other nodes are
    `<module>/<operator>_<n>`, other float constants `<module>/constant_<n>`.

    Args:
        wrapper: name of the attribute through which the exported module held the model; cut from every name.
    Raises:
        GraphError: two weights would get one name.
    """
    graph = model.graph
    cut = wrapper + "."
    scopes = [_module_of(node, cut) for node in graph.node]
    renamed = {tensor.name: tensor.name.removeprefix(cut) for tensor in graph.initializer}
    floats = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type in BITS}
    counts: Counter[str] = Counter()
    taken: set[str] = set()
    for node, scope in zip(graph.node, scopes, strict=True):
        constants = [name for name in node.input if name in floats]
        for name in constants:
            if "." in renamed[name] or not _ANONYMOUS.match(name):
                continue
            is_weight = node.op_type in WEIGHTED and scope and len(floats[name].dims) >= 2
            renamed[name] = f"{scope}.weight" if is_weight else _numbered(f"{scope}/constant", counts)
        weighted = node.op_type in WEIGHTED and any(len(floats[name].dims) >= 2 for name in constants)
        wanted = scope if weighted and scope and scope not in taken else _numbered(f"{scope}/{node.op_type}", counts)
        taken.add(wanted)
        node.name = wanted
    _apply(model, renamed)


def _module_of(node: onnx.NodeProto, cut: str) -> str:
    for entry in node.metadata_props:
        if entry.key == SCOPES:
            modules = ast.literal_eval(entry.value)[:-1]
            return str(modules[-1]).removeprefix(cut) if modules else ""
    return ""


def _numbered(stem: str, counts: Counter[str]) -> str:
    counts[stem] += 1
    return f"{stem}_{counts[stem]}"


def _apply(model: onnx.ModelProto, renamed: dict[str, str]) -> None:
    repeated = [name for name, times in Counter(renamed.values()).items() if times > 1]
    if repeated:
        raise GraphError(
            f"several weights would be called {repeated[:3]}; a module that reads one weight twice needs two names"
        )
    outputs = {name for node in model.graph.node for name in node.output}
    if outputs & set(renamed.values()):
        raise GraphError(f"weight names {sorted(outputs & set(renamed.values()))[:3]} are also computed values")
    for graph in all_graphs(model.graph):
        for node in graph.node:
            for index, name in enumerate(node.input):
                node.input[index] = renamed.get(name, name)
            del node.metadata_props[:]
            node.doc_string = ""
        for value in [*graph.input, *graph.output, *graph.value_info]:
            del value.metadata_props[:]
            value.name = renamed.get(value.name, value.name)
        for tensor in graph.initializer:
            tensor.name = renamed.get(tensor.name, tensor.name)
            del tensor.metadata_props[:]
        del graph.metadata_props[:]
    del model.metadata_props[:]
