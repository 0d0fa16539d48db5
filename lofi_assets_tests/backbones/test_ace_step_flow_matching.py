"""Schedules, steps, guidance and the loss, checked by their definitions."""

from itertools import pairwise

import pytest
import torch

from lofi_assets.backbones.ace_step_v1 import flow_matching as flow


def test_the_training_table_runs_from_pure_noise_down() -> None:
    table = flow.training_schedule()
    assert len(table.sigmas) == len(table.timesteps) == 1000
    assert float(table.sigmas[0]) == 1.0 and float(table.timesteps[0]) == 1000.0
    assert float(table.sigmas[-1]) == pytest.approx(3 * 0.001 / (1 + 2 * 0.001))
    assert bool((table.sigmas.diff() < 0).all())


def test_a_larger_shift_spends_more_steps_on_noise() -> None:
    assert float(flow.inference_schedule(60, shift=3.0).sigmas[30]) > float(
        flow.inference_schedule(60, shift=1.0).sigmas[30]
    )


@pytest.mark.parametrize("steps", [1, 2, 27, 60])
def test_a_schedule_ends_without_noise(steps: int) -> None:
    schedule = flow.inference_schedule(steps)
    assert len(schedule.sigmas) == steps + 1 and len(schedule.timesteps) == steps
    assert float(schedule.sigmas[-1]) == 0.0


def test_no_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one step"):
        flow.inference_schedule(0)


def test_the_true_velocity_leads_from_noise_to_the_latents() -> None:
    clean, noise = torch.randn(2, 8, 16, 5), torch.randn(2, 8, 16, 5)
    sigmas = flow.inference_schedule(7).sigmas.tolist()
    sample = noise
    for now, later in pairwise(sigmas):
        sample = flow.euler_step(sample, noise - clean, sigma=now, sigma_next=later, omega=0.0)
    torch.testing.assert_close(sample, clean, atol=1e-5, rtol=0)


def test_omega_zero_is_a_plain_step_and_ten_is_stronger() -> None:
    assert flow.omega_weight(0.0) == pytest.approx(1.0)
    assert flow.omega_weight(10.0) == pytest.approx(1.046, abs=1e-3)


def test_a_step_of_one_item_does_not_see_the_other() -> None:
    sample, velocity = torch.randn(2, 8, 16, 5), torch.randn(2, 8, 16, 5)
    together = flow.euler_step(sample, velocity, sigma=0.9, sigma_next=0.5)
    alone = flow.euler_step(sample[:1], velocity[:1], sigma=0.9, sigma_next=0.5)
    torch.testing.assert_close(together[:1], alone)


def test_projected_guidance_is_orthogonal_and_bounded() -> None:
    wanted, free = torch.randn(1, 8, 16, 5) * 9, torch.randn(1, 8, 16, 5) * 9
    update = flow.apg(wanted, free, scale=2.0) - wanted
    assert float((update * wanted).sum(dim=(-1, -2)).abs().max()) < 1e-3
    assert float(update.norm(dim=(-1, -2)).max()) <= flow.NORM_THRESHOLD + 1e-4


def test_timesteps_are_densest_in_the_middle_of_the_table() -> None:
    indices = flow.sample_timestep_indices(20_000, generator=torch.Generator().manual_seed(0))
    counts = torch.histc(indices.float(), bins=4, min=0, max=1000)
    assert int(indices.min()) >= 0 and int(indices.max()) < 1000
    assert bool((counts[1:3] > 1.5 * counts[[0, 3]]).all())


def test_the_loss_of_a_padded_item_is_that_of_its_real_frames() -> None:
    velocity, clean, noise = (torch.randn(1, 8, 16, 10) for _ in range(3))
    sigmas = torch.tensor([0.4])
    noisy = flow.add_noise(clean, noise, sigmas)
    mask = (torch.arange(10) < 6).float()[None]
    padded = flow.denoising_loss(velocity, noisy=noisy, clean=clean, sigmas=sigmas, mask=mask)
    cut = flow.denoising_loss(velocity[..., :6], noisy=noisy[..., :6], clean=clean[..., :6], sigmas=sigmas)
    torch.testing.assert_close(padded, cut)
    shrunk = flow.denoising_loss(velocity, noisy=noisy, clean=clean, sigmas=sigmas, mask=mask, upstream_masking=True)
    torch.testing.assert_close(shrunk, cut * 0.36)


def test_the_loss_is_the_velocitys_error_weighted_by_sigma_squared() -> None:
    velocity, clean, noise = (torch.randn(3, 8, 16, 4) for _ in range(3))
    sigmas = torch.tensor([0.1, 0.5, 1.0])
    noisy = flow.add_noise(clean, noise, sigmas)
    loss = flow.denoising_loss(velocity, noisy=noisy, clean=clean, sigmas=sigmas)
    expected = sigmas**2 * (velocity - (noise - clean)).square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(loss, expected)
