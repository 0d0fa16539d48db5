"""Excerpts that tell nothing but what is in the music: alike in length, level, band, codec, format and size.

Each is cut, brought to one loudness, passed through the codec of the tracks and resampled to 32 kHz: whatever codecs
and rates a recording came through, all end below 16 kHz behind the same filter. They are kept as 16-bit WAV without
tags, and get fresh noise of one step of 16 bits each time they are played, so that no two deliveries share their bytes.
"""

import io
import secrets
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
from scipy.signal import firwin, kaiserord, oaconvolve

from lofi_assets.audio.encode import SAMPLE_RATE, encode_mp3
from lofi_assets.listening.errors import ListeningError
from lofi_assets.metrics.embedding import LOUDNESS_LUFS, Samples, read_samples, resampled
from lofi_assets.metrics.errors import MetricError

Steps = npt.NDArray[np.int16]

PLAYED_RATE = 32_000
"""Half of it is the band that all share; few adults hear above it, and tracks of lossy codecs hold nothing there."""
PEAK_CEILING_DBFS = -1.0
FADE_S = 0.1
MIN_SECONDS = 1.0
MOST_PER_CLIP = 3
"""Excerpts of one recording; more would only ask about the same one again."""
LOWEST_ANCHOR_DB = 60.0


def cuts(path: Path, seconds: float, *, most: int = MOST_PER_CLIP) -> list[Samples]:
    """Excerpts side by side from the middle of a recording, (2, frames) at 48 kHz; none if it is shorter than one.

    Raises:
        ListeningError: it cannot be read, or holds NaN or infinity.
    """
    try:
        samples, rate = read_samples(path)
    except MetricError as error:
        raise ListeningError(str(error)) from error
    if not np.isfinite(samples).all():
        raise ListeningError(f"{path}: holds NaN or infinity; take another clip")
    samples = resampled(samples, source=rate, target=SAMPLE_RATE)
    stereo = np.repeat(samples, 2, axis=0) if len(samples) == 1 else samples[:2]
    length = round(seconds * SAMPLE_RATE)
    count = min(most, stereo.shape[1] // length)
    start = (stereo.shape[1] - count * length) // 2
    return [stereo[:, start + i * length : start + (i + 1) * length] for i in range(count)]


def alike(excerpts: Sequence[Samples]) -> list[Samples]:
    """Excerpts of equal length after one chain: level, codec, band, level again, fades; (2, frames) at 32 kHz.

    Raises:
        ListeningError: one is silent.
    """
    coded = [through_codec(gained(cut, loudness(cut))) for cut in excerpts]
    banded = [resampled(samples, source=SAMPLE_RATE, target=PLAYED_RATE) for samples in coded]
    return [faded(samples, PLAYED_RATE) for samples in at_one_loudness(banded, PLAYED_RATE)]


def through_codec(samples: Samples) -> Samples:
    """What a track's own MP3 leaves of it, as long as before."""
    decoded, _ = soundfile.read(io.BytesIO(encode_mp3(samples)), dtype="float32", always_2d=True)
    frames = samples.shape[1]
    return np.pad(decoded.T[:, :frames], ((0, 0), (0, max(0, frames - len(decoded)))))


def loudness(samples: Samples, sample_rate: int = SAMPLE_RATE) -> float:
    """Integrated loudness, LUFS (EBU R 128).

    Raises:
        ListeningError: silence.
    """
    import pyloudnorm

    with np.errstate(divide="ignore"):
        level = float(pyloudnorm.Meter(sample_rate).integrated_loudness(samples.T.astype(np.float64)))
    if not np.isfinite(level):
        raise ListeningError("an excerpt is silent; take other clips")
    return level


def gained(samples: Samples, level: float, target: float = LOUDNESS_LUFS) -> Samples:
    """From one loudness to another."""
    made: Samples = (samples * 10.0 ** ((target - level) / 20.0)).astype(np.float32)
    return made


def at_one_loudness(excerpts: Sequence[Samples], sample_rate: int) -> list[Samples]:
    """All at -23 LUFS, or together at the loudest level at which none peaks above -1 dBFS."""
    levels = [loudness(samples, sample_rate) for samples in excerpts]
    peaks = [20.0 * float(np.log10(np.abs(samples).max())) for samples in excerpts]
    target = min([LOUDNESS_LUFS, *(lv + PEAK_CEILING_DBFS - peak for lv, peak in zip(levels, peaks, strict=True))])
    return [gained(samples, level, target) for samples, level in zip(excerpts, levels, strict=True)]


def faded(samples: Samples, sample_rate: int) -> Samples:
    """With short fades at both ends."""
    ramp = np.sin(np.linspace(0.0, np.pi / 2.0, round(FADE_S * sample_rate), dtype=np.float32)) ** 2
    shape = np.ones(samples.shape[1], dtype=np.float32)
    shape[: len(ramp)], shape[-len(ramp) :] = ramp, ramp[::-1]
    made: Samples = samples * shape
    return made


def made_obvious(samples: Samples) -> Samples:
    """The same excerpt as a broken machine would play it: metallic, stuttering and rough, which nobody can miss.

    Args:
        samples: (2, frames) at 48 kHz.
    """
    frames = samples.shape[1]
    block, piece = round(0.5 * SAMPLE_RATE), round(0.125 * SAMPLE_RATE)
    stuttered = np.concatenate(
        [np.tile(samples[:, start : start + piece], 4)[:, :block] for start in range(0, frames, block)], axis=1
    )[:, :frames]
    ring = np.sin(2.0 * np.pi * 113.0 * np.arange(stuttered.shape[1]) / SAMPLE_RATE)
    peak = max(float(np.abs(samples).max()), 1e-9)
    rough = np.round(stuttered * ring / peak * 6.0) / 6.0
    return np.pad(rough, ((0, 0), (0, frames - rough.shape[1]))).astype(np.float32)


def low_passed(samples: Samples, cutoff_hz: float) -> Samples:
    """An anchor of ITU-R BS.1534: (2, frames) at 48 kHz without what lies above; 60 dB down a seventh above it."""
    width = cutoff_hz / 7.0
    taps, beta = kaiserord(LOWEST_ANCHOR_DB, 2.0 * width / SAMPLE_RATE)
    kernel = firwin(taps | 1, cutoff_hz + width / 2.0, window=("kaiser", beta), fs=SAMPLE_RATE)
    made: Samples = oaconvolve(samples, kernel[None, :], mode="same").astype(np.float32)
    return made


def steps(samples: Samples) -> Steps:
    """(frames, 2) int16."""
    made: Steps = np.clip(np.rint(samples.T * 32768.0), -32768, 32767).astype(np.int16)
    return made


def wav(samples: Steps, sample_rate: int) -> bytes:
    """16-bit WAV of (frames, 2) int16: equal lengths are equal sizes, and it has no room for tags."""
    written = io.BytesIO()
    soundfile.write(written, samples, sample_rate, subtype="PCM_16", format="WAV")
    return written.getvalue()


def played(path: Path) -> bytes:
    """A file of an excerpt as it is delivered once: with noise of one step, so that a repeated one cannot be found by
    comparing bytes."""
    samples, sample_rate = soundfile.read(path, dtype="int16", always_2d=True)
    noise = np.random.default_rng(secrets.randbits(128)).integers(-1, 2, samples.shape, dtype=np.int16)
    return wav(np.clip(samples.astype(np.int32) + noise, -32768, 32767).astype(np.int16), sample_rate)
