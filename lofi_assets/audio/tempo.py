"""How fast a track is, or that it cannot be told: two independent estimates, and whether they agree.

Every tempo tracker errs by octaves (84 read as 42 or 168) and, on swung drums, by 3:2. Both estimates are folded
towards the range that the style lives in, by how strongly the onsets repeat at each candidate; a tempo is given only if
the two then agree within 4 %. The range decides between octaves, it does not overrule the drums: a track at 104 stays
at 104 where 70 would fit the style but the onsets do not repeat at 70.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import soxr
from numpy.typing import NDArray

from lofi_assets.audio.arrays import FloatArray
from lofi_assets.environment import user_cache
from lofi_assets.files.hashing import hash_of
from lofi_assets.files.writing import locked

SAMPLE_RATE = 22_050
HOP = 512
EXCERPT_S = 60.0
AGREEMENT = 0.04
LEAST_CONFIDENCE = 0.15
"""Songs with drums reach 0.6; beatless pads stay under 0.05 and only seem to have a tempo."""
LOFI_RANGE = (62.0, 124.0)
"""BPM for a track of unknown style. One octave: every tempo has one reading inside, so no octave is left to chance."""
SPAN = (40.0, 200.0)
"""BPM that count as a tempo at all."""
OUTSIDE = 0.5
"""What an octave outside the range costs, in units of periodicity: more than half time gains (0.05 to 0.2)."""
FOLDS = (1.0, 2.0, 0.5, 1.5, 2.0 / 3.0, 3.0, 1.0 / 3.0)
"""Octaves, then 3:2 and 3:1."""
_PREPARING = threading.Lock()
"""Compiling, and an import with another decorator, is for one thread: clips are measured side by side."""


@dataclass(frozen=True)
class TempoEstimate:
    """A tempo on which two methods agree after folding.

    Attributes:
        bpm_raw: what beat tracking said before folding.
        bpm: the same, folded towards the range.
        confidence: in [0, 1]; how much of the onset pattern repeats after 1, 2, 4 and 8 beats.
        agrees: both methods gave the same tempo even before folding.
    """

    bpm_raw: float
    bpm: float
    confidence: float
    agrees: bool


def estimate_tempo(
    samples: FloatArray, *, sample_rate: int, tempo_range: tuple[float, float] = LOFI_RANGE
) -> TempoEstimate | None:
    """Tempo from the middle 60 s; None if nothing repeats or the two methods disagree.

    Args:
        samples: (channels, frames) or (frames,) float32.
        tempo_range: beats per minute in which the style lives.
    """
    with _PREPARING:
        _prepare_kernels()
        _beat_track()
    onsets = _onset_envelope(samples, sample_rate)
    if onsets is None:
        return None
    strength = _periodicity(onsets)
    tracked, spectral = _beat_tracking(onsets, tempo_range), _tempogram(onsets, tempo_range)
    folded = [_fold(raw, strength, tempo_range) for raw in (tracked, spectral)]
    bpm = None if folded[0] is None or folded[1] is None else _agreed(folded[0], folded[1], strength, tempo_range)
    if bpm is None:
        return None
    confidence = _strength_at(strength, bpm)
    if confidence < LEAST_CONFIDENCE:
        return None
    return TempoEstimate(
        bpm_raw=round(tracked, 2),
        bpm=round(bpm, 2),
        confidence=round(confidence, 4),
        agrees=_close(tracked, spectral),
    )


def _close(a: float, b: float) -> bool:
    return abs(a - b) <= AGREEMENT * max(a, b)


def _onset_envelope(samples: FloatArray, sample_rate: int) -> FloatArray | None:
    """Spectral flux of the middle of the track, one value per 23 ms; None without any onset."""
    librosa = _librosa()
    mono = samples.mean(axis=0) if samples.ndim == 2 else samples
    length = int(EXCERPT_S * sample_rate)
    start = max(0, (len(mono) - length) // 2)
    excerpt = soxr.resample(mono[start : start + length], sample_rate, SAMPLE_RATE, quality="MQ")
    onsets = librosa.onset.onset_strength(y=excerpt, sr=SAMPLE_RATE, hop_length=HOP, n_mels=64)
    return onsets if float(onsets.max(initial=0.0)) > 0 and len(onsets) > 4 * SAMPLE_RATE // HOP else None


@cache
def _prepare_kernels() -> None:
    """Compile librosa's kernels while no other process does, unless they are compiled already.

    numba's cache on the disk does not bear two processes that compile the same function at once: an index then names
    code of the other, and whoever loads it crashes, from then on. Ten seconds of clicks take every way that a track
    can.
    """
    librosa = _librosa()
    beside = Path(librosa.__file__).parent  # where numba writes what it cannot, or was not asked to, write elsewhere
    asked = Path(os.environ.get("NUMBA_CACHE_DIR", beside))
    with contextlib.suppress(OSError):
        asked.mkdir(parents=True, exist_ok=True)
    place = next((folder for folder in (asked, beside) if os.access(folder, os.W_OK)), None)
    if place is None:
        return  # where nobody can write, nothing is spoilt
    noted = place != beside and _kept_where_asked()
    compiled = asked / f"compiled-{_what_decides_kernels(librosa)}"
    if noted and compiled.is_file():
        return
    with locked(place, busy=None):
        if noted and compiled.is_file():
            return
        _take_every_way()
        if noted:
            compiled.touch()


def _what_decides_kernels(librosa: Any) -> str:
    """Hash of what makes numba compile anew."""
    import llvmlite.binding
    import numba

    source = Path(librosa.__file__)
    processor = (llvmlite.binding.get_host_cpu_name(), llvmlite.binding.get_host_cpu_features().flatten())
    kept = "all"  # a cache without the kernel that librosa does not keep is not complete
    return hash_of(numba.__version__, sys.version, processor, source, source.stat().st_mtime_ns, kept)[:16]


def _take_every_way() -> None:
    clicks = np.zeros(10 * SAMPLE_RATE, dtype=np.float32)
    for start in range(0, len(clicks), SAMPLE_RATE // 2):
        clicks[start : start + 200] = np.linspace(1, 0, 200, dtype=np.float32)
    for samples in (clicks, np.stack([clicks, clicks])):
        onsets = _onset_envelope(samples, SAMPLE_RATE)
        if onsets is not None:
            _periodicity(onsets)
            _beat_tracking(onsets, LOFI_RANGE)
            _tempogram(onsets, LOFI_RANGE)


def _librosa() -> Any:
    """librosa, with a place where its compiled kernels last beyond the process (compiling takes seconds)."""
    if "NUMBA_CACHE_DIR" not in os.environ:
        place = user_cache("kernels")
        with contextlib.suppress(OSError):  # a read-only home costs compiling again, not the estimate
            if place:
                place.mkdir(parents=True, exist_ok=True, mode=0o700)
                os.environ["NUMBA_CACHE_DIR"] = str(place)
    _kept_where_asked()
    import librosa

    return librosa


@cache
def _kept_where_asked() -> bool:
    """Whether librosa's kernels are kept in `NUMBA_CACHE_DIR`; asked before librosa is imported here.

    Not if somebody imported it earlier, without such a place: then they lie beside its modules, and the note of what
    was compiled says nothing of them.
    """
    numba, asked = sys.modules.get("numba"), os.environ.get("NUMBA_CACHE_DIR")
    if numba is not None and "librosa" not in sys.modules:
        numba.config.reload_config()  # it has read the environment when it was imported
    return asked is not None and (numba is None or asked == numba.config.CACHE_DIR)


@cache
def _beat_track() -> Callable[..., Any]:
    """librosa's beat tracker, its kernels read from the disk where another process has compiled them.

    librosa 0.11 keeps all of its kernels but one, which is then compiled in every process: four seconds, and with them
    most of what a worker needs before its first track. It computes the same bits (`test_tempo_kernels.py`).
    """
    _librosa()
    import numba

    decorate: Callable[..., Any] = numba.guvectorize

    def kept(*signature: Any, **options: Any) -> Any:
        return decorate(*signature, **{**options, "cache": True})

    numba.guvectorize = kept
    try:
        from librosa.beat import beat_track
    finally:
        numba.guvectorize = decorate
    return cast("Callable[..., Any]", beat_track)


def _beat_tracking(onsets: FloatArray, tempo_range: tuple[float, float]) -> float:
    """Dynamic-programming beat tracking (Ellis 2007); the slope of the beats' times is finer than its tempo grid."""
    centre = float(np.sqrt(tempo_range[0] * tempo_range[1]))
    tempo, beats = _beat_track()(onset_envelope=onsets, sr=SAMPLE_RATE, hop_length=HOP, start_bpm=centre)
    if len(beats) < 8:
        return float(np.atleast_1d(tempo)[0])
    slope = float(np.polyfit(np.arange(len(beats)), beats, 1)[0])
    return 60.0 * SAMPLE_RATE / HOP / slope


def _tempogram(onsets: FloatArray, tempo_range: tuple[float, float]) -> float:
    """The peak of the onsets' own spectrum weighted by a broad prior around the range: no beats involved."""
    rate = SAMPLE_RATE / HOP
    centred = onsets - onsets.mean()
    spectrum = np.abs(np.fft.rfft(centred * np.hanning(len(centred)), 1 << 15))
    bpm = np.fft.rfftfreq(1 << 15, 1.0 / rate) * 60.0
    inside = (bpm > 30.0) & (bpm < 300.0)
    centre = np.sqrt(tempo_range[0] * tempo_range[1])
    prior = np.exp(-0.5 * (np.log2(np.maximum(bpm, 1.0) / centre) / 1.0) ** 2)
    return float(bpm[inside][int(np.argmax((spectrum * prior)[inside]))])


def _periodicity(onsets: FloatArray) -> NDArray[np.float64]:
    """Autocorrelation of the onsets, normalised to 1 at lag 0 and for the shrinking overlap."""
    centred = (onsets - onsets.mean()).astype(np.float64)
    size = 1 << (2 * len(centred) - 1).bit_length()
    spectrum = np.fft.rfft(centred, size)
    raw = np.fft.irfft(spectrum.real**2 + spectrum.imag**2, size)[: len(centred) * 3 // 4]
    normalised: NDArray[np.float64] = raw / raw[0] * len(centred) / (len(centred) - np.arange(len(raw)))
    return normalised


def _strength_at(strength: NDArray[np.float64], bpm: float) -> float:
    """Mean autocorrelation at 1, 2, 4 and 8 beats, in [0, 1]."""
    period = 60.0 * SAMPLE_RATE / HOP / bpm
    lags = period * np.array([1.0, 2.0, 4.0, 8.0])
    return float(np.clip(np.interp(lags[lags < len(strength) - 1], np.arange(len(strength)), strength).mean(), 0, 1))


def _fold(raw: float, strength: NDArray[np.float64], tempo_range: tuple[float, float]) -> float | None:
    """The candidate at which the onsets repeat most, less what lies outside the range; earlier folds win a tie."""
    candidates = [raw * fold for fold in FOLDS if SPAN[0] <= raw * fold <= SPAN[1]]
    if not candidates:
        return None
    return max(candidates, key=lambda bpm: _plausibility(bpm, strength, tempo_range) - 0.02 * candidates.index(bpm))


def _agreed(a: float, b: float, strength: NDArray[np.float64], tempo_range: tuple[float, float]) -> float | None:
    """The tempo on which two readings agree; readings an octave apart share the beat, and the better one is it."""
    if _close(a, b):
        return a
    if _close(2 * min(a, b), max(a, b)):
        return max(a, b, key=lambda bpm: _plausibility(bpm, strength, tempo_range))
    return None


def _plausibility(bpm: float, strength: NDArray[np.float64], tempo_range: tuple[float, float]) -> float:
    """How much the onsets repeat, less the distance to the range, of which half an agreement's tolerance is free."""
    low, high = tempo_range[0] * (1 - AGREEMENT / 2), tempo_range[1] * (1 + AGREEMENT / 2)
    octaves_outside = max(0.0, float(np.log2(low / bpm)), float(np.log2(bpm / high)))
    return _strength_at(strength, bpm) - OUTSIDE * octaves_outside
