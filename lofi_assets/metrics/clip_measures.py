"""What is measured of one clip by itself, once per content: signal, tempo, key and fingerprint."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from pydantic.dataclasses import dataclass

from lofi_assets.audio.fingerprint import Fingerprint, fingerprint
from lofi_assets.audio.key import Key, estimate_key
from lofi_assets.audio.tempo import estimate_tempo
from lofi_assets.files.typed import STORED, read_typed, write_typed
from lofi_assets.files.writing import StoreError
from lofi_assets.metrics.embedding import Samples, by_content, read_samples, resampled
from lofi_assets.metrics.errors import MetricError
from lofi_assets.metrics.signal_panel import SignalPanel, power_spectra, signal_panel

VERSION = "2"
"""Raised when a measure changes: every clip is then measured again."""
SAMPLE_RATE = 48_000
LEAST_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True, config=STORED)
class ClipMeasures:
    """A clip by itself. `panel` is None, with a `fault`, where the file holds no audio that could be measured."""

    panel: SignalPanel | None
    tempo_bpm: float | None
    """None: two methods do not find the same tempo, or nothing repeats."""
    key_tonic: int | None
    """Semitones above C."""
    key_minor: bool | None
    words: tuple[int, ...]
    """Fingerprint of the whole file, not of the excerpt alone."""
    fault: str = ""
    tempo_confidence: float | None = None
    """Of `tempo_bpm`, in [0, 1]: how much of the onsets repeats after 1, 2, 4 and 8 beats."""

    @property
    def key(self) -> Key | None:
        """The key it is in; None where nothing sounds."""
        return None if self.key_tonic is None or self.key_minor is None else Key(self.key_tonic, self.key_minor)

    @property
    def fingerprint(self) -> Fingerprint:
        """`words` as an array."""
        return np.array(self.words, dtype=np.uint32)


def measured_clips(
    paths: Iterable[Path], *, seconds: float | None, cache_dir: Path, label: str, progress: bool = True
) -> dict[Path, ClipMeasures]:
    """Measures of every file, kept in `cache_dir` by its content.

    Args:
        seconds: the middle that is measured, so that whole tracks are compared with clips of one length; None: all.
    """
    wanted = list(dict.fromkeys(paths))
    found = by_content(
        lambda path, digest: _measured(path, digest, seconds, cache_dir),
        [path for path in wanted if path.is_file()],
        label=label if progress else None,
    )
    return {path: found[path] if path in found else _unmeasured(f"{path.name}: no such file") for path in wanted}


def clip_audio(path: Path) -> Samples:
    """(2, frames) float32 at 48 kHz; a mono file in both channels.

    Raises:
        MetricError: it cannot be decoded, is empty or shorter than a second, or holds NaN or infinity.
    """
    samples, rate = read_samples(path)
    if not np.isfinite(samples).all():
        raise MetricError(f"{path}: holds NaN or infinity")
    if samples.shape[1] < LEAST_SECONDS * rate:
        raise MetricError(f"{path}: {samples.shape[1] / rate:.2f} s; too short to be measured")
    stereo = samples[:2] if len(samples) > 1 else np.repeat(samples, 2, axis=0)
    return np.ascontiguousarray(resampled(stereo, source=rate, target=SAMPLE_RATE))


def middle(samples: Samples, *, seconds: float | None) -> Samples:
    """The middle `seconds` of (channels, frames) at 48 kHz; all of it if it is shorter, or for None."""
    length = samples.shape[1] if seconds is None else min(samples.shape[1], round(seconds * SAMPLE_RATE))
    start = (samples.shape[1] - length) // 2
    return np.ascontiguousarray(samples[:, start : start + length])


def measure_clip(samples: Samples, *, seconds: float | None = None) -> ClipMeasures:
    """Measures of finite (2, frames) audio at 48 kHz, of a second at least."""
    whole = fingerprint(samples, sample_rate=SAMPLE_RATE)
    excerpt = middle(samples, seconds=seconds)
    words = whole if excerpt.shape == samples.shape else fingerprint(excerpt, sample_rate=SAMPLE_RATE)
    if not np.any(excerpt):
        return _unmeasured("digital silence", words=whole)
    power = power_spectra(excerpt)
    key = estimate_key(power, np.linspace(0.0, SAMPLE_RATE / 2, power.shape[1]))
    tempo = estimate_tempo(excerpt, sample_rate=SAMPLE_RATE)
    return ClipMeasures(
        panel=signal_panel(excerpt, words, power, sample_rate=SAMPLE_RATE),
        tempo_bpm=tempo.bpm if tempo else None,
        tempo_confidence=tempo.confidence if tempo else None,
        key_tonic=key.tonic if key else None,
        key_minor=key.minor if key else None,
        words=tuple(whole.tolist()),
    )


def _unmeasured(fault: str, *, words: Sequence[int] | Fingerprint = ()) -> ClipMeasures:
    found = tuple(int(word) for word in words)
    return ClipMeasures(panel=None, tempo_bpm=None, key_tonic=None, key_minor=None, words=found, fault=fault)


def _measured(path: Path, digest: str, seconds: float | None, cache_dir: Path) -> ClipMeasures:
    code = hashlib.sha256(f"{VERSION}|{seconds}|{digest}".encode()).hexdigest()
    cached = cache_dir / "clips" / f"{code}.json"
    try:
        known = read_typed(cached, ClipMeasures, remedy="")
    except StoreError:
        known = None  # cut short by a crash of the disk, or another version's: measured below
    if known is not None:
        return known
    try:
        found = measure_clip(clip_audio(path), seconds=seconds)
    except MetricError as error:
        found = _unmeasured(str(error).replace(str(path), path.name))
    cached.parent.mkdir(parents=True, exist_ok=True)
    write_typed(cached, found)
    return found
