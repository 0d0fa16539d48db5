"""What a layer costs by itself: the numbers against a computation by hand, and which layers INT4 spares for them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from lofi_assets.backbones.ace_step_v1.backbone import ACE_STEP_V1
from lofi_assets.backbones.export import Probe
from lofi_assets.quantization.graph import save
from lofi_assets.quantization.int4 import quantize_blocks, restore_blocks
from lofi_assets.quantization.int8 import quantize_channels
from lofi_assets.quantization.sensitivity import layer_losses, spared
from lofi_assets.quantization.sensitivity_report import error_share, most_sensitive, sensitivity_picture
from lofi_assets.quantization.signal_to_noise import decibel
from lofi_assets.quantization.tier_manifest import LayerLoss

LAYOUT = ACE_STEP_V1.layout
FIRST, SECOND, OUTSIDE = "transformer_blocks.0.attn.to_q", "transformer_blocks.1.ff.point_conv", "proj_in"
RANDOM = np.random.default_rng(8)
WEIGHTS: dict[str, NDArray[np.float32]] = {
    OUTSIDE: RANDOM.standard_normal((64, 64)).astype(np.float32),
    FIRST: RANDOM.standard_normal((64, 96)).astype(np.float32),
    SECOND: RANDOM.standard_normal((32, 96)).astype(np.float32),
}
"""The second as Gemm has it, (outputs, inputs)."""


def graph() -> onnx.ModelProto:
    nodes = [
        helper.make_node("MatMul", ["x", f"{OUTSIDE}.weight"], ["a"], OUTSIDE),
        helper.make_node("MatMul", ["a", f"{FIRST}.weight"], ["b"], FIRST),
        helper.make_node("Gemm", ["b", f"{SECOND}.weight"], ["y"], SECOND, transB=1),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size]) for name, size in (("x", 64), ("y", 32))
    ]
    weights = [numpy_helper.from_array(weight, f"{name}.weight") for name, weight in WEIGHTS.items()]
    made = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def answer(x: NDArray[np.float32], **changed: NDArray[np.float32]) -> NDArray[np.float64]:
    weights = {name: weight.astype(np.float64) for name, weight in (WEIGHTS | changed).items()}
    return x.astype(np.float64) @ weights[OUTSIDE] @ weights[FIRST] @ weights[SECOND].T


def calls() -> list[Probe]:
    random = np.random.default_rng(9)
    inputs = [random.standard_normal((5, 64)).astype(np.float32) * scale for scale in (1.0, 100.0, 2.0)]
    return [Probe("vocoder", {"x": inputs[0]}, inputs[0]), *(Probe("transformer", {"x": x}, x) for x in inputs)]


@pytest.mark.parametrize("beside", [False, True], ids=["weights in the file", "weights in data files"])
def test_each_layer_of_a_block_is_changed_alone(tmp_path: Path, beside: bool) -> None:
    """At the first and at the last call; not what every step passes through, and with no weight left changed."""
    save(graph(), tmp_path / "transformer.onnx", weights_beside=beside)
    before = (tmp_path / "transformer.onnx").read_bytes()
    found = layer_losses(tmp_path / "transformer.onnx", calls(), LAYOUT)
    assert [(loss.layer, loss.elements) for loss in found] == [(FIRST, 64 * 96), (SECOND, 32 * 96)]
    by_rows = WEIGHTS[SECOND].T
    second, scale = quantize_channels(WEIGHTS[SECOND], reduce_axis=1)
    changed = {
        (FIRST, 4): restore_blocks(*quantize_blocks(WEIGHTS[FIRST])),
        (SECOND, 4): restore_blocks(*quantize_blocks(np.ascontiguousarray(by_rows))).T,
        (SECOND, 8): second * scale[:, None],
    }
    asked = [calls()[1].inputs["x"], calls()[-1].inputs["x"]]
    signal = sum(np.square(answer(x)).sum() for x in asked)
    for (layer, bits), weight in changed.items():
        noise = sum(np.square(answer(x, **{layer: weight.astype(np.float32)}) - answer(x)).sum() for x in asked)
        (loss,) = (loss for loss in found if loss.layer == layer)
        told = loss.snr_db_4 if bits == 4 else loss.snr_db_8
        assert told == pytest.approx(10 * np.log10(signal / noise), abs=0.02), (layer, bits)
    assert (tmp_path / "transformer.onnx").read_bytes() == before
    assert layer_losses(tmp_path / "transformer.onnx", calls(), LAYOUT) == found


def test_without_a_call_nothing_is_measured(tmp_path: Path) -> None:
    save(graph(), tmp_path / "transformer.onnx")
    with pytest.raises(ValueError, match="no call of transformer"):
        layer_losses(tmp_path / "transformer.onnx", calls()[:1], LAYOUT)


def loss(layer: str, elements: int, four: float, eight: float = 60.0) -> LayerLoss:
    return LayerLoss(layer, elements, four, eight)


def test_bits_go_where_they_gain_most_for_each_weight() -> None:
    layers = [
        loss("wide", 1000, 20.0),
        loss("small", 100, 25.0),
        loss("deaf", 100, 50.0),
        loss("same", 100, 20.0, 20.0),
    ]
    assert spared(layers, share=0.0) == ()
    assert spared(layers, share=0.1) == ("small",), "0.0032 in 100 weights goes before 0.01 in 1000"
    assert spared(layers, share=0.9) == ("small", "wide")
    assert spared(layers, share=1.0) == ("deaf", "same", "small", "wide")
    assert spared([], share=0.5) == ()


def test_what_is_spared_never_exceeds_its_share() -> None:
    random = np.random.default_rng(3)
    layers = [loss(str(n), int(size), float(db)) for n, (size, db) in enumerate(
        zip(random.integers(10, 1000, 60), random.uniform(20, 60, 60), strict=True))]  # fmt: skip
    total = sum(layer.elements for layer in layers)
    for share in (0.05, 0.26, 0.5):
        chosen = set(spared(layers, share=share))
        taken = sum(layer.elements for layer in layers if layer.layer in chosen)
        assert share * total - 1000 < taken <= share * total
        assert predicted_db(layers, tuple(chosen)) > predicted_db(layers, ())


def test_errors_add_up_by_their_power() -> None:
    layers = [loss("a", 1, 20.0, 40.0), loss("b", 1, 20.0, 40.0)]
    assert predicted_db(layers, ()) == pytest.approx(17.0, abs=0.02)
    assert predicted_db(layers, ("a",)) == pytest.approx(19.96, abs=0.02)
    assert predicted_db(layers, ("a", "b")) == pytest.approx(37.0, abs=0.02)


def test_people_see_the_dearest_layers() -> None:
    layers = [loss(f"transformer_blocks.{n}.attn.to_v", 10, 60.0 - n) for n in range(20)]
    assert most_sensitive(layers)[0] == "19.attn.to_v 41.0 dB" and len(most_sensitive(layers)) == 8
    assert sensitivity_picture(layers).startswith(b"\x89PNG")


def predicted_db(losses: Sequence[LayerLoss], in_eight: Sequence[str]) -> float:
    """dB of the denoiser with these layers in 8 bits and the others in 4, if errors of layers add up by their power."""
    kept = set(in_eight)
    return decibel(1.0, sum(error_share(loss.snr_db_8 if loss.layer in kept else loss.snr_db_4) for loss in losses))
