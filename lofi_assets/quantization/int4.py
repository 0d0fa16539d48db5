"""INT4 weights: symmetric, one scale per block of 32 input features (tier 3), in standard operators of opset 21.

DequantizeLinear with `block_size` over packed INT4 tensors, which ONNX Runtime fuses into its own 4-bit product on
load; no contributed operator is needed, so other runtimes read the file too.
"""

from collections.abc import Callable

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from lofi_assets.quantization.linear_weights import (
    LinearWeight,
    Stored,
    linear_weights,
    numpy_float,
    relative_error,
    replace_weights,
    weight_array,
)
from lofi_assets.quantization.spool import Spool, keep

BLOCK = 32
LOWEST, HIGHEST = -8, 7
SHRINK = (1.0, 0.95, 0.9, 0.85, 0.8)
"""Scales tried per block, as shares of the full range: clipping the one largest value often costs less than coarse
steps."""


def quantize_blocks(
    weight: NDArray[np.float32], *, block: int = BLOCK, scale_type: type[np.float32] | type[np.float16] = np.float16
) -> tuple[NDArray[np.int8], NDArray[np.floating]]:
    """Round a (K, N) weight to integers in [-8, 7], with one scale for each `block` rows of a column.

    The value of largest magnitude is given the level -8, so its sign is the scale's (negative scales are meant), and
    the scale with the least squared error out of a few is taken, judged after rounding to `scale_type`.

    Returns:
        The integers (K, N) and the scales (ceil(K / block), N); the last block may be short.
    """
    rows, columns = weight.shape
    blocks = -(-rows // block)
    padded = np.zeros((blocks * block, columns), np.float32)
    padded[:rows] = weight
    grouped = padded.reshape(blocks, block, columns)
    peak = np.take_along_axis(grouped, np.abs(grouped).argmax(axis=1)[:, None], axis=1)
    best_scale = np.ones((blocks, 1, columns), scale_type)
    best_levels = np.zeros(grouped.shape, np.int8)
    best_error = np.full((blocks, 1, columns), np.inf, np.float32)
    for share in SHRINK:
        scale = (peak * share / LOWEST).astype(scale_type)
        scale[scale == 0] = 1
        levels = np.clip(np.rint(grouped / scale.astype(np.float32)), LOWEST, HIGHEST)
        error = np.square(levels * scale.astype(np.float32) - grouped).sum(axis=1, keepdims=True)
        better = error < best_error
        best_scale = np.where(better, scale, best_scale)
        best_levels = np.where(better, levels.astype(np.int8), best_levels)
        best_error = np.minimum(error, best_error)
    return best_levels.reshape(-1, columns)[:rows], best_scale[:, 0]


def restore_blocks(levels: NDArray[np.int8], scale: NDArray[np.floating], *, block: int = BLOCK) -> NDArray[np.float32]:
    """What DequantizeLinear computes from `quantize_blocks`."""
    return levels * np.repeat(scale.astype(np.float32), block, axis=0)[: len(levels)]


def pack_int4(levels: NDArray[np.int8], name: str) -> onnx.TensorProto:
    """An INT4 tensor, two values a byte, the first in the low half (ONNX 1.16 layout)."""
    flat = levels.reshape(-1).astype(np.int8) & 0x0F
    if flat.size % 2:
        flat = np.append(flat, np.int8(0))
    packed = (flat[0::2] | (flat[1::2] << 4)).astype(np.uint8)
    return helper.make_tensor(name, TensorProto.INT4, levels.shape, packed.tobytes(), raw=True)


def quantize_int4(model: onnx.ModelProto, *, wanted: Callable[[str], bool], spool: Spool | None = None) -> list[Stored]:
    """Quantize, in place, the linear weights of the modules that `wanted` accepts by name; returns what was done.

    Gemm with a transposed weight (N, K) is blocked along its second axis.

    Args:
        spool: takes their numbers.
    """
    chosen = [weight for weight in linear_weights(model) if wanted(weight.module)]
    stored, tensors, nodes = [], [], []
    for linear in chosen:
        weight = weight_array(model, linear.name)
        by_rows = weight if linear.reduce_axis == 0 else weight.T
        levels, scale = quantize_blocks(by_rows, scale_type=numpy_float(linear.float_type))
        error = relative_error(by_rows, restore_blocks(levels, scale))
        if linear.reduce_axis == 1:
            levels, scale = np.ascontiguousarray(levels.T), np.ascontiguousarray(scale.T)
        made = pack_int4(levels, f"{linear.name}_q4"), numpy_helper.from_array(scale, f"{linear.name}_scale")
        tensors += [keep(tensor, spool) for tensor in made]
        nodes.append(_dequantize(linear))
        stored.append(Stored(linear.name, 4, weight.size, error))
    replace_weights(model, [weight.name for weight in chosen], tensors, nodes)
    return stored


def _dequantize(linear: LinearWeight) -> onnx.NodeProto:
    return helper.make_node(
        "DequantizeLinear",
        [f"{linear.name}_q4", f"{linear.name}_scale"],
        [linear.name],
        f"{linear.name}/dequantize",
        axis=linear.reduce_axis,
        block_size=BLOCK,
    )
