"""From decoded samples to the one delivery format: 48 kHz stereo, -1 dBFS, 320 kbit/s MP3 that plays gaplessly.

Beside it, where training should not hear a lossy generation more, the same master as 24-bit FLAC.

What was written is verified. The same samples give the same bytes on the same machine and library versions.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import lameenc
import numpy as np
import soundfile
import soxr

from lofi_assets.audio import decode, measure, mp3
from lofi_assets.audio.arrays import FloatArray

SAMPLE_RATE = 48_000
PEAK_DBFS = -1.0
"""Sample peak of the 48 kHz signal before encoding (constitution, Peak Level)."""
LOWEST_DECODED_PEAK_DBFS, HIGHEST_DECODED_PEAK_DBFS = -1.3, -0.5
"""A codec moves peaks; outside these (the gates' limits) the track is encoded again with a corrected gain."""
MOST_ATTEMPTS = 6
"""Music needs one, clicks two or three; full-scale noise, whose peak moves by 0.4 dB at every gain, sometimes more."""
CODEC_BAND_RATE = 44_100
"""LAME keeps nothing above 20.5 kHz at 320 kbit/s; a signal at this rate holds little more."""
BIT_RATE = 320
LAME_QUALITY = 5
"""At 320 kbit/s lower numbers cost up to four times the time and measure no better."""
CHUNK_FRAMES = 10 * SAMPLE_RATE


@dataclass(frozen=True)
class Encoded:
    """An MP3 as decoded again after writing.

    Attributes:
        path: the file.
        sha256: of its bytes.
        frames_drift: decoded minus encoded samples per channel; 0 when gapless.
        peak_dbfs: decoded sample peak.
        attempts: 1, or up to `MOST_ATTEMPTS` where the codec moved the peak too far.
    """

    path: Path
    sha256: str
    sample_rate: int
    channels: int
    bit_rate_kbps: int
    peak_dbfs: float
    frames: int
    frames_drift: int
    attempts: int


def master(samples: FloatArray, *, sample_rate: int) -> FloatArray:
    """Bring samples to 48 kHz stereo without DC, peaking at -1.00 dBFS; digital silence stays silent.

    Resampling moves the peak by up to 0.85 dB, so it comes before the gain.

    Args:
        samples: (1 or 2, frames) float32.
    Returns:
        (2, frames at 48 kHz) float32.
    """
    if len(samples) > 2:
        raise decode.AudioError("audio.channels", f"{len(samples)} channels have no agreed stereo fold-down")
    rows = []
    for row in samples:
        centred = row - row.mean(dtype=np.float64).astype(np.float32)
        resampled = sample_rate != SAMPLE_RATE
        rows.append(soxr.resample(centred, sample_rate, SAMPLE_RATE, quality="VHQ") if resampled else centred)
    return _at_peak(np.stack([rows[0], rows[-1]]))


def _at_peak(stereo: FloatArray) -> FloatArray:
    """Scaled in place to a sample peak of -1.00 dBFS."""
    peak = max(float(stereo.max()), -float(stereo.min()))
    # Under one step of 24 bits there is only rounding noise, which no gain turns into music.
    if peak >= 2.0**-23:
        stereo *= np.float32(10.0 ** (PEAK_DBFS / 20.0) / peak)
    return stereo


def encode_mp3(samples: FloatArray, *, kbps: int = BIT_RATE) -> bytes:
    """A gapless MP3 of (2, frames) float32 at 48 kHz, at the constant bit rate of a delivery or another one.

    Samples are rounded and clipped to int16 here: LAME aborts the process on NaN, and a cast wraps around.
    """
    encoder = lameenc.Encoder()
    encoder.set_bit_rate(kbps)
    encoder.set_in_sample_rate(SAMPLE_RATE)
    encoder.set_out_sample_rate(SAMPLE_RATE)
    encoder.set_channels(2)
    encoder.set_quality(LAME_QUALITY)
    encoder.silence()
    music = bytearray()
    for start in range(0, samples.shape[1], CHUNK_FRAMES):
        chunk = np.rint(samples[:, start : start + CHUNK_FRAMES].T * 32768.0)
        music += encoder.encode(np.clip(chunk, -32768, 32767).astype("<i2").tobytes())
    music += encoder.flush()
    return mp3.info_frame(bytes(music), samples=samples.shape[1]) + bytes(music)


def write_mp3(samples: FloatArray, path: Path) -> Encoded:
    """Encode a master, write it, decode it again; while the decoded peak misses [-1.3, -0.5], with a corrected gain.

    The gain is aimed at -1 dBFS after decoding and never lifts a sample over full scale: where that would be needed,
    the peak is made of what the codec drops (a click of one sample), which is then taken out before the gain.

    `path` is overwritten in place: give the temporary name of a `files.writing.atomic_path`.

    Args:
        samples: (2, frames) float32 at 48 kHz, as `master` gives them.
    Returns:
        The first attempt inside the window, else the last of `MOST_ATTEMPTS`, which the gates on the peak turn away.
    Raises:
        AudioError: what was written cannot be decoded (`audio.readable`).
        OSError: the disk is full or the folder is missing.
    """
    encoded = _write_and_verify(samples, path, attempts=1)
    gain_db, tried = 0.0, dict[bool, tuple[float, float]]()
    while not _lands(encoded.peak_dbfs) and encoded.attempts < MOST_ATTEMPTS:
        tried[encoded.peak_dbfs > PEAK_DBFS] = (gain_db, encoded.peak_dbfs)
        gain_db = _next_gain(*tried.values())
        if measure.peak_dbfs(samples) + gain_db > 0.0:
            samples, gain_db, tried = _in_codec_band(samples), 0.0, {}
        louder = samples * np.float32(10.0 ** (gain_db / 20.0))
        encoded = _write_and_verify(louder, path, attempts=encoded.attempts + 1)
    return encoded


def _next_gain(*tried: tuple[float, float]) -> float:
    """The gain for a decoded peak of -1 dBFS, from one (gain, decoded peak) in dB, or from one on either side."""
    (gain_db, peak_dbfs), (other_gain, other_peak) = tried[0], tried[-1]
    slope = 1.0 if len(tried) == 1 else (other_gain - gain_db) / (other_peak - peak_dbfs)
    return gain_db + (PEAK_DBFS - peak_dbfs) * slope


def _lands(peak_dbfs: float) -> bool:
    """Whether a decoded peak is where it should be; no gain moves silence."""
    # The gate judges it rounded to thousandths.
    lowest = LOWEST_DECODED_PEAK_DBFS - 5e-4
    return lowest <= peak_dbfs <= HIGHEST_DECODED_PEAK_DBFS or not math.isfinite(peak_dbfs)


def _in_codec_band(samples: FloatArray) -> FloatArray:
    """The same master, as long, without what the codec would drop, peaking at -1.00 dBFS again."""
    frames = samples.shape[1]
    narrow = soxr.resample(samples.T, SAMPLE_RATE, CODEC_BAND_RATE, quality="VHQ")
    band = soxr.resample(narrow, CODEC_BAND_RATE, SAMPLE_RATE, quality="VHQ").T[:, :frames]
    return _at_peak(np.pad(band, ((0, 0), (0, frames - band.shape[1]))))


def _write_and_verify(samples: FloatArray, path: Path, *, attempts: int) -> Encoded:
    data = encode_mp3(samples)
    path.write_bytes(data)
    decoded = decode.read_audio(path, root=path.parent)
    return Encoded(
        path=path,
        sha256=hashlib.sha256(data).hexdigest(),
        sample_rate=decoded.sample_rate,
        channels=decoded.channels,
        bit_rate_kbps=decoded.bit_rate_kbps or 0,
        peak_dbfs=measure.peak_dbfs(decoded.samples),
        frames=decoded.frames,
        frames_drift=decoded.frames - samples.shape[1],
        attempts=attempts,
    )


def write_flac(samples: FloatArray, path: Path) -> str:
    """Write (2, frames) float32 at 48 kHz as 24-bit FLAC, read it back, compare every sample; returns its sha256.

    Raises:
        AudioError: what was written is not what went in (`audio.length`).
        OSError: the disk is full or the folder is missing.
    """
    # libsndfile takes the upper 24 bits of an int32; scaling here makes the comparison exact.
    steps = np.clip(np.rint(samples.T * 2.0**23), -(2**23), 2**23 - 1).astype(np.int32) << 8
    soundfile.write(path, steps, SAMPLE_RATE, format="FLAC", subtype="PCM_24")
    written, sample_rate = soundfile.read(path, dtype="int32", always_2d=True)
    if sample_rate != SAMPLE_RATE or not np.array_equal(written, steps):
        raise decode.AudioError("audio.length", f"{path.name!r} does not decode to the samples that were written")
    return hashlib.sha256(path.read_bytes()).hexdigest()
