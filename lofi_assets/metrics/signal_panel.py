"""What encoders do not hear of a clip: band, level, stereo image, clicks, gaps, loops, noise.

MusiCNN and VGGish hear 16 kHz mono at one level, so that a dead channel, a brick wall at 8 kHz or -45 dBFS leave their
distances as they are. Here the samples are read at their own rate and in both channels.

What belongs here: the numbers of one clip. What does not: which of them are artefacts, and the range of real clips
(`signal_range.py`).
"""

import itertools

import numpy as np
import numpy.typing as npt
from pydantic.dataclasses import dataclass
from scipy.ndimage import median_filter

from lofi_assets.audio.excerpts import agreement_at
from lofi_assets.audio.fingerprint import WORDS_PER_S, Fingerprint
from lofi_assets.audio.measure import (
    dc_offset,
    decibels,
    longest_gap_s,
    loudness_lufs,
    peak_dbfs,
    stereo_image,
)
from lofi_assets.files.typed import STORED
from lofi_assets.metrics.embedding import Samples

FFT = 16_384
"""2.9 Hz per bin at 48 kHz: partials of a chord are apart, and noise fills every bin."""
TREBLE_HZ = 8_000.0
BELOW_STEP_HZ, ABOVE_STEP_HZ = (5_000.0, 7_500.0), (9_000.0, 14_000.0)
NOISE_BANDS = np.geomspace(100.0, 5_000.0, 18)
"""Edges of third-octave bands, in which pink and white noise look alike."""
LEAST_BAND = 1e-6
"""Of the loudest band's power: below is the rounding of samples, which is noise too."""
CLICK_WINDOW_S, CLICK_NEIGHBOURS = 0.001, 41
LEAST_CURVATURE = 5e-5
"""Of the clip's RMS; what a codec leaves in a rest. Without it every first sound after a rest would be a click."""
SHORTEST_LOOP_S = 0.5


@dataclass(frozen=True, kw_only=True, config=STORED)
class SignalPanel:
    """One clip over its full band and both channels."""

    loudness_lufs: float
    """Integrated, ITU-R BS.1770-4; -70 where nothing is louder."""
    crest_db: float
    """Peak over RMS."""
    treble_db: float
    """Power above 8 kHz over all power, in dB."""
    treble_step_db: float
    """Power from 9 to 14 kHz over that from 5 to 7.5 kHz: a brick wall at 8 kHz lies between the two."""
    rolloff_hz: float
    """99 % of the power lies below."""
    correlation: float
    """Of left and right, in [-1, 1]."""
    imbalance_db: float
    """RMS of the louder channel over that of the other; 120 and less."""
    click_ratio: float
    """The largest curvature of the waveform within 1 ms over the median of the 41 ms around it."""
    click_height: float
    """The curvature there over the clip's RMS."""
    loop: float
    """Agreement of the fingerprint with itself at the best lag from 0.5 s to half of the clip; .5 is none, 1 a loop."""
    loop_s: float
    """That lag in seconds."""
    noise: float
    """Lower quartile of the spectral flatness within third octaves of 100 Hz to 5 kHz; noise of any colour has .56."""
    gap_s: float
    """The longest stretch 45 dB under the loud parts."""
    dc: float
    """The largest absolute mean of a channel."""


def signal_panel(
    samples: Samples, words: Fingerprint, power: npt.NDArray[np.float32], *, sample_rate: int
) -> SignalPanel:
    """Measure (2, frames) finite, audible audio at 48 kHz.

    Args:
        words: its fingerprint.
        power: its `power_spectra`.
    """
    bins = np.linspace(0.0, sample_rate / 2, power.shape[1])
    mean = power.mean(axis=0)[1:]
    total = max(float(mean.sum()), 1e-20)
    image = stereo_image(samples)
    ratio, height = loudest_click(samples, sample_rate=sample_rate)
    loop, lag = loop_of(words)
    levels = image.channel_rms_dbfs[:2]
    return SignalPanel(
        loudness_lufs=loudness_lufs(samples),
        crest_db=peak_dbfs(samples) - float(decibels(_rms(samples))),
        treble_db=_ratio_db(mean[bins[1:] > TREBLE_HZ].sum(), total),
        treble_step_db=_ratio_db(_between(mean, bins[1:], ABOVE_STEP_HZ), _between(mean, bins[1:], BELOW_STEP_HZ)),
        rolloff_hz=float(bins[1:][np.cumsum(mean) >= 0.99 * float(mean.sum())][0]),
        correlation=image.correlation,
        imbalance_db=max(levels) - min(levels),
        click_ratio=ratio,
        click_height=height,
        loop=loop,
        loop_s=lag,
        noise=band_flatness(power, bins),
        gap_s=longest_gap_s(samples, sample_rate=sample_rate),
        dc=dc_offset(samples),
    )


def power_spectra(samples: Samples) -> npt.NDArray[np.float32]:
    """(windows, 8193) Hann power spectra of half-overlapping windows, of the middle or the side, whichever is louder.

    Channels in opposite phase would otherwise leave nothing to look at.

    Args:
        samples: (channels, frames); a clip shorter than a window is padded.
    """
    middle, side = samples.mean(axis=0), 0.5 * (samples[0] - samples[-1])
    heard = max(middle, side, key=lambda signal: float(np.dot(signal, signal)))
    padded = np.pad(heard, (0, max(0, FFT - len(heard))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, FFT)[:: FFT // 2]
    window = np.hanning(FFT).astype(np.float32)
    spectra = np.concatenate([np.fft.rfft(block * window, axis=1) for block in np.array_split(frames, len(frames))])
    return np.asarray(spectra.real**2 + spectra.imag**2, dtype=np.float32)


def band_flatness(power: npt.NDArray[np.float32], bins: npt.NDArray[np.floating]) -> float:
    """Lower quartile over third octaves of the geometric over the arithmetic mean of the bins, in [0, 1].

    The power of noise is exponentially distributed in every bin, whatever the noise's colour, so that its flatness is
    exp(-0.5772) = .56 (Euler's constant); partials of tones stand out of a band and lower it. Only the louder half of
    the windows counts.
    """
    energy = power.sum(axis=1)
    heard = power[energy >= np.median(energy)].astype(np.float64)
    bands = [heard[:, (bins >= low) & (bins < high)] for low, high in itertools.pairwise(NOISE_BANDS.tolist())]
    loudest = max((float(band.sum()) for band in bands), default=0.0)
    audible = [band + 1e-20 for band in bands if band.size and float(band.sum()) >= LEAST_BAND * loudest > 0.0]
    found = [float((np.exp(np.log(band).mean(axis=1)) / band.mean(axis=1)).mean()) for band in audible]
    return float(np.quantile(found, 0.25)) if found else 1.0


def loudest_click(samples: Samples, *, sample_rate: int) -> tuple[float, float]:
    """(ratio, height) of the sharpest isolated event, as `SignalPanel` has them.

    The curvature is what a cubic through the four neighbours misses of a sample (Godsill and Rayner, Digital Audio
    Restoration, 1998, detect clicks by the error of a longer predictor). A snare is sharp among sharp neighbours; a
    click is alone.
    """
    missed = samples[:, 2:-2] - (4.0 * (samples[:, 1:-3] + samples[:, 3:-1]) - samples[:, :-4] - samples[:, 4:]) / 6.0
    length = max(1, round(CLICK_WINDOW_S * sample_rate))
    curvature = np.abs(missed).max(axis=0)
    peaks = curvature[: len(curvature) // length * length].reshape(-1, length).max(axis=1)
    if not len(peaks):
        return 0.0, 0.0
    level = max(_rms(samples), 1e-6)
    ratios = peaks / (median_filter(peaks, size=CLICK_NEIGHBOURS) + LEAST_CURVATURE * level)
    place = int(np.argmax(ratios))
    return float(ratios[place]), float(peaks[place]) / level


def loop_of(words: Fingerprint) -> tuple[float, float]:
    """(agreement, lag in seconds) of a fingerprint with itself at its best lag; (0, 0) for a clip under two loops."""
    first, last = round(SHORTEST_LOOP_S * WORDS_PER_S), len(words) // 2
    found = [(agreement_at(words, lag), lag / WORDS_PER_S) for lag in range(first, last + 1)]
    return max(found, default=(0.0, 0.0))


def _rms(samples: Samples) -> float:
    return float(np.sqrt(np.square(samples, dtype=np.float64).mean()))


def _between(power: npt.NDArray[np.float32], bins: npt.NDArray[np.floating], edges: tuple[float, float]) -> float:
    return float(power[(bins >= edges[0]) & (bins < edges[1])].sum())


def _ratio_db(part: float, whole: float) -> float:
    """10 log10 of the ratio, cut off at -120 and 120 dB."""
    return float(np.clip(10.0 * np.log10(max(part, 1e-20) / max(whole, 1e-20)), -120.0, 120.0))
