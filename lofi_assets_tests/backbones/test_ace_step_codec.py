"""Audio to latents and back: lengths, rates, the vocoder's folding."""

from pathlib import Path

import pytest
import torch

from lofi_assets.backbones.ace_step_v1 import encoding_parts
from lofi_assets.backbones.ace_step_v1.encoding_parts import encode_in_parts
from lofi_assets.backbones.ace_step_v1.frame_rates import latent_frames
from lofi_assets.backbones.ace_step_v1.loading import DCAE, VOCODER
from lofi_assets.backbones.ace_step_v1.mel import LogMel
from lofi_assets.backbones.ace_step_v1.music_dcae import MusicDCAE
from lofi_assets.backbones.ace_step_v1.vocoder import ADaMoSHiFiGANV1, NormedUpsample
from lofi_assets_tests.backbones.test_ace_step_weights import published_dcae


@pytest.fixture(scope="module")
def codec(tiny_base: Path) -> MusicDCAE:
    return MusicDCAE.from_pretrained(tiny_base / DCAE, tiny_base / VOCODER)


@pytest.mark.parametrize(("seconds", "frames"), [(1, 10), (3, 32), (10, 107), (240, 2583)])
def test_latents_come_at_10_77_a_second(seconds: int, frames: int) -> None:
    assert latent_frames(seconds * 48000, sample_rate=48000) == frames


def test_a_second_of_audio_is_eleven_frames_of_which_ten_are_full(codec: MusicDCAE) -> None:
    latents, lengths = codec.encode(torch.randn(1, 2, 48000) * 0.1)
    assert latents.shape == (1, 8, 16, 11) and lengths.tolist() == [10]


def test_decoding_returns_the_length_asked_for(codec: MusicDCAE) -> None:
    latents, _ = codec.encode(torch.randn(2, 2, 48000) * 0.1, lengths=[48000, 30000])
    audio = codec.decode(latents, audio_lengths=[48000, 30000])
    assert audio.shape == (2, 2, 48000)
    assert float(audio[1, :, 30000:].abs().max()) == 0.0 and float(audio[1, :, :30000].std()) > 0.01


def test_an_item_is_encoded_as_if_alone(codec: MusicDCAE) -> None:
    audio = torch.randn(2, 2, 24000) * 0.1
    assert torch.equal(codec.encode(audio)[0][1], codec.encode(audio[1:])[0][0])


@torch.no_grad()
@pytest.mark.parametrize("frames", [128, 384, 392])
def test_a_track_in_parts_has_the_latents_of_the_whole(codec: MusicDCAE, frames: int) -> None:
    encoder, image = codec.dcae.encoder, torch.randn(1, 2, 128, frames)
    whole = encoder(image)
    found = encode_in_parts(encoder, image, part_frames=128)
    assert found.shape == whole.shape
    torch.testing.assert_close(found, whole, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_parts_that_overlap_too_little_would_show(codec: MusicDCAE, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, image = codec.dcae.encoder, torch.randn(1, 2, 128, 384)
    local, _ = encoding_parts._split(encoder)
    ratio = 2 ** (len(local) - 1)
    monkeypatch.setattr(encoding_parts, "_compression_and_reach", lambda stages: (ratio, 0))
    error = (encode_in_parts(encoder, image, part_frames=128) - encoder(image)).abs().max()
    assert len(local) > 1 and error > 1e-3


def test_the_published_encoder_sees_less_than_a_second_to_each_side() -> None:
    with torch.device("meta"):
        encoder = published_dcae().encoder
    local, rest = encoding_parts._split(encoder)
    ratio, reach = encoding_parts._compression_and_reach(local)
    # first convolution, then (residual blocks of two, one that halves) at the rates 1, 2 and 4
    assert (len(local), len(rest), ratio) == (4, 1, 8)
    assert 1 + (4 + 1) + 2 * (4 + 1) + 4 * (6 + 1) <= reach < 86


def test_mono_audio_is_refused_with_the_remedy(codec: MusicDCAE) -> None:
    with pytest.raises(ValueError, match="stereo"):
        codec.encode(torch.zeros(1, 1, 48000))


@torch.no_grad()
def test_folding_the_weight_norm_changes_no_sample(codec: MusicDCAE) -> None:
    vocoder, mel = ADaMoSHiFiGANV1.from_config(codec.vocoder.config).eval(), torch.randn(1, 128, 20)
    vocoder.load_state_dict(codec.vocoder.state_dict())
    before = vocoder.decode(mel)
    vocoder.fold_weight_norm()
    torch.testing.assert_close(vocoder.decode(mel), before)
    assert not any("weight_g" in name for name in vocoder.state_dict())


@pytest.mark.parametrize(("rate", "kernel", "frames"), [(4, 8, 9), (2, 4, 1), (8, 16, 30), (4, 10, 9)])
def test_upsampling_heard_on_a_cpu_is_the_transposed_convolution(rate: int, kernel: int, frames: int) -> None:
    upsample = NormedUpsample(6, 3, kernel, rate=rate)
    torch.nn.init.normal_(upsample.bias)
    x = torch.randn(2, 6, frames)
    published = torch.nn.functional.conv_transpose1d(
        x, upsample.kernel(), upsample.bias, stride=rate, padding=(kernel - rate) // 2
    )
    with torch.no_grad():
        heard = upsample(x)
    assert torch.equal(upsample(x), published) and heard.shape == published.shape
    torch.testing.assert_close(heard, published, atol=1e-6, rtol=1e-5)


def test_an_exported_graph_keeps_the_published_upsampling() -> None:
    with torch.no_grad():
        program = torch.export.export(NormedUpsample(6, 3, 8, rate=4), (torch.randn(2, 6, 9),))
    assert "conv_transpose1d" in str(program.graph)


def test_the_default_vocoder_is_the_published_one() -> None:
    with torch.device("meta"):
        vocoder = ADaMoSHiFiGANV1()
    assert sum(parameter.numel() for parameter in vocoder.parameters()) == 103_005_138
    state = vocoder.state_dict()
    assert len(state) == 713
    assert tuple(state["mel_transform.mel_scale.fb"].shape) == (1025, 128)
    assert tuple(state["head.conv_pre.weight_v"].shape) == (1024, 512, 13)


def test_a_tone_shows_in_its_mel_band() -> None:
    time = torch.arange(44100) / 44100
    bands = [
        int(LogMel()(torch.sin(2 * torch.pi * hertz * time)[None])[0].mean(dim=1).argmax()) for hertz in (200, 4000)
    ]
    assert bands[0] < 20 < 70 < bands[1]
