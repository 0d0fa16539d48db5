"""VGGish, the encoder of the historic FAD scale that the limit 5.0 is on (Hershey et al. 2017; Kilgour et al. 2019).

128 values per 0.96 s, without the PCA and without the last ReLU. The weights are not shipped: a user gives the
file that torchvggish published. Front end and layers are written from the published parameters.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lofi_assets.metrics.embedding import LOUDNESS_LUFS, Samples, file_sha256, levelled, preparation
from lofi_assets.metrics.errors import MetricError
from lofi_assets.metrics.probes import PROBES
from lofi_assets.metrics.proof import answers, audio_spread, known_answer, published_weights
from lofi_assets.metrics.results import EncoderProof

if TYPE_CHECKING:
    import torch

SAMPLE_RATE = 16_000
STFT_WINDOW, STFT_HOP, FFT_SIZE = 400, 160, 512
MEL_BINS, MEL_LOW_HZ, MEL_HIGH_HZ = 64, 125.0, 7500.0
LOG_OFFSET = 0.01
PATCH_FRAMES = 96
BATCH = 32

CHANNELS = (64, "pool", 128, "pool", 256, 256, "pool", 512, 512, "pool")

PUBLISHED = {
    "10086976245803799d9194e9a73d9b6c1549c71d1b80106f5cade5608a561f4b": "torchvggish's vggish-10086976.pth (v0.1)"
}

PROBE_S = 2.0

WHERE_FROM = (
    "Download vggish-10086976.pth from https://github.com/harritaylor/torchvggish/releases (Apache-2.0) "
    "and name that file in the profile."
)


class VggishEmbedder:
    """128-d VGGish windows of 0.96 s, side by side.

    Args:
        lufs: loudness that clips are brought to; None leaves them at their own, as the published numbers did.
    """

    name = "vggish"
    sample_rate = SAMPLE_RATE
    window_s = PATCH_FRAMES * STFT_HOP / SAMPLE_RATE
    hop_s = window_s
    dim = 128
    normalized = False

    def __init__(
        self,
        network: "torch.nn.Module",
        *,
        weights_sha256: str,
        device: str = "cpu",
        lufs: float | None = LOUDNESS_LUFS,
    ) -> None:
        self._network = network.eval().to(device)
        self._device, self._lufs = device, lufs
        self.version = f"no-pca-no-last-relu-{preparation(lufs)}"
        self.weights_sha256 = weights_sha256
        self.proof = self._proof()

    @classmethod
    def load(cls, weights: Path | None, *, device: str = "cpu", lufs: float | None = LOUDNESS_LUFS) -> "VggishEmbedder":
        """From the published .pth, known by its hash before it is opened, or a safetensors file.

        Raises:
            MetricError: the file is absent, a pickle that is not the published one, or holds other tensors.
        """
        if weights is None or not weights.is_file():
            raise MetricError(f"VGGish weights are absent ({weights}). {WHERE_FROM}")
        digest = file_sha256(weights)
        network = vggish_network()
        try:
            tensors = {name: t for name, t in _tensors(weights, digest).items() if not name.startswith("pproc.")}
            network.load_state_dict(tensors)
        except RuntimeError as error:
            raise MetricError(f"{weights}: not VGGish's tensors: {error}. {WHERE_FROM}") from error
        return cls(network, weights_sha256=digest, device=device, lufs=lufs)

    @property
    def trained(self) -> bool:
        """What the proof came to."""
        return self.proof.trained

    def embed(self, audio: Samples) -> Samples:
        """(windows, 128); MetricError for audio shorter than 1 s or not finite."""
        return self._forward(
            log_mel_patches(levelled(audio, sample_rate=SAMPLE_RATE, min_seconds=1.0, lufs=self._lufs))
        )

    def _proof(self) -> EncoderProof:
        recorded = answers()["vggish"]
        patch = np.asarray(recorded["rows"], dtype=np.float32)[recorded["order"]]
        second = np.sin(2.0 * np.pi * 1000.0 * np.arange(SAMPLE_RATE) / SAMPLE_RATE)
        heard = self._forward(np.stack([patch, log_mel(second, offset=0.001)[1:-1]]))
        probes = [log_mel_patches(clip(PROBE_S, SAMPLE_RATE)) for clip in PROBES.values()]
        return EncoderProof(
            checks=(
                published_weights(self.weights_sha256, PUBLISHED, decides=True),
                known_answer(heard[0], recorded["embedding"], source=recorded["source"]),
                known_answer(heard[1], recorded["tone"], source="the same model on one second of 1 kHz"),
                audio_spread([self._forward(patches).mean(axis=0) for patches in probes]),
            )
        )

    def _forward(self, patches: Samples) -> Samples:
        import torch

        batches = torch.from_numpy(patches).split(BATCH)
        with torch.inference_mode():
            return np.concatenate([self._network(batch.to(self._device)).cpu().numpy() for batch in batches])


def _tensors(weights: Path, digest: str) -> "dict[str, torch.Tensor]":
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if weights.suffix == ".safetensors":
        try:
            return load_file(weights)
        except SafetensorError as error:
            raise MetricError(f"{weights}: weights are cut short or damaged ({error}). {WHERE_FROM}") from error
    if digest not in PUBLISHED:
        raise MetricError(f"{weights}: a pickle, which can run code, and not the published file. {WHERE_FROM}")
    import torch

    loaded: dict[str, torch.Tensor] = torch.load(weights, map_location="cpu", weights_only=True)
    return loaded


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
    mel = log_mel(mono, offset=LOG_OFFSET)
    count = len(mel) // PATCH_FRAMES
    return mel[: count * PATCH_FRAMES].reshape(count, PATCH_FRAMES, MEL_BINS)


def log_mel(mono: Samples, *, offset: float) -> Samples:
    """(frames, 64) natural log of (mel magnitude + offset) of 16 kHz mono audio, every 10 ms."""
    frames = np.lib.stride_tricks.sliding_window_view(mono, STFT_WINDOW)[::STFT_HOP]
    window = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(STFT_WINDOW) / STFT_WINDOW)
    magnitudes = np.abs(np.fft.rfft(frames * window, FFT_SIZE))
    mel: Samples = np.log(magnitudes @ mel_weights() + offset).astype(np.float32)
    return mel


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
