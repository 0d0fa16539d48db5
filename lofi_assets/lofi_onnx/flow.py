"""Sampling arithmetic in numpy: schedule, guidance, the Euler step, and resampling to 48 kHz.

The numbers are those of `lofi_assets.backbones.ace_step_v1.flow_matching`, which explains them; here without torch,
so that a deployed tier needs numpy and onnxruntime only. Arrays are (B, 8, 16, frames) float32 unless said otherwise.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

TRAIN_TIMESTEPS = 1000
SHIFT = 3.0
MOMENTUM = -0.75
NORM_THRESHOLD = 2.5
FRAMES = (-2, -1)
OMEGA = 10.0
GUIDED_SHARE = 0.5
"""Of the steps, in the middle of the run."""
LATENT_SHAPE = (8, 16)

SINC_ZEROS = 6
ROLLOFF = 0.99


def schedule(steps: int, *, shift: float = SHIFT) -> Array:
    """Sigmas (steps + 1,), falling to a final 0; the model is told 1000 times the sigma of its step.

    Raises:
        ValueError: fewer than one step.
    """
    if steps < 1:
        raise ValueError(f"sampling needs at least one step, not {steps}")
    lowest = _shifted(np.float64(1 / TRAIN_TIMESTEPS), shift)
    sigmas = _shifted(np.linspace(1.0, float(lowest), steps), shift)
    return np.append(sigmas, 0.0).astype(np.float32)


def _shifted(sigmas: NDArray[np.float64] | np.float64, shift: float) -> NDArray[np.float64]:
    return np.asarray(shift * sigmas / (1 + (shift - 1) * sigmas), np.float64)


def guided_steps(steps: int, interval: float) -> range:
    """The steps, in the middle of the run, that are guided; an interval of 1 guides all of them."""
    return range(int(steps * (1 - interval) / 2), int(steps * (interval / 2 + 0.5)))


def seeded_noise(seeds: Sequence[int], *, frames: int) -> Array:
    """Standard normal noise (len(seeds), 8, 16, frames), each item from its own seed alone.

    The noise of a seed is defined here, for torch's sampler and for every tier: the lower 24 bits of MT19937's words,
    sixteen at a time, the first eight as radii and the last eight as angles of Box and Muller (1958). Those are the
    numbers of `torch.randn` on a CPU, whose logarithms and cosines differ from one CPU to the next in the last bits;
    these are rounded once, from double precision.
    """
    return np.stack([_noise(seed, LATENT_SHAPE[0] * LATENT_SHAPE[1] * frames) for seed in seeds]).reshape(
        -1, *LATENT_SHAPE, frames
    )


def _noise(seed: int, count: int) -> Array:
    words = np.random.RandomState(seed % 2**32).randint(0, 2**32, count, dtype=np.uint32)
    uniform = (words & 0xFFFFFF).reshape(-1, 2, 8) / 2**24
    radius, angle = np.sqrt(-2 * np.log(1 - uniform[:, 0])), 2 * np.pi * uniform[:, 1]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).astype(np.float32).reshape(-1)


class Guidance:
    """Adaptive projected guidance over one sampling run: it keeps the running sum of directions."""

    def __init__(self, scale: float, *, momentum: float = MOMENTUM, norm_threshold: float = NORM_THRESHOLD) -> None:
        self.scale, self.momentum, self.norm_threshold = scale, momentum, norm_threshold
        self._running: Array | None = None

    def __call__(self, conditional: Array, unconditional: Array) -> Array:
        """The guided velocity from the velocities with and without conditions."""
        direction = conditional - unconditional
        if self._running is not None:
            direction = direction + np.float32(self.momentum) * self._running
        self._running = direction
        norm = np.linalg.norm(direction, axis=FRAMES, keepdims=True)
        direction = direction * np.minimum(1, self.norm_threshold / np.maximum(norm, 1e-12)).astype(np.float32)
        wide, axis = direction.astype(np.float64), conditional.astype(np.float64)
        axis = axis / np.maximum(np.linalg.norm(axis, axis=FRAMES, keepdims=True), 1e-12)
        orthogonal = wide - (wide * axis).sum(axis=FRAMES, keepdims=True) * axis
        guided: Array = conditional + np.float32(self.scale - 1) * orthogonal.astype(np.float32)
        return guided


def euler_step(sample: Array, velocity: Array, *, sigma: float, sigma_next: float, omega: float = OMEGA) -> Array:
    """One step; the change's deviation from its item's mean is weighted by 0.9 to 1.1."""
    change = np.float32(sigma_next - sigma) * velocity
    mean = change.mean(axis=(1, 2, 3), keepdims=True, dtype=np.float32)
    weight = np.float32(0.9 + 0.2 / (1 + math.exp(-0.1 * omega)))
    moved: Array = sample + (change - mean) * weight + mean
    return moved


def resample(audio: Array, *, source: int, target: int) -> Array:
    """Change the rate of (..., n) audio with a Hann-windowed sinc of six zero crossings, as torchaudio's default does.

    Returns:
        (..., ceil(n * target / source)) float32.
    """
    if source == target:
        return audio
    divisor = math.gcd(source, target)
    stride, phases = source // divisor, target // divisor
    kernel, width = _sinc_kernel(stride, phases)
    length = audio.shape[-1]
    pad = [(0, 0)] * (audio.ndim - 1) + [(width, width + stride)]
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(audio, pad), kernel.shape[1], axis=-1)
    output = windows[..., ::stride, :] @ kernel.T
    return output.reshape(*audio.shape[:-1], -1)[..., : math.ceil(phases * length / stride)]


def _sinc_kernel(stride: int, phases: int) -> tuple[Array, int]:
    cutoff = min(stride, phases) * ROLLOFF
    width = math.ceil(SINC_ZEROS * stride / cutoff)
    taps = np.arange(-width, width + stride) / stride
    time = (np.arange(0, -phases, -1)[:, None] / phases + taps) * cutoff
    time = np.clip(time, -SINC_ZEROS, SINC_ZEROS)
    window = np.cos(time * np.pi / SINC_ZEROS / 2) ** 2
    return (np.sinc(time) * window * cutoff / stride).astype(np.float32), width
