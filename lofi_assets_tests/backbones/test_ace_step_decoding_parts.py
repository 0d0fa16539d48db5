"""Latents decoded in parts: the sound of the whole, in memory that does not grow with the length."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_dc import AutoencoderDC, Decoder
from torch import Tensor

from lofi_assets.backbones.ace_step_v1 import music_dcae, stage_parts
from lofi_assets.backbones.ace_step_v1.decoding_parts import (
    decode_in_parts,
    vocode_in_parts,
    vocoder_ratio_and_reach,
)
from lofi_assets.backbones.ace_step_v1.encoding_parts import encode_in_parts
from lofi_assets.backbones.ace_step_v1.frame_rates import PART_FRAMES
from lofi_assets.backbones.ace_step_v1.loading import DCAE, VOCODER
from lofi_assets.backbones.ace_step_v1.music_dcae import MusicDCAE
from lofi_assets.backbones.ace_step_v1.parts import in_parts
from lofi_assets.backbones.ace_step_v1.size import DECODING_BYTES_PER_SECOND, KEPT_BYTES_PER_SECOND
from lofi_assets.backbones.ace_step_v1.stage_parts import ratio_and_reach
from lofi_assets.backbones.ace_step_v1.vocoder import ADaMoSHiFiGANV1
from lofi_assets_tests.backbones.live_bytes import LiveBytes
from lofi_assets_tests.backbones.test_ace_step_weights import published_dcae

FRAMES_PER_SECOND = 44100 / 4096


@pytest.fixture(scope="module")
def codec(tiny_base: Path) -> MusicDCAE:
    return MusicDCAE.from_pretrained(tiny_base / DCAE, tiny_base / VOCODER)


@pytest.fixture(scope="module")
def vocoder(codec: MusicDCAE) -> ADaMoSHiFiGANV1:
    """The small one with blocks that count: as written they add a millionth, as a training starts with."""
    made: ADaMoSHiFiGANV1 = ADaMoSHiFiGANV1.from_config(codec.vocoder.config).eval()
    made.load_state_dict(codec.vocoder.state_dict())
    for name, parameter in made.named_parameters():
        if name.endswith(".gamma"):
            parameter.data.fill_(0.5)
    return made


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
@pytest.mark.parametrize(("batch", "frames"), [(1, 17), (2, 31), (1, 48)])
def test_an_image_decoded_in_parts_is_that_of_the_whole(codec: MusicDCAE, batch: int, frames: int) -> None:
    latents = noise(batch, 8, 16, frames)
    whole = codec.dcae.decoder(latents)
    found = decode_in_parts(codec.dcae.decoder, latents, part_frames=16)
    assert found.shape == whole.shape
    torch.testing.assert_close(found, whole, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_part_that_attended_to_itself_alone_would_show(codec: MusicDCAE, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        stage_parts, "_attention_in_parts", lambda attention, x, part: in_parts(attention, x, part=part, reach=2)
    )
    latents = noise(1, 8, 16, 48)
    alone = decode_in_parts(codec.dcae.decoder, latents, part_frames=16)
    assert (alone - codec.dcae.decoder(latents)).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("frames", [65, 128, 203])
def test_sound_made_in_parts_is_that_of_the_whole(vocoder: ADaMoSHiFiGANV1, frames: int) -> None:
    mel = noise(2, 128, frames)
    whole = vocoder.decode(mel)
    found = vocode_in_parts(vocoder, mel, part_frames=64)
    assert found.shape == whole.shape
    torch.testing.assert_close(found, whole, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_what_fits_into_one_part_has_the_bits_of_the_whole(codec: MusicDCAE) -> None:
    latents, mel = noise(1, 8, 16, 9), noise(2, 128, 40)
    assert torch.equal(decode_in_parts(codec.dcae.decoder, latents), codec.dcae.decoder(latents))
    assert torch.equal(vocode_in_parts(codec.vocoder, mel), codec.vocoder.decode(mel))


@torch.no_grad()
@pytest.mark.parametrize("upsample", ["interpolate", "pixel_shuffle"])
@pytest.mark.parametrize("attending", [(), (1,), (0, 2), (0, 1, 2)])
def test_a_decoder_of_another_make_is_decoded_in_parts_too(upsample: str, attending: tuple[int, ...]) -> None:
    """Attention in no stage, in one between, in the last; the other way of making two frames of one."""
    torch.manual_seed(0)
    kinds = tuple("EfficientViTBlock" if stage in attending else "ResBlock" for stage in range(3))
    decoder = Decoder(
        in_channels=2,
        latent_channels=4,
        attention_head_dim=4,
        block_type=kinds,
        block_out_channels=(8, 8, 16),
        layers_per_block=(1, 2, 1),
        qkv_multiscales=((), (3,), (5,)),
        upsample_block_type=upsample,
        in_shortcut=upsample == "interpolate",
    ).eval()
    latents = noise(1, 4, 4, 21)
    torch.testing.assert_close(decode_in_parts(decoder, latents, part_frames=8), decoder(latents), atol=1e-5, rtol=1e-5)


def seen_by(function: Callable[[Tensor], Tensor], x: Tensor, *, frame: int) -> tuple[int, int]:
    """First and last frame of the result that a change of one frame of `x` moves."""
    other = x.clone()
    other[..., frame] += 1
    moved = (function(x) - function(other)).abs().flatten(0, -2).amax(dim=0).nonzero()
    return int(moved.min()), int(moved.max())


@torch.no_grad()
def test_the_vocoder_sees_as_far_as_derived(vocoder: ADaMoSHiFiGANV1) -> None:
    ratio, reach = vocoder_ratio_and_reach(vocoder)
    first, last = seen_by(vocoder.decode, noise(1, 128, 3 * reach), frame=reach + 3)
    # what moves at the far ends may be too faint for float32
    assert 3 <= first // ratio <= 5 and 2 * reach + 1 <= last // ratio <= 2 * reach + 3


@torch.no_grad()
def test_the_later_stages_of_the_decoder_see_as_far_as_derived(codec: MusicDCAE) -> None:
    decoder = codec.dcae.decoder
    tail = [block for stage in reversed(decoder.up_blocks[:3]) for block in stage]
    ratio, reach = ratio_and_reach(*tail, decoder.conv_out)

    def later(x: Tensor) -> Tensor:
        for block in tail:
            x = block(x)
        return decoder.conv_out(x)

    first, last = seen_by(later, noise(1, 32, 4, 4 * reach), frame=2 * reach)
    assert ratio == 8 and reach > 1
    assert first // ratio == reach and last // ratio == 3 * reach


@torch.no_grad()
def test_parts_that_overlap_too_little_would_show(vocoder: ADaMoSHiFiGANV1) -> None:
    ratio, reach = vocoder_ratio_and_reach(vocoder)
    mel = noise(1, 128, 128)
    short = in_parts(vocoder.decode, mel, part=64, reach=reach - 12, ratio=ratio)
    assert (short - vocoder.decode(mel)).abs().max() > 1e-3


def test_parts_of_a_function_that_shrinks_begin_where_a_frame_of_the_result_does() -> None:
    x = noise(1, 40)

    def halves(x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, 2)).mean(dim=-1)

    assert torch.equal(in_parts(halves, x, part=12, reach=2, ratio=Fraction(1, 2)), halves(x))


def test_the_published_models_see_about_a_second() -> None:
    dcae, vocoder = published()
    decoder = dcae.decoder
    tail = [block for stage in reversed(decoder.up_blocks[:3]) for block in stage]
    assert ratio_and_reach(*tail, decoder.conv_out) == (8, 7)
    assert vocoder_ratio_and_reach(vocoder) == (512, 91)


@torch.no_grad()
def test_encoding_keeps_one_state_of_the_track_besides_a_part() -> None:
    dcae, _ = published()

    def held(frames: int) -> int:
        image = torch.empty((1, 2, 128, frames), device="meta")
        with LiveBytes((*dcae.parameters(), image)) as live:
            encode_in_parts(dcae.encoder, image)
        return live.peak

    minute, four = held(5168), held(20672)
    assert four < 1.7e9 and four - minute < 180 * 1.5e6


@torch.no_grad()
@pytest.mark.parametrize("part", ["decoder", "vocoder"])
def test_memory_hardly_grows_with_the_length(part: str) -> None:
    """The published sizes, on the meta device: what is held at once, as the plan counts it."""
    dcae, vocoder = published()
    vocoder.fold_weight_norm()

    def held(frames: int, *, in_parts: bool) -> int:
        x = torch.empty((1, 8, 16, frames) if part == "decoder" else (2, 128, 8 * frames), device="meta")
        known = (*dcae.parameters(), *vocoder.parameters(), x)
        with LiveBytes(known) as live:
            if part == "decoder":
                decode_in_parts(dcae.decoder, x) if in_parts else dcae.decoder(x)
            else:
                vocode_in_parts(vocoder, x) if in_parts else vocoder.decode(x)
        return live.peak

    minute, four = held(646, in_parts=True), held(2584, in_parts=True)
    assert held(2584, in_parts=False) > 6e9 and four < 0.85e9
    assert four - minute < 180 * KEPT_BYTES_PER_SECOND
    planned = DECODING_BYTES_PER_SECOND * PART_FRAMES / FRAMES_PER_SECOND + KEPT_BYTES_PER_SECOND * 240
    assert four < planned < 1.35 * four


@pytest.mark.parametrize("seconds", [0.5, 4.0])
def test_a_clip_of_a_gpu_is_decoded_in_parts(codec: MusicDCAE, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    latents = noise(2, 8, 16, round(seconds * FRAMES_PER_SECOND))
    lengths = [round(seconds * 48000), round(seconds * 30000)]
    whole = codec.decode(latents, audio_lengths=lengths)
    calls: list[int] = []

    def decode(decoder: Decoder, latents: Tensor) -> Tensor:
        calls.append(latents.shape[-1])
        return decode_in_parts(decoder, latents, part_frames=16)

    def vocode(vocoder: ADaMoSHiFiGANV1, mel: Tensor) -> Tensor:
        calls.append(mel.shape[-1])
        return vocode_in_parts(vocoder, mel, part_frames=128)

    monkeypatch.setattr(music_dcae, "_small_memory", lambda x: True)
    monkeypatch.setattr(music_dcae, "decode_in_parts", decode)
    monkeypatch.setattr(music_dcae, "vocode_in_parts", vocode)
    found = codec.decode(latents, audio_lengths=lengths)
    frames = latents.shape[-1]
    assert calls == [frames, 8 * frames] * 2
    torch.testing.assert_close(found, whole, atol=1e-5, rtol=1e-5)


def published() -> tuple[AutoencoderDC, ADaMoSHiFiGANV1]:
    with torch.device("meta"):
        return published_dcae().eval(), ADaMoSHiFiGANV1().eval()
