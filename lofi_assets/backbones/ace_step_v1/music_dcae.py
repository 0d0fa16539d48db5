"""`MusicDCAE`: 48 kHz stereo <-> the latents that the transformer works on.

Audio is resampled to 44.1 kHz, turned into one log-mel image per channel, and compressed eightfold in both directions
by diffusers' `AutoencoderDC`; the vocoder turns mel images back into audio.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_dc import AutoencoderDC
from torch import Tensor, nn
from torch.nn import functional as F
from torchaudio.transforms import Resample

from lofi_assets.backbones.ace_step_v1.decoding_parts import decode_in_parts, vocode_in_parts
from lofi_assets.backbones.ace_step_v1.encoding_parts import encode_in_parts
from lofi_assets.backbones.ace_step_v1.frame_rates import HOP, MEL_RATE, SAMPLES_PER_FRAME, latent_frames
from lofi_assets.backbones.ace_step_v1.strict import strict
from lofi_assets.backbones.ace_step_v1.vocoder import ADaMoSHiFiGANV1


@lru_cache(maxsize=8)
def _resampler(source: int, target: int, device: str) -> nn.Module:
    resampler: nn.Module = Resample(source, target).to(device)
    return resampler


def _small_memory(x: Tensor) -> bool:
    """Whether the memory of the device may be small beside a long track; a CPU keeps the bits of the whole."""
    return x.device.type == "cuda"


def _resample(audio: Tensor, source: int, target: int) -> Tensor:
    return audio if source == target else _resampler(source, target, str(audio.device))(audio)


class MusicDCAE(nn.Module):
    """The autoencoder `dcae` and the `vocoder`, with the scaling between mel values and latents.

    Args:
        dcae: reads and writes (B, 2, mel bands, mel frames).
        vocoder: its mel transform must have the DCAE's bands, hop 512 and 44.1 kHz.
        min_mel, max_mel: log-mel values that map to -1 and 1.
        shift_factor, scale_factor: latent = (encoded - shift) * scale.
    """

    def __init__(
        self,
        dcae: AutoencoderDC,
        vocoder: ADaMoSHiFiGANV1,
        *,
        min_mel: float = -11.0,
        max_mel: float = 3.0,
        shift_factor: float = -1.9091,
        scale_factor: float = 0.1786,
    ) -> None:
        super().__init__()
        if (vocoder.config.sampling_rate, vocoder.config.hop_length) != (MEL_RATE, HOP):
            raise ValueError(f"the vocoder must have rate {MEL_RATE} and hop {HOP}, not {dict(vocoder.config)}")
        self.dcae = dcae
        self.vocoder = vocoder
        self.min_mel, self.max_mel = min_mel, max_mel
        self.shift_factor, self.scale_factor = shift_factor, scale_factor

    @classmethod
    def from_pretrained(cls, dcae_dir: Path, vocoder_dir: Path) -> MusicDCAE:
        """Read `music_dcae_f8c8` and `music_vocoder` folders (safetensors only), in float32 and evaluation mode.

        Raises:
            BaseModelError: a tensor is missing or unknown.
        """
        options: dict[str, Any] = {"use_safetensors": True, "torch_dtype": torch.float32, "output_loading_info": True}
        dcae = strict(AutoencoderDC.from_pretrained(str(dcae_dir), **options), dcae_dir)
        vocoder = strict(ADaMoSHiFiGANV1.from_pretrained(str(vocoder_dir), **options), vocoder_dir)
        return cls(dcae, vocoder).eval()

    @torch.no_grad()
    def encode(
        self, audio: Tensor, *, sample_rate: int = 48000, lengths: Sequence[int] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Audio -> latents, one item at a time, as the published model was trained.

        Args:
            audio: (B, 2, n) float in [-1, 1].
            sample_rate: Hz of `audio`.
            lengths: samples of each item that are real; all of them by default.
        Returns:
            Latents (B, 8, 16, T), T = the frames that cover the audio, and the frames (B,) that each item fills.
        Raises:
            ValueError: audio is not (B, 2, n).
        """
        if audio.ndim != 3 or audio.shape[1] != 2:
            raise ValueError(f"audio must be (batch, 2, samples), not {tuple(audio.shape)}: make it stereo first")
        real = [audio.shape[-1]] * len(audio) if lengths is None else lengths
        latents = torch.stack([self._encode_one(item, sample_rate) for item in audio])
        frames = [latent_frames(int(length), sample_rate=sample_rate) for length in real]
        return latents, torch.tensor(frames, device=latents.device)

    @torch.no_grad()
    def decode(
        self, latents: Tensor, *, sample_rate: int = 48000, audio_lengths: Sequence[int] | None = None
    ) -> Tensor:
        """Latents (B, 8, 16, T) -> audio (B, 2, n) in [-1, 1] at `sample_rate`.

        Args:
            audio_lengths: samples to keep of each item; shorter items end in zeros. All that was decoded by default.
        """
        decoded = [_resample(self._decode_one(item), MEL_RATE, sample_rate) for item in latents]
        if audio_lengths is None:
            return torch.stack(decoded)
        longest = max(audio_lengths)
        kept = [wav[:, :length] for wav, length in zip(decoded, audio_lengths, strict=True)]
        return torch.stack([F.pad(wav, (0, longest - wav.shape[-1])) for wav in kept])

    def mel_image(self, audio: Tensor) -> Tensor:
        """Audio (2, n) at 44.1 kHz -> scaled log-mel (2, bands, frames), about [-1, 1], in whole latent frames."""
        padded = F.pad(audio, (0, -audio.shape[-1] % SAMPLES_PER_FRAME))
        mel = self.vocoder.encode(padded)
        return (mel - self.min_mel) / (self.max_mel - self.min_mel) * 2 - 1

    def _encode_one(self, audio: Tensor, sample_rate: int) -> Tensor:
        image = self.mel_image(_resample(audio.float(), sample_rate, MEL_RATE))
        whole = image[None].to(self.dcae.dtype)
        encode = partial(encode_in_parts, self.dcae.encoder) if _small_memory(whole) else self.dcae.encoder
        encoded: Tensor = encode(whole)[0].float()
        return (encoded - self.shift_factor) * self.scale_factor

    def _decode_one(self, latents: Tensor) -> Tensor:
        in_parts = _small_memory(latents)
        decode = partial(decode_in_parts, self.dcae.decoder) if in_parts else self.dcae.decoder
        vocode = partial(vocode_in_parts, self.vocoder) if in_parts else self.vocoder.decode
        encoded = latents.float() / self.scale_factor + self.shift_factor
        image = decode(encoded[None].to(self.dcae.dtype))[0].float()
        mel = (image + 1) / 2 * (self.max_mel - self.min_mel) + self.min_mel
        wav: Tensor = vocode(mel.to(self.vocoder.dtype))
        return wav[:, 0].float()
