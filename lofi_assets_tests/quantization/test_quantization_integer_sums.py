"""The CPU graph's sums are the integers that they should be, whichever kernel the CPU has.

ONNX Runtime multiplies unsigned by signed bytes with vpmaddubsw on x86 CPUs without VNNI (onnxruntime,
core/mlas/lib/platform.cpp: `GemmU8S8Kernel` is the Avx2, Avx512Core or Sse41 one): two neighbouring products are added
in 16 bits and saturate. It widens unsigned by unsigned bytes first (`GemmU8U8Kernel`, vpmaddwd), in 32 bits. Such a CPU
is emulated here, so that no result hangs on the machine that runs the tests.
"""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from lofi_assets.quantization.int8 import multiply_in_integers, quantize_int8

ROWS, INNER, OUTER = 5, 50, 24
Operands = tuple[np.ndarray, np.ndarray]
"""Levels of activations (`ROWS`, `INNER`) and of weights (`INNER`, `OUTER`)."""


def in_sixteen_bits(rows: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """rows @ levels as vpmaddubsw and vpmaddwd add: pairs in 16 bits, which saturate, and pairs of those in 32."""
    short = -rows.shape[1] % 2
    a = np.pad(rows.astype(np.int64), [(0, 0), (0, short)])
    b = np.pad(levels.astype(np.int64), [(0, short), (0, 0)])
    products = a[:, :, None] * b
    pairs = products[:, 0::2] + products[:, 1::2]
    return np.clip(pairs, -(2**15), 2**15 - 1).sum(axis=1)


def kernel_of_a_cpu(*, saturates: bool) -> tuple[type[OpRun], list[tuple[str, str]]]:
    """MatMulInteger as a CPU computes it, and a list of its operands' types, product by product."""
    taken: list[tuple[str, str]] = []

    class MatMulInteger(OpRun):
        op_domain = ""

        def _run(
            self,
            rows: np.ndarray,
            levels: np.ndarray,
            rows_zero: np.ndarray | None = None,
            levels_zero: np.ndarray | None = None,
        ) -> tuple[np.ndarray]:
            taken.append((str(rows.dtype), str(levels.dtype)))
            signed = levels.dtype == np.int8
            products = in_sixteen_bits if saturates and signed else lambda a, b: a.astype(np.int64) @ b.astype(np.int64)
            a_zero, b_zero = (0 if zero is None else int(zero) for zero in (rows_zero, levels_zero))
            a, b = rows.astype(np.int64), levels.astype(np.int64)
            zeros = a.shape[1] * a_zero * b_zero - a_zero * b.sum(axis=0) - b_zero * a.sum(axis=1, keepdims=True)
            return ((products(rows, levels) + zeros).astype(np.int32),)

    return MatMulInteger, taken


@pytest.fixture(scope="module")
def operands() -> Operands:
    """Levels of activations and weights that a kernel of 16 bits gets wrong: most are large and of one sign."""
    random = np.random.default_rng(17)
    rows, levels = (
        np.where(random.random(shape) < 0.8, random.integers(60, 128, shape), random.integers(-127, 128, shape))
        for shape in ((ROWS, INNER), (INNER, OUTER))
    )
    rows[:, 0], levels[0] = 127, -127  # the largest of a row and of a column, so that rounding changes no level
    return rows, levels


@pytest.fixture(scope="module")
def model(operands: Operands) -> onnx.ModelProto:
    """y = x @ w in integers, with the sums as an output beside y."""
    weight = numpy_helper.from_array((operands[1] * 0.01).astype(np.float32), "a.weight")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "a.weight"], ["y"], "a")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", INNER))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n", OUTER))],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    quantize_int8(model, wanted=lambda module: True)
    assert multiply_in_integers(model) == 1
    model.graph.output.append(helper.make_tensor_value_info("y/i32", TensorProto.INT32, ("n", OUTER)))
    onnx.checker.check_model(model, full_check=True)
    return model


def activations(rows: np.ndarray) -> np.ndarray:
    return (rows / 127).astype(np.float32)


@pytest.mark.parametrize("saturates", [True, False])
def test_sums_are_exact_on_a_cpu_that_saturates_and_on_one_that_does_not(
    model: onnx.ModelProto, operands: Operands, saturates: bool
) -> None:
    rows, levels = operands
    kernel, taken = kernel_of_a_cpu(saturates=saturates)
    found = ReferenceEvaluator(model, new_ops=[kernel]).run(["y", "y/i32"], {"x": activations(rows)})
    assert isinstance(found, list)
    np.testing.assert_array_equal(found[1], rows @ levels)
    np.testing.assert_allclose(found[0], (rows / 127) @ (levels * 0.01), rtol=1e-5)
    asked, product = taken
    assert asked == ("uint8", "int8"), "the CPU is asked by the kernel in question"
    assert product == (("uint8", "uint8") if saturates else ("uint8", "int8"))


def test_a_kernel_that_saturates_is_wrong_about_these_operands(operands: Operands) -> None:
    rows, levels = operands
    found = in_sixteen_bits(rows + 128, levels) - 128 * levels.sum(axis=0)
    assert np.mean(found != rows @ levels) > 0.9


@pytest.mark.parametrize("count", [1, ROWS])
def test_sums_are_exact_on_this_cpu(model: onnx.ModelProto, operands: Operands, count: int) -> None:
    rows, levels = operands
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(["y/i32"], {"x": activations(rows[:count])})
    np.testing.assert_array_equal(found, rows[:count] @ levels)


def test_the_cpu_is_asked_once_on_loading_and_one_product_is_left(model: onnx.ModelProto, tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    nodes = [node.op_type for node in onnx.load(str(tmp_path / "loaded.onnx")).graph.node]
    assert nodes.count("MatMulInteger") == nodes.count("QuantizeLinear") == 1
    assert not {"If", "Slice", "Where"} & set(nodes)
