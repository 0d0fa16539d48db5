"""A merged model is what base and adapter were together, at the trained scale."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file

from lofi_assets.backbones.ace_step_v1.backbone import ACE_STEP_V1
from lofi_assets.backbones.ace_step_v1.export import USED_PARTS
from lofi_assets.backbones.ace_step_v1.loading import FOLDERS, load_base
from lofi_assets.backbones.ace_step_v1.lyric_vocabulary import LYRIC_VOCABULARY
from lofi_assets.backbones.ace_step_v1.merging import stored_precision
from lofi_assets.quantization.merge import MergeError, merge_lora
from lofi_assets.quantization.merge_report import MergeReport

TARGETS = ["speaker_embedder", "linear_q", "linear_k", "linear_v", "to_q", "to_k", "to_v", "to_out.0"]


@pytest.fixture(scope="module")
def base_dir(tiny_base: Path) -> Path:
    return tiny_base


def write_adapter(
    base_dir: Path, directory: Path, *, rank: int = 8, alpha: int = 4, targets: list[str] = TARGETS, **config: Any
) -> Path:
    transformer = load_base(base_dir, components=["transformer"]).transformer
    torch.manual_seed(5)
    model = get_peft_model(transformer, LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, **config))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    model.save_pretrained(str(directory))
    return directory


@pytest.fixture(scope="module")
def adapter_dir(base_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_adapter(base_dir, tmp_path_factory.mktemp("adapter"), use_rslora=True)


@pytest.fixture(scope="module")
def merged(base_dir: Path, adapter_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, MergeReport]:
    target = tmp_path_factory.mktemp("merged") / "model"
    return target, merge_lora(base_dir, adapter_dir, target, backbone=ACE_STEP_V1)


def test_the_merged_model_equals_base_and_adapter_at_the_rank_stabilised_scale(
    merged: tuple[Path, MergeReport],
) -> None:
    _, report = merged
    assert report.scale == pytest.approx(4 / math.sqrt(8))
    assert report.max_error < 1e-5
    assert report.adapter_effect > 100 * report.max_error


def test_every_targeted_layer_is_merged_and_counted(merged: tuple[Path, MergeReport], adapter_dir: Path) -> None:
    weights = load_file(adapter_dir / "adapter_model.safetensors")
    assert merged[1].modules == sum(name.endswith("lora_A.weight") for name in weights)


def test_one_weight_is_base_plus_scaled_product(
    merged: tuple[Path, MergeReport], base_dir: Path, adapter_dir: Path
) -> None:
    target, report = merged
    name = "transformer_blocks.0.attn.to_q"
    adapter = load_file(adapter_dir / "adapter_model.safetensors")
    before = load_file(base_dir / "ace_step_transformer/diffusion_pytorch_model.safetensors")[f"{name}.weight"]
    after = load_file(target / "ace_step_transformer/diffusion_pytorch_model.safetensors")[f"{name}.weight"]
    low, high = (adapter[f"base_model.model.{name}.lora_{part}.weight"] for part in "AB")
    torch.testing.assert_close(after, before + report.scale * high @ low)


def test_merging_layer_by_layer_gives_the_bits_of_merging_at_once(
    merged: tuple[Path, MergeReport], base_dir: Path, adapter_dir: Path
) -> None:
    transformer = load_base(base_dir, components=["transformer"], transformer_options=USED_PARTS).transformer
    whole = PeftModel.from_pretrained(transformer, str(adapter_dir)).merge_and_unload(safe_merge=True).state_dict()
    parts = load_file(merged[0] / "ace_step_transformer/diffusion_pytorch_model.safetensors")
    assert parts.keys() == whole.keys()
    assert all(torch.equal(parts[name], tensor) for name, tensor in whole.items())


def test_a_base_in_bfloat16_is_widened_before_it_is_merged(base_dir: Path, adapter_dir: Path, tmp_path: Path) -> None:
    for name, stored in (("narrow", torch.bfloat16), ("wide", torch.float32)):
        shutil.copytree(base_dir, tmp_path / name)
        transformer = load_base(base_dir, components=["transformer"]).transformer
        transformer.bfloat16().to(stored).save_pretrained(tmp_path / name / "ace_step_transformer")
    assert stored_precision(tmp_path / "narrow" / "ace_step_transformer") == "bfloat16"
    assert stored_precision(tmp_path / "wide" / "ace_step_transformer") == "float32"
    reports = [
        merge_lora(tmp_path / name, adapter_dir, tmp_path / f"{name} merged", backbone=ACE_STEP_V1)
        for name in ("narrow", "wide")
    ]
    assert reports[0].max_error == reports[1].max_error < 1e-5
    file = "ace_step_transformer/diffusion_pytorch_model.safetensors"
    assert (tmp_path / "narrow merged" / file).read_bytes() == (tmp_path / "wide merged" / file).read_bytes()


def test_the_merged_folder_is_a_base_model_with_the_other_components_linked(
    merged: tuple[Path, MergeReport], base_dir: Path
) -> None:
    target, _ = merged
    assert load_base(target).transformer is not None
    for folder in FOLDERS[1:]:
        for path in (base_dir / folder).iterdir():
            assert path.samefile(target / folder / path.name)
    assert (target / LYRIC_VOCABULARY).is_file()
    assert json.loads((target / "merge.json").read_text())["scale"] == merged[1].scale


def test_merging_again_gives_the_same_bytes_and_leaves_nothing_behind(
    merged: tuple[Path, MergeReport], base_dir: Path, adapter_dir: Path, tmp_path: Path
) -> None:
    target, _ = merged
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "old").touch()
    merge_lora(base_dir, adapter_dir, tmp_path / "again", backbone=ACE_STEP_V1)
    file = "ace_step_transformer/diffusion_pytorch_model.safetensors"
    assert (tmp_path / "again" / file).read_bytes() == (target / file).read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["again"]
    assert not (tmp_path / "again" / "old").exists()


def test_an_adapter_of_another_model_is_refused_and_writes_nothing(
    base_dir: Path, adapter_dir: Path, tmp_path: Path
) -> None:
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        (tmp_path / name).write_bytes((adapter_dir / name).read_bytes())
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | {"target_modules": ["elsewhere"]}))
    with pytest.raises(ValueError, match="elsewhere"):
        merge_lora(base_dir, tmp_path, tmp_path / "out", backbone=ACE_STEP_V1)
    assert not (tmp_path / "out").exists()


def test_an_adapter_without_its_configuration_is_refused(base_dir: Path, adapter_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "adapter_model.safetensors").write_bytes((adapter_dir / "adapter_model.safetensors").read_bytes())
    with pytest.raises(MergeError, match=r"lacks adapter_config\.json"):
        merge_lora(base_dir, tmp_path, tmp_path / "out", backbone=ACE_STEP_V1)
