"""Reading and writing a base model, and making music with it."""

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lofi_assets.backbones import BaseModelError
from lofi_assets.backbones.ace_step_v1 import loading
from lofi_assets.backbones.ace_step_v1.identity import base_fingerprint
from lofi_assets.backbones.ace_step_v1.loading import encode_lyrics, encode_text, load_base
from lofi_assets.backbones.ace_step_v1.sampler import conditions_for, sample_latents, text_to_music
from lofi_assets.backbones.ace_step_v1.tiny import write_tiny_base
from lofi_assets.backbones.cuda_graphs import CudaGraphs
from lofi_assets.backbones.determinism import deterministic
from lofi_assets_tests.backbones.test_cuda_graphs import Recorder

PROMPTS = ["lofi hip hop, warm rhodes, rainy night", "chill beats"]
LYRICS = ["[verse]\nrain on the window", ""]


@pytest.fixture(scope="module")
def base(tiny_base: Path) -> loading.Base:
    return load_base(tiny_base)


@pytest.fixture
def spoilt(tiny_base: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(tiny_base, tmp_path / "spoilt"))


def make_music(
    base: loading.Base,
    prompts: list[str] = PROMPTS,
    lyrics: list[str] = LYRICS,
    seeds: Sequence[int] = (1, 2),
    **options: Any,
) -> np.ndarray:
    options = {"seconds": 2.0, "steps": 4, **options}
    return text_to_music(base, prompts=prompts, lyrics=lyrics, seeds=seeds, **options)


def test_a_tiny_base_has_the_hubs_layout(tiny_base: Path) -> None:
    assert sorted(path.name for path in tiny_base.iterdir() if path.is_dir()) == sorted(loading.FOLDERS)
    config = json.loads((tiny_base / loading.TRANSFORMER / "config.json").read_text())
    assert config["_class_name"] == "ACEStepTransformer2DModel"
    assert (tiny_base / loading.TRANSFORMER / "diffusion_pytorch_model.safetensors").is_file()
    assert (tiny_base / loading.TEXT_ENCODER / "model.safetensors").is_file()


def test_a_tiny_base_is_small(base: loading.Base) -> None:
    modules = (base.transformer, base.music_dcae, base.text_encoder)
    assert sum(parameter.numel() for module in modules for parameter in module.parameters()) < 1_500_000


def test_the_same_seed_writes_the_same_bytes(tiny_base: Path, tmp_path: Path) -> None:
    write_tiny_base(tmp_path / "again")
    write_tiny_base(tmp_path / "other", seed=1)
    fingerprint = base_fingerprint(tiny_base)
    assert base_fingerprint(tmp_path / "again") == fingerprint
    assert base_fingerprint(tmp_path / "other") != fingerprint


def test_a_fingerprint_follows_the_weights_and_not_the_cache(spoilt: Path) -> None:
    before = base_fingerprint(spoilt)
    assert base_fingerprint(spoilt) == before
    path = spoilt / loading.VOCODER / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    tensors["head.conv_post.bias"] += 1
    save_file(tensors, path, metadata={"format": "pt"})
    assert base_fingerprint(spoilt) != before


def test_only_the_named_components_are_read(tiny_base: Path) -> None:
    base = load_base(tiny_base, components=["lyric_tokenizer"])
    assert base.lyric_tokenizer is not None
    assert base.transformer is base.music_dcae is base.text_encoder is base.tokenizer is None
    with pytest.raises(BaseModelError, match="text_encoder"):
        encode_text(base, PROMPTS)


def test_a_base_that_is_written_and_read_leaves_nothing_in_a_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tiny_base(tmp_path)
    load_base(tmp_path)
    assert capsys.readouterr() == ("", "")


def test_saved_weights_come_back_as_they_were(base: loading.Base, tmp_path: Path) -> None:
    base.transformer.save_pretrained(tmp_path)
    again = loading.load_transformer(tmp_path)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in base.transformer.state_dict().items())


def test_a_transformer_loads_without_what_no_pass_reads(base: loading.Base, tiny_base: Path) -> None:
    lean = load_base(
        tiny_base,
        components=["transformer"],
        transformer_options={"drop_dead_projections": True, "build_projectors": False},
    ).transformer
    assert lean is not None
    kept, whole = lean.state_dict(), base.transformer.state_dict()
    assert not any("add_" in name or "projectors" in name for name in kept)
    assert all(torch.equal(tensor, whole[name]) for name, tensor in kept.items())


@pytest.mark.parametrize("change", ["missing", "unknown"])
def test_a_transformer_file_that_does_not_fit_its_config_is_refused(spoilt: Path, change: str) -> None:
    path = spoilt / loading.TRANSFORMER / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    if change == "missing":
        del tensors["final_layer.linear.bias"]
    else:
        tensors["final_layer.surprise"] = torch.zeros(1)
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(BaseModelError, match="final_layer"):
        load_base(spoilt, components=["transformer"])


@pytest.mark.parametrize(
    ("folder", "component"),
    [(loading.DCAE, "music_dcae"), (loading.VOCODER, "music_dcae"), (loading.TEXT_ENCODER, "text_encoder")],
)
@pytest.mark.parametrize("change", ["missing", "unknown"])
def test_no_component_is_loaded_with_a_tensor_too_few_or_too_many(
    spoilt: Path, folder: str, component: str, change: str
) -> None:
    path = next((spoilt / folder).glob("*.safetensors"))
    tensors = load_file(path)
    name = sorted(tensors)[3] if change == "missing" else "surprise"
    tensors = {**tensors, name: torch.zeros(1)}
    if change == "missing":
        del tensors[name]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(BaseModelError, match=re.escape(name)):
        load_base(spoilt, components=[component])


def test_a_pickled_checkpoint_is_not_read(spoilt: Path) -> None:
    path = spoilt / loading.TRANSFORMER / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(path), path.with_suffix(".bin"))
    path.unlink()
    with pytest.raises(BaseModelError, match="safetensors"):
        load_base(spoilt, components=["transformer"])


def test_an_incomplete_folder_is_named(spoilt: Path) -> None:
    shutil.rmtree(spoilt / loading.VOCODER)
    with pytest.raises(BaseModelError, match="music_vocoder"):
        load_base(spoilt)


def test_a_repository_needs_a_revision() -> None:
    with pytest.raises(BaseModelError, match="revision"):
        load_base("ACE-Step/ACE-Step-v1-3.5B")


def test_text_states_of_a_prompt_do_not_depend_on_longer_company(base: loading.Base) -> None:
    together, mask = encode_text(base, PROMPTS)
    alone, _ = encode_text(base, PROMPTS[1:])
    length = alone.shape[1]
    assert mask.sum(dim=1).tolist() == [together.shape[1], length]
    torch.testing.assert_close(together[1, :length], alone[0], atol=1e-5, rtol=0)


def test_long_prompts_are_cut_at_256_tokens(base: loading.Base) -> None:
    assert encode_text(base, ["rain " * 400])[0].shape[1] == 256


def test_no_lyrics_are_one_counted_zero(base: loading.Base) -> None:
    ids, mask = encode_lyrics(base, ["", "[verse]\nhello"])
    assert ids[0].sum() == 0 and mask[0].tolist()[:2] == [1, 0]
    assert int(mask[1].sum()) == ids.shape[1]


def test_music_is_48_khz_stereo_of_the_length_asked_for(base: loading.Base) -> None:
    audio = make_music(base, seconds=2.5)
    assert audio.shape == (2, 2, 120_000) and audio.dtype == np.float32
    assert np.isfinite(audio).all() and np.abs(audio).max() <= 1.0
    assert audio.std() > 0.01


def test_the_same_seed_gives_the_same_music_and_another_seed_does_not(base: loading.Base) -> None:
    first = make_music(base)
    assert np.array_equal(first, make_music(base))
    assert np.abs(first - make_music(base, seeds=(1, 3)))[1].max() > 1e-2


@pytest.mark.parametrize("guidance", ["apg", "cfg", "cfg_zero_star"])
def test_an_item_does_not_depend_on_its_company(base: loading.Base, guidance: str) -> None:
    together = conditions_for(base, prompts=PROMPTS, lyrics=LYRICS)
    alone = conditions_for(base, prompts=PROMPTS[1:], lyrics=LYRICS[1:])
    options: dict[str, Any] = {"frames": 30, "steps": 8, "guidance": guidance}
    pair = sample_latents(base.transformer, together, seeds=[1, 2], **options)
    single = sample_latents(base.transformer, alone, seeds=[2], **options)
    torch.testing.assert_close(pair[1], single[0], atol=1e-3, rtol=0)


@pytest.mark.parametrize("guidance", ["apg", "cfg", "cfg_zero_star"])
def test_guidance_in_one_batch_gives_the_same_latents_to_100_db(base: loading.Base, guidance: str) -> None:
    conditions = conditions_for(base, prompts=PROMPTS, lyrics=LYRICS)
    options: dict[str, Any] = {"frames": 30, "steps": 8, "guidance": guidance, "seeds": [1, 2]}
    apart, together = (
        sample_latents(base.transformer, conditions, together=choice, **options) for choice in (False, True)
    )
    error = (apart - together).square().mean() / apart.square().mean()
    assert 10 * torch.log10(error.clamp(min=1e-30)) < -100
    assert torch.equal(
        sample_latents(base.transformer, conditions, **options), apart
    )  # a CPU takes one after the other


@pytest.mark.parametrize("together", [False, True])
def test_replayed_passes_give_the_same_latents(base: loading.Base, together: bool) -> None:
    conditions, recorder = conditions_for(base, prompts=PROMPTS, lyrics=LYRICS), Recorder()
    options: dict[str, Any] = {"frames": 30, "steps": 8, "seeds": [1, 2], "together": together}
    plain = sample_latents(base.transformer, conditions, **options)
    replayed = sample_latents(base.transformer, conditions, record=recorder.record, **options)
    assert torch.equal(replayed, plain)
    assert recorder.recorded == (2 if together else 1)  # the guided passes are of one batch twice as large


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: CUDA graphs of the sampler are NOT run here")
def test_on_cuda_a_graph_gives_the_latents_of_its_kernels(tiny_base: Path) -> None:
    loaded = loading.load_base(tiny_base, device="cuda")
    conditions = conditions_for(loaded, prompts=PROMPTS, lyrics=LYRICS)
    options: dict[str, Any] = {"frames": 30, "steps": 8, "seeds": [1, 2]}
    with deterministic(torch.device("cuda")):
        plain = sample_latents(loaded.transformer, conditions, **options)
        replayed = sample_latents(loaded.transformer, conditions, record=CudaGraphs().record, **options)
    assert torch.equal(replayed, plain)


def test_prompt_and_lyrics_change_the_latents(base: loading.Base) -> None:
    def latents(prompt: str, lyric: str) -> torch.Tensor:
        conditions = conditions_for(base, prompts=[prompt], lyrics=[lyric])
        return sample_latents(base.transformer, conditions, frames=20, seeds=[0], steps=4)

    reference = latents("lofi", "")
    assert float((latents("jazz guitar", "") - reference).abs().max()) > 1e-3
    assert float((latents("lofi", "hello") - reference).abs().max()) > 1e-3


def test_every_prompt_needs_a_lyric_and_a_seed(base: loading.Base) -> None:
    with pytest.raises(ValueError, match="one lyric and one seed"):
        make_music(base, seeds=(1,))


def test_the_hubs_older_config_loads_unchanged(spoilt: Path, base: loading.Base) -> None:
    """It names another class, and lacks the fields that only this project has."""
    path = spoilt / loading.TRANSFORMER / "config.json"
    config = json.loads(path.read_text())
    for name in ("mask_aware_padding", "drop_dead_projections", "build_projectors"):
        del config[name]
    path.write_text(json.dumps(config | {"_class_name": "Transformer2DModel", "_diffusers_version": "0.27.2"}))
    again = load_base(spoilt, components=["transformer"]).transformer
    assert again is not None
    assert torch.equal(again.final_layer.linear.weight, base.transformer.final_layer.linear.weight)


@pytest.mark.parametrize("part", ["ace_step_transformer", "music_dcae_f8c8", "umt5-base"])
def test_weights_that_are_cut_short_are_named_with_their_folder(spoilt: Path, part: str) -> None:
    (weights,) = (spoilt / part).glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:2000])
    with pytest.raises(BaseModelError, match=rf"{part} holds no whole weights in safetensors .*; fetch it again"):
        load_base(spoilt)
