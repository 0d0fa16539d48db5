"""The vocoder's built-in oscillators: in tune, at level, silent without marks, and untouched by training."""

import math

import pytest
import torch

from lofi_assets.backbones.ace_step_v1.mel import LogMel
from lofi_assets.backbones.ace_step_v1.vocoder import ADaMoSHiFiGANV1
from lofi_assets.demo.base_recipe import architecture
from lofi_assets.demo.base_recipe.additive import start_as_synthesiser
from lofi_assets.demo.base_recipe.additive_layout import CONSTANTS, REFERENCE, Fixed
from lofi_assets.demo.base_recipe.codec import MelImages, marked
from lofi_assets.demo.base_recipe.oscillators import GRID, LOW_HZ, amplitudes, oscillators
from lofi_assets.demo.base_recipe.settings import MARKS, SMOKE

RATE, HOP = 44_100, 512
MARK_LEVELS = (1.6, -9.6)
"""Log-mel of marks at a clock of 0.8."""


def test_every_oscillator_repeats_with_its_frames_and_they_thin_out_upwards() -> None:
    bank = oscillators()
    assert bool((bank.hz.diff() > 0).all()) and 4_300 < float(bank.hz[-1]) < 4_400
    assert 1_250 < float(bank.hz[bank.low - 1]) < LOW_HZ <= float(bank.hz[bank.low])
    cycles = bank.hz * torch.tensor(bank.frames) * HOP / RATE
    assert torch.allclose(cycles, cycles.round(), atol=1e-3)
    assert bank.frames == tuple(sorted(bank.frames, reverse=True)) and set(bank.frames) == {8, 4, 2, 1}
    steady = bank.sound(torch.arange(MARKS * HOP * 2) / RATE)
    assert torch.allclose(steady[:, : MARKS * HOP], steady[:, MARKS * HOP :], atol=0.02)


@pytest.mark.parametrize("hertz", [GRID * 5, 221.0, 440.0, 880.0])
def test_a_tone_is_heard_at_its_nearest_oscillator_and_at_its_level(hertz: float) -> None:
    bank = oscillators()
    found = amplitudes(bank, tone(hertz, level=0.25))[0, :, 8:-8].mean(dim=-1)
    nearest = int((bank.hz - hertz).abs().argmin())
    assert int(found.argmax()) == nearest
    assert float(found[nearest]) == pytest.approx(0.25, rel=0.1)
    assert float(found.sum() - found[nearest]) < 0.02


@pytest.fixture(scope="module")
def started() -> tuple[ADaMoSHiFiGANV1, Fixed]:
    """A narrow vocoder whose oscillators were fitted to steady tones; what is still to be learnt is silent."""
    torch.manual_seed(0)
    vocoder = architecture.build_vocoder(SMOKE.vocoder)
    generator = torch.Generator().manual_seed(0)
    low, high = torch.rand(2, 800, generator=generator)
    tones = zip(45 + 1_200 * low.square(), 1_310 + 3_000 * high, strict=True)
    waves = torch.cat(
        [tone(float(hz), level=0.2, frames=16) + tone(float(over), level=0.02, frames=16) for hz, over in tones]
    )
    fixed = start_as_synthesiser(vocoder, waves, told(waves), marks=MARK_LEVELS)
    last = vocoder.head.conv_post
    with torch.no_grad():
        last.weight_v[:, 2:] = 0
        last.weight_g.copy_(last.weight_v.norm(dim=(1, 2), keepdim=True))
    return vocoder, fixed


def tone(hertz: float, *, level: float, frames: int = 64) -> torch.Tensor:
    return level * torch.sin(2 * math.pi * hertz * torch.arange(frames * HOP) / RATE)[None]


def told(waves: torch.Tensor, clock: float = 0.8) -> torch.Tensor:
    """Log-mel with marks, as the decoder makes it."""
    mel = LogMel()(waves)
    images = (mel + 11) / 14 * 2 - 1
    return (marked(images, clock) + 1) / 2 * 14 - 11


@pytest.mark.parametrize("hertz", [64.6, 120.0, 194.0, 301.0, 700.0, 1_000.0])
def test_an_untrained_vocoder_plays_a_low_tone_in_tune_and_at_level(
    started: tuple[ADaMoSHiFiGANV1, Fixed], hertz: float
) -> None:
    made = played(started[0], told(tone(hertz, level=0.2)))
    spectrum = torch.fft.rfft(made[4096:-4096] * torch.hann_window(len(made) - 8192)).abs()
    found = float(spectrum[: len(spectrum) // 16].argmax()) * RATE / (len(made) - 8192)
    bank = oscillators()
    assert found == pytest.approx(float(bank.hz[(bank.hz - hertz).abs().argmin()]), abs=2.0)
    assert 0.15 < 4 * float(spectrum.max()) / (len(made) - 8192) < 0.27


@pytest.mark.parametrize("hertz", [1_500.0, 2_210.0, 3_000.0, 4_100.0])
def test_an_untrained_vocoder_plays_an_overtone_with_or_without_marks(
    started: tuple[ADaMoSHiFiGANV1, Fixed], hertz: float
) -> None:
    mel = told(tone(237.0, level=0.2) + tone(hertz, level=0.02))
    unmarked = mel.clone()
    unmarked[:, -MARKS:] = MARK_LEVELS[1]
    for given in (mel, unmarked):
        made = played(started[0], given)[4096:-4096]
        level = 4 * torch.fft.rfft(made * torch.hann_window(len(made))).abs() / len(made)
        over = round(LOW_HZ * len(made) / RATE)
        found = (over + int(level[over:].argmax())) * RATE / len(made)
        assert abs(found - hertz) < 90
        assert 0.01 < float(level[over:].max()) < 0.03


def test_without_marks_every_gate_is_shut(started: tuple[ADaMoSHiFiGANV1, Fixed]) -> None:
    mel = told(tone(GRID * 22, level=0.2))
    unmarked = mel.clone()
    unmarked[:, -MARKS:] = MARK_LEVELS[1]
    assert low_power(played(started[0], unmarked)) < 0.05 * low_power(played(started[0], mel))


@torch.no_grad()
def played(vocoder: ADaMoSHiFiGANV1, mel: torch.Tensor) -> torch.Tensor:
    return vocoder.decode(mel)[0, 0]


def low_power(wave: torch.Tensor) -> float:
    return float(torch.fft.rfft(wave).abs().square()[: len(wave) * 600 // RATE].sum())


def test_what_is_fixed_is_a_part_of_every_stage_and_leaves_room_to_learn(
    started: tuple[ADaMoSHiFiGANV1, Fixed],
) -> None:
    vocoder, fixed = started
    names = {id(parameter): name for name, parameter in vocoder.named_parameters()}
    assert {names[id(parameter)].split(".")[0] for parameter in fixed} == {"backbone", "head"}
    assert all(parameter.shape == entries.shape for parameter, entries in fixed.items())
    share = sum(int(entries.sum()) for entries in fixed.values()) / sum(p.numel() for p in vocoder.parameters())
    assert 0.1 < share < 0.6
    stem = vocoder.get_submodule("backbone.channel_layers.0.0")
    assert isinstance(stem, torch.nn.Conv1d) and stem.bias is not None
    assert stem.bias[CONSTANTS].tolist() == [REFERENCE, -REFERENCE]


def test_a_vocoder_that_is_too_narrow_is_refused() -> None:
    narrow = architecture.build_vocoder(SMOKE.vocoder.__class__(dims=(128,), initial=64))
    waves = tone(220, level=0.2)
    with pytest.raises(ValueError, match="channels"):
        start_as_synthesiser(narrow, waves, told(waves), marks=MARK_LEVELS)


def test_images_and_marks_share_one_scale() -> None:
    """The levels that these tests use are those that the codec computes."""

    class Scale:
        min_mel, max_mel = -11.0, 3.0

    nats = MelImages(LogMel(), like=Scale()).nats(torch.tensor([0.8, -0.8]))  # type: ignore[arg-type]
    assert nats.tolist() == pytest.approx(list(MARK_LEVELS))
