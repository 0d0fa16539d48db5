"""Weight-only INT8 and INT4: the files hold what was promised and compute what their integers mean."""

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lofi_assets.quantization.int4 import pack_int4, quantize_blocks, quantize_int4, restore_blocks
from lofi_assets.quantization.int8 import multiply_in_integers, quantize_channels, quantize_int8
from lofi_assets.quantization.linear_weights import store_rest_as_half

RNG = np.random.default_rng(3)
START = RNG.bit_generator.state


@pytest.fixture(autouse=True)
def rng_from_its_start() -> None:
    RNG.bit_generator.state = START


def linear_model(
    *, inputs: int = 48, outputs: int = 24, opset: int = 21, half: bool = False
) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """y = Gemm(MatMul(x, a.weight), b.weight^T), and rows of a table added to it."""
    kind = np.float16 if half else np.float32
    weights = {
        "a.weight": RNG.standard_normal((inputs, outputs)).astype(kind),
        "b.weight": RNG.standard_normal((outputs, outputs)).astype(kind),
        "table.weight": RNG.standard_normal((50, outputs)).astype(kind),
    }
    element = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    nodes = [
        helper.make_node("MatMul", ["x", "a.weight"], ["h"], "a"),
        helper.make_node("Gemm", ["h", "b.weight"], ["g"], "b", transB=1),
        helper.make_node("Gather", ["table.weight", "ids"], ["rows"], "table"),
        helper.make_node("Add", ["g", "rows"], ["y"], "add"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("x", element, ("n", inputs)),
            helper.make_tensor_value_info("ids", TensorProto.INT64, ("n",)),
        ],
        [helper.make_tensor_value_info("y", element, ("n", outputs))],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10), weights


def run(model: onnx.ModelProto, x: np.ndarray, ids: np.ndarray) -> np.ndarray:
    import onnxruntime as ort

    onnx.checker.check_model(model, full_check=True)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x, "ids": ids})[0]


def signal_to_noise(reference: np.ndarray, other: np.ndarray) -> float:
    reference = reference.astype(np.float64)
    return 10 * np.log10(np.sum(reference**2) / np.sum((reference - other) ** 2))


def inputs(half: bool = False) -> tuple[np.ndarray, np.ndarray]:
    x = RNG.standard_normal((5, 48)).astype(np.float16 if half else np.float32)
    return x, np.arange(5, dtype=np.int64)


@pytest.mark.parametrize(("opset", "half"), [(17, False), (21, False), (21, True)])
def test_int8_runs_in_float32_at_17_and_in_float16_at_21(opset: int, half: bool) -> None:
    model, _ = linear_model(opset=opset, half=half)
    x, ids = inputs(half)
    before = run(model, x, ids)
    stored = quantize_int8(model, wanted=lambda module: True)
    assert [(s.name, s.bits) for s in stored] == [("a.weight", 8), ("b.weight", 8)]
    assert {t.name for t in model.graph.initializer if t.data_type == TensorProto.INT8} == {
        "a.weight_q8",
        "b.weight_q8",
    }
    assert signal_to_noise(before, run(model, x, ids)) > 40


def test_products_in_integers_are_those_of_rounded_activations() -> None:
    model, _ = linear_model(opset=17)
    quantize_int8(model, wanted=lambda module: True)
    x, ids = inputs()
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    plain = run(model, x, ids)
    assert multiply_in_integers(model) == 1
    used = Counter(node.op_type for node in model.graph.node)
    assert used["MatMulInteger"] == used["QuantizeLinear"] == 1 and used["MatMul"] == 0
    assert used["Gemm"] == used["DequantizeLinear"] == 1, "a Gemm reads its weight as before"
    step = np.abs(x).max(axis=1, keepdims=True) / 127
    hidden = np.rint(x / step) * step @ (weights["a.weight_q8"] * weights["a.weight_scale"])
    expected = hidden @ (weights["b.weight_q8"] * weights["b.weight_scale"][:, None]).T + weights["table.weight"][:5]
    found = run(model, x, ids)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert 40 < signal_to_noise(plain, found) < 60


def test_a_row_is_rounded_by_itself_and_zeros_stay_zero() -> None:
    model, _ = linear_model(opset=17)
    quantize_int8(model, wanted=lambda module: True)
    multiply_in_integers(model)
    x, ids = inputs()
    alone = run(model, x[:1], ids[:1])
    x[1:] *= 1000
    x[2] = 0
    together = run(model, x, ids)
    np.testing.assert_allclose(together[:1], alone, rtol=1e-5)
    table = next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == "table.weight")
    np.testing.assert_array_equal(together[2], table[2])


def test_an_activation_is_rounded_once_for_all_its_readers_and_half_precision_stays() -> None:
    weights = [numpy_helper.from_array(RNG.standard_normal((48, 24)).astype(np.float32), f"{n}.weight") for n in "qk"]
    nodes = [helper.make_node("MatMul", ["x", f"{name}.weight"], [name], name) for name in "qk"]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", 48))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ("n", 24)) for name in "qk"],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    quantize_int8(model, wanted=lambda module: True)
    assert multiply_in_integers(model) == 2
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node].count("QuantizeLinear") == 1
    half, _ = linear_model(half=True)
    quantize_int8(half, wanted=lambda module: True)
    before = half.SerializeToString()
    assert multiply_in_integers(half) == 0
    assert half.SerializeToString() == before


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("inputs_wide", [64, 48, 20])
def test_int4_computes_what_its_integers_mean_also_when_the_last_block_is_short(inputs_wide: int, half: bool) -> None:
    model, weights = linear_model(inputs=inputs_wide, half=half)
    kind = np.float16 if half else np.float32
    x = RNG.standard_normal((5, inputs_wide)).astype(kind)
    ids = np.arange(5, dtype=np.int64)
    stored = quantize_int4(model, wanted=lambda module: True)
    assert [s.bits for s in stored] == [4, 4]
    restored = [
        restore_blocks(*quantize_blocks(w, scale_type=kind)) for w in (weights["a.weight"], weights["b.weight"].T)
    ]
    # ONNX Runtime rounds activations in its fused 4-bit product: hence a limit in dB
    expected = x.astype(np.float32) @ restored[0] @ restored[1] + weights["table.weight"][:5]
    assert signal_to_noise(expected, run(model, x, ids)) > 30
    assert sum(t.data_type == TensorProto.INT4 for t in model.graph.initializer) == 2


def test_only_wanted_modules_change() -> None:
    model, _ = linear_model()
    assert [s.name for s in quantize_int4(model, wanted=lambda module: module == "a")] == ["a.weight"]
    assert [s.name for s in quantize_int8(model, wanted=lambda module: True)] == ["b.weight"]


def test_channels_are_exact_at_their_largest_value_and_zero_channels_stay_zero() -> None:
    weight = RNG.standard_normal((40, 6)).astype(np.float32)
    weight[:, 2] = 0
    levels, scale = quantize_channels(weight, reduce_axis=0)
    restored = levels * scale
    np.testing.assert_array_equal(restored[:, 2], 0)
    assert scale[2] == 1
    np.testing.assert_allclose(np.abs(restored).max(axis=0), np.abs(weight).max(axis=0), rtol=1e-6)
    assert np.abs(restored - weight).max() <= scale.max() / 2 + 1e-6


def test_blocks_use_the_level_of_eight_for_the_largest_value_of_either_sign() -> None:
    for sign in (1, -1):
        weight = np.zeros((32, 1), np.float32)
        weight[5], weight[6] = sign * 8.0, -sign * 4.0
        levels, scale = quantize_blocks(weight, scale_type=np.float32)
        np.testing.assert_allclose(restore_blocks(levels, scale), weight)
        assert levels.min() == -8


def test_the_scale_search_never_loses_against_plain_rounding() -> None:
    weight = RNG.standard_t(3, (256, 32)).astype(np.float32)
    levels, scale = quantize_blocks(weight)
    grouped = weight.reshape(8, 32, 32)
    peak = np.take_along_axis(grouped, np.abs(grouped).argmax(1)[:, None], 1)
    plain = (peak / -8).astype(np.float16).astype(np.float32)
    rounded = np.clip(np.rint(grouped / plain), -8, 7) * plain
    assert np.square(restore_blocks(levels, scale) - weight).sum() <= np.square(rounded - grouped).sum()


def test_packing_is_read_back_by_onnx() -> None:
    levels = RNG.integers(-8, 8, (5, 3)).astype(np.int8)
    np.testing.assert_array_equal(numpy_helper.to_array(pack_int4(levels, "w")).astype(np.int8), levels)


def test_the_rest_is_stored_in_half_and_a_table_is_cast_row_by_row() -> None:
    model, _ = linear_model(opset=17)
    x, ids = inputs()
    before = run(model, x, ids)
    stored = store_rest_as_half(model)
    assert {s.name for s in stored} == {"a.weight", "table.weight"}  # b is below 1,024 elements
    casts = [node for node in model.graph.node if node.op_type == "Cast"]
    assert {node.name for node in casts} == {"a.weight/cast", "table/cast"}
    table = next(node for node in model.graph.node if node.op_type == "Gather")
    assert table.input[0] == "table.weight_f16"
    assert signal_to_noise(before, run(model, x, ids)) > 60


def test_a_weight_beyond_half_range_is_refused() -> None:
    model, _ = linear_model()
    big = np.full((48, 24), 1e5, np.float32)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(big, "a.weight"))
    with pytest.raises(ValueError, match=r"a\.weight exceeds"):
        store_rest_as_half(model)
