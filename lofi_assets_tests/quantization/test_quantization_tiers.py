"""From a small base to four tiers: exports compute what torch computes, and what is derived keeps the policy."""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto
from transformers import UMT5Config, UMT5EncoderModel

from lofi_assets.backbones.ace_step_v1.backbone import ACE_STEP_V1
from lofi_assets.backbones.ace_step_v1.blocks import PatchEmbed
from lofi_assets.backbones.ace_step_v1.export import needs, pointwise_linear, prepare, swap_pointwise_convolutions
from lofi_assets.backbones.ace_step_v1.loading import TEXT_ENCODER, TRANSFORMER, VOCODER, encode_text, load_base
from lofi_assets.backbones.ace_step_v1.sampler import conditions_for, sample_latents
from lofi_assets.backbones.ace_step_v1.tiny import make_audible
from lofi_assets.backbones.ace_step_v1.transformer import ACEStepTransformer2DModel
from lofi_assets.backbones.ace_step_v1.vocoder import ADaMoSHiFiGANV1
from lofi_assets.backbones.export import Exportable
from lofi_assets.files.writing import copy_file
from lofi_assets.lofi_onnx.clip import write_clip
from lofi_assets.lofi_onnx.flow import seeded_noise
from lofi_assets.lofi_onnx.pipeline import OnnxPipeline, RuntimeFolderError
from lofi_assets.profiles import load_profile
from lofi_assets.quantization import build as tiers_module
from lofi_assets.quantization import components as components_module
from lofi_assets.quantization import export as export_module
from lofi_assets.quantization.build import TierError, TierReport, build_tiers, is_current, tier_fingerprint
from lofi_assets.quantization.components import Recipe
from lofi_assets.quantization.export import ExportError, export
from lofi_assets.quantization.graph import load, opset_of
from lofi_assets.quantization.int8 import quantize_int8
from lofi_assets.quantization.opset import lower_to_17
from lofi_assets.quantization.policy import check_tier
from lofi_assets.quantization.sensitivity import spared
from lofi_assets.quantization.tier_manifest import TIERS, TierManifest, TierName
from lofi_assets.quantization.weight_trace import trace
from lofi_assets.release.bundle_documents import pipeline_json
from lofi_assets_tests import release as release_tests
from lofi_assets_tests.quantization.test_sensitivity import predicted_db

Built = tuple[Path, dict[str, TierReport]]
"""The folder of the tiers, and what was said of each."""
LAYOUT = ACE_STEP_V1.layout
PROMPTS = ["lofi hip hop, piano, rain", "chill"]


SMALLER = {
    TRANSFORMER: (ACEStepTransformer2DModel, {"num_layers": 1, "lyric_num_blocks": 1, "ssl_encoder_depths": [0, 0]}),
    TEXT_ENCODER: (UMT5EncoderModel, {"num_layers": 1}),
    VOCODER: (
        ADaMoSHiFiGANV1,
        {"depths": [1, 1], "dims": [16, 32], "upsample_rates": [8, 8, 8], "upsample_kernel_sizes": [16, 16, 16]},
    ),
}
"""Export time goes by the number of nodes: one block of each kind will do."""


@pytest.fixture(scope="module")
def base_dir(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = shutil.copytree(tiny_base, tmp_path_factory.mktemp("base") / "small")
    torch.manual_seed(2)
    for folder, (model, sizes) in SMALLER.items():
        config = json.loads((directory / folder / "config.json").read_text()) | sizes
        (directory / folder / "model.safetensors").unlink(missing_ok=True)
        if model is UMT5EncoderModel:
            built = model(UMT5Config(**config))
        else:
            built = model(**{name: value for name, value in config.items() if not name.startswith("_")})
        if isinstance(built, ADaMoSHiFiGANV1):
            make_audible(built.head)
        built.save_pretrained(directory / folder)
    return directory


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the build of `built` kept for the next."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(scope="module")
def built(base_dir: Path, kept: Path, operators_read_once: None, tmp_path_factory: pytest.TempPathFactory) -> Built:
    root = tmp_path_factory.mktemp("quantized")
    reports = build_tiers(
        base_dir, root, provenance={"checkpoint": "test"}, kept=kept, progress=lambda line: None, backbone=ACE_STEP_V1
    )
    return root, {report.tier: report for report in reports}


@pytest.fixture(scope="module")
def fp32(built: Built) -> OnnxPipeline:
    return OnnxPipeline(built[0] / "fp32", threads=1)


def wrapped(base_dir: Path, component: str) -> Exportable:
    return prepare(component, load_base(base_dir, components=[needs(component)]))


def at_another_length(exportable: Exportable) -> dict[str, torch.Tensor]:
    """Example inputs with random values and every free dimension changed, alike dimensions alike."""
    sizes = {"batch": 3, "tokens": 11, "lyrics": 4, "frames": 41, "context": 6, "mel_frames": 19}
    generator = torch.Generator().manual_seed(9)
    inputs = {}
    for name, example in exportable.inputs.items():
        shape = [
            sizes[exportable.free[name][axis]] if axis in exportable.free[name] else n
            for axis, n in enumerate(example.shape)
        ]
        if example.is_floating_point():
            inputs[name] = torch.rand(shape, generator=generator) * (1000 if name == "timestep" else 2) - 0.5
        elif "mask" in name:
            inputs[name] = torch.ones(shape, dtype=torch.long)
            inputs[name][0, -2:] = 0
        else:
            inputs[name] = torch.randint(0, 50, shape, generator=generator)
    return inputs


def run(path: Path, inputs: dict[str, torch.Tensor]) -> list[np.ndarray]:
    """Without onnxruntime's own rewriting, which differs by opset."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, {name: value.numpy() for name, value in inputs.items()})


@pytest.mark.parametrize("component", LAYOUT.components)
def test_a_float32_export_computes_what_torch_computes_at_other_lengths(
    base_dir: Path, built: Built, component: str
) -> None:
    exportable = wrapped(base_dir, component)
    inputs = at_another_length(exportable)
    with torch.no_grad():
        expected = exportable.module(*inputs.values())
    expected = expected if isinstance(expected, tuple) else (expected,)
    for wanted, got in zip(expected, run(built[0] / "fp32" / f"{component}.onnx", inputs), strict=True):
        assert got.shape == tuple(wanted.shape)
        assert np.abs(got - wanted.numpy()).max() <= 2e-4 * max(1.0, float(wanted.abs().max()))


@pytest.mark.parametrize("component", LAYOUT.components)
def test_lowering_to_17_changes_no_bit(base_dir: Path, built: Built, component: str, tmp_path: Path) -> None:
    path = built[0] / "fp32" / f"{component}.onnx"
    lowered = lower_to_17(load(path))
    assert opset_of(lowered) == 17
    onnx.save_model(lowered, str(tmp_path / "17.onnx"))
    inputs = at_another_length(wrapped(base_dir, component))
    for before, after in zip(run(path, inputs), run(tmp_path / "17.onnx", inputs), strict=True):
        np.testing.assert_array_equal(before, after)


def test_replacing_pointwise_convolutions_changes_nothing_but_the_kind_of_layer() -> None:
    conv = torch.nn.Conv1d(12, 20, 1)
    x = torch.randn(2, 12, 7)
    torch.testing.assert_close(pointwise_linear(conv)(x.mT).mT, conv(x), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_no_weight_is_laid_out_anew_in_a_file_of_a_base_that_the_exporter_does_not_fold(dtype: torch.dtype) -> None:
    """It folds what is done to a weight of up to 8,192 numbers, as the tiny base has them; the demo's base has more."""
    module = PatchEmbed(8, 192, patch=(16, 1), mult=16).eval().to(dtype)
    assert swap_pointwise_convolutions(module) == ["early_conv_layers.2"]
    latents = torch.randn(1, 8, 16, 24).to(dtype)
    graph = torch.onnx.export(module, (latents,), kwargs={"mask": None}, dynamo=True, verbose=False).model_proto.graph
    stored = {weight.name: math.prod(weight.dims) for weight in graph.initializer}
    assert sum(size > 8192 for size in stored.values()) == 2
    readers = {node.op_type for node in graph.node for name in node.input if stored.get(name, 0) > 8192}
    assert readers <= {"Conv", "MatMul", "Gemm", "Transpose"}, readers


def test_every_linear_layer_is_named_after_its_module_in_every_tier(base_dir: Path, built: Built) -> None:
    transformer = load_base(base_dir, components=["transformer"]).transformer
    living = {
        name
        for name, module in transformer.transformer_blocks.named_modules(prefix="transformer_blocks")
        if isinstance(module, torch.nn.Linear | torch.nn.Conv1d) and "add_" not in name
    }
    for tier in TIERS:
        weights = {weight.name for weight in trace(load(built[0] / tier / "transformer.onnx")).weights}
        assert {f"{name}.weight" for name in living} <= weights


def test_no_dead_module_and_no_machine_path_is_in_a_file(built: Built) -> None:
    for tier in TIERS:
        for path in (built[0] / tier).glob("*.onnx"):
            text = path.read_bytes()
            for unwanted in (b"add_q_proj", b"to_add_out", b"projectors", b"lora_", b"site-packages", b"stack_trace"):
                assert unwanted not in text, f"{unwanted!r} in {path}"
    names = {weight.name for weight in trace(load(built[0] / "fp32" / "transformer.onnx")).weights}
    assert not any(name.startswith(("lyric", "speaker", "genre")) for name in names)


def test_free_dimensions_have_names(built: Built) -> None:
    graph = load(built[0] / "fp16" / "transformer.onnx").graph
    dims = {value.name: [dim.dim_param for dim in value.type.tensor_type.shape.dim] for value in graph.input}
    assert dims["hidden_states"] == ["batch", "", "", "frames"]
    assert dims["encoder_hidden_states"] == ["batch", "context", ""]


def test_half_precision_keeps_long_sums_in_float32(built: Built) -> None:
    model = load(built[0] / "fp16" / "transformer.onnx")
    kinds = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    division = next(node for node in model.graph.node if node.name.startswith("transformer_blocks.0.attn/Div"))
    assert kinds[division.output[0]] == onnx.TensorProto.FLOAT
    products = [node for node in model.graph.node if node.name == "transformer_blocks.0.attn.to_q"]
    assert kinds[products[0].output[0]] == onnx.TensorProto.FLOAT16


def test_an_exporter_that_returns_another_opset_is_caught(base_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Program:
        model_proto = onnx.helper.make_model(
            onnx.helper.make_graph([], "g", [], []), opset_imports=[onnx.helper.make_opsetid("", 19)]
        )

    monkeypatch.setattr("torch.onnx.export", lambda *a, **k: Program)
    with pytest.raises(ExportError, match="asked for opset 18, the exporter returned 19"):
        export(wrapped(base_dir, "text_encoder"), precision="float32")


def test_all_four_tiers_keep_the_policy_at_their_opsets(built: Built) -> None:
    root, reports = built
    assert [reports[tier].policy.violations for tier in TIERS] == [()] * 4
    assert [reports[tier].policy.opset for tier in TIERS] == [18, 18, 17, 21]
    int8, int4 = (
        check_tier(root / tier, tier=tier, baseline=root / "fp32", layout=LAYOUT) for tier in ("int8", "int4")
    )
    assert (
        int8.min_bits == int4.min_bits == {"dcae_decoder": 16, "vocoder": 16, "lyric_encoder": 8, "speaker_embedder": 8}
    )
    assert int4.components[2].int4_share > 0.5


def test_every_tier_was_asked_for_numbers_and_its_range_in_half_is_on_record(built: Built) -> None:
    root, reports = built
    assert [reports[tier].not_finite for tier in TIERS] == [()] * 4
    halves = [TierManifest.read(root / tier).half for tier in TIERS]
    assert halves[0] is None and halves[1] == halves[2] == halves[3]
    assert set(halves[1]) == set(LAYOUT.components)
    assert halves[1]["dcae_decoder"].islands == () and max(halves[1]["dcae_decoder"].largest.values()) > 0


def test_fidelity_falls_with_the_bits_and_stays_usable(built: Built) -> None:
    decibel = {tier: report.snr_db["transformer"] for tier, report in built[1].items()}
    assert decibel["fp32"] == 200 > decibel["fp16"] > decibel["int8"] > decibel["int4"] > 25
    assert all(report.snr_db["vocoder"] > 40 for report in built[1].values())
    assert all(report.snr_db["condition_encoder"] > 30 for report in built[1].values())


def test_a_cpu_runs_int8_in_integers_and_other_providers_do_not(built: Built) -> None:
    root, reports = built
    folder = root / "int8"
    assert reports["int8"].snr_db["transformer"] > reports["int8"].snr_db["transformer.cpu"] > 30
    graph = load(folder / "transformer.cpu.onnx", weights=False).graph
    integers = [tensor for tensor in graph.initializer if tensor.name.endswith("_q8") and tensor.external_data]
    assert integers and {tensor.external_data[0].value for tensor in integers} == {"transformer.onnx.data"}
    latents = {}
    for cpu_profile in (True, False):
        pipeline = OnnxPipeline(folder, cpu_profile=cpu_profile)
        context = pipeline.conditions(PROMPTS, lyrics=["", ""])
        name = pipeline.component_file("transformer").name
        latents[name] = pipeline.sample_latents(context, noise=seeded_noise([1, 2], frames=21), steps=2)
    assert list(latents) == ["transformer.cpu.onnx", "transformer.onnx"]
    ours, plain = latents.values()
    assert 0 < np.abs(ours - plain).max() < 0.2
    with_gpu = OnnxPipeline(folder, providers=["CUDAExecutionProvider", "CPUExecutionProvider"])
    assert with_gpu.component_file("transformer").name == "transformer.onnx"
    assert OnnxPipeline(root / "int4").component_file("transformer").name == "transformer.onnx"


def test_a_tier_that_was_bundled_is_still_read_and_judged(built: Built, tmp_path: Path) -> None:
    folder, baseline = tmp_path / "int8", built[0] / "fp32"
    for path in (built[0] / "int8").iterdir():
        copy_file(path, folder / path.name)
    assert check_tier(built[0] / "int8", tier="int8", baseline=baseline, layout=LAYOUT).holds
    assert check_tier(folder, tier="int8", baseline=baseline, layout=LAYOUT).holds
    assert load(folder / "transformer.cpu.onnx").graph.node
    assert (folder / "transformer.onnx.data").stat().st_mode & 0o044


def test_a_manifest_accounts_for_every_file_and_the_files_say_where_they_come_from(
    built: Built, base_dir: Path
) -> None:
    directory = built[0] / "int4"
    manifest = json.loads((directory / "manifest.json").read_text())
    assert set(manifest["files"]) == {path.name for path in directory.iterdir()} - {"manifest.json"}
    assert {"tokenizer.json", "lyric_vocab.json", "vocoder.onnx"} <= set(manifest["files"])
    assert manifest["opset"] == 21 and manifest["policy"]["violations"] == []
    session = onnxruntime.InferenceSession(str(directory / "transformer.onnx"))
    properties = session.get_modelmeta().custom_metadata_map
    assert properties["tier"] == "int4" and properties["checkpoint"] == "test"
    assert properties["fingerprint"] == manifest["fingerprint"] == tier_fingerprint(base_dir, backbone=ACE_STEP_V1)


def test_unchanged_tiers_are_left_alone_and_a_damaged_one_is_derived_again(
    built: Built, base_dir: Path, tmp_path: Path
) -> None:
    root = tmp_path / "quantized"
    shutil.copytree(built[0], root)
    lines: list[str] = []
    again = build_tiers(base_dir, root, provenance={"checkpoint": "test"}, progress=lines.append, backbone=ACE_STEP_V1)
    assert [report.rebuilt for report in again] == [False] * 4
    assert lines == ["fp32: unchanged", "fp16: unchanged", "int8: unchanged", "int4: unchanged"]
    assert [report.snr_db for report in again] == [built[1][tier].snr_db for tier in TIERS]
    good = (root / "int4" / "transformer.onnx").read_bytes()
    (root / "int4" / "transformer.onnx").write_bytes(good[:-1] + b"x")
    assert not is_current(root / "int4", tier_fingerprint(base_dir, backbone=ACE_STEP_V1))
    again = build_tiers(base_dir, root, provenance={"checkpoint": "test"}, progress=lines.append, backbone=ACE_STEP_V1)
    assert [report.rebuilt for report in again] == [False, False, False, True]
    assert (root / "int4" / "transformer.onnx").read_bytes() == good
    assert sorted(path.name for path in root.iterdir()) == sorted(TIERS)


def test_what_no_adapter_changes_is_not_exported_again_and_each_file_has_the_bytes_of_an_export(
    built: Built, base_dir: Path, kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In half precision; what takes time and is not asked for here is given out as it was: transformer, condition
    encoder, and what the files measure. A slow test builds all tiers so, with nothing given out."""
    exported: list[tuple[str, str]] = []

    def given(exportable: Exportable, *, precision: str, islands: Any = (), spool: Any) -> onnx.ModelProto:
        component = {"Transformer": "transformer", "ConditionEncoder": "condition_encoder"}.get(
            type(exportable.module).__name__
        )
        assert component, "exported although no adapter changes it"
        exported.append((component, precision))
        model = load(built[0] / "fp16" / f"{component}.onnx")
        del model.metadata_props[:]
        return model

    known = TierManifest.read(built[0] / "fp16")
    assert known is not None
    monkeypatch.setattr(export_module, "export", given)
    monkeypatch.setattr(tiers_module, "compare", lambda runtime, probes: dict(known.snr_db))
    monkeypatch.setattr(tiers_module, "not_finite", lambda folder, files, probes, masked: known.not_finite)
    root, lines = tmp_path / "quantized", list[str]()
    shutil.copytree(built[0], root)
    shutil.rmtree(root / "fp16")
    before = {path: path.read_bytes() for path in kept.rglob("*") if path.is_file()}
    provenance = {"checkpoint": "test"}
    build_tiers(base_dir, root, provenance=provenance, kept=kept, progress=lines.append, backbone=ACE_STEP_V1)
    assert exported == [("transformer", "half"), ("condition_encoder", "half")]
    for component in ("text_encoder", "dcae_decoder", "vocoder"):
        assert any(line.startswith(f"fp16: {component} kept from the tiers of test in ") for line in lines)
    files = sorted(path.relative_to(built[0]) for path in built[0].rglob("*.*"))
    assert files == sorted(path.relative_to(root) for path in root.rglob("*.*"))
    for file in files:
        assert (root / file).read_bytes() == (built[0] / file).read_bytes(), file
    assert {path: path.read_bytes() for path in kept.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_two_processes_make_the_files_that_one_makes(
    built: Built, base_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = []

    def export_here(exportable: Exportable, **options: Any) -> onnx.ModelProto:
        here.append(type(exportable.module).__name__)
        return export(exportable, **options)

    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setattr(export_module, "export", export_here)
    root, lines = tmp_path / "quantized", list[str]()
    build_tiers(base_dir, root, provenance={"checkpoint": "test"}, progress=lines.append, backbone=ACE_STEP_V1)
    assert here[0] == "Transformer" and "Vocoder" not in here
    for tier in ("fp32", "fp16"):
        for component in LAYOUT.components:
            assert any(line.startswith(f"{tier}: {component} exported in ") for line in lines)
    files = sorted(path.relative_to(root) for path in root.rglob("*.*"))
    assert files == sorted(path.relative_to(built[0]) for path in built[0].rglob("*.*"))
    for file in files:
        if file.name == "manifest.json":
            made, expected = (json.loads((folder / file).read_bytes()) for folder in (root, built[0]))
            # What a graph answers on two threads is summed in another order than on one.
            assert made.pop("snr_db") == pytest.approx(expected.pop("snr_db"), abs=0.01)
            assert made == expected, file
        else:
            assert (root / file).read_bytes() == (built[0] / file).read_bytes(), file


def test_what_a_process_that_died_had_open_is_no_file_of_the_tier(
    built: Built, base_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "quantized"
    shutil.copytree(built[0], root)
    (root / "int8" / "manifest.json").unlink()

    def left(model: onnx.ModelProto, *, wanted: Any, spool: Any) -> Any:
        (spool.folder / ".numbers-left").write_bytes(b"left")
        return quantize_int8(model, wanted=wanted, spool=spool)

    monkeypatch.setattr(components_module, "quantize_int8", left)
    build_tiers(base_dir, root, provenance={"checkpoint": "test"}, progress=lambda line: None, backbone=ACE_STEP_V1)
    for file in sorted((built[0] / "int8").iterdir()):
        assert (root / "int8" / file.name).read_bytes() == file.read_bytes(), file
    assert {path.name for path in (root / "int8").iterdir()} == {path.name for path in (built[0] / "int8").iterdir()}


def test_a_tier_that_breaks_the_policy_is_not_put_in_place(
    built: Built, base_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "quantized"
    shutil.copytree(built[0], root)
    (root / "int8" / "manifest.json").unlink()
    before = (root / "int8" / "transformer.onnx").read_bytes()
    monkeypatch.setattr(components_module, "quantize_int8", lambda model, wanted, spool: [])
    with pytest.raises(TierError, match="8 bits or fewer"):
        build_tiers(base_dir, root, kept=tmp_path / "kept", progress=lambda line: None, backbone=ACE_STEP_V1)
    assert (root / "int8" / "transformer.onnx").read_bytes() == before
    assert not (tmp_path / "kept").exists(), "what is not proven is not kept"
    assert sorted(path.name for path in root.iterdir()) == sorted(TIERS)


def test_int4_stores_in_8_bits_what_costs_most_and_what_its_layers_cost_is_what_it_costs(built: Built) -> None:
    """The record says of each layer of the blocks what it costs; the sum of it is what the whole tier measures."""
    manifest = TierManifest.read(built[0] / "int4")
    assert manifest is not None and manifest.layers is not None
    graph = load(built[0] / "int4" / "transformer.onnx").graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    kept = set(manifest.recipe.int8_layers)
    assert kept == set(spared(manifest.layers)) and 0 < len(kept) < len(manifest.layers)
    for loss in manifest.layers:
        kind, ending = (TensorProto.INT8, "q8") if loss.layer in kept else (TensorProto.INT4, "q4")
        assert types[f"{loss.layer}.weight_{ending}"] == kind, loss.layer
    found = manifest.snr_db[LAYOUT.denoiser]
    assert predicted_db(manifest.layers, tuple(kept)) == pytest.approx(found, abs=2.0)
    for tier in ("fp32", "fp16", "int8"):
        other = TierManifest.read(built[0] / tier)
        assert other is not None and other.layers is None and other.recipe.int8_layers == ()


def test_another_recipe_or_model_is_another_fingerprint(base_dir: Path, tmp_path: Path) -> None:
    assert tier_fingerprint(base_dir, backbone=ACE_STEP_V1) != tier_fingerprint(
        base_dir, backbone=ACE_STEP_V1, recipe=Recipe(0.1)
    )
    other = tmp_path / "other"
    shutil.copytree(base_dir, other)
    (other / "merge.json").write_text('{"scale": 2.0}')
    assert tier_fingerprint(other, backbone=ACE_STEP_V1) != tier_fingerprint(base_dir, backbone=ACE_STEP_V1)


def test_the_numpy_sampler_gives_the_latents_of_the_torch_sampler(base_dir: Path, fp32: OnnxPipeline) -> None:
    base = load_base(base_dir)
    noise = torch.randn(2, 8, 16, 21, generator=torch.Generator().manual_seed(1))
    lyrics = ["", "[verse]\nhello there"]
    settings: dict[str, Any] = {"steps": 6, "guidance_scale": 7.0, "guidance_interval": 0.8}
    wanted = sample_latents(
        base.transformer, conditions_for(base, prompts=PROMPTS, lyrics=lyrics), noise=noise, **settings
    )
    got = fp32.sample_latents(fp32.conditions(PROMPTS, lyrics=lyrics), noise=noise.numpy(), **settings)
    np.testing.assert_allclose(got, wanted.numpy(), atol=2e-4)
    audio = fp32.decode(got)
    np.testing.assert_allclose(audio, base.music_dcae.decode(wanted).clamp(-1, 1).numpy(), atol=2e-3)


def test_text_is_tokenised_and_encoded_as_in_training(base_dir: Path, fp32: OnnxPipeline) -> None:
    wanted, mask = encode_text(load_base(base_dir, components=["text_encoder"]), PROMPTS)
    states, got_mask = fp32.encode_text(PROMPTS)
    np.testing.assert_array_equal(got_mask, mask.numpy())
    np.testing.assert_allclose(states, wanted.numpy(), atol=1e-5)


def test_music_has_the_asked_length_and_depends_on_its_own_seed_only(fp32: OnnxPipeline) -> None:
    pair = fp32.generate(PROMPTS, seconds=1.5, seeds=[3, 4], steps=3)
    assert pair.shape == (2, 2, 72000) and pair.dtype == np.float32
    assert np.isfinite(pair).all() and np.abs(pair).max() <= 1
    alone = fp32.generate(PROMPTS[:1], seconds=1.5, seeds=[3], steps=3)
    assert np.abs(alone[0] - pair[0]).max() < 1e-2
    assert np.abs(pair[0] - pair[1]).max() > 0.05
    with pytest.raises(ValueError, match="one seed and lyric for each prompt"):
        fp32.generate(PROMPTS, seconds=1.5, seeds=[3])


def test_a_tier_runs_without_torch(built: Built) -> None:
    code = f"""
import sys
from pathlib import Path
from lofi_assets.lofi_onnx.pipeline import OnnxPipeline
audio = OnnxPipeline(Path({str(built[0] / "int4")!r})).generate(["lofi"], seconds=1, seeds=[1], steps=2)
assert audio.shape == (1, 2, 48000)
assert not {{"torch", "transformers", "diffusers", "onnx"}} & set(sys.modules), "heavy import"
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize("tier", ["int8", "int4"])
def test_a_script_written_from_the_readme_alone_gives_the_latents_of_the_runtime(
    built: Built, tmp_path: Path, tier: TierName
) -> None:
    """In this environment; a slow test does so with a whole bundle, in the environment that pip makes of it."""
    manifest, bundle = TierManifest.read(built[0] / tier), tmp_path / "bundle"
    assert manifest is not None
    shutil.copytree(built[0] / tier, bundle / tier)
    runtime, name = ACE_STEP_V1.release_runtime(), str(tier)
    told = pipeline_json(runtime, {name: manifest}, {name: bundle / tier}, profile=load_profile("demo"))
    (bundle / "pipeline.json").write_text(told, encoding="utf-8")
    script = Path(release_tests.__file__).with_name("from_the_readme.py")
    mine, ours = tmp_path / "mine.npy", tmp_path / "ours.npy"
    subprocess.run([sys.executable, script, bundle, tier, PROMPTS[0], "2", "7", mine], check=True, timeout=120)
    asked: dict[str, Any] = {"tier": tier, "seconds": 2, "seed": 7, "cpu_graph": False}
    write_clip(bundle, PROMPTS[0], output=tmp_path / "a.wav", latents=ours, **asked)
    np.testing.assert_allclose(np.load(mine), np.load(ours), atol=1e-5)


def test_the_runtime_multiplies_stored_integers_as_numbers(fp32: OnnxPipeline) -> None:
    options = fp32.session("transformer").get_session_options()
    assert options.get_session_config_entry("session.qdq_matmulnbits_accuracy_level") == "1"


def test_an_incomplete_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(RuntimeFolderError, match=r"tokenizer\.json is absent"):
        OnnxPipeline(tmp_path)


@pytest.mark.slow
@pytest.mark.xdist_group("tiny_tiers")
def test_the_tiny_base_of_the_demo_goes_through_all_tiers_and_twice_to_the_same_bytes(
    tiny_base: Path, tiny_tiers: Path, tmp_path: Path
) -> None:
    for root in (tmp_path / "exported", tmp_path / "taken"):
        again = build_tiers(tiny_base, root, kept=tmp_path / "kept", backbone=ACE_STEP_V1)
        assert all(report.rebuilt and report.policy.holds for report in again)
        assert {path.relative_to(tiny_tiers) for path in tiny_tiers.rglob("*.*")} == {
            path.relative_to(root) for path in root.rglob("*.*")
        }
        for path in sorted(tiny_tiers.rglob("*.*")):
            assert path.read_bytes() == (root / path.relative_to(tiny_tiers)).read_bytes(), path
