"""Sampling in bfloat16: as near to float32 as stated, the same twice, and float32 wherever something adds up."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from lofi_assets.backbones import BackboneError
from lofi_assets.backbones.ace_step_v1 import sampler
from lofi_assets.backbones.ace_step_v1.backbone import ACE_STEP_V1
from lofi_assets.backbones.ace_step_v1.generation import AceStepSampler
from lofi_assets.backbones.sampling import Precision
from lofi_assets.files.hashing import hash_of
from lofi_assets.profiles import SamplingSettings

LEAST_SNR_DB = 40.0
"""Of the audio at 8 steps and guidance 3, measured: 45.2 dB without an adapter, 44.7 with one."""
BEFORE: dict[str, Any] = {"count": 2, "seconds": 5.0, "steps": 3, "guidance_scale": 3.0, "seed": 1, "device": "cpu"}
"""Settings as they were hashed when float32 was all there was."""


@pytest.fixture(scope="module")
def samplers(tiny_base: Path) -> dict[Precision, AceStepSampler]:
    precisions: tuple[Precision, ...] = ("32", "bf16")
    return {precision: ACE_STEP_V1.sampler(tiny_base, device="cpu", precision=precision) for precision in precisions}


@pytest.fixture
def adapter(samplers: dict[Precision, AceStepSampler], tmp_path: Path) -> Path:
    """Of rank 4 on q and v of every block, strong enough to be heard."""
    random = torch.Generator().manual_seed(0)
    tensors: dict[str, Tensor] = {}
    transformer = samplers["32"].base.transformer
    assert transformer is not None
    width = transformer.width
    for block in range(len(transformer.transformer_blocks)):
        for layer in ("attn.to_q", "cross_attn.to_v"):
            name = f"transformer_blocks.{block}.{layer}"
            tensors[f"{name}.lora_A.weight"] = torch.randn(4, width, generator=random) / width**0.5
            tensors[f"{name}.lora_B.weight"] = torch.randn(width, 4, generator=random)
    path = tmp_path / "adapter.safetensors"
    save_file(tensors, path)
    return path


def music(model: AceStepSampler) -> np.ndarray:
    prompts, lyrics = ["lofi hip hop, warm rhodes", "chill beats"], ["[Instrumental]"] * 2
    return model.generate(prompts, lyrics=lyrics, seconds=2.0, seeds=[1, 2], steps=8, guidance_scale=3.0)


def snr_db(wanted: np.ndarray, found: np.ndarray) -> float:
    return float(10 * np.log10(np.square(wanted).mean() / np.square(wanted - found).mean()))


def test_bfloat16_is_the_same_music_and_the_same_bits_twice(samplers: dict[Precision, AceStepSampler]) -> None:
    exact, half = music(samplers["32"]), music(samplers["bf16"])
    assert snr_db(exact, half) > LEAST_SNR_DB
    assert not np.array_equal(exact, half)
    assert np.array_equal(half, music(samplers["bf16"]))


def test_an_adapter_is_heard_as_in_float32(samplers: dict[Precision, AceStepSampler], adapter: Path) -> None:
    made = {}
    for precision, model in samplers.items():
        plain = music(model)
        with model.adapted(adapter):
            made[precision] = music(model)
        assert snr_db(plain, made[precision]) < 20
        assert np.array_equal(plain, music(model))  # it leaves nothing behind
    assert snr_db(made["32"], made["bf16"]) > LEAST_SNR_DB


def test_only_the_transformer_is_in_bfloat16_and_every_sum_in_float32(
    samplers: dict[Precision, AceStepSampler], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = samplers["bf16"].base
    seen: list[torch.dtype] = []
    assert base.transformer is not None and base.text_encoder is not None and base.music_dcae is not None
    assert {parameter.dtype for parameter in base.transformer.parameters()} == {torch.bfloat16}
    others = (base.text_encoder, base.music_dcae)
    assert {parameter.dtype for module in others for parameter in module.parameters()} == {torch.float32}

    def watched(name: str) -> None:
        real: Any = getattr(sampler, name)

        def watching(*tensors: Tensor, **options: Any) -> Tensor:
            seen.extend(tensor.dtype for tensor in tensors)
            assert not torch.is_autocast_enabled("cpu")
            return real(*tensors, **options)

        monkeypatch.setattr(sampler, name, watching)

    watched("euler_step")
    watched("apg")
    music(samplers["bf16"])
    assert len(seen) == 2 * 8 + 2 * 4 and set(seen) == {torch.float32}


def test_a_gpu_without_bfloat16_is_refused_with_what_to_set(tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    with pytest.raises(BackboneError, match=r"sampling\.precision: cuda has no bfloat16; use '32'"):
        ACE_STEP_V1.sampler(tiny_base, device="cuda", precision="bf16")


def test_graphs_need_a_gpu_and_leave_the_hash_of_the_settings_alone(tiny_base: Path) -> None:
    with pytest.raises(BackboneError, match=r"sampling\.cuda_graphs needs a CUDA device, not cpu"):
        ACE_STEP_V1.sampler(tiny_base, device="cpu", cuda_graphs=True)
    assert SamplingSettings(**BEFORE, cuda_graphs=True).model_dump() == BEFORE


def test_float32_settings_keep_the_hash_that_they_had() -> None:
    settings = SamplingSettings(**BEFORE)
    assert settings.precision == "32"
    assert hash_of(settings.model_dump()) == hash_of(settings.model_dump(mode="json")) == hash_of(BEFORE)
    assert SamplingSettings(**BEFORE, precision="32").model_dump() == BEFORE
    assert SamplingSettings(**BEFORE, precision="bf16").model_dump() == {**BEFORE, "precision": "bf16"}
