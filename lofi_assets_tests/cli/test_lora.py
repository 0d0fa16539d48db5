"""`lofi lora` says what a file is, and writes it so that another program applies it at the same strength."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner, Result

from lofi_assets.backbones.ace_step_v1.backbone import ACE_STEP_V1
from lofi_assets.cli.main import main
from lofi_assets.files.documents import write_json
from lofi_assets.profiles import Profile
from lofi_assets.store import Store
from lofi_assets.training.adapter_forms.reading import layers_of, read_lora
from lofi_assets_tests.training.foreign_loras import LAYERS, ace_step_with_header, comfyui, random_pairs


@pytest.fixture
def layers(tiny_base: Path) -> dict[str, tuple[int, ...]]:
    return layers_of(ACE_STEP_V1, tiny_base)


@pytest.fixture(autouse=True)
def _own_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOFI_DATA_DIR", str(tmp_path / "data"))


def lofi_lora(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["lora", *map(str, arguments)])


def test_inspect_says_form_rank_strength_and_norms(
    layers: dict[str, tuple[int, ...]], tiny_base: Path, tmp_path: Path
) -> None:
    path, added = ace_step_with_header(tmp_path, random_pairs(layers))
    found = json.loads(lofi_lora("inspect", path, "--base", tiny_base, "--json").stdout)
    assert found["ranks"] == {"6": 5}
    assert [float(value) for value in found["strengths"]] == [pytest.approx(32 / 6**0.5)]
    assert found["strength_from"] == "its header"
    assert "apply this file at 1" in found["notes"][0]
    block = found["blocks"]["transformer_blocks.0"]
    assert block["layers"] == 1
    assert block["norm"] == pytest.approx(float(torch.linalg.norm(added["transformer_blocks.0.attn.to_q"])), rel=1e-5)
    assert found["blocks"].keys() == {
        "speaker_embedder",
        "lyric_encoder.encoders.0",
        *(f"transformer_blocks.{index}" for index in (0, 1, 3)),
    }
    told = lofi_lora("inspect", path, "--base", tiny_base)
    assert told.exit_code == 0 and "rank         6" in told.stdout


def test_convert_writes_another_form_at_the_same_strength(
    layers: dict[str, tuple[int, ...]], tiny_base: Path, tmp_path: Path
) -> None:
    path, added = comfyui(tmp_path, random_pairs(layers))
    done = lofi_lora("convert", path, tmp_path / "out", "--to", "peft", "--base", tiny_base)
    assert done.exit_code == 0, done.output
    written = read_lora(tmp_path / "out", layers)
    for layer in LAYERS:
        pair = written.pairs[layer]
        torch.testing.assert_close(pair.scale * (pair.up @ pair.down), added[layer], rtol=1e-5, atol=1e-7)
    again = lofi_lora("convert", path, tmp_path / "out", "--to", "peft", "--base", tiny_base)
    assert again.exit_code == 1 and "is not an empty folder" in again.output


def test_a_lora_for_another_base_says_for_which_it_was_read(layers: dict[str, tuple[int, ...]], tmp_path: Path) -> None:
    path, _ = comfyui(tmp_path, random_pairs(layers))
    refused = lofi_lora("inspect", path)
    assert refused.exit_code == 1
    assert "the base of the profile demo" in refused.output


def test_train_takes_a_file_in_and_says_how_to_go_on(
    layers: dict[str, tuple[int, ...]], tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = comfyui(tmp_path, random_pairs(layers))
    data = tmp_path / "data"
    record = {"base": str(tiny_base), "base_fingerprint": "f" * 64, "dataset_hash": "d" * 64, "tracks": []}
    write_json(data / "metadata" / "feature_cache.json", record)
    asked: list[str | None] = []

    def planned(store: Store, profile: Profile, *, init_from: str | None = None) -> SimpleNamespace:
        asked.append(init_from)
        return SimpleNamespace(command=[sys.executable, "-c", ""], config=tmp_path / "run.json")

    monkeypatch.setattr("lofi_assets.training.lora_checkpoints.plan_training", planned)
    first = CliRunner().invoke(main, ["train", "--init-from", str(path)])
    assert first.exit_code == 0, first.output
    (folder,) = (data / "adapters").iterdir()
    assert f"init_from: {folder.name}" in first.output
    assert sorted(file.name for file in folder.iterdir()) == ["lora.safetensors", "taken.json"]
    CliRunner().invoke(main, ["train", "--init-from", folder.name])
    CliRunner().invoke(main, ["train"])
    assert asked == [folder.name, folder.name, None]
