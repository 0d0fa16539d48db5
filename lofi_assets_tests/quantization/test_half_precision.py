"""What overflows half precision is found from measured ranges and kept in float32; what does not stays in half."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from lofi_assets.backbones.ace_step_v1.backbone import ACE_STEP_V1
from lofi_assets.backbones.export import Probe
from lofi_assets.quantization.finite import not_finite
from lofi_assets.quantization.half_range import LARGEST_HALF, MARGIN, islands, keep_in_float, measure
from lofi_assets.quantization.signal_to_noise import below_floor
from lofi_assets.quantization.tier_manifest import TierName


class Block(nn.Module):
    """Two layers with a nonlinearity that no power of two passes, and a norm, in float32, that brings them back."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.conv1, self.act, self.conv2 = nn.Linear(48, 48), nn.SiLU(), nn.Linear(48, 48, bias=False)
        self.conv1.weight.data *= gain

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        loud = self.conv2(self.act(self.conv1(x)))
        made: torch.Tensor = x + nn.functional.rms_norm(loud.float(), (48,)).to(x.dtype)
        return made


class Chain(nn.Module):
    """A quiet block and a loud one, under the name that exports have."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = nn.Sequential(Block(1), Block(3e5))

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.model(latents.to(next(self.parameters()).dtype)).float()
        return made


LATENTS = np.random.default_rng(0).standard_normal((2, 48)).astype(np.float32) * 2


@pytest.mark.parametrize(
    ("largest", "found"),
    [
        ({"a": 1.0, "a.b": 9e4, "a.b.c": 2.0}, ("a",)),
        ({"a": 1.0, "a.b": 2.0, "a.b.c": 9e4, "a.b.d": 9e9}, ("a.b",)),
        ({"a": 1.0, "a.b": 2.0, "a.b.c": 9e4, "a.d": 9e4}, ("a",)),
        ({"a": 1.0, "a.b": LARGEST_HALF / MARGIN}, ()),
        ({"a": 1.0, "a.b": LARGEST_HALF / MARGIN + 1}, ("a",)),
        ({"a": 1.0, "a.b": float("nan")}, ("a",)),
        ({"a": 1.0, "a.x.c": 9e4}, ("a",)),
    ],
)
def test_an_island_is_the_smallest_module_that_holds_what_overflows(
    largest: dict[str, float], found: tuple[str, ...]
) -> None:
    assert islands(largest) == found


def test_where_the_component_itself_overflows_it_is_said() -> None:
    with pytest.raises(OverflowError, match="a answers 9e"):
        islands({"a": 9e4, "a.b": 9e4})


def test_torch_half_of_a_component_is_finite_with_its_islands_and_not_without() -> None:
    chain = Chain()
    expected = chain(torch.from_numpy(LATENTS)).detach()
    found = measure(chain, [{"latents": LATENTS}], inputs=["latents"])
    assert found.islands == ("model.1",)
    assert found.largest["model.1.conv1"] > LARGEST_HALF
    assert not torch.isfinite(Chain().half()(torch.from_numpy(LATENTS))).all()
    half = Chain().half()
    keep_in_float(half, found.islands)
    answer = half(torch.from_numpy(LATENTS)).detach()
    assert half.get_parameter("model.0.conv1.weight").dtype == torch.float16
    assert 10 * torch.log10((expected**2).sum() / ((answer - expected) ** 2).sum()) > 55


def loud(*, half: bool) -> onnx.ModelProto:
    """y = x * 60000 / 60000, between casts if the product is in half precision."""
    kind = np.float16 if half else np.float32
    narrow, wide = (TensorProto.FLOAT16, TensorProto.FLOAT) if half else (TensorProto.FLOAT, TensorProto.FLOAT)
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["x"], ["h"], "narrow", to=narrow),
            helper.make_node("Mul", ["h", "big"], ["product"], "mul"),
            helper.make_node("Div", ["product", "big"], ["back"], "div"),
            helper.make_node("Cast", ["back"], ["y"], "widen", to=wide),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n",))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n",))],
        [numpy_helper.from_array(np.asarray(60000, kind), "big")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("half")
    for name in ("half", "float"):
        onnx.save_model(loud(half=name == "half"), str(folder / f"{name}.onnx"))
    return folder


STRESS = [Probe("chain", {"x": np.array([1, 9], np.float32)}, np.array([1, 9], np.float32))]


def test_files_are_asked_without_optimizations_too_since_those_may_hide_what_is_not_finite(files: Path) -> None:
    with np.errstate(all="ignore"):
        assert not_finite(files, {"float": "chain"}, STRESS) == ()
        assert "half (off)" in not_finite(files, {"half": "chain"}, STRESS)


def test_minus_infinity_between_nodes_is_a_mask_where_there_are_masks(files: Path) -> None:
    with np.errstate(all="ignore"):
        stress = [Probe("chain", {"x": np.array([-9, -9], np.float32)}, np.array([1, 9], np.float32))]
        assert "half (off)" in not_finite(files, {"half": "chain"}, stress)
        assert not_finite(files, {"half": "chain"}, [stress[0]], masked=["other"]) != ()
        assert not_finite(files, {"half": "chain"}, STRESS, masked=["chain"]) != ()  # plus infinity is none


def test_a_file_that_is_asked_nothing_is_not_called_finite(files: Path) -> None:
    with pytest.raises(ValueError, match="no inputs for vocoder"):
        not_finite(files, {"half": "vocoder"}, STRESS)


def test_overflow_with_optimizations_on_is_found_too(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "big"], ["y"], "mul")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n",))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n",))],
        [numpy_helper.from_array(np.array(3e38, np.float32), "big")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save_model(model, str(tmp_path / "c.onnx"))
    stress = [Probe("c", {"x": np.array([1, 9], np.float32)}, LATENTS)]
    assert not_finite(tmp_path, {"c": "c"}, stress) == ("c (off)", "c (on)")


@pytest.mark.parametrize(
    ("tier", "decibel", "low"),
    [
        ("fp16", {"transformer": 39.9}, ["transformer"]),
        ("int8", {"transformer": 25.1, "transformer.cpu": 24.9, "vocoder": 39.0}, ["transformer.cpu", "vocoder"]),
        ("int4", {"transformer": 15.1, "condition_encoder": 24.0, "dcae_decoder": 41.0}, ["condition_encoder"]),
        ("int4", {"transformer": float("nan")}, ["transformer"]),
        ("fp32", {"vocoder": 99.0, "transformer": 200.0}, ["vocoder"]),
    ],
)
def test_every_component_has_a_floor(tier: TierName, decibel: dict[str, float], low: list[str]) -> None:
    found = below_floor(decibel, tier, ACE_STEP_V1.layout)
    assert [text.partition(":")[0] for text in found] == low


def test_a_cpu_multiplies_stored_integers_as_the_numbers_that_they_mean(tmp_path: Path) -> None:
    """ONNX Runtime's own default rounds activations too, differently by CPU; the runtime's sessions do not."""
    random = np.random.default_rng(1)
    levels, scale = random.integers(-127, 128, (64, 32)).astype(np.int8), random.random(32).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("DequantizeLinear", ["levels", "scale"], ["w"], "restore", axis=1),
            helper.make_node("MatMul", ["x", "w"], ["y"], "layer"),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", 64))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n", 32))],
        [numpy_helper.from_array(levels, "levels"), numpy_helper.from_array(scale, "scale")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    x = random.standard_normal((5, 64)).astype(np.float32)
    exact = x.astype(np.float64) @ (levels * scale.astype(np.float64))

    def error(level: str | None) -> float:
        options = onnxruntime.SessionOptions()
        if level:
            options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", level)
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return float(np.abs(session.run(None, {"x": x})[0] - exact).max() / np.abs(exact).max())

    assert error("1") < 1e-6
    if error(None) > 1e-6:  # where this CPU has the kernel
        assert error(None) > 1e-4
