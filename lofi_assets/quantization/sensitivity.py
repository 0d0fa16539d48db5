"""What each linear layer costs when it alone loses bits, and which of them INT4 spares for it.

One session of FP32's graph answers throughout. The weights are inputs with a default, so that a run may be given
another for one of them: no graph is written, no session made anew, and one tensor is held beside the model. Runs
without torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from lofi_assets.backbones.export import ExportLayout, Probe
from lofi_assets.quantization.finite import session_of
from lofi_assets.quantization.graph import load, open_graph
from lofi_assets.quantization.int4 import quantize_blocks, restore_blocks
from lofi_assets.quantization.int8 import quantize_channels
from lofi_assets.quantization.linear_weights import LinearWeight, linear_weights, weight_array
from lofi_assets.quantization.sensitivity_report import error_share
from lofi_assets.quantization.signal_to_noise import decibel
from lofi_assets.quantization.tier_manifest import LayerLoss

SPARED_SHARE: Final = 0.26
"""Most of the blocks' weights that INT4 stores in 8 bits."""


def layer_losses(path: Path, probes: Sequence[Probe], layout: ExportLayout) -> list[LayerLoss]:
    """Every linear layer of the denoiser's blocks, in the order of the graph, in 4 and in 8 bits by itself.

    Args:
        path: FP32's file of the denoiser.
        probes: of those of the denoiser, the first and the last are asked: its first and its last noise level.
    Raises:
        ValueError: none of them is of the denoiser.
    """
    calls = [probe.inputs for probe in probes if probe.component == layout.denoiser]
    if not calls:
        raise ValueError(f"no call of {layout.denoiser} to measure its layers with")
    calls = [calls[0], calls[-1]]
    model = open_graph(path)
    layers = [linear for linear in linear_weights(model) if re.match(layout.block, linear.module)]
    session = _replaceable(path, layers)
    expected = [_answer(session, inputs) for inputs in calls]
    signal = sum(float(np.square(answer).sum()) for answer in expected)
    found = []
    for linear in layers:
        weight, noise = weight_array(model, linear.name), dict.fromkeys((4, 8), 0.0)
        for bits, restored in _restored(linear, weight):
            for inputs, answer in zip(calls, expected, strict=True):
                noise[bits] += float(np.square(_answer(session, {**inputs, linear.name: restored}) - answer).sum())
        four, eight = (decibel(signal, noise[bits]) for bits in (4, 8))
        found.append(LayerLoss(linear.module, weight.size, four, eight))
    return found


def _replaceable(path: Path, layers: Sequence[LinearWeight]) -> onnxruntime.InferenceSession:
    """A session whose runs may replace these weights; the others are constants."""
    model = load(path, weights=False)
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    model.graph.input.extend(
        onnx.helper.make_tensor_value_info(linear.name, linear.float_type, shapes[linear.name]) for linear in layers
    )
    return session_of(model, path.parent, optimized=True)


def _answer(session: onnxruntime.InferenceSession, inputs: dict[str, NDArray[Any]]) -> NDArray[np.float64]:
    answer: NDArray[np.float64] = session.run(None, inputs)[0].astype(np.float64)
    return answer


def _restored(linear: LinearWeight, weight: NDArray[np.float32]) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Bits, and what the weight is after it was stored in so many as the tiers store it."""
    by_rows = weight if linear.reduce_axis == 0 else np.ascontiguousarray(weight.T)
    four = restore_blocks(*quantize_blocks(by_rows))
    yield 4, np.ascontiguousarray(four if linear.reduce_axis == 0 else four.T).astype(np.float32)
    levels, scale = quantize_channels(weight, reduce_axis=linear.reduce_axis)
    shape = (1, -1) if linear.reduce_axis == 0 else (-1, 1)
    yield 8, (levels * scale.astype(np.float32).reshape(shape)).astype(np.float32)


def spared(losses: Sequence[LayerLoss], *, share: float = SPARED_SHARE) -> tuple[str, ...]:
    """The layers that are worth 8 bits: those whose error falls most for each weight that takes more, until a share of
    all weights is spent. What does not fit is passed over for what does."""
    left = share * sum(loss.elements for loss in losses)
    chosen = []
    for loss in sorted(losses, key=_gain, reverse=True):
        if loss.elements <= left:
            left -= loss.elements
            chosen.append(loss.layer)
    return tuple(sorted(chosen))


def _gain(loss: LayerLoss) -> tuple[float, str]:
    """By how much the error falls for each weight that takes 8 bits in place of 4; then the name, so that none tie."""
    return (error_share(loss.snr_db_4) - error_share(loss.snr_db_8)) / loss.elements, loss.layer
