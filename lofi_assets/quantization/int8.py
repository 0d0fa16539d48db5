"""INT8 weights: symmetric, one scale per output channel, activations left in float (tier 2, and the floor parts of
tier 3).

Standard DequantizeLinear, so any runtime at opset 13 and later reads it. Weight-only keeps 5 dB more signal than
dynamic activations did on a real-size block (facts: 43.5 against 38.1 dB) and needs no calibration.
"""

from collections.abc import Callable

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from lofi_assets.quantization.weights import (
    LinearWeight,
    Stored,
    linear_weights,
    numpy_float,
    relative_error,
    replace_weights,
    weight_array,
)

LARGEST = 127


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


def quantize_int8(model: onnx.ModelProto, *, wanted: Callable[[str], bool]) -> list[Stored]:
    """Quantize, in place, the linear weights of the modules that `wanted` accepts by name; returns what was done.

    A float16 graph needs opset 19 or later: DequantizeLinear gives float32 only before that.
    """
    chosen = [weight for weight in linear_weights(model) if wanted(weight.module)]
    stored, tensors, nodes = [], [], []
    for linear in chosen:
        weight = weight_array(model, linear.name)
        levels, scale = quantize_channels(
            weight, reduce_axis=linear.reduce_axis, scale_type=numpy_float(linear.float_type)
        )
        tensors += [
            numpy_helper.from_array(levels, f"{linear.name}_q8"),
            numpy_helper.from_array(scale, f"{linear.name}_scale"),
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
