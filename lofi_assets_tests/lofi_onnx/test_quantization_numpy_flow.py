"""The sampler that ships without torch computes what the torch one computes, and what upstream computed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torchaudio.transforms import Resample

from lofi_assets.backbones.ace_step_v1 import flow_matching, sampler
from lofi_assets.lofi_onnx.flow import Guidance, euler_step, guided_steps, resample, schedule, seeded_noise


@pytest.mark.parametrize("steps", [1, 7, 60])
def test_the_schedule_is_the_one_of_the_torch_sampler(steps: int) -> None:
    np.testing.assert_allclose(schedule(steps), flow_matching.inference_schedule(steps).sigmas.numpy(), atol=1e-6)


def test_a_schedule_without_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one step"):
        schedule(0)


def test_guidance_and_steps_agree_with_torch_over_a_run() -> None:
    rng = np.random.default_rng(0)
    sample = rng.standard_normal((2, 8, 16, 9), np.float32)
    guide, buffer = Guidance(15.0), flow_matching.MomentumBuffer()
    for _ in range(4):
        conditional, unconditional = rng.standard_normal((2, 2, 8, 16, 9), np.float32)
        wanted = flow_matching.apg(torch.tensor(conditional), torch.tensor(unconditional), scale=15.0, buffer=buffer)
        np.testing.assert_allclose(guide(conditional, unconditional), wanted.numpy(), atol=1e-4)
        after = flow_matching.euler_step(torch.tensor(sample), wanted, sigma=0.8, sigma_next=0.7)
        np.testing.assert_allclose(
            euler_step(sample, wanted.numpy(), sigma=0.8, sigma_next=0.7), after.numpy(), atol=1e-5
        )


def test_upstream_numbers_are_matched(reference_dir: Path) -> None:
    tensors = load_file(reference_dir / "ace_step_v1" / "flow_matching.safetensors")
    output = {name.removeprefix("output."): value for name, value in tensors.items()}
    np.testing.assert_allclose(schedule(60), output["sigmas_60"], atol=1e-4)
    guide = Guidance(15.0)
    for index in range(3):
        got = guide(output[f"apg.cond.{index}"], output[f"apg.uncond.{index}"])
        np.testing.assert_allclose(got, output[f"apg.out.{index}"], atol=1e-4)


def test_equal_predictions_are_left_as_they_are() -> None:
    velocity = np.ones((1, 8, 16, 4), np.float32)
    np.testing.assert_array_equal(Guidance(15.0)(velocity, velocity), velocity)


def test_the_middle_half_is_guided() -> None:
    assert list(guided_steps(8, 0.5)) == [2, 3, 4, 5]
    assert list(guided_steps(8, 1.0)) == list(range(8))


def test_an_item_has_its_own_noise() -> None:
    pair = seeded_noise([5, 6], frames=11)
    np.testing.assert_array_equal(pair[1:], seeded_noise([6], frames=11))
    assert pair.shape == (2, 8, 16, 11) and pair.dtype == np.float32


@pytest.mark.parametrize("seed", [0, 7, 2**31, 2**32 + 5, -1])
def test_the_noise_of_a_seed_is_torch_s_and_the_same_in_both_samplers(seed: int) -> None:
    """torch rounds logarithms and cosines in single precision, differently on CPUs with AVX2 and without."""
    drawn = torch.randn(8, 16, 320, generator=torch.Generator().manual_seed(seed)).numpy()
    noise = seeded_noise([seed], frames=320)
    np.testing.assert_allclose(noise[0], drawn, atol=2e-6)
    np.testing.assert_array_equal(noise, sampler.seeded_noise([seed], frames=320).numpy())


def test_noise_starts_with_these_numbers_on_every_machine() -> None:
    first = seeded_noise([7], frames=2)[0].reshape(-1)[:4]
    np.testing.assert_allclose(first, [-0.82013446, 0.395631, 0.8989082, -1.388404], rtol=1e-6)


@pytest.mark.parametrize("length", [44100, 12345, 200])
def test_resampling_is_torchaudio_s(length: int) -> None:
    audio = np.random.default_rng(1).standard_normal((2, length)).astype(np.float32)
    wanted = Resample(44100, 48000)(torch.tensor(audio)).numpy()
    np.testing.assert_allclose(resample(audio, source=44100, target=48000), wanted, atol=1e-4)
    assert resample(audio, source=48000, target=48000) is audio
