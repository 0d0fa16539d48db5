"""VGGish, the encoder of the historic FAD scale that the limit 5.0 is on (Hershey et al. 2017; Kilgour et al. 2019).

128 values per 0.96 s, without the PCA and without the last ReLU. The weights are not shipped: a user gives a
safetensors file with torchvggish's tensor names. Front end and layers are written from the published parameters.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lofi_assets.metrics.embedding import PREPARATION, Samples, file_sha256, levelled
from lofi_assets.metrics.errors import MetricError

if TYPE_CHECKING:
    import torch

SAMPLE_RATE = 16_000
STFT_WINDOW, STFT_HOP, FFT_SIZE = 400, 160, 512
MEL_BINS, MEL_LOW_HZ, MEL_HIGH_HZ = 64, 125.0, 7500.0
LOG_OFFSET = 0.01
PATCH_FRAMES = 96
BATCH = 32

CHANNELS = (64, "pool", 128, "pool", 256, 256, "pool", 512, 512, "pool")

WHERE_FROM = (
    "Download vggish-10086976.pth from https://github.com/harritaylor/torchvggish/releases (Apache-2.0), convert it "
    "once with `safetensors.torch.save_file(torch.load(pth, weights_only=True), 'vggish.safetensors')`, "
    "and name that file in the profile."
)


class VggishEmbedder:
    """128-d VGGish windows of 0.96 s, side by side."""

    name = "vggish"
    version = f"no-pca-no-last-relu-{PREPARATION}"
    sample_rate = SAMPLE_RATE
    window_s = PATCH_FRAMES * STFT_HOP / SAMPLE_RATE
    hop_s = window_s
    dim = 128
    normalized = False

    def __init__(self, network: "torch.nn.Module", *, trained: bool, weights_sha256: str, device: str = "cpu") -> None:
        self._network = network.eval().to(device)
        self._device = device
        self.trained = trained
        self.weights_sha256 = weights_sha256

    @classmethod
    def load(cls, weights: Path | None, *, device: str = "cpu") -> "VggishEmbedder":
        """From a safetensors file; MetricError when it is absent or holds other tensors."""
        if weights is None or not weights.is_file():
            raise MetricError(f"VGGish weights are absent ({weights}). {WHERE_FROM}")
        if weights.suffix != ".safetensors":
            raise MetricError(f"{weights}: only safetensors is read, a pickle can run code. {WHERE_FROM}")
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        network = vggish_network()
        try:
            tensors = {name: t for name, t in load_file(weights).items() if not name.startswith("pproc.")}
            network.load_state_dict(tensors)
        except (RuntimeError, SafetensorError) as error:
            raise MetricError(f"{weights}: not VGGish's tensors: {error}. {WHERE_FROM}") from error
        return cls(network, trained=True, weights_sha256=file_sha256(weights), device=device)

    def embed(self, audio: Samples) -> Samples:
        """(windows, 128); MetricError for audio shorter than 1 s or not finite."""
        import torch

        patches = torch.from_numpy(log_mel_patches(levelled(audio, sample_rate=SAMPLE_RATE, min_seconds=1.0)))
        with torch.inference_mode():
            batches = [self._network(batch.to(self._device)).cpu() for batch in patches.split(BATCH)]
        return torch.cat(batches).numpy()


def vggish_network() -> "torch.nn.Module":
    """Six convolutions and three dense layers with torchvggish's names, (B, 96, 64) -> (B, 128); weights are random.

    `embeddings.5`, the last ReLU, is left out: it has no weights, and FAD is taken before it.
    """
    from torch import Tensor, nn

    class Vggish(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers: list[nn.Module] = []
            previous = 1
            for step in CHANNELS:
                if isinstance(step, int):
                    layers += [nn.Conv2d(previous, step, kernel_size=3, padding=1), nn.ReLU(inplace=True)]
                    previous = step
                else:
                    layers.append(nn.MaxPool2d(2))
            self.features = nn.Sequential(*layers)
            dense = [nn.Linear(512 * 6 * 4, 4096), nn.ReLU(inplace=True), nn.Linear(4096, 4096), nn.ReLU(inplace=True)]
            self.embeddings = nn.Sequential(*dense, nn.Linear(4096, 128))

        def forward(self, patches: Tensor) -> Tensor:
            """Dense weights expect (time, mel, channel), the order of the TensorFlow original."""
            maps = self.features(patches[:, None])
            embedded: Tensor = self.embeddings(maps.permute(0, 2, 3, 1).flatten(1))
            return embedded

    return Vggish()


def log_mel_patches(mono: Samples) -> Samples:
    """(patches, 96, 64) natural log of (mel magnitude + 0.01) of 16 kHz mono audio; a rest is left out."""
    frames = np.lib.stride_tricks.sliding_window_view(mono, STFT_WINDOW)[::STFT_HOP]
    window = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(STFT_WINDOW) / STFT_WINDOW)
    magnitudes = np.abs(np.fft.rfft(frames * window, FFT_SIZE))
    mel = np.log(magnitudes @ mel_weights() + LOG_OFFSET).astype(np.float32)
    count = len(mel) // PATCH_FRAMES
    return mel[: count * PATCH_FRAMES].reshape(count, PATCH_FRAMES, MEL_BINS)


def mel_weights() -> npt.NDArray[np.float64]:
    """(257, 64) triangles that are linear in HTK mel, from 125 to 7500 Hz; the bin at 0 Hz takes no part."""

    def to_mel(hertz: npt.ArrayLike) -> npt.NDArray[np.float64]:
        return 1127.0 * np.log1p(np.asarray(hertz, dtype=np.float64) / 700.0)

    bins = to_mel(np.linspace(0.0, SAMPLE_RATE / 2, FFT_SIZE // 2 + 1))[:, None]
    edges = np.linspace(to_mel(MEL_LOW_HZ), to_mel(MEL_HIGH_HZ), MEL_BINS + 2)
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    weights = np.maximum(0.0, np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)))
    weights[0] = 0.0
    return weights
