"""Whether a tier's files answer with numbers at inputs larger than any seen, with ONNX Runtime's optimizations on, and
off with every value in half precision looked at.

On a CPU ONNX Runtime computes half precision in float32, and leaves values between two such nodes in float32 even with
its optimizations off: an overflow shows only where a value is asked for. So each is, as an output of the graph. Runs
without torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from lofi_assets.backbones.export import Probe
from lofi_assets.lofi_onnx.pipeline import session_options
from lofi_assets.quantization.graph import load

BESIDE = "session.model_external_initializers_file_folder_path"
"""Session option: where a graph that is not read from a file has its external data."""


def not_finite(
    folder: Path, files: Mapping[str, str], stress: Sequence[Probe], *, masked: Sequence[str] = ()
) -> tuple[str, ...]:
    """Each file and level with an answer that is no number, as 'dcae_decoder (off)'; empty if all are finite.

    Args:
        files: file's name without its ending -> the component whose inputs it gets.
        masked: components that attend to part of their input: between their nodes, minus infinity is a mask. An
            overflow to it ends in an answer, or another value, that is no number.
    Raises:
        ValueError: a component has no inputs, so that nothing would be asked of it.
    """
    found = []
    for name, component in files.items():
        asked = [probe for probe in stress if probe.component == component]
        if not asked:
            raise ValueError(f"no inputs for {component}: {name} cannot be said to be finite")
        path = folder / f"{name}.onnx"
        graphs = {"off": every_half_value(path), "on": load(path, weights=False)}
        own = len(graphs["on"].graph.output)
        for level, graph in graphs.items():
            values = own if component in masked else None
            if not _all_numbers(graph, folder, asked, optimized=level == "on", unmasked=values):
                found.append(f"{name} ({level})")
    return tuple(found)


def _all_numbers(
    graph: onnx.ModelProto, folder: Path, asked: Sequence[Probe], *, optimized: bool, unmasked: int | None
) -> bool:
    """Whether every output is a number; from the output `unmasked` on, one may be a mask. Its session ends here: two of
    the real transformer hold 20 GB."""
    session = session_of(graph, folder, optimized=optimized)
    return all(
        _numbers(answer, mask=unmasked is not None and index >= unmasked)
        for probe in asked
        for index, answer in enumerate(session.run(None, probe.inputs))
    )


def _numbers(answer: NDArray[Any], *, mask: bool) -> bool:
    return bool((np.isfinite(answer) | (np.isneginf(answer) if mask else False)).all())


def every_half_value(path: Path) -> onnx.ModelProto:
    """The graph of a file with each value in half precision that depends on an input as a further output.

    Raises:
        ValueError: the type of a value is not known.
    """
    model = load(path, weights=False)
    graph = onnx.shape_inference.infer_shapes(model).graph
    types = {value.name: value.type.tensor_type.elem_type for value in [*graph.value_info, *graph.output]}
    depending = {value.name for value in graph.input}
    outputs = {value.name for value in graph.output}
    for node in graph.node:
        if not depending & set(node.input):
            continue
        for name in filter(None, node.output):
            depending.add(name)
            if not types.get(name):
                raise ValueError(f"{path}: the type of {name} is not known, so it could overflow unseen")
            if types[name] == onnx.TensorProto.FLOAT16 and name not in outputs:
                model.graph.output.append(onnx.helper.make_tensor_value_info(name, types[name], None))
    return model


def session_of(model: onnx.ModelProto, folder: Path, *, optimized: bool) -> onnxruntime.InferenceSession:
    """A session of a graph that is not read from a file.

    Args:
        folder: where its data files are.
    """
    levels = onnxruntime.GraphOptimizationLevel
    options = session_options()
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimized else levels.ORT_DISABLE_ALL
    options.log_severity_level = 3
    options.add_session_config_entry(BESIDE, str(folder))
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
