"""What can be said of samples in numbers: levels, clipping, silence, stereo image, spectrum.

What belongs here: pure measurements over (channels, frames) arrays. What does not: limits (the gates have them) and
weights (`score` has them).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lofi_assets.audio.arrays import FloatArray
from lofi_assets.audio.decode import AudioError

SILENCE_DBFS = -60.0
"""Digital silence and dropouts lie below; tape hiss (-50 dBFS) and quiet passages above."""
WINDOW_S = 0.05
"""Short enough to see a dropout, long enough to hold one period of 20 Hz."""
FLAT_TOLERANCE = 2.0 / 32768.0
"""Two steps of 16 bits: dither and a gain change move equal samples apart by no more."""
FLAT_NEAR_PEAK = 0.015
"""A flat run counts within 1.5 % of the file's own peak; further down it is a plateau of the music."""
FLOOR_DBFS = -120.0
"""Levels are cut off here, since the logarithm of digital silence is no number."""
DEAD_CHANNEL_DBFS = -60.0
DUAL_MONO = 1e-4
SPECTRUM_FFT = 4096


def clipped_share(samples: FloatArray, *, threshold: float = 0.999, min_run: int = 3) -> float:
    """Share of samples that clip, the larger of two readings (constitution, Audio Specifications: < 0.1 %).

    A hard ceiling leaves samples at full scale; a clipped master turned down leaves flat runs below it.
    Measure on the source samples: resampling rounds the runs off and normalising hides the ceiling. A pure square wave
    is one flat run and reads as clipped; music made of several voices is not affected.

    Args:
        samples: (channels, frames) float in [-1, 1], at the source's own rate.
        threshold: absolute value from which a sample is at full scale.
        min_run: equal neighbours that make a run flat.
    Returns:
        Share in [0, 1].
    Raises:
        AudioError: non-finite samples, or none.
    """
    _require_audio(samples)
    magnitude = np.abs(samples)
    peak = float(magnitude.max())
    if peak <= FLAT_TOLERANCE:
        return 0.0
    at_ceiling = int(np.count_nonzero(magnitude >= threshold))
    near_peak = magnitude >= peak * (1.0 - FLAT_NEAR_PEAK)
    in_runs = sum(_samples_in_flat_runs(row, near, min_run) for row, near in zip(samples, near_peak, strict=True))
    return max(at_ceiling, in_runs) / samples.size


def _samples_in_flat_runs(row: FloatArray, near: NDArray[np.bool_], min_run: int) -> int:
    """Samples of one channel in runs of at least `min_run` neighbours that hardly differ and lie near the peak."""
    candidates = np.flatnonzero(near)
    if len(candidates) < min_run:
        return 0
    values = row[candidates]
    # A run ends where a candidate is not the next sample or differs from the one before.
    breaks = (np.diff(candidates) != 1) | (np.abs(np.diff(values)) > FLAT_TOLERANCE)
    edges = np.concatenate([[-1], np.flatnonzero(breaks), [len(candidates) - 1]])
    lengths = np.diff(edges)
    return int(lengths[lengths >= min_run].sum())


def silent_share(
    samples: FloatArray, *, sample_rate: int, window_s: float = WINDOW_S, floor_dbfs: float = SILENCE_DBFS
) -> float:
    """Share of windows whose RMS over all channels is under the floor (constitution: < 50 % of the duration).

    Measure after normalising: a quiet master is not a silent one.

    Returns:
        Share in [0, 1]; a last window that is not full is left out unless it is the only one.
    Raises:
        AudioError: non-finite samples, or none.
    """
    _require_audio(samples)
    levels = window_levels(samples, sample_rate=sample_rate, window_s=window_s)
    return float(np.mean(levels < floor_dbfs))


def window_levels(samples: FloatArray, *, sample_rate: int, window_s: float = WINDOW_S) -> NDArray[np.float64]:
    """RMS in dBFS over all channels, one value per full window of `window_s`."""
    length = max(1, min(round(window_s * sample_rate), samples.shape[1]))
    count = samples.shape[1] // length
    windows = samples[:, : count * length].reshape(len(samples), count, length)
    power = np.einsum("cwt,cwt->w", windows, windows, dtype=np.float64) / (length * len(samples))
    return decibels(np.sqrt(power))


def decibels(amplitude: NDArray[np.floating] | float) -> NDArray[np.float64]:
    """20 log10, cut off at -120 dB."""
    floor = 10.0 ** (FLOOR_DBFS / 20.0)
    return np.asarray(20.0 * np.log10(np.maximum(np.asarray(amplitude, dtype=np.float64), floor)))


def peak_dbfs(samples: FloatArray) -> float:
    """The largest absolute sample in dBFS; -120 for digital silence."""
    return float(decibels(max(float(samples.max()), -float(samples.min()))))


def true_peak_dbtp(samples: FloatArray) -> float:
    """Peak of the waveform between the samples, oversampled four times (ITU-R BS.1770-4, annex 2), in dBTP.

    Evaluated around the local maxima above 0.7 of the sample peak only: elsewhere the waveform would have to overshoot
    its samples by 3 dB to matter, which music does not.
    """
    highest = max(float(samples.max()), -float(samples.min()))
    taps = _INTERPOLATION.shape[0]
    for row in samples:
        padded = np.pad(row, taps)
        magnitude = np.abs(padded)
        loud = np.flatnonzero(magnitude >= max(0.7 * highest, 1e-6))
        is_top = (magnitude[loud] >= magnitude[loud - 1]) & (magnitude[loud] >= magnitude[loud + 1])
        tops = loud[is_top]
        for chunk in np.array_split(tops, len(tops) // 65_536 + 1):
            if len(chunk):
                around = padded[chunk[:, None] + np.arange(taps) - (taps // 2 - 1)]
                highest = max(highest, float(np.abs(around @ _INTERPOLATION).max()))
    return float(decibels(highest))


def _interpolation(taps: int = 48) -> FloatArray:
    """Kaiser-windowed sinc at -3/4 .. 3/4 of a sample around the middle, (taps, 6)."""
    offsets = np.array([-0.75, -0.5, -0.25, 0.25, 0.5, 0.75])
    distance = np.arange(taps)[:, None] - (taps // 2 - 1) - offsets
    window = np.i0(8.0 * np.sqrt(np.maximum(0.0, 1.0 - (distance / (taps / 2)) ** 2))) / np.i0(8.0)
    kernel = np.sinc(distance) * window
    normalised: FloatArray = (kernel / kernel.sum(axis=0)).astype(np.float32)
    return normalised


_INTERPOLATION = _interpolation()


# K-weighting at 48 kHz, a shelf and a high-pass (ITU-R BS.1770-4, tables 1 and 2).
_K_WEIGHTING = np.array(
    [
        [1.53512485958697, -2.69169618940638, 1.19839281085285, 1.0, -1.69065929318241, 0.73248077421585],
        [1.0, -2.0, 1.0, 1.0, -1.99004745483398, 0.99007225036621],
    ],
    dtype=np.float32,
)


def loudness_lufs(samples: FloatArray) -> float:
    """Integrated loudness of 48 kHz audio in LUFS (ITU-R BS.1770-4); -70, its absolute gate, if nothing is louder.

    In single precision, which is four times faster than pyloudnorm and within 0.05 LU of it.
    """
    from scipy.signal import sosfilt

    weighted = sosfilt(_K_WEIGHTING, samples, axis=1)
    step = 4800
    count = samples.shape[1] // step
    if count < 4:
        return -70.0
    hops = weighted[:, : count * step].reshape(len(samples), count, step)
    power = np.einsum("cns,cns->n", hops, hops, dtype=np.float64) / step
    blocks = np.convolve(power, np.full(4, 0.25), mode="valid")
    gated = blocks[blocks > 10.0 ** ((-70.0 + 0.691) / 10.0)]
    if not len(gated):
        return -70.0
    gated = gated[gated > 0.1 * gated.mean()]
    return float(10.0 * np.log10(gated.mean()) - 0.691)


@dataclass(frozen=True)
class Stereo:
    """The stereo image of a track.

    Attributes:
        correlation: of left and right in [-1, 1]; 1 for mono, negative where a mono speaker cancels.
        dual_mono: both channels are the same within 1e-4 of full scale.
        dead_channel: one channel is under -60 dBFS RMS while the other is not.
        channel_rms_dbfs: RMS per channel.
    """

    correlation: float
    dual_mono: bool
    dead_channel: bool
    channel_rms_dbfs: tuple[float, ...]


def stereo_image(samples: FloatArray) -> Stereo:
    """Relation of the first two channels; a mono signal is its own twin."""
    power = [float(np.dot(row, row)) / samples.shape[1] for row in samples]
    levels = tuple(float(decibels(value**0.5)) for value in power)
    if len(samples) == 1:
        return Stereo(1.0, True, False, levels)
    left, right = samples[0], samples[1]
    scale = (power[0] * power[1]) ** 0.5
    correlation = float(np.dot(left, right)) / samples.shape[1] / scale if scale > 0 else 0.0
    return Stereo(
        correlation=max(-1.0, min(1.0, correlation)),
        dual_mono=bool(np.abs(left - right).max() < DUAL_MONO),
        dead_channel=min(levels[:2]) < DEAD_CHANNEL_DBFS <= max(levels[:2]),
        channel_rms_dbfs=levels,
    )


@dataclass(frozen=True)
class Spectrum:
    """Where the spectrum ends, and whether there is a tone in it.

    Attributes:
        edge_hz: where the spectrum falls most steeply within 500 Hz; the low-pass of a lossy encoder or of a former
            lower sample rate.
        edge_drop_db: how far it falls there: 25 dB and more is an encoder, a lofi low-pass stays below 20.
        flatness: geometric over arithmetic mean of the power spectrum in [0, 1], over windows that are not silent;
            noise is 0.5 and more, music 0.0-0.3.
        centroid_hz: centre of gravity of the spectrum, the brightness.
    """

    edge_hz: float
    edge_drop_db: float
    flatness: float
    centroid_hz: float


def spectrum(samples: FloatArray, *, sample_rate: int) -> Spectrum:
    """Spectral shape from windows of 4096 samples, at most 600 of them spread over the track."""
    power = _power_windows(samples.mean(axis=0), windows=600)
    bins = np.linspace(0.0, sample_rate / 2, power.shape[1])
    energy = power.sum(axis=1)
    loud = power[energy >= np.median(energy)]
    edge_hz, drop = _steepest_drop(10.0 * np.log10(np.percentile(loud, 90, axis=0) + 1e-14), bins)
    heard = power[energy > energy.max() * 1e-6] if energy.max() > 0 else power
    audible = heard[:, bins > 20.0] + 1e-14
    flatness = np.exp(np.log(audible).mean(axis=1)) / audible.mean(axis=1)
    centroid = float((power.sum(axis=0) * bins).sum() / max(float(power.sum()), 1e-12))
    return Spectrum(edge_hz=edge_hz, edge_drop_db=drop, flatness=float(np.median(flatness)), centroid_hz=centroid)


def _power_windows(mono: FloatArray, *, windows: int) -> FloatArray:
    """Hann power spectra (at most `windows`, 2049), evenly spread."""
    padded = np.pad(mono, (0, max(0, SPECTRUM_FFT - len(mono))))
    starts = np.linspace(0, len(padded) - SPECTRUM_FFT, min(windows, 1 + len(padded) // SPECTRUM_FFT)).astype(int)
    frames = padded[starts[:, None] + np.arange(SPECTRUM_FFT)]
    spectra = np.fft.rfft(frames * np.hanning(SPECTRUM_FFT).astype(np.float32), axis=1)
    scale = 2.0 / SPECTRUM_FFT
    return np.asarray((spectra.real**2 + spectra.imag**2) * scale**2, dtype=np.float32)


def _steepest_drop(level_db: NDArray[np.floating], bins: NDArray[np.floating]) -> tuple[float, float]:
    """(frequency, dB) of the largest fall across 500 Hz above 2 kHz, between means of 250 Hz on either side."""
    width = max(1, int(np.searchsorted(bins, 250.0)))
    smooth = np.convolve(level_db, np.ones(width) / width, mode="valid")
    falls = smooth[: -2 * width] - smooth[2 * width :]
    # The middle of a fall between the windows starting at i and i + 2 width lies at i + 1.5 width.
    middles = bins[np.minimum(np.arange(len(falls)) + (3 * width) // 2, len(bins) - 1)]
    eligible = np.flatnonzero(middles >= 2_000.0)
    if not len(eligible):
        return float(bins[-1]), 0.0
    best = eligible[int(np.argmax(falls[eligible]))]
    return float(middles[best]), float(max(0.0, falls[best]))


def dc_offset(samples: FloatArray) -> float:
    """The largest absolute mean of a channel; 0.01 is audible as a click at every cut."""
    return float(np.abs(samples.mean(axis=1, dtype=np.float64)).max())


def noise_floor_db(samples: FloatArray, *, sample_rate: int) -> float:
    """How far the quietest twentieth of the 50 ms windows lies below the loudest, in dB; large is clean or sparse."""
    levels = window_levels(samples, sample_rate=sample_rate)
    low, high = np.percentile(levels, [5, 95])
    return float(high - low)


def longest_gap_s(samples: FloatArray, *, sample_rate: int) -> float:
    """The longest stretch of windows 45 dB under the loud ones, in seconds: a gap even where hiss hides it."""
    levels = window_levels(samples, sample_rate=sample_rate)
    quiet = np.concatenate([[False], levels < np.percentile(levels, 95) - 45.0, [False]])
    edges = np.flatnonzero(np.diff(quiet.astype(np.int8)))
    return float((edges[1::2] - edges[::2]).max(initial=0) * WINDOW_S)


def envelope(samples: FloatArray, *, points: int = 400) -> FloatArray:
    """Lowest and highest sample of `points` equal stretches over all channels, (points, 2), for a picture."""
    length = max(1, samples.shape[1] // points)
    count = min(points, samples.shape[1] // length)
    stretches = samples[:, : count * length].reshape(len(samples), count, length)
    return np.stack([stretches.min(axis=(0, 2)), stretches.max(axis=(0, 2))], axis=1)


def _require_audio(samples: FloatArray) -> None:
    if samples.ndim != 2 or samples.size == 0:
        raise AudioError("audio.readable", f"nothing to measure: samples of shape {samples.shape}")
    if not np.isfinite(samples.sum(dtype=np.float64)):
        raise AudioError("audio.readable", "nothing to measure: samples are NaN or infinite")
