"""What the DCAE and the vocoder learn: mel images through few numbers, and mel images back into sound.

Both train on crops of a second or less, which is enough since neither looks further, and on clean and worn clips alike:
a codec has to carry the hiss that the transformer is never trained on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lofi_assets.backbones.ace_step_v1.frame_rates import HOP
from lofi_assets.backbones.ace_step_v1.mel import LogMel
from lofi_assets.backbones.ace_step_v1.music_dcae import MusicDCAE
from lofi_assets.demo.base_recipe.additive import start_as_synthesiser
from lofi_assets.demo.base_recipe.corpus import Clip, read_part
from lofi_assets.demo.base_recipe.optimizer import NOTHING, Fixed
from lofi_assets.demo.base_recipe.settings import MARKS, DcaeSettings, EdgesSettings, Training, VocoderSettings
from lofi_assets.demo.base_recipe.spectra import SpectralCritic, SpectralLoss, adversarial_losses, critic_loss
from lofi_assets.training.trainer.batches import generator

QUIETEST = 0.4
"""Smallest gain of a crop: the codec has to carry quiet music too."""
CALIBRATION_CROPS, CALIBRATION_FRAMES = 64, 128
START_CROPS, START_FRAMES = 100, 192


def crops(
    clips: Sequence[Clip],
    *,
    count: int,
    samples: int,
    seed: int,
    stage: str,
    step: int,
    quietest: float = QUIETEST,
) -> tuple[Tensor, torch.Generator]:
    """Stereo crops (count, 2, samples) of a step, places and gains at random, and the generator for further draws."""
    random = generator(seed, stage, step)
    picks = torch.randint(len(clips), (count,), generator=random).tolist()
    places = torch.rand(count, generator=random).tolist()
    gains = quietest + (1 - quietest) * torch.rand(count, 1, 1, generator=random)
    parts = [read_part(clips[pick], place=place, samples=samples) for pick, place in zip(picks, places, strict=True)]
    return torch.stack([torch.from_numpy(part) for part in parts]) * gains, random


class MelImages:
    """Scaled log-mel images of stereo crops, as `MusicDCAE` makes them of whole songs."""

    def __init__(self, mel: LogMel, *, like: MusicDCAE) -> None:
        self.mel = mel
        self.low, self.span = like.min_mel, like.max_mel - like.min_mel

    @torch.no_grad()
    def images(self, stereo: Tensor) -> Tensor:
        """(B, 2, n) -> (B, 2, 128, n // 512), about [-1, 1]."""
        images: Tensor = self.scaled(self.mel(stereo.flatten(0, 1))).unflatten(0, (-1, 2))
        return images

    def scaled(self, mel: Tensor) -> Tensor:
        """Log-mel in nats -> image."""
        return (mel - self.low) / self.span * 2 - 1

    def nats(self, image: Tensor) -> Tensor:
        """Image -> log-mel in nats."""
        return (image + 1) / 2 * self.span + self.low


class DcaeTask:
    """L1 on log-mel through latents that are held at zero mean and unit variance in the published scale."""

    fixed: Fixed = NOTHING

    def __init__(
        self,
        codec: MusicDCAE,
        clips: Sequence[Clip],
        *,
        settings: DcaeSettings,
        training: Training,
        seed: int,
    ) -> None:
        self.codec, self.clips, self.settings, self.training, self.seed = codec, clips, settings, training, seed
        self.mel = MelImages(codec.vocoder.mel_transform, like=codec)
        codec.dcae.train()

    def groups(self) -> Mapping[str, Mapping[str, nn.Parameter]]:
        return {"dcae": dict(self.codec.dcae.named_parameters())}

    def backward(self, step: int) -> dict[str, float]:
        count, samples = self.training.batch, self.training.frames * HOP
        stereo, random = crops(self.clips, count=count, samples=samples, seed=self.seed, stage="dcae", step=step)
        images = self.mel.images(stereo)
        codec = self.codec
        latents = (codec.dcae.encoder(images) - codec.shift_factor) * codec.scale_factor
        noise = torch.randn(latents.shape, generator=random) * self.settings.latent_noise
        decoded = codec.dcae.decoder((latents + noise) / codec.scale_factor + codec.shift_factor)
        error = (decoded - images).abs().mean() * self.mel.span / 2
        moments = _moments(latents)
        (error + self.settings.moments * moments).backward()
        return {"loss": float(error.detach()), "moments": float(moments.detach())}


def calibrate(codec: MusicDCAE, clips: Sequence[Clip], *, seed: int) -> None:
    """Bring the latents of clips at full level to unit scale, exactly.

    Before the DCAE's training, so that a weak pull keeps them there; and after, since it keeps them there about. What
    that changes at the decoder's edges the vocoder's stage learns.
    """
    samples = CALIBRATION_FRAMES * HOP
    stereo, _ = crops(clips, count=CALIBRATION_CROPS, samples=samples, seed=seed, stage="scale", step=0, quietest=1.0)
    fold_latent_scale(codec, MelImages(codec.vocoder.mel_transform, like=codec).images(stereo))


@torch.no_grad()
def fold_latent_scale(codec: MusicDCAE, images: Tensor) -> None:
    """Fold an affine into the encoder's last and the decoder's first convolution, so that the latents of `images` have
    zero mean and unit variance per channel under the codec's shift and scale.

    The encoder's shortcut (a mean over channel groups) has no weights; its share is added to the convolution's centre
    tap, so the encoder is exact. The decoder is exact but for its outermost frame, where padding means another value.
    """
    encoder, decoder = codec.dcae.encoder, codec.dcae.decoder
    encoded = encoder(images)
    spread, centre = torch.std_mean(encoded, dim=(0, 2, 3))
    gain = 1 / (spread * codec.scale_factor)
    offset = codec.shift_factor - gain * centre
    shortcut = _shortcut(encoder.conv_out, group=encoder.out_shortcut_average_group_size)
    assert encoder.conv_out.bias is not None and decoder.conv_in.bias is not None
    encoder.conv_out.weight.copy_((encoder.conv_out.weight + shortcut) * gain[:, None, None, None] - shortcut)
    encoder.conv_out.bias.copy_(encoder.conv_out.bias * gain + offset)
    repeated = torch.zeros_like(decoder.conv_in.weight)
    rows = torch.arange(len(repeated))
    repeated[rows, rows // decoder.in_shortcut_repeats, 1, 1] = 1.0
    whole = decoder.conv_in.weight + repeated
    decoder.conv_in.bias.sub_(torch.einsum("oihw,i->o", whole, offset / gain))
    decoder.conv_in.weight.copy_(whole / gain[None, :, None, None] - repeated)


def _shortcut(conv: nn.Conv2d, *, group: int) -> Tensor:
    weight = torch.zeros_like(conv.weight)
    columns = torch.arange(conv.in_channels)
    weight[columns // group, columns, 1, 1] = 1.0 / group
    return weight


def marked(images: Tensor, clock: float) -> Tensor:
    """Images (..., 128, T) whose highest bands tell which of eight frames each is: one of them +clock, the rest -clock.

    The first frame is a latent frame's first.
    """
    frames = torch.arange(images.shape[-1]) % MARKS
    marks = torch.where(frames == torch.arange(MARKS)[:, None], clock, -clock)
    return torch.cat([images[..., :-MARKS, :], marks.expand(*images.shape[:-2], -1, -1)], dim=-2)


def _moments(latents: Tensor) -> Tensor:
    """Squared mean and squared log variance of each channel, averaged."""
    variance, mean = torch.var_mean(latents, dim=(0, 2, 3))
    return (mean.square() + variance.log().square()).mean()


class DecoderTask:
    """The DCAE's decoder learns; the encoder and its latents stay."""

    fixed: Fixed = NOTHING

    def __init__(
        self, codec: MusicDCAE, clips: Sequence[Clip], *, latent_noise: float, training: Training, seed: int
    ) -> None:
        self.codec, self.clips, self.training, self.seed = codec, clips, training, seed
        self.latent_noise = latent_noise
        self.mel = MelImages(codec.vocoder.mel_transform, like=codec)
        codec.dcae.train()

    def groups(self) -> Mapping[str, Mapping[str, nn.Parameter]]:
        return {"decoder": dict(self.codec.dcae.decoder.named_parameters())}

    def heard(self, step: int, *, stage: str) -> tuple[Tensor, torch.Generator]:
        """Images of a step's crops, and the generator for further draws."""
        count, samples = self.training.batch, self.training.frames * HOP
        stereo, random = crops(self.clips, count=count, samples=samples, seed=self.seed, stage=stage, step=step)
        return self.mel.images(stereo), random


class ClockTask(DecoderTask):
    """The decoder learns to mark a latent frame's eight mel frames."""

    def __init__(
        self,
        codec: MusicDCAE,
        clips: Sequence[Clip],
        *,
        clock: float,
        latent_noise: float,
        training: Training,
        seed: int,
    ) -> None:
        super().__init__(codec, clips, latent_noise=latent_noise, training=training, seed=seed)
        self.clock = clock

    def backward(self, step: int) -> dict[str, float]:
        images, random = self.heard(step, stage="clock")
        error = decoder_error(decoded(self.codec, images, self.latent_noise, random), images, self.clock)
        loss = error * self.mel.span / 2
        loss.backward()
        return {"loss": float(loss.detach())}


def decoded(codec: MusicDCAE, images: Tensor, latent_noise: float, random: torch.Generator) -> Tensor:
    """Images through latents that are as inexact as the transformer's will be; the encoder learns nothing."""
    made: Tensor = codec.dcae.decoder(noisy(codec, images, latent_noise, random))
    return made


@torch.no_grad()
def noisy(codec: MusicDCAE, images: Tensor, latent_noise: float, random: torch.Generator) -> Tensor:
    """Images -> what the decoder is given, with noise of `latent_noise` in units of the published scale."""
    encoded: Tensor = codec.dcae.encoder(images)
    noise = torch.randn(encoded.shape, generator=random)
    return encoded + latent_noise / codec.scale_factor * noise


def decoder_error(made: Tensor, images: Tensor, clock: float) -> Tensor:
    """Mean absolute error of the decoder's images, marks included."""
    return (made - marked(images, clock)).abs().mean()


class VocoderTask:
    """Spectra of the made sound against the true one; the DCAE's decoder learns with the vocoder, its encoder stays.

    A vocoder alone is the same at every mel frame: of a steady tone it can only make something that repeats every 512
    samples, which is a tone on a grid of 86 Hz, and a bass has no place on that. The decoder knows which of eight
    frames it is making and marks them, so that the two together repeat every 4096 samples: a grid of 11 Hz. The
    vocoder starts with oscillators on that grid, and above 1.3 kHz on the coarser one (`additive`), which stay, and
    learns the rest.
    """

    def __init__(
        self,
        codec: MusicDCAE,
        clips: Sequence[Clip],
        *,
        settings: VocoderSettings,
        latent_noise: float,
        training: Training,
        seed: int,
    ) -> None:
        self.codec, self.clips, self.settings, self.training, self.seed = codec, clips, settings, training, seed
        self.latent_noise = latent_noise
        self.mel = MelImages(codec.vocoder.mel_transform, like=codec)
        self.loss = SpectralLoss(
            mel=codec.vocoder.mel_transform, mel_weight=settings.mel_weight, low_weight=settings.low_weight
        )
        self.critic = SpectralCritic(channels=settings.discriminator_channels) if settings.discriminator else None
        codec.train()
        codec.dcae.encoder.requires_grad_(False)
        self.fixed = self._start()

    @torch.no_grad()
    def _start(self) -> Fixed:
        """Oscillators, read off what the decoder makes of music; returns what of them stays."""
        stereo, random = crops(
            self.clips, count=START_CROPS, samples=START_FRAMES * HOP, seed=self.seed, stage="oscillators", step=0
        )
        made = [decoded(self.codec, self.mel.images(part), self.latent_noise, random) for part in stereo.split(4)]
        mels = self.mel.nats(torch.cat(made)).flatten(0, 1)
        clock = torch.tensor([self.settings.clock, -self.settings.clock])
        high, low = self.mel.nats(clock).tolist()
        return start_as_synthesiser(self.codec.vocoder, stereo.flatten(0, 1), mels, marks=(high, low))

    def groups(self) -> Mapping[str, Mapping[str, nn.Parameter]]:
        learning = {name: p for name, p in self.codec.named_parameters() if p.requires_grad}
        critic = {} if self.critic is None else {"critic": dict(self.critic.named_parameters())}
        return {"codec": learning} | critic

    def backward(self, step: int) -> dict[str, float]:
        context = self.settings.context
        count, samples = self.training.batch, (self.training.frames + 2 * context) * HOP
        stereo, random = crops(self.clips, count=count, samples=samples, seed=self.seed, stage="vocoder", step=step)
        images = self.mel.images(stereo)
        true = stereo.flatten(0, 1)[:, context * HOP : samples - context * HOP]
        images_made = decoded(self.codec, images, self.latent_noise, random)
        features = self.codec.vocoder.backbone(self.mel.nats(images_made).flatten(0, 1))
        made = self.codec.vocoder.head(features[..., context : context + self.training.frames])[:, 0]
        losses = self.loss(made, true)
        losses["image"] = decoder_error(images_made, images, self.settings.clock) * self.mel.span / 2
        losses["loss"] = losses["loss"] + self.settings.image_weight * losses["image"]
        if self.critic is None or step < self.settings.discriminator_from * self.training.steps:
            losses["loss"].backward()
            return {name: float(value.detach()) for name, value in losses.items()}
        return self._contested(self.critic, made, true, losses)

    def _contested(
        self, critic: SpectralCritic, made: Tensor, true: Tensor, losses: dict[str, Tensor]
    ) -> dict[str, float]:
        """Codec and critic learn in one step, each from its own loss."""
        seen_true, seen_made = critic(true), critic(made)
        losses["adversarial"], losses["matching"] = adversarial_losses(seen_true, seen_made)
        whole = (
            losses["loss"]
            + self.settings.adversarial_weight * losses["adversarial"]
            + self.settings.matching_weight * losses["matching"]
        )
        whole.backward(inputs=list(self.groups()["codec"].values()))
        losses["critic"] = critic_loss(seen_true, critic(made.detach()))
        losses["critic"].backward(inputs=list(critic.parameters()))
        return {name: float(value.detach()) for name, value in losses.items()}


class EdgesTask(DecoderTask):
    """The decoder learns to sharpen in time what it made for the vocoder; its marks and the vocoder stay.

    Both have learnt from errors that a blurred onset costs least, and behind latents that are inexact, so what they
    make is smoother than music is. The vocoder plays a sharper image as sharper sound (decision 011).
    """

    def __init__(
        self,
        codec: MusicDCAE,
        clips: Sequence[Clip],
        *,
        settings: EdgesSettings,
        latent_noise: float,
        training: Training,
        seed: int,
    ) -> None:
        super().__init__(codec, clips, latent_noise=latent_noise, training=training, seed=seed)
        self.settings = settings
        self.before = deepcopy(codec.dcae.decoder).requires_grad_(False)

    def backward(self, step: int) -> dict[str, float]:
        images, random = self.heard(step, stage="edges")
        given = noisy(self.codec, images, self.latent_noise, random)
        with torch.no_grad():
            wanted = sharpened(self.mel.nats(self.before(given)), self.settings)
        loss = (self.mel.nats(self.codec.dcae.decoder(given)) - wanted).abs().mean()
        loss.backward()
        return {"loss": float(loss.detach())}


def sharpened(mels: Tensor, settings: EdgesSettings) -> Tensor:
    """Log-mel (..., 128, T) further from its moving mean over time, and lowered; marks stay as they are."""
    music, marks = mels[..., :-MARKS, :], mels[..., -MARKS:, :]
    margin = settings.frames // 2
    rows = F.pad(music.flatten(0, -2)[:, None], (margin, margin), mode="replicate")
    blurred = F.avg_pool1d(rows, settings.frames, stride=1).view_as(music)
    sharper = music + settings.strength * (music - blurred) + settings.level
    return torch.cat([sharper, marks], dim=-2)
