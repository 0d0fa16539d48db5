"""Telling that two files are the same recording, whatever was done to level, format, treble or edges.

Belongs here: making fingerprints and finding pairs among many. Does not belong here: which of a pair stays.

A fingerprint is one 32-bit word per 93 ms: bit m says whether the energy difference of two neighbouring bands grew
over the last third of a second (Haitsma and Kalker, ISMIR 2002). Gain cancels in the sign, encoders and filters turn
few bits, and other music agrees in half of them by chance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
import soxr
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
Fingerprint = NDArray[np.uint32]

SAMPLE_RATE = 11_025
WINDOW, HOP = 8_192, 1_024
"""0.74 s windows every 93 ms: a cut that falls between two hops still shares most of each window."""
BITS = 32
LOWEST_HZ, HIGHEST_HZ = 120.0, 3_500.0
"""Where chords and melody live; under a lofi low-pass nothing above is left."""
LOOK_BACK = 4
WORDS_PER_S = SAMPLE_RATE / HOP

DUPLICATE_BER = 0.15
"""Share of differing bits below which two tracks are one recording."""
REVIEW_BER = 0.38
"""Below this a person should listen: sped up, remixed, or the same loop."""
LEAST_OVERLAP = 0.5
"""Share of the shorter track that must overlap: over a few seconds two songs of one tempo agree by chance."""
LEAST_HITS, LEAST_HIT_SHARE = 4, 0.02
"""Words shared, absolutely and of the shorter track, that make a pair worth comparing: recordings that differ in 15 %
of their bits share 8 % of their words, two songs of one synthetic band 2 % in one case of sixteen."""
MOST_TRACKS_PER_WORD = 64
"""A word that more tracks share says nothing (a fade, a held bass note) and would cost a quadratic number of pairs."""


@dataclass(frozen=True)
class DuplicatePair:
    """Two tracks that share a recording; `a` sorts before `b`.

    Attributes:
        similarity: 1 - bit error rate at the best offset, in [0, 1].
        offset: seconds into `a` at which `b` starts; negative if `b` starts earlier.
    """

    a: str
    b: str
    similarity: float
    offset: float

    @property
    def verdict(self) -> Literal["duplicate", "review"]:
        """ "duplicate" from a similarity of 0.85 on."""
        return "duplicate" if 1.0 - self.similarity < DUPLICATE_BER else "review"


def fingerprint(samples: FloatArray, *, sample_rate: int) -> Fingerprint:
    """One word per 93 ms, (words,) uint32; 0 where nothing sounds.

    Args:
        samples: (channels, frames) or (frames,) float32.
    """
    mono = samples.mean(axis=0) if samples.ndim == 2 else samples
    low_rate = soxr.resample(mono, sample_rate, SAMPLE_RATE, quality="LQ")
    if len(low_rate) < WINDOW + HOP * LOOK_BACK:
        return np.zeros(0, dtype=np.uint32)
    energy = _band_energies(low_rate)
    contrast = energy[:, :-1] - energy[:, 1:]
    change = contrast[LOOK_BACK:] - contrast[:-LOOK_BACK]
    words = np.packbits(change > 0, axis=1).view(">u4")[:, 0].astype(np.uint32)
    total = energy.sum(axis=1)
    words[total[LOOK_BACK:] < total.max() * 1e-6] = 0
    return words


def _band_energies(mono: FloatArray) -> FloatArray:
    """Energies of 33 logarithmic bands, (windows, 33)."""
    frames = np.lib.stride_tricks.sliding_window_view(mono, WINDOW)[::HOP]
    edges = np.geomspace(LOWEST_HZ, HIGHEST_HZ, BITS + 2) * WINDOW / SAMPLE_RATE
    starts = edges.round().astype(int)
    window = np.hanning(WINDOW).astype(np.float32)
    energies = []
    # In blocks that stay in the cache: all windows of a track at once are 40 MB and take three times as long.
    for block in np.array_split(frames, len(frames) // 32 + 1):
        spectra = np.fft.rfft(block * window, axis=1)[:, : starts[-1]]
        energies.append(np.add.reduceat(spectra.real**2 + spectra.imag**2, starts[:-1], axis=1))
    return np.concatenate(energies)


def find_duplicates(fingerprints: Mapping[str, Fingerprint]) -> list[DuplicatePair]:
    """Every pair that shares a recording or might, most similar first.

    Candidates come from an inverted index: two tracks meet only where three of the four bytes of some word are equal.
    Each candidate pair is then compared at every offset at once.

    Args:
        fingerprints: track id -> words, as `fingerprint` returns them.
    """
    names = sorted(fingerprints)
    tracks = [np.asarray(fingerprints[name], dtype=np.uint32) for name in names]
    pairs = []
    for first, second in sorted(_candidates(tracks)):
        similarity, offset = compare(tracks[first], tracks[second])
        if 1.0 - similarity < REVIEW_BER:
            pairs.append(DuplicatePair(names[first], names[second], similarity, offset))
    return sorted(pairs, key=lambda pair: (-pair.similarity, pair.a, pair.b))


def _candidates(tracks: list[Fingerprint]) -> set[tuple[int, int]]:
    """Pairs of positions with enough hits: words that are equal under one of the four masks."""
    hits: dict[tuple[int, int], int] = {}
    for byte in range(4):
        mask = np.uint32(0xFFFFFFFF ^ (0xFF << (8 * byte)))
        words = [np.unique(track[track != 0] & mask) for track in tracks]
        value = np.concatenate([*words, np.zeros(0, dtype=np.uint32)])
        owner = np.repeat(np.arange(len(tracks)), [len(unique) for unique in words])
        order = np.lexsort((owner, value))
        value, owner = value[order], owner[order]
        bounds = np.flatnonzero(np.diff(value)) + 1
        for group in _shared(owner, bounds):
            for pair in combinations(group, 2):
                hits[pair] = hits.get(pair, 0) + 1
    least = [max(LEAST_HITS, LEAST_HIT_SHARE * len(track)) for track in tracks]
    return {(a, b) for (a, b), count in hits.items() if count >= min(least[a], least[b])}


def _shared(owner: NDArray[np.int64], bounds: NDArray[np.int64]) -> list[list[int]]:
    """Owners of every word that 2 to 64 tracks share."""
    starts = np.concatenate([[0], bounds])
    sizes = np.diff(np.concatenate([starts, [len(owner)]]))
    chosen = np.flatnonzero((sizes >= 2) & (sizes <= MOST_TRACKS_PER_WORD))
    return [owner[starts[index] : starts[index] + sizes[index]].tolist() for index in chosen]


def compare(a: Fingerprint, b: Fingerprint) -> tuple[float, float]:
    """(similarity, offset in seconds) at the best alignment in which half of the shorter one sounds; (0, 0) if none.

    Bits become +-1 and silence 0, so that one cross-correlation counts agreements at every offset.
    """
    signs_a, signs_b = _signs(a), _signs(b)
    size = 1 << (len(a) + len(b) - 1).bit_length() if len(a) and len(b) else 0
    if not size:
        return 0.0, 0.0
    agreement = _correlate(signs_a, signs_b, size)
    overlap = _correlate(np.abs(signs_a[:, :1]), np.abs(signs_b[:, :1]), size)
    least = max(1.0, LEAST_OVERLAP * min(len(a), len(b)))
    similarity = np.where(overlap >= least, 0.5 + 0.5 * agreement / (BITS * np.maximum(overlap, 1.0)), 0.0)
    best = int(np.argmax(similarity))
    lag = best if best < len(a) else best - size
    return float(similarity[best]), lag / WORDS_PER_S


def _signs(words: Fingerprint) -> NDArray[np.float32]:
    bits = np.unpackbits(words.astype(">u4").view(np.uint8).reshape(-1, 4), axis=1)
    return np.where(words[:, None] == 0, 0.0, bits * 2.0 - 1.0).astype(np.float32)


def _correlate(a: NDArray[np.float32], b: NDArray[np.float32], size: int) -> NDArray[np.float64]:
    """Sum over columns of the circular cross-correlation; entry k is the product of a[k + t] and b[t]."""
    spectrum = np.fft.rfft(a, size, axis=0) * np.conj(np.fft.rfft(b, size, axis=0))
    return np.rint(np.fft.irfft(spectrum.sum(axis=1), size))
