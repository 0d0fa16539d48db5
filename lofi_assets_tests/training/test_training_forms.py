"""Every reader of a checkpoint applies what was trained, at the strength at which it was trained."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, inject_adapter_in_model, set_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file

from lofi_assets.backbones.ace_step_v1.backbone import ACE_STEP_V1
from lofi_assets.backbones.ace_step_v1.loading import TRANSFORMER, load_transformer
from lofi_assets.backbones.ace_step_v1.transformer import ACEStepTransformer2DModel
from lofi_assets.quantization.merge import merge_lora
from lofi_assets.release.adapter_files import layer_numbers
from lofi_assets.training.checkpoints.files import (
    COMFYUI_WEIGHTS,
    DIFFUSERS_WEIGHTS,
    PEFT_CONFIG,
    PEFT_PREFIX,
    PEFT_WEIGHTS,
)
from lofi_assets.training.checkpoints.soundness import fault
from lofi_assets.training.layer_patterns import strengths
from lofi_assets.training.lora_settings import LoraSettings
from lofi_assets.training.trainer.adapters import add_lora, digest, read_adapter, snapshot, write_adapter

TARGETS = ("speaker_embedder", "linear_q", "linear_k", "linear_v", "to_q", "to_k", "to_v", "to_out.0")
ROUNDING = 1e-5
SETTINGS: dict[str, dict[str, Any]] = {
    "shipped scale": {"r": 16, "lora_alpha": 8, "use_rslora": True},
    "uneven scale": {"r": 6, "lora_alpha": 7, "use_rslora": True},
    "alpha over r": {"r": 4, "lora_alpha": 32, "use_rslora": False},
    "ranks by layer": {
        **{"r": 4, "lora_alpha": 8, "use_rslora": True, "alpha_pattern": {"to_q": 3}},
        "rank_pattern": {"to_q": 6, "transformer_blocks.0.attn.to_k": 2, r"lyric_encoder.encoders.\d+.self_attn.*": 3},
    },
    "dora": {"r": 4, "lora_alpha": 8, "use_rslora": True, "use_dora": True},
}


@dataclass(frozen=True)
class Trained:
    """A checkpoint's adapter files, and what the model that they came from computes."""

    base: Path
    folder: Path
    lora: LoraSettings
    output: torch.Tensor
    untrained: torch.Tensor

    def transformer(self) -> ACEStepTransformer2DModel:
        return load_transformer(self.base / TRANSFORMER)

    def error(self, transformer: torch.nn.Module) -> float:
        """Largest difference from the trained model, as a share of what training changed."""
        return float((velocity(transformer) - self.output).abs().max() / (self.output - self.untrained).abs().max())


@torch.no_grad()
def velocity(transformer: torch.nn.Module) -> torch.Tensor:
    random = torch.Generator().manual_seed(3)
    return transformer(
        hidden_states=torch.randn(2, 8, 16, 12, generator=random),
        attention_mask=None,
        text_hidden_states=torch.randn(2, 5, 32, generator=random),
        text_attention_mask=torch.ones(2, 5, dtype=torch.long),
        speaker_embeds=torch.randn(2, 512, generator=random),
        lyric_token_ids=torch.randint(1, 20, (2, 4), generator=random),
        lyric_mask=torch.ones(2, 4, dtype=torch.long),
        timestep=torch.tensor([800.0, 200.0]),
    ).sample


def as_if_trained(transformer: torch.nn.Module, lora: LoraSettings) -> dict[str, torch.Tensor]:
    """An adapter with values in every tensor."""
    parameters = add_lora(transformer, lora, seed=1)
    random = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in sorted(parameters.items()):
            change = 0.05 * torch.randn(parameter.shape, generator=random)
            parameter.copy_(parameter * (1 + change) if "magnitude" in name else parameter + change)
    return snapshot(parameters)


@pytest.fixture(scope="module")
def base(tiny_base: Path) -> Path:
    return tiny_base


def write(base: Path, folder: Path, name: str) -> Trained:
    lora = LoraSettings(target_modules=TARGETS, **SETTINGS[name])
    transformer = load_transformer(base / TRANSFORMER)
    untrained = velocity(transformer)
    tensors = as_if_trained(transformer, lora)
    write_adapter(folder, tensors, lora=lora, base=str(base))
    assert digest(read_adapter(folder)) == digest(tensors)
    return Trained(base, folder, lora, velocity(transformer), untrained)


@pytest.fixture(scope="module", params=[name for name in SETTINGS if name != "dora"])
def trained(request: pytest.FixtureRequest, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return write(base, tmp_path_factory.mktemp("checkpoint"), request.param)


@pytest.fixture(scope="module")
def dora(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return write(base, tmp_path_factory.mktemp("dora"), "dora")


def comfyui_weights(path: Path, weights: dict[str, torch.Tensor], *, strength: float = 1.0) -> dict[str, torch.Tensor]:
    """What ComfyUI's LoRA loader makes of an ACE-Step model's weights (comfy/lora.py and comfy/weight_adapter/lora.py).

    `x.lora_A.weight` and `x.lora_B.weight` belong to the model's `x.weight`; B A is added times strength, and times
    alpha / rank where the file has `x.alpha`.
    """
    file = load_file(path)
    patched = dict(weights)
    for name in file:
        layer, _, part = name.partition(".lora_B.")
        if not part:
            continue
        high, low = file[name], file[f"{layer}.lora_A.weight"]
        alpha = file.get(f"{layer}.alpha")
        scale = 1.0 if alpha is None else float(alpha) / low.shape[0]
        patched[f"{layer}.weight"] = weights[f"{layer}.weight"] + strength * scale * (high @ low)
    return patched


def names(path: Path) -> Iterator[str]:
    with safe_open(path, framework="pt") as file:
        yield from file.keys()


def test_every_form_is_read_back_to_the_trained_strength(trained: Trained) -> None:
    assert fault(trained.folder) is None


def test_peft_applies_the_trained_adapter(trained: Trained) -> None:
    assert trained.error(PeftModel.from_pretrained(trained.transformer(), str(trained.folder))) < ROUNDING


def test_pefts_state_dict_loader_applies_the_trained_adapter(trained: Trained) -> None:
    transformer = trained.transformer()
    inject_adapter_in_model(LoraConfig.from_pretrained(str(trained.folder)), transformer)
    state = load_file(trained.folder / PEFT_WEIGHTS)
    # PEFT names the function `namedtuple` as the type of what it returns
    loaded: Any = set_peft_model_state_dict(transformer, {k.removeprefix(PEFT_PREFIX): v for k, v in state.items()})
    assert not loaded.unexpected_keys
    assert trained.error(transformer) < ROUNDING


def test_diffusers_applies_the_trained_adapter(trained: Trained) -> None:
    transformer = trained.transformer()
    transformer.load_lora_adapter(str(trained.folder), weight_name=DIFFUSERS_WEIGHTS, prefix=None)
    assert trained.error(transformer) < ROUNDING


def test_ace_steps_own_pipeline_applies_the_trained_adapter_although_it_drops_the_scale(trained: Trained) -> None:
    transformer = trained.transformer()
    path = str(trained.folder / DIFFUSERS_WEIGHTS)
    transformer.load_lora_adapter(path, adapter_name="ace_step_lora", with_alpha=True, prefix=None)
    assert trained.error(transformer) < ROUNDING


def test_comfyui_applies_the_trained_adapter(trained: Trained) -> None:
    transformer = trained.transformer()
    transformer.load_state_dict(comfyui_weights(trained.folder / COMFYUI_WEIGHTS, transformer.state_dict()))
    assert trained.error(transformer) < ROUNDING


def test_comfyui_finds_a_weight_for_every_tensor_of_its_file(trained: Trained) -> None:
    weights = trained.transformer().state_dict()
    layers = {name.split(".lora_")[0] for name in names(trained.folder / COMFYUI_WEIGHTS)}
    assert layers and all(f"{layer}.weight" in weights for layer in layers)


def test_a_merged_model_and_the_adapter_agree(trained: Trained, tmp_path: Path) -> None:
    report = merge_lora(trained.base, trained.folder, tmp_path / "merged", backbone=ACE_STEP_V1)
    numbers = layer_numbers(trained.lora, trained.folder / PEFT_WEIGHTS)
    assert report.scale == pytest.approx(max(scale for _, scale in numbers))
    assert report.layers == strengths(numbers) and bool(report.layers) == bool(trained.lora.rank_pattern)
    merged = load_transformer(tmp_path / "merged" / TRANSFORMER, drop_dead_projections=True, build_projectors=False)
    assert float((velocity(merged) - trained.output).abs().max()) < 1e-5
    assert trained.error(merged) < 1e-4


def test_a_scale_that_is_a_power_of_two_leaves_every_bit_of_the_trained_product(base: Path, tmp_path: Path) -> None:
    trained = write(base, tmp_path, "shipped scale")
    assert trained.lora.scale == 2.0
    peft, unscaled = load_file(tmp_path / PEFT_WEIGHTS), load_file(tmp_path / COMFYUI_WEIGHTS)
    assert all(
        torch.equal(tensor / (2.0 if ".lora_B." in name else 1.0), peft[PEFT_PREFIX + name])
        for name, tensor in unscaled.items()
    )


def test_the_comfyui_file_takes_no_room_of_its_own(trained: Trained) -> None:
    assert (trained.folder / COMFYUI_WEIGHTS).samefile(trained.folder / DIFFUSERS_WEIGHTS)


def test_the_same_adapter_is_written_to_the_same_bytes(base: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        write(base, tmp_path / name, "uneven scale")
    for file in (PEFT_CONFIG, PEFT_WEIGHTS, DIFFUSERS_WEIGHTS, COMFYUI_WEIGHTS):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()


def test_a_dora_is_applied_by_peft_and_by_both_calls_of_diffusers(dora: Trained) -> None:
    assert dora.error(PeftModel.from_pretrained(dora.transformer(), str(dora.folder))) < 1e-4
    for source, options in (
        (dora.folder, {"weight_name": DIFFUSERS_WEIGHTS}),
        (dora.folder / DIFFUSERS_WEIGHTS, {"adapter_name": "ace_step_lora", "with_alpha": True}),
    ):
        transformer = dora.transformer()
        transformer.load_lora_adapter(str(source), prefix=None, **options)
        assert dora.error(transformer) < 1e-4


def test_a_dora_has_no_comfyui_form_and_is_valid_without_one(dora: Trained) -> None:
    assert not (dora.folder / COMFYUI_WEIGHTS).exists()
    assert fault(dora.folder) is None
    assert json.loads((dora.folder / PEFT_CONFIG).read_text())["use_dora"] is True


def test_a_dora_merges_into_the_base_for_those_who_need_one_file(dora: Trained, tmp_path: Path) -> None:
    merge_lora(dora.base, dora.folder, tmp_path / "merged", backbone=ACE_STEP_V1)
    merged = load_transformer(tmp_path / "merged" / TRANSFORMER, drop_dead_projections=True, build_projectors=False)
    assert float((velocity(merged) - dora.output).abs().max()) < 1e-5
