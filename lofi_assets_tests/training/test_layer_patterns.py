"""Ranks and alphas by layer: as peft matches them, one number for each layer, told wherever a rank is told."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from lofi_assets.backbones.ace_step_v1.backbone import ACE_STEP_V1
from lofi_assets.backbones.ace_step_v1.loading import TRANSFORMER, load_transformer
from lofi_assets.constitution.audit import training_table_mismatches
from lofi_assets.training.adapter_forms.inspection import inspected
from lofi_assets.training.adapter_forms.reading import layers_of, read_lora
from lofi_assets.training.checkpoints.files import COMFYUI_WEIGHTS, DIFFUSERS_WEIGHTS, PEFT_CONFIG, PEFT_WEIGHTS
from lofi_assets.training.checkpoints.soundness import fault
from lofi_assets.training.config import ConfigError
from lofi_assets.training.layer_patterns import rank_of, scale_of
from lofi_assets.training.lora_settings import LoraSettings
from lofi_assets.training.planning.disk import checkpoint_bytes
from lofi_assets.training.planning.model_size import measure
from lofi_assets.training.trainer import adapters
from lofi_assets.training.trainer.adapters import add_lora
from lofi_assets_tests.conftest import REPOSITORY, TARGETS
from lofi_assets_tests.training.fixtures import MakeRun
from lofi_assets_tests.training.test_training_forms import Trained, write


@pytest.fixture(scope="module")
def trained(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return write(tiny_base, tmp_path_factory.mktemp("by_layer"), "ranks by layer")


def lora(**changes: object) -> LoraSettings:
    return LoraSettings.model_validate({"r": 4, "lora_alpha": 8, "target_modules": TARGETS, **changes})


def test_a_layer_has_the_rank_and_the_scale_that_peft_gives_it(tiny_base: Path, trained: Trained) -> None:
    transformer = load_transformer(tiny_base / TRANSFORMER)
    add_lora(transformer, trained.lora, seed=0)
    ranks = set()
    for name, layer in transformer.named_modules():
        if hasattr(layer, "lora_A"):
            ranks.add(rank_of(trained.lora, name))
            assert layer.r["default"] == rank_of(trained.lora, name), name
            assert layer.scaling["default"] == pytest.approx(scale_of(trained.lora, name)), name
    assert ranks == {2, 3, 4, 6}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"rank_pattern": {"to_x": 2}}, "lora.rank_pattern: 'to_x' matches none of the"),
        ({"alpha_pattern": {"ff.*": 2}}, "lora.alpha_pattern: 'ff"),
        ({"rank_pattern": {"to_q": 2, "attn.*": 3}}, r"attn.to_q matches patterns that say \[2, 3\]; write them apart"),
    ],
)
def test_a_pattern_that_says_nothing_or_two_things_is_refused(
    tiny_base: Path, changes: dict[str, object], reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        add_lora(load_transformer(tiny_base / TRANSFORMER), lora(**changes), seed=0)


@pytest.mark.parametrize("pattern", ["(a+)+b", "to_[qk]", "x" * 201, ".*a.*b.*c"])
def test_only_names_and_two_wildcards_are_read(pattern: str) -> None:
    with pytest.raises(ValidationError, match="rank_pattern"):
        lora(rank_pattern={pattern: 2})
    with pytest.raises(ValidationError, match="alpha_pattern"):
        lora(alpha_pattern={"to_q": 0})


def test_a_hostile_name_is_refused_rather_than_matched() -> None:
    with pytest.raises(ValueError, match="a layer's name has 5000 characters"):
        rank_of(lora(rank_pattern={".*a.*b": 2}), "a" * 5000)


def test_no_pattern_is_the_run_of_before(make_run: MakeRun) -> None:
    patterns: list[dict[str, object]] = [{}, {"rank_pattern": {}}, {"rank_pattern": {"to_q": 2}}]
    runs = [make_run("a", lora=changes) for changes in patterns]
    assert runs[0].run_id == runs[1].run_id != runs[2].run_id


def test_other_readers_get_one_rank_for_all_layers(trained: Trained) -> None:
    for name in (DIFFUSERS_WEIGHTS, COMFYUI_WEIGHTS):
        tensors = load_file(trained.folder / name)
        assert {len(tensor) for key, tensor in tensors.items() if ".lora_A." in key} == {6}
        assert {tensor.shape[1] for key, tensor in tensors.items() if ".lora_B." in key} == {6}


def test_inspection_tells_ranks_and_strengths_by_layer(trained: Trained) -> None:
    found = inspected(read_lora(trained.folder, layers_of(ACE_STEP_V1, trained.base)), trained.folder)
    assert set(found.ranks) == {2, 3, 4, 6} and len(found.strengths) == 4
    assert sum(found.ranks.values()) == sum(found.strengths.values()) == sum(found.layers.values())


@pytest.mark.parametrize(
    ("key", "pattern"),
    [("rank_pattern", {"to_q": 4}), ("alpha_pattern", {"to_q": 4}), ("alpha_pattern", {}), ("rank_pattern", {})],
)
def test_a_configuration_with_another_pattern_is_a_fault(
    trained: Trained, tmp_path: Path, key: str, pattern: dict[str, int]
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(trained.folder, folder)
    config = json.loads((folder / PEFT_CONFIG).read_text())
    (folder / PEFT_CONFIG).write_text(json.dumps({**config, key: pattern}))
    assert fault(trained.folder) is None
    assert "is not the trained strength" in (told := fault(folder) or "") or "not the rank" in told


def test_the_plan_counts_the_adapter_of_each_layer(trained: Trained) -> None:
    with torch.device("meta"):
        transformer = load_transformer(trained.base / TRANSFORMER, drop_dead_projections=True, build_projectors=False)
    parameters = add_lora(transformer, trained.lora, seed=0)
    size = measure(ACE_STEP_V1, trained.base, trained.lora)
    assert size.adapter == sum(parameter.numel() for parameter in parameters.values())
    assert 2 < size.rank < 6
    files = (trained.folder / PEFT_WEIGHTS, trained.folder / DIFFUSERS_WEIGHTS)
    written = sum(tensor.nbytes for path in files for tensor in load_file(path).values())
    assert checkpoint_bytes(size) == written == adapters.checkpoint_bytes(parameters)


def test_a_rank_that_does_not_hold_for_every_layer_is_not_the_constitution_s(tmp_path: Path) -> None:
    config = tmp_path / "config"
    shutil.copytree(REPOSITORY / "config", config)
    assert not training_table_mismatches(config)
    path = config / "lofi_lora_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "rank_pattern": {"to_q": 64}}))
    assert training_table_mismatches(config) == ["r is 256 but for {'to_q': 64}, must be 256"]
