"""What the weights of a file are worth, as their readers see them: finite, and those of FP32 as near as their bits
allow.

A weight that is stored in n bits may differ from FP32's by what rounding to n bits costs, and by no more: whatever lies
farther away holds fewer bits than its type says, or is another weight.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from lofi_assets.quantization.graph import attribute_of
from lofi_assets.quantization.int4 import quantize_blocks, restore_blocks
from lofi_assets.quantization.int8 import quantize_channels
from lofi_assets.quantization.linear_weights import root_mean_square
from lofi_assets.quantization.weight_trace import LINEAR_OPS, Constant, Trace, Weight

Array = NDArray[np.float32]

ROOM = 1.05
"""Share of the error of rounding that a weight may have: scales in half precision, and rounding once more from half,
add under 2 %."""
UNIT = 1e-6
"""Error, as a share of a weight's own size, that is rounding in float32."""


class ValueFault(ValueError):
    """Numbers that are not what the file says; the message names them."""


def value_faults(found: Trace, folder: Path, *, reference: Trace | None, reference_folder: Path) -> list[str]:
    """What is wrong with the numbers of a file, at most one line for each weight.

    Args:
        folder, reference_folder: where external data lie.
        reference: FP32's file; without it, values are only asked to be readable and finite.
    """
    expected = {weight.name: weight for weight in reference.weights if weight.of_a_module} if reference else {}
    read: dict[tuple[str, ...], str | None] = {}
    for weight in found.weights:
        key = (weight.constant.tensor.name, *(step.output[0] for step in weight.constant.steps))
        if key not in read:
            read[key] = _fault(weight, folder, expected.get(weight.name), reference_folder)
    return [fault for fault in read.values() if fault]


def by_value(found: Trace, folder: Path, *, reference: Trace, reference_folder: Path) -> Trace:
    """A trace in which a weight stored in float32 has 16 bits if its numbers were rounded to half.

    An exporter folds the Cast of a half weight whose reader computes in float32: the type widens, the numbers do not.
    """
    expected = {weight.name: weight for weight in reference.weights if weight.of_a_module}

    def bits(weight: Weight) -> int:
        if weight.bits <= 16 or weight.name not in expected:
            return weight.bits
        try:
            value = read_value(weight.constant, folder)
            exact = read_value(expected[weight.name].constant, reference_folder)
        except ValueFault:
            return weight.bits  # said where the numbers are compared
        halved = np.array_equal(value, _halved(value))
        return 16 if halved and not np.array_equal(value, exact) else weight.bits

    return replace(found, weights=tuple(replace(weight, bits=bits(weight)) for weight in found.weights))


def _fault(weight: Weight, folder: Path, expected: Weight | None, reference_folder: Path) -> str | None:
    try:
        value = read_value(weight.constant, folder)
        if expected is not None:
            _expect_near(weight, value, read_value(expected.constant, reference_folder))
    except ValueFault as fault:
        return str(fault)
    return None


def read_value(constant: Constant, folder: Path) -> Array:
    """The numbers that a reader sees, from storage on.

    Raises:
        ValueFault: they cannot be read, are not finite, or a scale is zero, not finite or of another shape.
    """
    value, kept = _array(constant.tensor, folder), constant.tensor.name
    for node in constant.steps:
        if node.op_type == "Transpose":
            order = attribute_of(node, "perm")
            try:
                value = np.transpose(value, order if isinstance(order, list) else None)
            except ValueError as error:
                raise ValueFault(f"{kept} of {value.shape} is transposed by {order}, which it has not") from error
        elif node.op_type == "DequantizeLinear" and constant.scale is not None:
            value = _dequantized(value, _array(constant.scale, folder), node, kept)
        elif node.op_type == "Cast" and constant.type == onnx.TensorProto.FLOAT16:
            value = _halved(value)
    if not np.isfinite(value).all():
        raise ValueFault(f"{kept} holds values that are not finite")
    return value


def _halved(value: Array) -> Array:
    """Rounded to half precision; infinite where that cannot hold a number."""
    with np.errstate(over="ignore"):
        return value.astype(np.float16).astype(np.float32)


def _array(tensor: onnx.TensorProto, folder: Path) -> Array:
    try:
        value: Array = numpy_helper.to_array(tensor, str(folder)).astype(np.float32)
    except (ValueError, TypeError, OSError, onnx.checker.ValidationError) as error:
        raise ValueFault(f"{tensor.name} cannot be read: {' '.join(str(error).split())[:160]}") from error
    if value.shape != tuple(tensor.dims):
        raise ValueFault(f"{tensor.name} has {value.shape} values, {tuple(tensor.dims)} are declared")
    return value


def _dequantized(levels: Array, scale: Array, node: onnx.NodeProto, name: str) -> Array:
    """ONNX's DequantizeLinear without a zero point: a scale for all, by an axis, or by blocks along it."""
    axis, block = attribute_of(node, "axis", 1), attribute_of(node, "block_size", 0)
    assert isinstance(axis, int) and isinstance(block, int)
    if not np.isfinite(scale).all():
        raise ValueFault(f"{name} has a scale that is not finite")
    if not scale.all():
        raise ValueFault(f"{name} has a scale of zero")
    if scale.size == 1:
        return levels * scale.reshape(())
    if not -levels.ndim <= axis < levels.ndim:
        raise ValueFault(f"{name} has its scales along axis {axis}, which it lacks")
    if block:
        scale = np.repeat(scale, block, axis=axis)
        scale = np.take(scale, range(min(scale.shape[axis], levels.shape[axis])), axis=axis)
    else:
        scale = scale.reshape([-1 if at == axis % levels.ndim else 1 for at in range(levels.ndim)])
    try:
        product: Array = levels * np.broadcast_to(scale, levels.shape)
    except ValueError as error:
        raise ValueFault(f"{name} has scales of another shape: {error}") from error
    return product


def _expect_near(weight: Weight, value: Array, reference: Array) -> None:
    if value.shape != reference.shape:
        raise ValueFault(f"{weight.name} is {value.shape}, in the FP32 file {reference.shape}")
    size, error = root_mean_square(reference), root_mean_square(value, reference)
    allowed = ROOM * root_mean_square(rounded(reference, weight), reference) + UNIT * size
    if error > allowed:
        raise ValueFault(
            f"{weight.name} differs from the FP32 file by {error / max(size, 1e-30):.2e} of its size; "
            f"{weight.bits} bits explain {allowed / max(size, 1e-30):.2e}"
        )


def rounded(reference: Array, weight: Weight) -> Array:
    """FP32's numbers in as many bits as a weight has; integers only where a linear layer reads them.

    Raises:
        ValueFault: another operator reads integers.
    """
    if weight.bits > 16:
        return reference
    if weight.bits == 16:
        return _halved(reference)
    if weight.operator not in LINEAR_OPS or reference.ndim != 2:
        raise ValueFault(f"{weight.name} is stored in {weight.bits} bits and read by {weight.operator}")
    return _as_integers(reference, weight, _summed_axis(weight))


def _summed_axis(weight: Weight) -> int:
    """By the block or channel axis of its DequantizeLinear: a scale runs along what is not summed over.

    Raises:
        ValueFault: it has none.
    """
    steps = [node for node in weight.constant.steps if node.op_type == "DequantizeLinear"]
    if not steps:
        raise ValueFault(f"{weight.name} passes {weight.bits} bits without a scale")
    axis, step = attribute_of(steps[0], "axis", 1), steps[0]
    assert isinstance(axis, int)
    return axis % 2 if attribute_of(step, "block_size", 0) else 1 - axis % 2


def _as_integers(reference: Array, weight: Weight, axis: int) -> Array:
    scale = weight.constant.scale
    kind = np.float16 if scale is not None and scale.data_type == onnx.TensorProto.FLOAT16 else np.float32
    if weight.bits >= 8:
        levels, steps = quantize_channels(reference, reduce_axis=axis, scale_type=kind)
        return levels.astype(np.float32) * np.expand_dims(steps.astype(np.float32), axis)
    by_rows = reference if axis == 0 else reference.T
    blocks = restore_blocks(*quantize_blocks(by_rows, scale_type=kind))
    return blocks if axis == 0 else blocks.T
