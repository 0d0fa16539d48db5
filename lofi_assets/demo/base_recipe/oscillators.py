"""Tones of fixed phase: which there are, and how loud each is in a sound. The vocoder with them is in `additive`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lofi_assets.backbones.ace_step_v1.frame_rates import HOP, MEL_RATE
from lofi_assets.demo.base_recipe.settings import MARKS

WINDOW = 2048
GRID = MEL_RATE / (MARKS * HOP)
"""Hz between tones that repeat with the marks: 10.8."""
LOW_HZ = 1310.0
"""Below it the frames tell tones apart that mel bands do not; above it every frame can sound the same."""
OCTAVES = ((130.0, MARKS), (625.0, MARKS // 2), (LOW_HZ, MARKS // 4), (4400.0, 1))
"""Up to which Hz oscillators repeat after how many frames. The lowest need the finer grid to be in tune; further up
fewer are told apart better, and FAD prefers them (decision 011)."""
SILENCE = 1e-7


@dataclass(frozen=True)
class Oscillators:
    """Tones of fixed phase."""

    hz: Tensor
    frames: tuple[int, ...]
    """After how many mel frames each repeats."""
    phases: Tensor

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def low(self) -> int:
        """How many of them, the first, are below `LOW_HZ`."""
        return int((self.hz < LOW_HZ).sum())

    def sound(self, times: Tensor) -> Tensor:
        """Seconds (n,) -> (oscillators, n)."""
        return torch.cos(2 * math.pi * self.hz[:, None] * times + self.phases[:, None])


def oscillators() -> Oscillators:
    """Every tone below 4.4 kHz that repeats after its octave's frames."""
    hz: list[float] = []
    frames: list[int] = []
    for top, period in OCTAVES:
        spacing = GRID * MARKS / period
        tone = (math.floor((hz[-1] if hz else 0.0) / spacing) + 1) * spacing
        while tone < top:
            hz.append(tone)
            frames.append(period)
            tone += spacing
    phases = 2 * math.pi * torch.rand(len(hz), generator=torch.Generator().manual_seed(1))
    return Oscillators(torch.tensor(hz), tuple(frames), phases)


@torch.no_grad()
def amplitudes(bank: Oscillators, waves: Tensor) -> Tensor:
    """Waves (B, n) -> (B, oscillators, n // 512): each spectral peak of a mel frame at its nearest oscillator."""
    margin = (WINDOW - HOP) // 2
    padded = F.pad(waves[:, None], (margin, margin), mode="reflect")[:, 0]
    window = torch.hann_window(WINDOW)
    top = math.ceil(OCTAVES[-1][0] / MEL_RATE * WINDOW) + 2
    spectrum = torch.stft(padded, WINDOW, HOP, window=window, center=False, return_complex=True)[:, :top]
    level = (spectrum.abs() * 2 / window.sum() + SILENCE).log()
    centre, below, above = level[:, 1:-1], level[:, :-2], level[:, 2:]
    # a parabola through three bins: place and height of the peak (Smith & Serra 1987)
    shift = ((below - above) / (2 * (below - 2 * centre + above)).clamp(max=-1e-6)).clamp(-0.5, 0.5)
    height = (centre - 0.25 * (below - above) * shift).exp()
    hz = (torch.arange(1, top - 1)[:, None] + shift) * MEL_RATE / WINDOW
    heard = (centre > below) & (centre >= above) & (hz <= OCTAVES[-1][0])
    nearest = torch.bucketize(hz.contiguous(), (bank.hz[1:] + bank.hz[:-1]) / 2)
    found = torch.zeros(len(waves), len(bank), level.shape[-1])
    return found.scatter_reduce_(1, nearest, height * heard, "amax")
