"""The log-mel spectrogram that the DCAE encodes and the vocoder reads.

Buffer names are those of the published vocoder weights. Computed in float32 whatever the module's precision.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchaudio.functional import melscale_fbanks

MAGNITUDE_FLOOR = 1e-6
LOG_FLOOR = 1e-5


class Spectrogram(nn.Module):
    """Magnitude spectrogram with reflected edges, so that n samples give n // hop frames."""

    window: Tensor

    def __init__(self, *, n_fft: int, win_length: int, hop_length: int) -> None:
        super().__init__()
        self.n_fft, self.win_length, self.hop_length = n_fft, win_length, hop_length
        self.register_buffer("window", torch.hann_window(win_length))

    def forward(self, wav: Tensor) -> Tensor:
        """wav (B, n) -> (B, n_fft // 2 + 1, frames)."""
        margin = self.win_length - self.hop_length
        padded = F.pad(wav.float()[:, None], (margin // 2, margin - margin // 2), mode="reflect")[:, 0]
        spectrum = torch.stft(
            padded,
            self.n_fft,
            hop_length=self.hop_length,
            win_length=self.win_length,
            window=self.window.float(),
            center=False,
            return_complex=True,
        )
        return (torch.view_as_real(spectrum).square().sum(dim=-1) + MAGNITUDE_FLOOR).sqrt()


class MelScale(nn.Module):
    """Slaney mel filters over a spectrogram."""

    fb: Tensor

    def __init__(self, *, n_freqs: int, n_mels: int, f_min: float, f_max: float, sample_rate: int) -> None:
        super().__init__()
        with torch.device("cpu"):  # the filters look at values, which a meta device has none of
            filters = melscale_fbanks(n_freqs, f_min, f_max, n_mels, sample_rate, norm="slaney", mel_scale="slaney")
        self.register_buffer("fb", filters)

    def forward(self, magnitudes: Tensor) -> Tensor:
        """(B, n_freqs, frames) -> (B, n_mels, frames)."""
        return (magnitudes.transpose(-1, -2) @ self.fb.float()).transpose(-1, -2)


class LogMel(nn.Module):
    """Waveform (B, n) in [-1, 1] at the module's sample rate -> natural-log mel magnitudes (B, n_mels, n // hop)."""

    def __init__(
        self,
        *,
        sample_rate: int = 44100,
        n_fft: int = 2048,
        win_length: int = 2048,
        hop_length: int = 512,
        n_mels: int = 128,
        f_min: float = 40.0,
        f_max: float = 16000.0,
    ) -> None:
        super().__init__()
        self.sample_rate = sample_rate
        self.spectrogram = Spectrogram(n_fft=n_fft, win_length=win_length, hop_length=hop_length)
        self.mel_scale = MelScale(
            n_freqs=n_fft // 2 + 1, n_mels=n_mels, f_min=f_min, f_max=f_max, sample_rate=sample_rate
        )

    def forward(self, wav: Tensor) -> Tensor:
        nats: Tensor = self.mel_scale(self.spectrogram(wav)).clamp(min=LOG_FLOOR).log()
        return nats
