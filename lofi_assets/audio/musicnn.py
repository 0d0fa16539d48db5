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
from lofi_assets.audio.time_kernels import TimeKernel, largest_over_bands, time_kernel

if TYPE_CHECKING:
    from torch import Tensor
ModelName = Literal["msd", "mtt"]

WEIGHTS = Path(__file__).parent / "weights"
SAMPLE_RATE = 16_000
N_FFT, HOP, MEL_BANDS = 512, 256, 96
PATCH_FRAMES = 187
PATCH_S = PATCH_FRAMES * HOP / SAMPLE_RATE
# Small on purpose: what a batch of windows, or of frames of the first two branches, makes is to stay in the cache.
BATCH, FRAMES = 2, 20
# Batch-norm epsilon of the TensorFlow graph; torch's own default (1e-5) would move the tags by 1e-3.
EPSILON = 1e-3
FRONT_BRANCHES, SPECTRAL, OVER_TIME, TEMPORAL = range(5), range(2), range(2, 5), range(5, 8)
BINS = MEL_BANDS // 2 + 1

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
        return self._forward(audio, hop_s)[0]

    def embed(self, audio: FloatArray, *, hop_s: float = 1.0) -> FloatArray:
        """Penultimate activations, (windows, 200); unbounded, not normalised. Errors as in `tags`."""
        return self._forward(audio, hop_s)[1]

    def _forward(self, audio: FloatArray, hop_s: float) -> tuple[FloatArray, FloatArray]:
        import torch

        mel = log_mel(audio)
        windows = window_frames(len(mel), hop_s)
        tags, embeddings = [], []
        with torch.inference_mode():
            image = _batch_norm(self.weights, "batch_normalization", torch.from_numpy(mel)[None, None])[0, 0]
            maxima, places = _spectral_branches(self.weights, image, windows)
            starts = windows[:, 0].tolist()
            kernels = [_time_kernel(self.weights, index) for index in OVER_TIME]
            over_time = [largest_over_bands(kernel, image, starts, PATCH_FRAMES) for kernel in kernels]
            for start in range(0, len(windows), BATCH):
                batch = slice(start, start + BATCH)
                spectral = [channels[places[batch]].transpose(1, 2) for channels in maxima]
                found = _forward(self.weights, [*spectral, *(channels[batch] for channels in over_time)])
                tags.append(found[0].numpy())
                embeddings.append(found[1].numpy())
        return np.concatenate(tags), np.concatenate(embeddings)


def log_mel(audio: FloatArray) -> FloatArray:
    """log10(10000 mel + 1) of every 16 ms, (frames, 96).

    The mel powers are rounded to float16 because the published front end stores them so and the network was trained
    on that; they go back to float32 before the product, which would overflow float16.

    Args:
        audio: (samples,) mono at 16 kHz.
    Raises:
        ValueError: it is not mono, not finite, or shorter than one window of 187 frames.
    """
    if audio.ndim != 1:
        raise ValueError(f"MusiCNN takes mono audio of shape (frames,), got {audio.shape}; average the channels first")
    if not np.isfinite(audio).all():
        raise ValueError("MusiCNN got NaN or infinite samples; reject such audio while decoding")
    mel = _power_spectrogram(audio.astype(np.float32, copy=False)) @ mel_filters()
    rounded = np.minimum(mel, np.finfo(np.float16).max).astype(np.float16).astype(np.float32)
    if len(rounded) < PATCH_FRAMES:
        raise ValueError(f"MusiCNN needs at least {PATCH_S:.2f} s of audio, got {len(audio) / SAMPLE_RATE:.2f} s")
    found: FloatArray = np.log10(10_000.0 * rounded + 1.0, dtype=np.float32)
    return found


def window_frames(frames: int, hop_s: float) -> NDArray[np.intp]:
    """The frames of each window, (windows, 187); `hop_s` between their starts is rounded to whole hops of 16 ms."""
    step = max(1, round(hop_s * SAMPLE_RATE / HOP))
    return np.arange(0, frames - PATCH_FRAMES + 1, step)[:, None] + np.arange(PATCH_FRAMES)


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
    """Weights by name; one set per process."""
    from safetensors.torch import load_file

    return _prepared(load_file(WEIGHTS / f"{model}_musicnn.safetensors"))


def _prepared(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The published weights with each convolution's kernel in the form in which it is computed here."""
    for index in FRONT_BRANCHES:
        sign = weights[f"batch_normalization_{index + 1}.gamma"].sign()
        for part in ("kernel", "bias"):
            weights[f"{_layer(index)}.{part}"] = weights[f"{_layer(index)}.{part}"] * sign
    for index in SPECTRAL:
        kernel = weights.pop(f"{_layer(index)}.kernel")[:, :, 0]
        positions = MEL_BANDS - kernel.shape[1] + 1
        weights[f"{_layer(index)}.spectrum"] = _kernel_spectrum(kernel, middle=(positions - 1) / 2)
        weights[f"{_layer(index)}.waves"] = _waves(positions)
    for index in OVER_TIME:
        kernel = weights.pop(f"{_layer(index)}.kernel")[:, 0, 0].T
        prepared = vars(time_kernel(kernel, weights[f"{_layer(index)}.bias"]))
        weights |= {f"{_layer(index)}.{part}": matrix for part, matrix in prepared.items()}
    for index in TEMPORAL:
        # (time, channels, 1, filters), since TensorFlow's image has the channels for its bands
        weights[f"{_layer(index)}.kernel"] = weights[f"{_layer(index)}.kernel"][:, :, 0].permute(2, 1, 0).contiguous()
    return weights


def _kernel_spectrum(kernel: Tensor, *, middle: float) -> Tensor:
    """A kernel (taps, bands, filters) as what a row's spectrum is multiplied by, (2, 49 bins, 2 taps, filters).

    With Y = X conj(K) for each bin, the real part takes (re K, im K) of (re X, im X), the imaginary (-im K, re K).

    Args:
        middle: band to which the result is turned, so that positions are counted from there.
    """
    import torch

    turned = np.exp(-2j * np.pi * middle * np.arange(BINS) / MEL_BANDS)[:, None, None]
    spectrum = np.fft.rfft(kernel.double().numpy(), MEL_BANDS, axis=1).swapaxes(0, 1) * turned
    real = np.concatenate([spectrum.real, spectrum.imag], axis=1)
    imaginary = np.concatenate([-spectrum.imag, spectrum.real], axis=1)
    return torch.from_numpy(np.ascontiguousarray(np.stack([real, imaginary]), dtype=np.float32))


@cache
def _dft() -> Tensor:
    """(96 bands, 98): a row times this is its spectrum, 49 real parts and then 49 imaginary ones."""
    import torch

    spectrum = np.fft.rfft(np.eye(MEL_BANDS))
    return torch.from_numpy(np.concatenate([spectrum.real, spectrum.imag], axis=1).astype(np.float32))


def _waves(positions: int) -> Tensor:
    """(2, half of the positions, 49): times the real and the imaginary parts of a spectrum, they are the even and the
    odd part of what it is the spectrum of, from the middle of the positions on."""
    import torch

    from_middle = np.arange((positions + 1) // 2) + (positions - 1) / 2 % 1
    angles = 2 * np.pi * np.outer(from_middle, np.arange(BINS)) / MEL_BANDS
    twice = np.where(np.isin(np.arange(BINS), (0, BINS - 1)), 1, 2) / MEL_BANDS
    return torch.from_numpy((np.stack([np.cos(angles), -np.sin(angles)]) * twice).astype(np.float32))


def _time_kernel(weights: dict[str, Tensor], index: int) -> TimeKernel:
    """The kernel of one of the three branches that see one band."""
    return TimeKernel(**{part: weights[f"{_layer(index)}.{part}"] for part in ("block", "start", "end", "bias")})


def _layer(index: int) -> str:
    return "conv2d" if index == 0 else f"conv2d_{index}"


def _spectral_branches(
    weights: dict[str, Tensor], image: Tensor, windows: NDArray[np.intp]
) -> tuple[list[Tensor], NDArray[np.intp]]:
    """The first two branches, whose kernels are 7 frames by 38 and 67 bands: two thirds of the network's products.

    Over frequency a convolution is a product of spectra. The DFT has as many points as there are bands, so what wraps
    around falls beyond the positions where the kernel fits, which are the ones that are wanted ("valid"): a
    quarter of the multiplications. And windows that overlap share what is not within three frames of an end of theirs.

    Args:
        image: (frames, 96), after the first batch norm.
    Returns:
        For each branch (distinct, 204), the largest value over frequency before batch norm (see `_normed`); and
        (windows, 187), which of the distinct rows is a window's frame.
    """
    import torch

    inside = np.arange(PATCH_FRAMES)[:, None] + np.arange(-3, 4)
    beyond = (inside < 0) | (inside >= PATCH_FRAMES)
    taps = np.where(beyond, len(image), windows[:, :1, None] + inside)
    distinct, places = np.unique(taps.reshape(-1, taps.shape[2]), axis=0, return_inverse=True)
    silent = torch.zeros(1, 2, BINS)
    spectra = torch.cat([(image @ _dft()).unflatten(1, (2, BINS)), silent])
    batches = [
        _filtered(weights, spectra[torch.from_numpy(distinct[start : start + FRAMES])])
        for start in range(0, len(distinct), FRAMES)
    ]
    return [torch.cat(branch) for branch in zip(*batches, strict=True)], places.reshape(windows.shape)


def _filtered(weights: dict[str, Tensor], spectra: Tensor) -> list[Tensor]:
    """Spectra of the frames around each frame, (frames, 7, 2, 49) -> for each branch (frames, 204).

    At the same distance to both sides of the middle the values are even + odd and even - odd, of which the larger is
    even + |odd|: half of the inverse DFT is enough.
    """
    around = spectra.permute(3, 0, 2, 1).flatten(2)
    maxima = []
    for index in SPECTRAL:
        filtered = (around @ weights[f"{_layer(index)}.spectrum"]).flatten(2)
        even, odd = weights[f"{_layer(index)}.waves"] @ filtered
        largest = even.add_(odd.abs_()).amax(0).view(len(spectra), -1)
        maxima.append(largest + weights[f"{_layer(index)}.bias"])
    return maxima


def _forward(weights: dict[str, Tensor], largest: list[Tensor]) -> tuple[Tensor, Tensor]:
    """The five branches before batch norm, each (batch, filters, 187) -> tags (batch, 50), penultimate (batch, 200)."""
    import torch

    front = torch.cat([_normed(weights, index, branch) for index, branch in enumerate(largest)], dim=1)
    first = _temporal(weights, 5, front)
    second = _temporal(weights, 6, first) + first
    third = _temporal(weights, 7, second) + second
    features = torch.cat([front, first, second, third], dim=1)
    pooled = torch.stack([features.amax(-1), features.mean(-1)], dim=-1).flatten(1)
    hidden = torch.relu(_dense(weights, "dense", _batch_norm(weights, "batch_normalization_9", pooled)))
    penultimate = _batch_norm(weights, "batch_normalization_10", hidden)
    return torch.sigmoid(_dense(weights, "dense_1", penultimate)), penultimate


def _normed(weights: dict[str, Tensor], index: int, extreme: Tensor) -> Tensor:
    """ReLU and batch norm of a branch's largest value over bands, (batch, filters, time).

    Both are monotonic in every channel, so the extreme over bands is taken first, on the raw convolution: the largest
    where the batch norm's scale is positive, the smallest where it is negative (`_prepared` has turned the kernels of
    those over). Three passes over the big map become one.
    """
    norm = f"batch_normalization_{index + 1}"
    return _batch_norm(weights, norm, (extreme * weights[f"{norm}.gamma"].sign()[:, None]).relu())


def _temporal(weights: dict[str, Tensor], index: int, features: Tensor) -> Tensor:
    """A convolution over time that sees all channels, (batch, channels, time) -> (batch, 64, time)."""
    from torch.nn import functional

    kernel, bias = weights[f"{_layer(index)}.kernel"], weights[f"{_layer(index)}.bias"]
    convolved = functional.conv1d(features, kernel, bias, padding=kernel.shape[2] // 2)
    return _batch_norm(weights, f"batch_normalization_{index + 1}", convolved.relu())


def _batch_norm(weights: dict[str, Tensor], name: str, features: Tensor) -> Tensor:
    from torch.nn import functional

    parts: list[Any] = [weights[f"{name}.{part}"] for part in ("moving_mean", "moving_variance", "gamma", "beta")]
    return functional.batch_norm(features, parts[0], parts[1], parts[2], parts[3], eps=EPSILON)


def _dense(weights: dict[str, Tensor], name: str, features: Tensor) -> Tensor:
    return features @ weights[f"{name}.kernel"] + weights[f"{name}.bias"]
