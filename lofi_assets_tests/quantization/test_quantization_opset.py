"""Every opset 18 graph that is lowered computes the same at 17, or is refused by name."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lofi_assets.quantization.graph import GraphError, opset_of
from lofi_assets.quantization.opset import lower_to_17, raise_from_18

Shape = tuple[int | str | None, ...]
SHAPE = (2, 6, 4)


def model_18(
    nodes: list[onnx.NodeProto],
    *,
    constants: Mapping[str, np.ndarray] | None = None,
    outputs: Sequence[str] = ("y",),
    shapes: Mapping[str, Shape] | None = None,
    shape: Shape = SHAPE,
) -> onnx.ModelProto:
    known: dict[str, Shape] = {n: (None, None, None) for n in outputs}
    known.update(shapes or {})
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, known[n]) for n in outputs]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        infos,
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def run(model: onnx.ModelProto, shape: tuple[int, ...] = SHAPE) -> list[np.ndarray]:
    import onnxruntime as ort

    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    return session.run(None, {"x": x})


def assert_same_at_17(model: onnx.ModelProto, shape: tuple[int, ...] = SHAPE) -> onnx.ModelProto:
    lowered = lower_to_17(model)
    assert opset_of(lowered) == 17
    assert lowered.ir_version == 8
    for before, after in zip(run(model, shape), run(lowered, shape), strict=True):
        np.testing.assert_array_equal(before, after)
    return lowered


def test_an_equal_split_loses_its_count() -> None:
    node = helper.make_node("Split", ["x"], ["a", "b", "c"], axis=1, num_outputs=3)
    assert_same_at_17(model_18([node], outputs="abc", shapes=dict.fromkeys("abc", (2, 2, 4))))


def test_a_split_with_its_sizes_given_stays() -> None:
    node = helper.make_node("Split", ["x", "sizes"], ["a", "b"], axis=1)
    shapes = {"a": (2, 4, 4), "b": (2, 2, 4)}
    assert_same_at_17(model_18([node], constants={"sizes": np.array([4, 2], np.int64)}, outputs="ab", shapes=shapes))


def test_an_unequal_split_is_refused() -> None:
    node = helper.make_node("Split", ["x"], ["a", "b"], "odd", axis=2, num_outputs=2)
    shapes = {"a": (2, 6, 3), "b": (2, 6, 2)}
    with pytest.raises(GraphError, match="odd"):
        lower_to_17(model_18([node], outputs="ab", shapes=shapes, shape=(2, 6, 5)))


def test_a_split_of_unknown_size_is_refused() -> None:
    node = helper.make_node("Split", ["x"], ["a", "b"], axis=0, num_outputs=2)
    with pytest.raises(GraphError, match="known, equal"):
        lower_to_17(model_18([node], outputs="ab", shapes={"a": ("n", 6, 4), "b": ("n", 6, 4)}, shape=("m", 6, 4)))


@pytest.mark.parametrize("op", ["ReduceMean", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceLogSumExp"])
def test_a_reduction_takes_its_axes_as_attribute(op: str) -> None:
    lowered = assert_same_at_17(
        model_18(
            [helper.make_node(op, ["x", "axes"], ["y"], keepdims=0)],
            constants={"axes": np.array([1, 2], np.int64)},
            shapes={"y": (2,)},
        )
    )
    assert not lowered.graph.initializer


def test_a_reduction_over_everything_and_axes_in_a_constant_node() -> None:
    assert_same_at_17(model_18([helper.make_node("ReduceMean", ["x"], ["y"], noop_with_empty_axes=0)]))
    axes = helper.make_node("Constant", [], ["axes"], value=numpy_helper.from_array(np.array([-1], np.int64)))
    assert_same_at_17(model_18([axes, helper.make_node("ReduceMean", ["x", "axes"], ["y"])]))


def test_a_reduction_with_computed_axes_or_none_is_refused() -> None:
    shape = helper.make_node("Shape", ["x"], ["axes"])
    with pytest.raises(GraphError, match="computes its axes"):
        lower_to_17(model_18([shape, helper.make_node("ReduceMean", ["x", "axes"], ["y"])]))
    with pytest.raises(GraphError, match="reduces nothing"):
        lower_to_17(model_18([helper.make_node("ReduceMean", ["x"], ["y"], noop_with_empty_axes=1)]))


def test_a_pad_loses_its_empty_axes_and_keeps_no_named_ones() -> None:
    pads = {"pads": np.array([0, 1, 0, 0, 0, 2], np.int64)}
    assert_same_at_17(model_18([helper.make_node("Pad", ["x", "pads", "", ""], ["y"])], constants=pads))
    named = {"pads": np.array([1, 1], np.int64), "axes": np.array([1], np.int64)}
    with pytest.raises(GraphError, match="names its axes"):
        lower_to_17(model_18([helper.make_node("Pad", ["x", "pads", "", "axes"], ["y"])], constants=named))


def test_a_resize_loses_defaults_and_is_refused_otherwise() -> None:
    def resize(**more: Any) -> onnx.ModelProto:
        node = helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="nearest", **more)
        return model_18([node], constants={"scales": np.array([1, 1, 2], np.float32)})

    assert_same_at_17(resize(antialias=0, keep_aspect_ratio_policy="stretch"))
    with pytest.raises(GraphError, match="antialias"):
        lower_to_17(resize(antialias=1))
    with pytest.raises(GraphError, match="aspect"):
        lower_to_17(resize(keep_aspect_ratio_policy="not_larger"))
    with pytest.raises(GraphError, match="names its axes"):
        lower_to_17(resize(axes=[0, 1, 2]))


def test_a_scatter_that_takes_a_maximum_is_refused() -> None:
    node = helper.make_node("ScatterND", ["x", "at", "values"], ["y"], reduction="max")
    with pytest.raises(GraphError, match="max or min"):
        lower_to_17(
            model_18([node], constants={"at": np.array([[0]], np.int64), "values": np.zeros((1, 6, 4), np.float32)})
        )


def test_an_operator_that_17_lacks_is_refused() -> None:
    with pytest.raises(GraphError, match="Mish"):
        lower_to_17(model_18([helper.make_node("Mish", ["x"], ["y"])]))


def test_nodes_inside_a_branch_are_lowered_too() -> None:
    def branch(name: str) -> onnx.GraphProto:
        out = helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, (2, 1, 4))
        return helper.make_graph([helper.make_node("ReduceMean", ["x", "axes"], [f"{name}_y"])], name, [], [out])

    condition = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.array(True)))
    choice = helper.make_node("If", ["c"], ["y"], then_branch=branch("t"), else_branch=branch("e"))
    assert_same_at_17(model_18([condition, choice], constants={"axes": np.array([1], np.int64)}))


def test_only_opset_18_is_converted() -> None:
    model = model_18([helper.make_node("Relu", ["x"], ["y"])])
    model.opset_import[0].version = 20
    with pytest.raises(GraphError, match="found 20"):
        lower_to_17(model)
    with pytest.raises(GraphError, match="found 20"):
        raise_from_18(model)


def test_raising_to_21_keeps_the_numbers_and_refuses_what_changed_meaning() -> None:
    model = model_18(
        [helper.make_node("ReduceMean", ["x", "axes"], ["y"])], constants={"axes": np.array([1], np.int64)}
    )
    raised = raise_from_18(model)
    onnx.checker.check_model(raised, full_check=True)
    assert opset_of(raised) == 21
    np.testing.assert_array_equal(run(model)[0], run(raised)[0])
    with pytest.raises(GraphError, match="GridSample"):
        raise_from_18(model_18([helper.make_node("GridSample", ["x", "x"], ["y"])]))


def test_a_model_lowered_by_label_alone_is_caught_by_the_checker() -> None:
    model = model_18(
        [helper.make_node("ReduceMean", ["x", "axes"], ["y"])], constants={"axes": np.array([1], np.int64)}
    )
    model.opset_import[0].version = 17
    with pytest.raises(onnx.checker.ValidationError):
        onnx.checker.check_model(model, full_check=True)
