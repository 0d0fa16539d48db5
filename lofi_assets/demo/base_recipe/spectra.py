"""How far a waveform is from another, as spectra at several resolutions; and a critic that looks at spectra.

Both are losses of the vocoder. Waveforms are (B, n) at 44.1 kHz.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lofi_assets.backbones.ace_step_v1.mel import LogMel, MelScale, Spectrogram

RESOLUTIONS = {512: 40, 1408: 96, 4096: 160}
"""Samples of a window -> mel bands; the hop is a quarter. Short ones hear attacks, the longest whether a tone holds,
and the middle one is about as long as MusiCNN's, 1411."""
BAND_RANGE = (30.0, 16_000.0)
FAINT = 5e-3
"""Mel magnitude that counts as silence: 45, 65 and 80 dB below a full-scale tone at the three windows."""
LOW_HZ = 640.0
"""Up to here every bin of the STFT counts by itself: kick and bass are a few mel bands."""
LOW_FAINT = 1e-5
"""Magnitude per sample of a window that counts as silence there: 88 dB below a full-scale tone."""
CRITIC_RESOLUTIONS = (512, 1024, 2048)
SLOPE = 0.1


class SpectralLoss(nn.Module):
    """Spectral convergence (Yamamoto et al. 2020, arXiv 1910.11480) and log-mel errors at several resolutions.

    Mel bands, not the STFT's: of its bins two thirds lie above 8 kHz, and a loss that counts them alike learns hiss
    before tones. What lies below `LOW_HZ` is heard once more, bin by bin.
    """

    def __init__(self, *, mel: LogMel, mel_weight: float, low_weight: float) -> None:
        super().__init__()
        self.mel, self.mel_weight, self.low_weight = mel, mel_weight, low_weight
        low, high = BAND_RANGE
        rate = mel.sample_rate
        self.spectrograms = nn.ModuleList(_spectrogram(size) for size in RESOLUTIONS)
        self.scales = nn.ModuleList(
            MelScale(n_freqs=size // 2 + 1, n_mels=bands, f_min=low, f_max=high, sample_rate=rate)
            for size, bands in RESOLUTIONS.items()
        )

    def forward(self, made: Tensor, true: Tensor) -> dict[str, Tensor]:
        """`convergence`, `bands`, `mel` (the DCAE's own bands, in nats) and `lows`, and their weighted sum `loss`.

        The convergence is the batch's: relative to itself, a crop that is nearly silent would outweigh all others.
        """
        convergences, errors, lows = [], [], []
        for spectrogram, scale in zip(self.spectrograms, self.scales, strict=True):
            ours, theirs = spectrogram(made), spectrogram(true)
            convergences.append(_convergence(ours, theirs))
            lows.append(_low_error(ours, theirs, sample_rate=self.mel.sample_rate))
            errors.append(((scale(ours) + FAINT).log() - (scale(theirs) + FAINT).log()).abs().mean())
        convergence, bands, low = (torch.stack(parts).mean() for parts in (convergences, errors, lows))
        mel = (self.mel(made) - self.mel(true)).abs().mean()
        loss = convergence + bands + self.mel_weight * mel + self.low_weight * low
        return {"loss": loss, "convergence": convergence, "bands": bands, "mel": mel, "lows": low}


class SpectralCritic(nn.Module):
    """Small convolutional discriminators on log spectrograms, one per resolution (UnivNet, arXiv 2106.07889)."""

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.spectrograms = nn.ModuleList(_spectrogram(size) for size in CRITIC_RESOLUTIONS)
        self.critics = nn.ModuleList(_critic(channels) for _ in CRITIC_RESOLUTIONS)

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


def _convergence(ours: Tensor, theirs: Tensor) -> Tensor:
    ratio: Tensor = (ours - theirs).norm() / theirs.norm()
    return ratio


def _low_error(ours: Tensor, theirs: Tensor, *, sample_rate: int) -> Tensor:
    """Convergence and log error of magnitudes (B, bins, frames) below `LOW_HZ`."""
    size = 2 * (ours.shape[-2] - 1)
    low = round(LOW_HZ / sample_rate * size)
    ours, theirs = ours[..., :low, :], theirs[..., :low, :]
    faint = LOW_FAINT * size
    return _convergence(ours, theirs) + ((ours + faint).log() - (theirs + faint).log()).abs().mean()


def _spectrogram(size: int) -> Spectrogram:
    return Spectrogram(n_fft=size, win_length=size, hop_length=size // 4)


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
