"""The merged model as one file for ComfyUI: the names that its loader looks for, and the same numbers in BF16."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lofi_assets.backbones.ace_step_v1.merging import mergeable, velocity_probe
from lofi_assets.files.documents import read_json, write_json
from lofi_assets.files.hashing import sha256_file
from lofi_assets.quantization.merged_model import MergedModel
from lofi_assets.release.comfyui import WORKFLOW
from lofi_assets.release.comfyui_checkpoint import (
    CHECKPOINT,
    COMPONENTS,
    SPIECE,
    SPIECE_TENSOR,
    checkpoint_blocks,
    model_files,
)
from lofi_assets.release.files import RELEASE, ReleaseError
from lofi_assets.release.verification import verify
from lofi_assets.store import Store
from lofi_assets_tests.release.cleared import publish
from lofi_assets_tests.release.fake_hub import FakeHub
from lofi_assets_tests.release.stand_in_release import profile_for, published

PIECES = b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02"
"""Stands for a SentencePiece model: the file carries its bytes and never looks into them."""
MERGED = "team/lofi-merged"


def write_model(base: Path, folder: Path) -> Path:
    """A merged model whose base had the SentencePiece model."""
    shutil.copytree(base, folder, ignore=shutil.ignore_patterns(".*"))
    (folder / SPIECE).write_bytes(PIECES)
    return folder


@pytest.fixture
def model(tiny_base: Path, tmp_path: Path) -> Path:
    return write_model(tiny_base, tmp_path / "model")


def written(model: Path, target: Path) -> Path:
    model_files(model, architecture="ace_step_v1")
    target.write_bytes(b"".join(checkpoint_blocks(model, about={"checkpoint": "epoch=0-step=10_lora"})))
    return target


def test_every_tensor_is_there_under_comfyuis_name_and_rounded_to_nearest(model: Path, tmp_path: Path) -> None:
    found = load_file(written(model, tmp_path / CHECKPOINT))
    expected = {SPIECE_TENSOR: torch.frombuffer(bytearray(PIECES), dtype=torch.uint8)}
    for component in COMPONENTS:
        for file in (model / component.folder).glob("*.safetensors"):
            for name, tensor in load_file(file).items():
                halved = component.halved and tensor.is_floating_point()
                expected[component.prefix + name] = tensor.to(torch.bfloat16) if halved else tensor
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name


def test_the_names_by_which_comfyui_tells_the_parts_are_there(model: Path, tmp_path: Path) -> None:
    """`comfy/model_detection.py`, `comfy/sd.py` and `comfy/text_encoders/ace.py` ask for these."""
    with safe_open(written(model, tmp_path / CHECKPOINT), framework="pt") as file:
        names = set(file.keys())
        assert file.metadata() == {"format": "pt", "checkpoint": "epoch=0-step=10_lora"}
    assert {
        "model.diffusion_model.genre_embedder.weight",
        "vae.vocoder.backbone.channel_layers.0.0.bias",
        "vae.dcae.decoder.conv_in.weight",
        "text_encoders.umt5base.transformer.shared.weight",
        "text_encoders.spiece_model",
    } <= names
    assert bytes(load_file(tmp_path / CHECKPOINT)["text_encoders.spiece_model"].tolist()) == PIECES


def test_the_transformer_read_back_predicts_what_the_merged_one_does(model: Path, tmp_path: Path) -> None:
    prefix = "model.diffusion_model."
    found = load_file(written(model, tmp_path / CHECKPOINT))
    transformer = mergeable(model)
    velocity = velocity_probe(transformer)
    wanted = velocity(transformer)
    own = {name.removeprefix(prefix): tensor.float() for name, tensor in found.items() if name.startswith(prefix)}
    known = transformer.state_dict()
    transformer.load_state_dict({name: own[name] for name in known})
    error = (velocity(transformer) - wanted).abs().max() / wanted.abs().max()
    assert 0 < error < 0.03, "BF16 has 8 bits"


def test_a_tensor_that_is_bf16_already_is_copied(model: Path, tmp_path: Path) -> None:
    file = next((model / "umt5-base").glob("*.safetensors"))
    tensors = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})
    found = load_file(written(model, tmp_path / CHECKPOINT))
    for name, tensor in tensors.items():
        assert torch.equal(found[f"text_encoders.umt5base.transformer.{name}"], tensor)


def test_a_part_that_is_absent_and_another_family_are_refused_by_name(model: Path) -> None:
    with pytest.raises(ReleaseError, match="known for ace_step_v1 alone, and the model is toy"):
        model_files(model, architecture="toy")
    (model / SPIECE).unlink()
    with pytest.raises(ReleaseError, match=r"spiece\.model: absent.*google/umt5-base.*comfyui_checkpoint to false"):
        model_files(model, architecture="ace_step_v1")
    shutil.rmtree(model / "music_vocoder")
    with pytest.raises(ReleaseError, match="music_vocoder: holds no safetensors"):
        model_files(model, architecture="ace_step_v1")


@pytest.fixture
def with_model(released: Store, tiny_base: Path) -> Store:
    write_model(tiny_base, MergedModel.current(released).folder(released))
    return released


def test_a_release_has_it_in_a_repository_of_its_own_where_the_profile_asks(with_model: Store, hub: FakeHub) -> None:
    publish(with_model, profile_for("hub", comfyui_checkpoint=True, merged_repo_id=MERGED))
    names = {"README.md", CHECKPOINT, "evidence/constitution.yaml", "release.intoto.json", "release.json"}
    assert hub.files(MERGED).keys() == names == published(with_model, "merged").keys()
    assert CHECKPOINT not in hub.files("team/lofi-lora")
    record = verify(with_model.release / "published" / "merged").record
    transformer = MergedModel.current(with_model).folder(with_model) / "ace_step_transformer"
    assert record.part == "merged" and record.made_from.keys() == {CHECKPOINT} and transformer.is_dir()
    publish(with_model, profile_for("folder"))
    assert not published(with_model, "merged"), "a later release without it has none"


def test_a_repository_that_nobody_named_is_asked_for(with_model: Store, hub: FakeHub) -> None:
    with pytest.raises(ReleaseError, match=r"release\.merged_repo_id is empty; name the Hub repository of the merged"):
        publish(with_model, profile_for("hub", comfyui_checkpoint=True))


def test_the_workflow_is_known_by_its_bytes_since_no_evidence_names_it(released: Store) -> None:
    publish(released, profile_for("folder"))
    folder = released.release / "published" / "adapter"

    def said() -> str:
        return " ".join(found.text for found in verify(folder).findings if found.about == WORKFLOW)

    assert said() == ""
    (folder / WORKFLOW).write_text('{"1": {"class_type": "RunShell", "inputs": {}}}')
    about = read_json(folder / RELEASE)
    about["files"][WORKFLOW]["sha256"] = sha256_file(folder / WORKFLOW)
    write_json(folder / RELEASE, about)
    assert "is not the workflow that this version of lofi_assets writes" in said()
