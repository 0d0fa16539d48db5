"""MusiCNN: a tagger that needs no download (Pons and Serra 2019, weights beside this file under ISC).

What belongs here: the log-mel front end and the network. What does not: what a tag means for lofi
(`tracks/tagging.py`), distances between embeddings and the encoder of samples (`metrics/musicnn.py`).
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from lofi_assets.audio.arrays import FloatArray

if TYPE_CHECKING:
    from torch import Tensor
ModelName = Literal["msd", "mtt"]

WEIGHTS = Path(__file__).parent / "weights"
SAMPLE_RATE = 16_000
N_FFT, HOP, MEL_BANDS = 512, 256, 96
PATCH_FRAMES = 187
PATCH_S = PATCH_FRAMES * HOP / SAMPLE_RATE
# Small on purpose: the widest branch makes 9 MB of activations per patch, and 32 of them miss the cache.
BATCH = 4
# Batch-norm epsilon of the TensorFlow graph; torch's own default (1e-5) would move the tags by 1e-3.
EPSILON = 1e-3
FRONT_BRANCHES = 5

_LABEL_FILE = json.loads((WEIGHTS / "labels.json").read_text(encoding="utf-8"))
LABELS: dict[ModelName, tuple[str, ...]] = {"msd": tuple(_LABEL_FILE["MSD"]), "mtt": tuple(_LABEL_FILE["MTT"])}


class MusicNN:
    """Tags and embeddings of 3 s patches of 16 kHz mono audio.

    Args:
        model: "msd" (Million Song Dataset: genres and moods) or "mtt" (MagnaTagATune: instruments and sound).
    Attributes:
        labels: the 50 tag names, in the order of the columns of `tags`.
        weights: by name; those of one model are one object in a process.
    """

    def __init__(self, model: ModelName = "msd") -> None:
        self.model = model
        self.labels = LABELS[model]
        self.weights = _network(model)

    def tags(self, audio: FloatArray, *, hop_s: float = PATCH_S) -> FloatArray:
        """Tag probabilities, (windows, 50) in [0, 1]; windows of 3 s, by default side by side.

        Raises:
            ValueError: audio is not mono, shorter than one window, or not finite.
        """
        return self._forward(log_mel_patches(audio, hop_s=hop_s))[0]

    def embed(self, audio: FloatArray, *, hop_s: float = 1.0) -> FloatArray:
        """Penultimate activations, (windows, 200); unbounded, not normalised. Errors as in `tags`."""
        return self._forward(log_mel_patches(audio, hop_s=hop_s))[1]

    def _forward(self, patches: FloatArray) -> tuple[FloatArray, FloatArray]:
        import torch

        tags, embeddings = [], []
        with torch.inference_mode():
            for start in range(0, len(patches), BATCH):
                batch = _forward(self.weights, torch.from_numpy(patches[start : start + BATCH]))
                tags.append(batch[0].numpy())
                embeddings.append(batch[1].numpy())
        return np.concatenate(tags), np.concatenate(embeddings)


def log_mel_patches(audio: FloatArray, *, hop_s: float) -> FloatArray:
    """Patches of log10(10000 mel + 1), (windows, 187, 96).

    The mel powers are rounded to float16 because the published front end stores them so and the network was trained
    on that; they go back to float32 before the product, which would overflow float16.

    Args:
        audio: (frames,) mono at 16 kHz.
        hop_s: distance between window starts, rounded to whole hops of 16 ms.
    """
    if audio.ndim != 1:
        raise ValueError(f"MusiCNN takes mono audio of shape (frames,), got {audio.shape}; average the channels first")
    if not np.isfinite(audio).all():
        raise ValueError("MusiCNN got NaN or infinite samples; reject such audio while decoding")
    mel = _power_spectrogram(audio.astype(np.float32, copy=False)) @ mel_filters()
    rounded = np.minimum(mel, np.finfo(np.float16).max).astype(np.float16).astype(np.float32)
    log_mel = np.log10(10_000.0 * rounded + 1.0, dtype=np.float32)
    if len(log_mel) < PATCH_FRAMES:
        raise ValueError(f"MusiCNN needs at least {PATCH_S:.2f} s of audio, got {len(audio) / SAMPLE_RATE:.2f} s")
    step = max(1, round(hop_s * SAMPLE_RATE / HOP))
    starts = range(0, len(log_mel) - PATCH_FRAMES + 1, step)
    return np.stack([log_mel[start : start + PATCH_FRAMES] for start in starts])


def _power_spectrogram(audio: FloatArray) -> FloatArray:
    """Hann power spectrogram, (1 + frames // 256, 257), windows centred on their time."""
    padded = np.pad(audio, N_FFT // 2)
    window = np.hanning(N_FFT + 1)[:-1].astype(np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[::HOP]
    spectrum = np.fft.rfft(frames * window, axis=1)
    return (spectrum.real**2 + spectrum.imag**2).astype(np.float32, copy=False)


@cache
def mel_filters() -> FloatArray:
    """Slaney's triangular mel filters with unit area, (257, 96), 0 to 8000 Hz (Auditory Toolbox, 1998)."""
    centres = _mel_to_hz(np.linspace(0.0, _hz_to_mel(SAMPLE_RATE / 2), MEL_BANDS + 2))
    bins = np.linspace(0.0, SAMPLE_RATE / 2, N_FFT // 2 + 1)[:, None]
    lower, middle, upper = centres[:-2], centres[1:-1], centres[2:]
    triangles = np.minimum((bins - lower) / (middle - lower), (upper - bins) / (upper - middle))
    return np.asarray(np.maximum(triangles, 0.0) * 2.0 / (upper - lower), dtype=np.float32)


# Slaney's scale: linear up to 1 kHz (15 mel), then 27 mel for every factor of 6.4.
_LINEAR_HZ, _BREAK_HZ, _BREAK_MEL, _LOG_STEP = 200.0 / 3.0, 1000.0, 15.0, np.log(6.4) / 27.0


def _hz_to_mel(hertz: float) -> float:
    return hertz / _LINEAR_HZ if hertz < _BREAK_HZ else float(_BREAK_MEL + np.log(hertz / _BREAK_HZ) / _LOG_STEP)


def _mel_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    above = _BREAK_HZ * np.exp(_LOG_STEP * (mel - _BREAK_MEL))
    return np.asarray(np.where(mel < _BREAK_MEL, mel * _LINEAR_HZ, above))


@cache
def _network(model: ModelName) -> dict[str, Tensor]:
    """Weights by name, convolution kernels as torch wants them (filters, channels, time, mel); one set per process."""
    from safetensors.torch import load_file

    return _prepared(load_file(WEIGHTS / f"{model}_musicnn.safetensors"))


def _prepared(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    import torch

    for index in range(FRONT_BRANCHES):
        sign = weights[f"batch_normalization_{index + 1}.gamma"].sign()
        for part in ("kernel", "bias"):
            weights[f"{_layer(index)}.{part}"] = weights[f"{_layer(index)}.{part}"] * sign
    return {
        # Channels-last kernels make the two wide convolutions a third faster on CPUs.
        name: tensor.permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
        for name, tensor in weights.items()
    }


def _layer(index: int) -> str:
    return "conv2d" if index == 0 else f"conv2d_{index}"


def _forward(weights: dict[str, Tensor], patches: Tensor) -> tuple[Tensor, Tensor]:
    """(batch, 187, 96) -> tags (batch, 50), penultimate (batch, 200)."""
    import torch

    image = _batch_norm(weights, "batch_normalization", patches[:, None])
    front = torch.cat([_branch(weights, index, image) for index in range(FRONT_BRANCHES)], dim=1)
    first = _temporal(weights, 5, front)
    second = _temporal(weights, 6, first) + first
    third = _temporal(weights, 7, second) + second
    features = torch.cat([front, first, second, third], dim=1)
    pooled = torch.stack([features.amax(-1), features.mean(-1)], dim=-1).flatten(1)
    hidden = torch.relu(_dense(weights, "dense", _batch_norm(weights, "batch_normalization_9", pooled)))
    penultimate = _batch_norm(weights, "batch_normalization_10", hidden)
    return torch.sigmoid(_dense(weights, "dense_1", penultimate)), penultimate


def _branch(weights: dict[str, Tensor], index: int, image: Tensor) -> Tensor:
    """One front-end branch, (batch, 1, time, mel) -> (batch, filters, time): the largest value over frequency.

    ReLU and batch norm are monotonic in every channel, so the extreme is taken first, on the raw convolution: the
    largest where the batch norm's scale is positive, the smallest where it is negative (`_prepared` has turned the
    kernels of those over). Three passes over the big map become one.
    """
    from torch.nn import functional

    norm = f"batch_normalization_{index + 1}"
    convolved = _convolve(weights, index, image)
    # Pooling, because amax over a channels-last map is eight times slower.
    extreme = functional.max_pool2d(convolved, (1, convolved.shape[3])).squeeze(3)
    return _batch_norm(weights, norm, (extreme * weights[f"{norm}.gamma"].sign()[:, None]).relu())


def _temporal(weights: dict[str, Tensor], index: int, features: Tensor) -> Tensor:
    """A convolution over time that sees all channels, (batch, channels, time) -> (batch, 64, time)."""
    convolved = _convolve(weights, index, features.transpose(1, 2)[:, None]).squeeze(-1)
    return _batch_norm(weights, f"batch_normalization_{index + 1}", convolved.relu())


def _convolve(weights: dict[str, Tensor], index: int, image: Tensor) -> Tensor:
    """ "same" in time, "valid" in frequency; TensorFlow puts the odd padding sample after."""
    from torch.nn import functional

    kernel = weights[f"{_layer(index)}.kernel"]
    missing = kernel.shape[2] - 1
    padded = functional.pad(image, (0, 0, missing // 2, missing - missing // 2))
    return functional.conv2d(padded, kernel, weights[f"{_layer(index)}.bias"])


def _batch_norm(weights: dict[str, Tensor], name: str, features: Tensor) -> Tensor:
    from torch.nn import functional

    parts: list[Any] = [weights[f"{name}.{part}"] for part in ("moving_mean", "moving_variance", "gamma", "beta")]
    return functional.batch_norm(features, parts[0], parts[1], parts[2], parts[3], eps=EPSILON)


def _dense(weights: dict[str, Tensor], name: str, features: Tensor) -> Tensor:
    return features @ weights[f"{name}.kernel"] + weights[f"{name}.bias"]
