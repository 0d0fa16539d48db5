"""The policy check proves precision from the file: every deliberately wrong one is caught, for the right reason."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lofi_assets.files.typed import plain
from lofi_assets.quantization import graph
from lofi_assets.quantization.components import write_cpu_profile
from lofi_assets.quantization.graph import elements, load, save
from lofi_assets.quantization.int4 import quantize_int4
from lofi_assets.quantization.int8 import multiply_in_integers, quantize_int8
from lofi_assets.quantization.opset import lower_to_17, raise_from_18
from lofi_assets.quantization.policy import check_file, check_tier
from lofi_assets.quantization.tier_manifest import ComponentReport, PolicyReport, TierName
from lofi_assets.quantization.weight_trace import UNKNOWN, trace
from lofi_assets_tests.quantization.small_tiers import (
    LAYERS,
    LAYOUT,
    WIDTH,
    body,
    component_model,
    everything,
    int4_model,
    int8_model,
    write_small_tiers,
)


@pytest.fixture(scope="module")
def tiers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tiers")
    write_small_tiers(root)
    return root


def with_file(tiers: Path, tier: TierName, component: str, model: onnx.ModelProto, tmp_path: Path) -> PolicyReport:
    """A copy of a tier in which one component's file is another one, instead of a tier that was copied before."""
    for before in tmp_path.glob("*.onnx*"):
        before.unlink()
    for path in (tiers / tier).iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / f"{component}.onnx.data").unlink(missing_ok=True)
    onnx.save_model(model, str(tmp_path / f"{component}.onnx"))
    return check_tier(tmp_path, tier=tier, baseline=tiers / "fp32", layout=LAYOUT)


def assert_only(report: PolicyReport | ComponentReport, *words: str) -> None:
    assert report.violations
    for violation in report.violations:
        assert any(word in violation for word in words), report.violations


@pytest.mark.parametrize(("tier", "opset"), [("fp32", 18), ("fp16", 18), ("int8", 17), ("int4", 21)])
def test_a_tier_built_by_the_recipe_holds(tiers: Path, tier: TierName, opset: int) -> None:
    report = check_tier(tiers / tier, tier=tier, baseline=tiers / "fp32", layout=LAYOUT)
    assert report.violations == ()
    assert report.opset == opset
    floats = {"fp32": 32}.get(tier, 16)
    vocal = {"int8": 8, "int4": 8}.get(tier, floats)
    assert report.min_bits == dict(zip(LAYOUT.protected, (floats, floats, vocal, vocal), strict=True))
    assert json.loads(json.dumps(plain(report)))["tier"] == tier


def test_shares_and_sizes_are_measured(tiers: Path) -> None:
    int8 = check_tier(tiers / "int8", tier="int8", baseline=tiers / "fp32", layout=LAYOUT)
    int4 = check_tier(tiers / "int4", tier="int4", baseline=tiers / "fp32", layout=LAYOUT)
    assert int8.quantized_share == int4.quantized_share == 1.0
    assert int8.int4_share == 0.0
    assert int4.int4_share == pytest.approx(2 / 7)
    assert int4.size_ratio < int8.size_ratio < 0.6
    assert check_tier(tiers / "int8", tier="int8", layout=LAYOUT).size_ratio is None


def test_the_file_for_cpus_shares_the_weights_and_is_judged_as_the_other_is(tiers: Path, tmp_path: Path) -> None:
    judged = check_tier(tiers / "int8", tier="int8", layout=LAYOUT)
    components = {report.component: report for report in judged.components}
    ours, plain = components["transformer.cpu"], components["transformer"]
    assert (ours.elements_by_bits, ours.quantized_share) == (plain.elements_by_bits, 1.0)
    read, stored = (
        {tensor.name: tensor for tensor in load(tiers / "int8" / f"{name}.onnx", weights=False).graph.initializer}
        for name in ("transformer.cpu", "transformer")
    )
    assert all(tensor == stored[name] for name, tensor in read.items() if name in stored)
    assert max(elements(tensor) for name, tensor in read.items() if name not in stored) <= 2
    assert {place.value for tensor in read.values() for place in tensor.external_data if place.key == "location"} == {
        "transformer.onnx.data"
    }
    model = lower_to_17(component_model("transformer"))
    quantize_int8(model, wanted=lambda module: module.endswith("to_q"))
    multiply_in_integers(model)
    report = with_file(tiers, "int8", "transformer.cpu", model, tmp_path)
    assert_only(report, "transformer.cpu: is not the integer form")
    slow = with_file(tiers, "int8", "transformer.cpu", load(tiers / "int8" / "transformer.onnx"), tmp_path)
    assert_only(slow, "transformer.cpu: is not the integer form", "transformer.cpu: transformer_blocks")
    (tmp_path / "transformer.cpu.onnx").unlink()
    with pytest.raises(FileNotFoundError, match=r"transformer\.cpu\.onnx is absent: tier int8 needs"):
        check_tier(tmp_path, tier="int8", layout=LAYOUT)


def test_int4_in_the_lyric_encoder_is_caught(tiers: Path, tmp_path: Path) -> None:
    model = raise_from_18(component_model("condition_encoder", half=True))
    quantize_int4(model, wanted=lambda module: module.startswith("lyric"))
    quantize_int8(model, wanted=everything)
    report = with_file(tiers, "int4", "condition_encoder", model, tmp_path)
    assert report.min_bits["lyric_encoder"] == 4
    assert report.min_bits["speaker_embedder"] == 8
    assert_only(report, "lyric_encoder: 4 bits", "below 8 bits")


def test_int4_in_the_speaker_embedder_is_caught_even_in_the_contributed_packed_form(
    tiers: Path, tmp_path: Path
) -> None:
    model = raise_from_18(component_model("condition_encoder", half=True))
    quantize_int8(model, wanted=lambda module: module != "speaker_embedder")
    packed = numpy_helper.from_array(np.zeros((WIDTH, 2, 16), np.uint8), "speaker_embedder.weight_q8")
    scales = numpy_helper.from_array(np.ones(WIDTH * 2, np.float16), "scales")
    node = next(node for node in model.graph.node if node.name == "speaker_embedder")
    packed_node = helper.make_node(
        "MatMulNBits",
        ["x", packed.name, "scales"],
        list(node.output),
        node.name,
        domain="com.microsoft",
        K=WIDTH,
        N=WIDTH,
        bits=4,
        block_size=32,
    )
    node.CopyFrom(packed_node)
    model.graph.initializer.extend([packed, scales])
    report = with_file(tiers, "int4", "condition_encoder", model, tmp_path)
    assert report.min_bits["speaker_embedder"] == UNKNOWN
    assert any("com.microsoft is used but not imported" in text for text in report.violations)
    assert any("com.microsoft is not standard" in text for text in report.violations)
    assert any("stored as UINT8" in text for text in report.violations)
    assert any("speaker_embedder: 1 bits" in text for text in report.violations)


@pytest.mark.parametrize("component", ["vocoder", "dcae_decoder"])
def test_an_int8_vocoder_or_decoder_is_caught(tiers: Path, tmp_path: Path, component: str) -> None:
    model = lower_to_17(component_model(component))
    quantize_int8(model, wanted=everything)
    report = with_file(tiers, "int8", component, model, tmp_path)
    assert report.min_bits[component] == 8
    assert_only(report, f"{component}: 8 bits", "below 16 bits", "must stay in float")


def test_weights_that_are_rounded_in_the_graph_count_as_what_is_left_of_them(tiers: Path, tmp_path: Path) -> None:
    model = lower_to_17(component_model("vocoder"))
    node = next(node for node in model.graph.node if node.name == "head.conv_post")
    weight = node.input[1]
    node.input[1] = "restored"
    rounding = [
        helper.make_node("QuantizeLinear", [weight, "scale", "zero"], ["rounded"], "round"),
        helper.make_node("DequantizeLinear", ["rounded", "scale", "zero"], ["restored"], "restore"),
    ]
    for extra in reversed(rounding):
        model.graph.node.insert(0, extra)
    model.graph.initializer.append(numpy_helper.from_array(np.array(0.03, np.float32), "scale"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(0, np.int8), "zero"))
    report = with_file(tiers, "int8", "vocoder", model, tmp_path)
    assert report.min_bits["vocoder"] == UNKNOWN
    assert any("QuantizeLinear 'round' changes stored head.conv_post.weight" in text for text in report.violations)
    assert any("1 weights below 16 bits, first head.conv_post.weight" in text for text in report.violations)


def test_opset_18_labelled_17_is_caught(tiers: Path, tmp_path: Path) -> None:
    model = component_model("vocoder", half=True)
    model.opset_import[0].version = 17
    report = with_file(tiers, "int8", "vocoder", model, tmp_path)
    assert_only(report, "not valid for the opset it declares")


def test_int8_at_18_and_int4_at_17_are_caught(tiers: Path, tmp_path: Path) -> None:
    assert_only(
        with_file(tiers, "int8", "transformer", raise_from_18(component_model("transformer"), opset=18), tmp_path),
        "needs exactly 17",
        "8 bits or fewer",
        "transformer.cpu",
    )
    assert_only(with_file(tiers, "int4", "vocoder", int8_model("vocoder"), tmp_path), "needs exactly 21")


def test_a_model_without_an_opset_import_is_caught(tiers: Path, tmp_path: Path) -> None:
    model = int8_model("transformer")
    del model.opset_import[:]
    report = with_file(tiers, "int8", "transformer", model, tmp_path)
    assert any("imported 0 times" in text for text in report.violations)


def test_the_fp32_file_under_the_name_of_a_tier_is_caught(tiers: Path, tmp_path: Path) -> None:
    report = with_file(tiers, "int8", "transformer", lower_to_17(component_model("transformer")), tmp_path)
    assert_only(report, "0.00 of the linear weights are in 8 bits or fewer", "transformer.cpu")
    file = check_file(
        tiers / "fp32" / "vocoder.onnx",
        component="vocoder",
        tier="fp16",
        baseline=tiers / "fp32" / "vocoder.onnx",
        layout=LAYOUT,
    )
    assert_only(file, "in half precision")
    file = check_file(tiers / "int8" / "transformer.onnx", component="transformer", tier="fp16", layout=LAYOUT)
    assert any("in bits that tier fp16 has none of" in text for text in file.violations)


def test_an_int4_tier_that_is_int8_is_caught(tiers: Path, tmp_path: Path) -> None:
    model = raise_from_18(component_model("transformer", half=True))
    quantize_int8(model, wanted=everything)
    assert_only(with_file(tiers, "int4", "transformer", model, tmp_path), "in 4 bits")


def test_a_weight_that_went_missing_is_caught(tiers: Path, tmp_path: Path) -> None:
    model = int8_model("transformer")
    cut = component_model("transformer")
    del cut.graph.node[1]
    cut.graph.node[1].input[0] = cut.graph.node[0].output[0]
    cut.graph.initializer.remove(cut.graph.initializer[1])
    model = lower_to_17(cut)
    quantize_int8(model, wanted=body)
    report = with_file(tiers, "int8", "transformer", model, tmp_path)
    assert any("1 weights of the FP32 file are not read, first transformer" in v for v in report.violations)


def test_a_vocal_part_that_is_absent_is_caught(tiers: Path, tmp_path: Path) -> None:
    model = int8_model("text_encoder")
    report = with_file(tiers, "int8", "condition_encoder", model, tmp_path)
    assert report.min_bits["lyric_encoder"] == 0
    assert any("lyric_encoder: no weights" in text for text in report.violations)


def test_a_vocal_part_is_judged_where_it_is_moved_to(tiers: Path, tmp_path: Path) -> None:
    model = int4_model("transformer")
    lyric = component_model("condition_encoder", half=True).graph.initializer[1]
    model.graph.initializer.append(lyric)
    model.graph.node.append(helper.make_node("MatMul", ["x", lyric.name], ["extra"], "lyric_encoder"))
    quantize_int4(model, wanted=lambda module: module.startswith("lyric"))
    report = with_file(tiers, "int4", "transformer", model, tmp_path)
    assert report.min_bits["lyric_encoder"] == 4


def test_integers_taken_apart_by_hand_are_caught(tiers: Path, tmp_path: Path) -> None:
    model = int8_model("condition_encoder")
    shift = numpy_helper.from_array(np.array([4], np.uint8), "shift")
    packed = numpy_helper.from_array(np.zeros((WIDTH, WIDTH), np.uint8), "lyric_proj.weight_q8b")
    model.graph.initializer.extend([shift, packed])
    model.graph.node.append(helper.make_node("BitShift", [packed.name, "shift"], ["half"], direction="RIGHT"))
    report = with_file(tiers, "int8", "condition_encoder", model, tmp_path)
    assert any("BitShift '' changes stored lyric_proj.weight_q8b" in text for text in report.violations)
    assert any("nodes reach no output, first BitShift" in text for text in report.violations)


def test_nested_graphs_are_refused_since_weights_could_lie_in_them(tiers: Path, tmp_path: Path) -> None:
    inner = numpy_helper.from_array(np.zeros((WIDTH, WIDTH), np.int8), "hidden")
    scale = numpy_helper.from_array(np.array(1, np.float32), "s")
    branch = helper.make_graph(
        [
            helper.make_node("Constant", [], ["hidden"], value=inner),
            helper.make_node("Constant", [], ["s"], value=scale),
            helper.make_node("DequantizeLinear", ["hidden", "s"], ["w"]),
            helper.make_node("Transpose", ["w"], ["wt"]),
            helper.make_node("MatMul", ["x", "wt"], ["z"]),
        ],
        "branch",
        [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, (None, WIDTH))],
    )
    model = lower_to_17(component_model("vocoder"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    model.graph.node.append(helper.make_node("If", ["yes"], ["z_out"], then_branch=branch, else_branch=branch))
    report = with_file(tiers, "int8", "vocoder", model, tmp_path)
    assert any("If '' has a graph of its own" in text for text in report.violations)


def test_scales_are_no_weights() -> None:
    model = int4_model("transformer")
    assert sorted(weight.name for weight in trace(model).weights) == sorted(
        f"{n}.weight" for n in LAYERS["transformer"]
    )


def test_two_nodes_of_one_name_are_caught_since_no_runtime_loads_them(tiers: Path, tmp_path: Path) -> None:
    model = int8_model("transformer")
    model.graph.node[0].name = model.graph.node[1].name
    assert_only(with_file(tiers, "int8", "transformer", model, tmp_path), "several nodes are called", "transformer.cpu")


def test_an_absent_component_is_an_error(tiers: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"text_encoder\.onnx"):
        check_tier(tmp_path, tier="int8", layout=LAYOUT)


def test_weights_in_a_data_file_are_judged_as_well_and_their_loss_is_caught(
    tiers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph, "EXTERNAL_DATA_FROM", 0)
    for component in LAYOUT.components:
        save(int8_model(component), tmp_path / f"{component}.onnx")
        save(int8_model(component), tmp_path / f"{component}.onnx")
    write_cpu_profile(tmp_path / "transformer.onnx", tmp_path / "transformer.cpu.onnx")
    inside, outside = (
        check_tier(path, tier="int8", baseline=tiers / "fp32", layout=LAYOUT) for path in (tiers / "int8", tmp_path)
    )
    assert outside.violations == ()
    assert outside.min_bits == inside.min_bits
    assert outside.size_bytes == pytest.approx(inside.size_bytes, rel=0.1)
    (tmp_path / "vocoder.onnx.data").unlink()
    assert_only(check_tier(tmp_path, tier="int8", layout=LAYOUT), "not valid", "absent", "cannot be read")
