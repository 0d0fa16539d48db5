"""`ADaMoSHiFiGANV1`: log-mel -> waveform. A ConvNeXt backbone refines the mel, a HiFi-GAN head makes 44.1 kHz audio.

Tensor names are those of the published weights, which store the head's kernels as magnitude and direction
(`weight_g`, `weight_v`); `fold_weight_norm` multiplies them out for export.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, cast

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from lofi_assets.backbones.ace_step_v1.mel import LogMel
from lofi_assets.backbones.ace_step_v1.vocoder_rows import MOST_TAPS, waveform

NORM_EPS = 1e-6


class ChannelNorm(nn.Module):
    """Layer norm over the channels of (B, channels, T)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.transpose(1, 2), self.weight.shape, self.weight, self.bias, NORM_EPS).transpose(1, 2)


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution, norm, widen by four, GELU, narrow, scaled by `gamma`, added to the input."""

    def __init__(self, channels: int, *, kernel: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv1d(channels, channels, kernel, padding=kernel // 2, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=NORM_EPS)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.pwconv2 = nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(torch.full((channels,), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.norm(self.dwconv(x).transpose(1, 2))
        hidden = self.gamma * self.pwconv2(F.gelu(self.pwconv1(hidden)))
        return x + hidden.transpose(1, 2)


class ConvNeXtEncoder(nn.Module):
    """Log-mel (B, mels, T) -> features (B, dims[-1], T)."""

    def __init__(self, *, inputs: int, depths: Sequence[int], dims: Sequence[int], kernel: int) -> None:
        super().__init__()
        stem = nn.Conv1d(inputs, dims[0], kernel, padding=kernel // 2, padding_mode="replicate")
        self.channel_layers = nn.ModuleList([nn.Sequential(stem, ChannelNorm(dims[0]))])
        for narrow, wide in pairwise(dims):
            self.channel_layers.append(nn.Sequential(ChannelNorm(narrow), nn.Conv1d(narrow, wide, 1)))
        self.stages = nn.ModuleList(
            nn.Sequential(*(ConvNeXtBlock(channels, kernel=kernel) for _ in range(depth)))
            for depth, channels in zip(depths, dims, strict=True)
        )
        self.norm = ChannelNorm(dims[-1])

    def forward(self, mel: Tensor) -> Tensor:
        x = mel
        for channel_layer, stage in zip(self.channel_layers, self.stages, strict=True):
            x = stage(channel_layer(x))
        features: Tensor = self.norm(x)
        return features


class WeightNormed(nn.Module):
    """A kernel stored as magnitude `weight_g` along its first dimension and direction `weight_v`."""

    def __init__(self, shape: tuple[int, int, int], outputs: int) -> None:
        super().__init__()
        direction = torch.randn(shape) * 0.01
        self.weight_g = nn.Parameter(direction.norm(dim=(1, 2), keepdim=True))
        self.weight_v = nn.Parameter(direction)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def kernel(self) -> Tensor:
        """The kernel itself, multiplied out unless `fold` did so already."""
        if "weight" in self._parameters:
            return self.get_parameter("weight")
        norm: Tensor = self.weight_v.norm(dim=(1, 2), keepdim=True)
        return self.weight_v * (self.weight_g / norm)

    def fold(self) -> None:
        """Replace magnitude and direction by the kernel, for good."""
        if "weight" not in self._parameters:
            self.weight = nn.Parameter(self.kernel().detach())
            del self.weight_g, self.weight_v


class NormedConv(WeightNormed):
    """Weight-normed convolution that keeps the length."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, dilation: int = 1) -> None:
        super().__init__((outputs, inputs, kernel), outputs)
        self.padding, self.dilation = (kernel - 1) * dilation // 2, dilation

    def forward(self, x: Tensor) -> Tensor:
        return F.conv1d(x, self.kernel(), self.bias, padding=self.padding, dilation=self.dilation)


def _heard_on_cpu(x: Tensor) -> bool:
    """Whether this is computed to be heard, here: exported graphs keep the published operators, gradients their own."""
    return x.device.type == "cpu" and not torch.is_grad_enabled() and not torch.compiler.is_exporting()


class NormedUpsample(WeightNormed):
    """Weight-normed transposed convolution that multiplies the length by `rate`."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, rate: int) -> None:
        super().__init__((inputs, outputs, kernel), outputs)
        self.padding, self.rate = (kernel - rate) // 2, rate
        self.two_taps = kernel == 2 * rate

    def forward(self, x: Tensor) -> Tensor:
        if self.two_taps and _heard_on_cpu(x):
            return self._by_phases(x)
        return F.conv_transpose1d(x, self.kernel(), self.bias, stride=self.rate, padding=self.padding)

    def _by_phases(self, x: Tensor) -> Tensor:
        """The same sums as a convolution, which a CPU computes in half of the time: each output sample is made of two
        neighbouring frames, with kernels that depend on its place between them."""
        kernel = self.kernel()  # (inputs, outputs, 2 * rate)
        taps = torch.stack([kernel[..., self.rate :], kernel[..., : self.rate]])
        by_phase = taps.permute(2, 3, 1, 0).flatten(0, 1)  # (outputs * rate, inputs, 2)
        phases = F.conv1d(x, by_phase, self.bias.repeat_interleave(self.rate), padding=1)
        samples: Tensor = phases.unflatten(1, (-1, self.rate)).transpose(2, 3).flatten(2)
        return samples[..., self.padding : self.padding + x.shape[-1] * self.rate]


class ResidualStack(nn.Module):
    """Per dilation: SiLU, dilated convolution, SiLU, convolution, added to the input."""

    def __init__(self, channels: int, kernel: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(NormedConv(channels, channels, kernel, dilation=step) for step in dilations)
        self.convs2 = nn.ModuleList(NormedConv(channels, channels, kernel) for _ in dilations)

    def pairs(self) -> Iterator[tuple[NormedConv, NormedConv]]:
        """The dilated convolution and the plain one, of each dilation."""
        return cast("Iterator[tuple[NormedConv, NormedConv]]", zip(self.convs1, self.convs2, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        for dilated, plain in self.pairs():
            x = x + plain(F.silu(dilated(F.silu(x))))
        return x


class HiFiGANGenerator(nn.Module):
    """Features (B, channels, T) -> waveform (B, 1, T * product of the rates) in [-1, 1]."""

    def __init__(
        self,
        *,
        inputs: int,
        initial: int,
        rates: Sequence[int],
        kernels: Sequence[int],
        residual_kernels: Sequence[int],
        residual_dilations: Sequence[Sequence[int]],
        pre_kernel: int,
        post_kernel: int,
    ) -> None:
        super().__init__()
        self.conv_pre = NormedConv(inputs, initial, pre_kernel)
        self.ups = nn.ModuleList()
        self.resblocks = nn.ModuleList()
        channels = initial
        for rate, kernel in zip(rates, kernels, strict=True):
            self.ups.append(NormedUpsample(channels, channels // 2, kernel, rate=rate))
            channels //= 2
            for size, dilations in zip(residual_kernels, residual_dilations, strict=True):
                self.resblocks.append(ResidualStack(channels, size, dilations))
        self.stacks_per_stage = len(residual_kernels)
        self.few_taps = max(residual_kernels) <= MOST_TAPS
        self.conv_post = NormedConv(channels, 1, post_kernel)

    def stages(self) -> Iterator[tuple[NormedUpsample, Sequence[ResidualStack]]]:
        """An upsampling and the stacks whose mean follows it, of each rate."""
        for index, upsample in enumerate(self.ups):
            first = index * self.stacks_per_stage
            stacks = self.resblocks[first : first + self.stacks_per_stage]
            yield cast("NormedUpsample", upsample), cast("Sequence[ResidualStack]", stacks)

    def forward(self, features: Tensor) -> Tensor:
        if self.few_taps and features.dtype == torch.float32 and _heard_on_cpu(features):
            return waveform(self, features)
        x = self.conv_pre(features)
        for upsample, stacks in self.stages():
            x = upsample(F.silu(x))
            x = torch.stack([stack(x) for stack in stacks]).mean(dim=0) if len(stacks) > 1 else stacks[0](x)
        return torch.tanh(self.conv_post(F.silu(x)))


class ADaMoSHiFiGANV1(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Vocoder of ACE-Step v1, readable by `from_pretrained` from the Hub's `music_vocoder` folder unchanged.

    The defaults are the published sizes. `num_mels` is the width between backbone and head, `n_mels` the mel bands.
    """

    config: Any

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        input_channels: int = 128,
        depths: Sequence[int] = (3, 3, 9, 3),
        dims: Sequence[int] = (128, 256, 384, 512),
        drop_path_rate: float = 0.0,
        kernel_sizes: Sequence[int] = (7,),
        upsample_rates: Sequence[int] = (4, 4, 2, 2, 2, 2, 2),
        upsample_kernel_sizes: Sequence[int] = (8, 8, 4, 4, 4, 4, 4),
        resblock_kernel_sizes: Sequence[int] = (3, 7, 11, 13),
        resblock_dilation_sizes: Sequence[Sequence[int]] = ((1, 3, 5), (1, 3, 5), (1, 3, 5), (1, 3, 5)),
        num_mels: int = 512,
        upsample_initial_channel: int = 1024,
        use_template: bool = False,
        pre_conv_kernel_size: int = 13,
        post_conv_kernel_size: int = 13,
        sampling_rate: int = 44100,
        n_fft: int = 2048,
        win_length: int = 2048,
        hop_length: int = 512,
        f_min: float = 40,
        f_max: float = 16000,
        n_mels: int = 128,
    ) -> None:
        super().__init__()
        if use_template or len(kernel_sizes) != 1:
            raise ValueError("this vocoder is the published one: use_template false and one entry in kernel_sizes")
        self.backbone = ConvNeXtEncoder(inputs=input_channels, depths=depths, dims=dims, kernel=kernel_sizes[0])
        self.head = HiFiGANGenerator(
            inputs=num_mels,
            initial=upsample_initial_channel,
            rates=upsample_rates,
            kernels=upsample_kernel_sizes,
            residual_kernels=resblock_kernel_sizes,
            residual_dilations=resblock_dilation_sizes,
            pre_kernel=pre_conv_kernel_size,
            post_kernel=post_conv_kernel_size,
        )
        self.mel_transform = LogMel(
            sample_rate=sampling_rate,
            n_fft=n_fft,
            win_length=win_length,
            hop_length=hop_length,
            n_mels=n_mels,
            f_min=f_min,
            f_max=f_max,
        )

    def encode(self, wav: Tensor) -> Tensor:
        """wav (B, n) in [-1, 1] at 44.1 kHz -> log-mel (B, n_mels, n // hop) float32."""
        mel: Tensor = self.mel_transform(wav)
        return mel

    def decode(self, mel: Tensor) -> Tensor:
        """Log-mel (B, n_mels, frames) -> wav (B, 1, frames * hop) in [-1, 1]."""
        wav: Tensor = self.head(self.features(mel).to(mel.dtype))
        return wav

    def features(self, mel: Tensor) -> Tensor:
        """What the head is given, computed in float32 whatever the module's precision: a norm over channels that
        differ a hundredfold loses the small ones in half precision."""
        weights = {name: parameter.float() for name, parameter in self.backbone.named_parameters()}
        features: Tensor = functional_call(self.backbone, weights, (mel.float(),))
        return features

    def forward(self, mel: Tensor) -> Tensor:
        """`decode`, so that the module can be exported as it is."""
        return self.decode(mel)

    def fold_weight_norm(self) -> None:
        """Multiply every weight norm out, for good: the state dict then has `weight`, not `weight_g` and `weight_v`."""
        for module in self.modules():
            if isinstance(module, WeightNormed):
                module.fold()
