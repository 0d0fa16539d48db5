"""`lofi verify-weights` on sound and on broken bases, and the published model's names, shapes and counts."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from diffusers.models.autoencoders.autoencoder_dc import AutoencoderDC
from safetensors.torch import load_file, save_file
from transformers import UMT5Config, UMT5EncoderModel

from lofi_assets.backbones.ace_step_v1.loading import (
    DCAE,
    FOLDERS,
    TEXT_ENCODER,
    TRANSFORMER,
    VOCODER,
)
from lofi_assets.backbones.ace_step_v1.lyric_vocabulary import LYRIC_VOCABULARY
from lofi_assets.backbones.ace_step_v1.transformer import DEAD_WEIGHTS, ACEStepTransformer2DModel
from lofi_assets.backbones.ace_step_v1.verification import runs as weight_runs
from lofi_assets.backbones.ace_step_v1.verification.files import PUBLISHED_PARAMETERS
from lofi_assets.backbones.ace_step_v1.vocoder import ADaMoSHiFiGANV1
from lofi_assets.cli.base_models import verify_weights

WIDTH, LYRIC, BLOCKS, LYRIC_BLOCKS = 2560, 1024, 24, 6
Shapes = dict[str, tuple[int, ...]]


def linear(name: str, outputs: int, inputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def convolution(name: str, *shape: int, bias: bool = True) -> Shapes:
    return {f"{name}.weight": shape} | ({f"{name}.bias": shape[:1]} if bias else {})


def affine_norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def block(index: int) -> Shapes:
    name = f"transformer_blocks.{index}"
    projections = [
        f"{part}.{layer}" for part in ("attn", "cross_attn") for layer in ("to_q", "to_k", "to_v", "to_out.0")
    ]
    dead = [f"cross_attn.{layer}" for layer in ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")]
    shapes: Shapes = {f"{name}.scale_shift_table": (6, WIDTH)}
    for layer in (*projections, *dead):
        shapes |= linear(f"{name}.{layer}", WIDTH, WIDTH)
    shapes |= convolution(f"{name}.ff.inverted_conv.conv", 12800, WIDTH, 1)
    shapes |= convolution(f"{name}.ff.depth_conv.conv", 12800, 1, 3)
    return shapes | convolution(f"{name}.ff.point_conv.conv", WIDTH, 6400, 1, bias=False)


def lyric_block(index: int) -> Shapes:
    name = f"lyric_encoder.encoders.{index}"
    shapes: Shapes = {f"{name}.self_attn.linear_pos.weight": (LYRIC, LYRIC)}
    shapes |= {f"{name}.self_attn.pos_bias_{part}": (16, 64) for part in "uv"}
    for layer in ("linear_q", "linear_k", "linear_v", "linear_out"):
        shapes |= linear(f"{name}.self_attn.{layer}", LYRIC, LYRIC)
    shapes |= linear(f"{name}.feed_forward.w_1", 4096, LYRIC) | linear(f"{name}.feed_forward.w_2", LYRIC, 4096)
    return shapes | affine_norm(f"{name}.norm_ff", LYRIC) | affine_norm(f"{name}.norm_mha", LYRIC)


def published_transformer() -> Shapes:
    """Every tensor of the published file, spelt out from its key pattern."""
    shapes = linear("t_block.1", 6 * WIDTH, WIDTH) | linear("speaker_embedder", WIDTH, 512)
    shapes |= linear("genre_embedder", WIDTH, 768) | linear("lyric_proj", WIDTH, LYRIC)
    shapes |= linear("timestep_embedder.linear_1", WIDTH, 256) | linear("timestep_embedder.linear_2", WIDTH, WIDTH)
    shapes |= {"lyric_embs.weight": (6693, LYRIC), "final_layer.scale_shift_table": (2, WIDTH)}
    shapes |= linear("final_layer.linear", 128, WIDTH)
    shapes |= linear("lyric_encoder.embed.out.0", LYRIC, LYRIC) | affine_norm("lyric_encoder.embed.out.1", LYRIC)
    shapes |= affine_norm("lyric_encoder.after_norm", LYRIC)
    shapes |= convolution("proj_in.early_conv_layers.0", 2048, 8, 16, 1) | affine_norm(
        "proj_in.early_conv_layers.1", 2048
    )
    shapes |= convolution("proj_in.early_conv_layers.2", WIDTH, 2048, 1, 1)
    for index, outputs in enumerate((1024, 768)):
        shapes |= linear(f"projectors.{index}.0", 2 * WIDTH, WIDTH) | linear(f"projectors.{index}.2", 5120, 5120)
        shapes |= linear(f"projectors.{index}.4", outputs, 5120)
    for index in range(BLOCKS):
        shapes |= block(index)
    for index in range(LYRIC_BLOCKS):
        shapes |= lyric_block(index)
    return shapes


def published_dcae() -> AutoencoderDC:
    """By the published config.json of music_dcae_f8c8."""
    kinds, widths = ("ResBlock", "ResBlock", "ResBlock", "EfficientViTBlock"), (128, 256, 512, 1024)
    return AutoencoderDC(
        in_channels=2,
        latent_channels=8,
        attention_head_dim=32,
        encoder_block_types=kinds,
        decoder_block_types=kinds,
        encoder_block_out_channels=widths,
        decoder_block_out_channels=widths,
        encoder_layers_per_block=(2, 2, 3, 3),
        decoder_layers_per_block=(3, 3, 3, 3),
        encoder_qkv_multiscales=((), (), (5,), (5,)),
        decoder_qkv_multiscales=((), (), (5,), (5,)),
        upsample_block_type="interpolate",
        downsample_block_type="Conv",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
        scaling_factor=0.41407,
    )


def published_text_encoder() -> UMT5EncoderModel:
    sizes: dict[str, Any] = {
        "d_model": 768,
        "d_kv": 64,
        "d_ff": 2048,
        "num_layers": 12,
        "num_heads": 12,
        "vocab_size": 256384,
    }
    return UMT5EncoderModel(UMT5Config(**sizes, feed_forward_proj="gated-gelu"))


def test_the_published_transformer_has_upstreams_874_names_and_shapes() -> None:
    with torch.device("meta"):
        state = ACEStepTransformer2DModel().state_dict()
    expected = published_transformer()
    assert len(expected) == 874
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == expected


def test_a_load_for_training_asks_for_upstreams_names_less_the_dead_ones_and_the_projectors() -> None:
    with torch.device("meta"):
        lean = ACEStepTransformer2DModel(drop_dead_projections=True, build_projectors=False).state_dict()
    kept = {name for name in published_transformer() if not DEAD_WEIGHTS.search(name) and "projectors" not in name}
    assert lean.keys() == kept and len(kept) == 874 - 24 * 8 - 12


@pytest.mark.parametrize(
    ("component", "build"),
    [
        (TRANSFORMER, ACEStepTransformer2DModel),
        (DCAE, published_dcae),
        (VOCODER, ADaMoSHiFiGANV1),
        (TEXT_ENCODER, published_text_encoder),
    ],
)
def test_a_component_of_the_published_configuration_has_the_published_size(
    component: str, build: Callable[[], torch.nn.Module]
) -> None:
    with torch.device("meta"):
        model = build()
    assert sum(parameter.numel() for parameter in model.parameters()) == PUBLISHED_PARAMETERS[component]


@pytest.fixture
def spoilt(tiny_base: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(tiny_base, tmp_path / "spoilt"))


def verified(directory: Path, *options: str) -> tuple[int, str]:
    result = CliRunner().invoke(verify_weights, [str(directory), *options])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result.exit_code, result.stdout


def test_a_sound_tiny_base_passes_and_is_said_not_to_be_the_published_one(tiny_base: Path) -> None:
    code, output = verified(tiny_base)
    assert code == 0, output
    assert "not of the published sizes" in output and "the published model has 3,305,659,264" in output
    assert "FAIL" not in output
    for part in (
        r"32 of them \([\d,]+ parameters\) are read by no forward pass",
        r"log-mel SNR -?\d",
        "one sampler step",
    ):
        assert re.search(part, output)


def test_reading_files_only_runs_nothing(tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_runs, "load_base", None)
    code, output = verified(tiny_base, "--files-only")
    assert code == 0 and "its files are whole (" in output


def weights(directory: Path, component: str) -> Path:
    return next((directory / component).glob("*.safetensors"))


def edit(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def configure(directory: Path, component: str, **values: object) -> None:
    path = directory / component / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def pickled(path: Path) -> None:
    torch.save(load_file(path), path.with_suffix(".bin"))
    path.unlink()


BREAKS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a missing tensor": (
        r"lacks 1 of the 198 tensors that config\.json asks for: final_layer\.linear\.bias\. The file is incomplete",
        lambda base: edit(weights(base, TRANSFORMER), lambda t: t.pop("final_layer.linear.bias")),
    ),
    "a missing text tensor": (
        r"umt5-base +the weight file lacks 1 of the 22 .*: shared\.weight",
        lambda base: edit(weights(base, TEXT_ENCODER), lambda t: t.pop("shared.weight")),
    ),
    "an unknown tensor": (
        r"holds 1 tensors that config\.json has no place for: surprise",
        lambda base: edit(weights(base, VOCODER), lambda t: t.update(surprise=torch.zeros(1))),
    ),
    "a wrong shape": (
        r"has 1 tensors in another shape .*lyric_proj\.bias is \(7,\) instead of \(64,\)",
        lambda base: edit(weights(base, TRANSFORMER), lambda t: t.update({"lyric_proj.bias": torch.zeros(7)})),
    ),
    "not a number": (
        r"decoder\.conv_in\.bias holds 1 numbers that are not finite",
        lambda base: edit(weights(base, DCAE), lambda t: t["decoder.conv_in.bias"][:1].fill_(torch.nan)),
    ),
    "a pickle": (
        r"only diffusion_pytorch_model\.bin, a pickle, which can run code and is never loaded",
        lambda base: pickled(weights(base, DCAE)),
    ),
    "a download cut short": (
        r"model\.safetensors is damaged or cut short",
        lambda base: weights(base, TEXT_ENCODER).write_bytes(weights(base, TEXT_ENCODER).read_bytes()[:-100]),
    ),
    "a config of another model": (
        r"config\.json is of another model; fetch both again",
        lambda base: configure(base, TRANSFORMER, num_layers=3),
    ),
    "a config that makes no model": (
        r"config\.json describes no model of this kind",
        lambda base: configure(base, VOCODER, upsample_rates="fast"),
    ),
    "no config": (r"config\.json cannot be read", lambda base: (base / DCAE / "config.json").unlink()),
    "integers": (
        r"I8 is no floating-point weight",
        lambda base: edit(
            weights(base, TRANSFORMER), lambda t: t.update({"lyric_proj.bias": torch.zeros(64, dtype=torch.int8)})
        ),
    ),
    "no folder": (r"music_vocoder is missing; a base model has", lambda base: shutil.rmtree(base / VOCODER)),
    "no tokenizer": (
        r"umt5-base +does not load",
        lambda base: [path.unlink() for path in (base / TEXT_ENCODER).glob("*token*")],
    ),
    "another vocabulary": (
        r"73 ids, 40 rows .*it is of another model",
        lambda base: (
            configure(base, TRANSFORMER, lyric_encoder_vocab_size=40),
            edit(weights(base, TRANSFORMER), lambda t: t.update({"lyric_embs.weight": torch.zeros(40, 32)})),
        ),
    ),
    "no vocabulary file of the kind": (
        r"lyric_vocab\.json +cannot be read",
        lambda base: (base / LYRIC_VOCABULARY).write_text("{}"),
    ),
    "a deaf text encoder": (
        r"prompts would not be heard",
        lambda base: edit(weights(base, TEXT_ENCODER), lambda t: t["shared.weight"].fill_(1.0)),
    ),
    "a prompt that changes nothing": (
        r"the prompt changes nothing",
        lambda base: edit(
            weights(base, TRANSFORMER), lambda t: [t[name].zero_() for name in t if name.startswith("genre_embedder")]
        ),
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_what_is_wrong_is_said_and_fails(spoilt: Path, name: str) -> None:
    message, spoil = BREAKS[name]
    spoil(spoilt)
    code, output = verified(spoilt)
    assert code == 1
    told = [line for line in output.splitlines() if line.startswith("FAIL")]
    assert re.search(message, told[0]), output
    assert "checks failed" in output


def test_a_base_without_a_lyric_vocabulary_is_sound_and_says_what_that_means(spoilt: Path) -> None:
    (spoilt / LYRIC_VOCABULARY).unlink()
    code, output = verified(spoilt)
    assert code == 0, output
    assert "instrumental tracks work, a track with words stops" in output


def test_an_untrained_codec_would_not_pass_for_the_published_one(tiny_base: Path) -> None:
    findings = weight_runs.run_codec(tiny_base, device="cpu", judged=True)
    failed = [finding for finding in findings if not finding.passed]
    assert len(failed) == 3 and all("below the limit of 6 dB" in finding.text for finding in failed)


def test_latents_of_another_scale_would_not_pass_for_those_of_the_published_model() -> None:
    noise = torch.randn(2, 8, 16, 20, generator=torch.Generator().manual_seed(0))
    assert weight_runs._step_finding(noise, judged=True).passed
    assert not weight_runs._step_finding(noise * 20, judged=True).passed
    assert weight_runs._step_finding(noise * 20, judged=False).passed
    assert not weight_runs._step_finding(noise * torch.nan, judged=False).passed


def test_every_component_is_looked_at(tiny_base: Path) -> None:
    _, output = verified(tiny_base, "--files-only")
    assert all(re.search(rf"^ok   {folder} ", output, re.MULTILINE) for folder in FOLDERS)
