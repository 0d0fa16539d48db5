"""Flow matching as ACE-Step v1 does it: noise schedules, the Euler step, three kinds of guidance, the training loss.

Pure functions of tensors. A sigma in [0, 1] is the share of noise, x_t = sigma * noise + (1 - sigma) * clean; the model
is told t = 1000 * sigma and predicts the velocity noise - clean. Tensors are (B, 8, 16, T) unless said otherwise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

TRAIN_TIMESTEPS = 1000
SHIFT = 3.0
MOMENTUM = -0.75
NORM_THRESHOLD = 2.5
FRAMES = (-1, -2)


@dataclass(frozen=True)
class Schedule:
    """Sigmas, falling, and the timesteps that belong to them; an inference schedule has one more sigma, the final 0."""

    sigmas: Tensor
    timesteps: Tensor


def shifted(sigmas: Tensor, shift: float) -> Tensor:
    """Move sigmas towards noise: shift * s / (1 + (shift - 1) * s)."""
    return shift * sigmas / (1 + (shift - 1) * sigmas)


def training_schedule(*, num_train_timesteps: int = TRAIN_TIMESTEPS, shift: float = SHIFT) -> Schedule:
    """The table that training draws from: `num_train_timesteps` sigmas and timesteps, float32, noisiest first."""
    steps = torch.arange(num_train_timesteps, 0, -1, dtype=torch.float32)
    sigmas = shifted(steps / num_train_timesteps, shift)
    return Schedule(sigmas, sigmas * num_train_timesteps)


def inference_schedule(steps: int, *, shift: float = SHIFT) -> Schedule:
    """`steps` timesteps evenly spaced over the training table's range, shifted once more, and `steps` + 1 sigmas.

    Raises:
        ValueError: fewer than one step.
    """
    if steps < 1:
        raise ValueError(f"sampling needs at least one step, not {steps}")
    table = training_schedule(shift=shift)
    even = torch.linspace(float(table.sigmas[0]), float(table.sigmas[-1]), steps, dtype=torch.float64)
    sigmas = shifted(even, shift).float()
    return Schedule(torch.cat([sigmas, torch.zeros(1)]), sigmas * TRAIN_TIMESTEPS)


def sample_timestep_indices(batch: int, *, generator: torch.Generator, table: int = TRAIN_TIMESTEPS) -> Tensor:
    """Indices (batch,) into the training table: a logistic normal, densest in the middle."""
    uniform = torch.randn(batch, generator=generator).sigmoid()
    return (uniform * table).long().clamp(max=table - 1)


def add_noise(clean: Tensor, noise: Tensor, sigmas: Tensor) -> Tensor:
    """x_t of each item at its own sigma (B,)."""
    share = sigmas.view(-1, 1, 1, 1)
    return share * noise + (1 - share) * clean


def euler_step(
    sample: Tensor,
    velocity: Tensor,
    *,
    sigma: float,
    sigma_next: float,
    omega: float = 10.0,
    batch_mean: bool = False,
) -> Tensor:
    """One step from `sigma` to `sigma_next`, whose deviation from its own mean is scaled by `omega_weight(omega)`.

    Args:
        batch_mean: upstream's mean over the whole batch, which lets the company that an item is sampled in change it.
            By default the mean is each item's own; for a single item the two are the same.
    """
    change = (sigma_next - sigma) * velocity
    mean = change.mean() if batch_mean else change.mean(dim=(1, 2, 3), keepdim=True)
    return sample + (change - mean) * omega_weight(omega) + mean


def omega_weight(omega: float) -> float:
    """Weight in (0.9, 1.1): 1 at omega 0, 1.046 at 10."""
    return 0.9 + 0.2 / (1 + math.exp(-0.1 * omega))


class MomentumBuffer:
    """Running sum of the guidance directions of one sampling run, each earlier one weighted by `momentum` once more."""

    def __init__(self, momentum: float = MOMENTUM) -> None:
        self.momentum = momentum
        self._running: Tensor | None = None

    def update(self, direction: Tensor) -> Tensor:
        """Take a direction in and return the running sum."""
        self._running = direction if self._running is None else direction + self.momentum * self._running
        return self._running


def apg(
    conditional: Tensor,
    unconditional: Tensor,
    *,
    scale: float,
    buffer: MomentumBuffer | None = None,
    eta: float = 0.0,
    norm_threshold: float = NORM_THRESHOLD,
) -> Tensor:
    """Adaptive projected guidance (Sadat et al. 2024, arXiv 2410.02416), norms over (16, T) of each channel.

    Guides along the part of the difference that is orthogonal to the conditional prediction (plus `eta` of the parallel
    part), after momentum and after clipping its norm: high scales without oversaturation.
    """
    direction = conditional - unconditional
    if buffer is not None:
        direction = buffer.update(direction)
    if norm_threshold > 0:
        norm = direction.norm(dim=FRAMES, keepdim=True)
        direction = direction * (norm_threshold / norm).clamp(max=1.0)
    wide, axis = direction.double(), conditional.double()
    axis = axis / axis.norm(dim=FRAMES, keepdim=True).clamp(min=1e-12)
    parallel = (wide * axis).sum(dim=FRAMES, keepdim=True) * axis
    update = (wide - parallel + eta * parallel).to(conditional.dtype)
    guided: Tensor = conditional + (scale - 1) * update
    return guided


def cfg(conditional: Tensor, unconditional: Tensor, *, scale: float) -> Tensor:
    """Plain classifier-free guidance."""
    return unconditional + scale * (conditional - unconditional)


def cfg_zero_star(
    conditional: Tensor, unconditional: Tensor, *, scale: float, step: int, zero_steps: int = 1
) -> Tensor:
    """CFG-Zero* (Fan et al. 2025, arXiv 2503.18886).

    The unconditional prediction is rescaled to fit the conditional one by least squares for each item, and the steps
    0 to `zero_steps` predict nothing.
    """
    if step <= zero_steps:
        return torch.zeros_like(conditional)
    wanted, given = conditional.flatten(1), unconditional.flatten(1)
    ratio = (wanted * given).sum(dim=1) / (given.square().sum(dim=1) + 1e-8)
    fitted = unconditional * ratio.view(-1, 1, 1, 1)
    return fitted + scale * (conditional - fitted)


def denoising_loss(
    velocity: Tensor,
    *,
    noisy: Tensor,
    clean: Tensor,
    sigmas: Tensor,
    mask: Tensor | None = None,
    upstream_masking: bool = False,
) -> Tensor:
    """Squared error between the clean latents and the estimate noisy - sigma * velocity, per item (B,).

    That is the velocity's error weighted by sigma squared. The training loss is the mean over the items.

    Args:
        sigmas: (B,) of each item.
        mask: (B, T), 1 for a frame and 0 for padding; None when nothing is padded.
        upstream_masking: upstream's mean, over all elements and then times the mask's mean, which shrinks the loss of a
            padded item twice. By default the mean is over real frames.
    """
    estimate = noisy - sigmas.view(-1, 1, 1, 1) * velocity
    error = (estimate - clean).square()
    if mask is None:
        return error.mean(dim=(1, 2, 3))
    frames = mask[:, None, None].to(error.dtype)
    if upstream_masking:
        return (error * frames).mean(dim=(1, 2, 3)) * mask.to(error.dtype).mean(dim=1)
    elements = frames.sum(dim=(1, 2, 3)) * error.shape[1] * error.shape[2]
    return (error * frames).sum(dim=(1, 2, 3)) / elements.clamp(min=1.0)
