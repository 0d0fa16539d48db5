"""How far a waveform is from another, as spectra at several resolutions; and a critic that looks at spectra.

Belongs here: losses of the vocoder. Waveforms are (B, n) at 44.1 kHz.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lofi_assets.ace_step.mel import LogMel, Spectrogram

RESOLUTIONS = (512, 1024, 2048)
"""Samples of a window; the hop is a quarter. MusiCNN hears windows of 1411."""
SLOPE = 0.1


class SpectralLoss(nn.Module):
    """Multi-resolution STFT loss (Yamamoto et al. 2020, arXiv 1910.11480) and the log-mel error in nats."""

    def __init__(self, *, mel: LogMel, mel_weight: float) -> None:
        super().__init__()
        self.mel, self.mel_weight = mel, mel_weight
        self.spectrograms = nn.ModuleList(
            Spectrogram(n_fft=size, win_length=size, hop_length=size // 4) for size in RESOLUTIONS
        )

    def forward(self, made: Tensor, true: Tensor) -> dict[str, Tensor]:
        """`stft`, `mel` and their weighted sum `loss`."""
        spectral = torch.stack([self._distance(spectrogram, made, true) for spectrogram in self.spectrograms]).mean()
        mel = (self.mel(made) - self.mel(true)).abs().mean()
        return {"loss": spectral + self.mel_weight * mel, "stft": spectral, "mel": mel}

    def _distance(self, spectrogram: nn.Module, made: Tensor, true: Tensor) -> Tensor:
        """Spectral convergence, which hears what is loud, and the log distance, which hears what is quiet.

        The convergence is the batch's: relative to itself, a crop that is nearly silent would outweigh all others.
        """
        ours, theirs = spectrogram(made), spectrogram(true)
        convergence = (ours - theirs).norm() / theirs.norm()
        return convergence + (ours.log() - theirs.log()).abs().mean()


class SpectralCritic(nn.Module):
    """Small convolutional discriminators on log spectrograms, one per resolution (UnivNet, arXiv 2106.07889)."""

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.spectrograms = nn.ModuleList(
            Spectrogram(n_fft=size, win_length=size, hop_length=size // 4) for size in RESOLUTIONS
        )
        self.critics = nn.ModuleList(_critic(channels) for _ in RESOLUTIONS)

    def forward(self, wav: Tensor) -> list[list[Tensor]]:
        """Per resolution the feature maps of every layer; the last is the verdict."""
        seen = []
        for spectrogram, critic in zip(self.spectrograms, self.critics, strict=True):
            assert isinstance(critic, nn.ModuleList)
            x = spectrogram(wav).log()[:, None]
            maps = []
            for layer in critic:
                x = layer(x)
                maps.append(x)
                x = F.leaky_relu(x, SLOPE)
            seen.append(maps)
        return seen


def critic_loss(true: list[list[Tensor]], made: list[list[Tensor]]) -> Tensor:
    """Least squares: 1 for what is true, 0 for what was made."""
    errors = [(t[-1] - 1).square().mean() + m[-1].square().mean() for t, m in zip(true, made, strict=True)]
    return torch.stack(errors).mean()


def adversarial_losses(true: list[list[Tensor]], made: list[list[Tensor]]) -> tuple[Tensor, Tensor]:
    """The generator's: how far from 1 the verdicts are, and how far the feature maps are from those of the truth."""
    verdicts = torch.stack([(maps[-1] - 1).square().mean() for maps in made]).mean()
    matching = torch.stack(
        [
            (m - t.detach()).abs().mean()
            for ours, theirs in zip(made, true, strict=True)
            for m, t in zip(ours[:-1], theirs[:-1], strict=True)
        ]
    ).mean()
    return verdicts, matching


def _critic(channels: int) -> nn.ModuleList:
    return nn.ModuleList(
        [
            nn.Conv2d(1, channels, (9, 3), stride=(2, 1), padding=(4, 1)),
            nn.Conv2d(channels, channels, (9, 3), stride=(2, 1), padding=(4, 1)),
            nn.Conv2d(channels, channels, (9, 3), stride=(2, 2), padding=(4, 1)),
            nn.Conv2d(channels, channels, (3, 3), padding=1),
            nn.Conv2d(channels, 1, (3, 3), padding=1),
        ]
    )
