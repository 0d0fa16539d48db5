"""Which key a recording is in, by its pitch classes.

The profile of a key says how often each pitch class sounds in it; the key is the one whose profile correlates best
with what sounds here (Krumhansl, Cognitive Foundations of Musical Pitch, 1990; the profiles are Temperley's, What's Key
for Key?, 1999). A key and its relative (C major, A minor) share their notes and are often taken for each other, which
is why `same_notes` counts both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LOWEST_HZ, HIGHEST_HZ = 65.0, 2_000.0
NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
MAJOR = np.array([5.0, 2.0, 3.5, 2.0, 4.5, 4.0, 2.0, 4.5, 2.0, 3.5, 1.5, 4.0])
MINOR = np.array([5.0, 2.0, 3.5, 4.5, 2.0, 4.0, 2.0, 4.5, 3.5, 2.0, 1.5, 4.0])


@dataclass(frozen=True)
class Key:
    """A key; `tonic` in semitones above C."""

    tonic: int
    minor: bool

    @property
    def notes(self) -> int:
        """The tonic of the major key of the same notes."""
        return (self.tonic + 3) % 12 if self.minor else self.tonic

    def __str__(self) -> str:
        return f"{NAMES[self.tonic]} {'minor' if self.minor else 'major'}"


def same_notes(a: Key, b: Key) -> bool:
    """Whether two keys are the same, or relatives."""
    return a.notes == b.notes


def estimate_key(power: NDArray[np.floating], bins: NDArray[np.floating]) -> Key | None:
    """The key of power spectra; None where nothing sounds.

    Args:
        power: (windows, bins), of 3 Hz per bin or finer: a semitone at 65 Hz is 4 Hz wide.
        bins: their frequencies in Hz.
    """
    chroma = pitch_classes(power, bins)
    if float(np.ptp(chroma)) <= 0.0:
        return None
    keys = [Key(tonic, minor) for minor in (False, True) for tonic in range(12)]
    return max(
        keys, key=lambda key: float(np.corrcoef(chroma, np.roll(MINOR if key.minor else MAJOR, key.tonic))[0, 1])
    )


def pitch_classes(power: NDArray[np.floating], bins: NDArray[np.floating]) -> NDArray[np.float64]:
    """(12,) strength of each pitch class from C on: amplitudes of spectral peaks, each window weighing the same."""
    heard = (bins >= LOWEST_HZ) & (bins <= HIGHEST_HZ)
    amplitude = np.sqrt(power[:, heard].astype(np.float64))
    peaks = np.zeros_like(amplitude)
    inner = amplitude[:, 1:-1]
    top = (inner > amplitude[:, :-2]) & (inner >= amplitude[:, 2:])
    peaks[:, 1:-1] = np.where(top, inner, 0.0)
    peaks /= np.maximum(peaks.sum(axis=1, keepdims=True), 1e-12)
    semitones = 12.0 * np.log2(bins[heard] / 440.0) + 9.0
    chroma = np.zeros(12)
    np.add.at(chroma, np.round(semitones).astype(int) % 12, peaks.sum(axis=0))
    return chroma
