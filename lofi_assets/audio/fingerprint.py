"""Telling that two files are the same recording, whatever was done to level, format, treble or edges.

What belongs here: making fingerprints and finding pairs among many. What does not: which of a pair stays
(`tracks/duplicates.py`).

A fingerprint is one 32-bit word per 93 ms: bit m says whether the energy difference of two neighbouring bands grew
over the last third of a second (Haitsma and Kalker, ISMIR 2002). Gain cancels in the sign, encoders and filters turn
few bits, and other music agrees in half of them by chance.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np
import soxr
from numpy.typing import NDArray

from lofi_assets.audio.arrays import FloatArray
from lofi_assets.files.documents import read_json, write_json

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
LEAST_HITS, LEAST_HIT_SHARE = 4, 0.005
"""Words shared, absolutely and of the shorter track, that make a pair worth comparing: recordings that differ in 15 %
of their bits share 0.55 % of their words, at 8 % (the worst of the disguises measured) 7 %; two songs of one synthetic
band, tempo and key share 0.02 %."""
MOST_TRACKS_PER_WORD = 64
"""Tracks that share a word are paired with each other up to here, and beyond it with two of them only: a fade or a
held bass note would cost a quadratic number of pairs, while the copies of one upload still meet."""
HUBS = 2
LARGEST_GROUP = 300
"""Copies of one recording are all compared with each other up to this many."""
HITS_AT_ONCE = 50_000_000
"""Hits counted in one go, 8 bytes each and twice that to sort them."""
MEMORY_VERSION = 2
"""Raised when other pairs would be found: what was compared before is then compared again."""


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
    return fingerprints_of(at_fingerprint_rate(samples, sample_rate=sample_rate))[0]


def at_fingerprint_rate(samples: FloatArray, *, sample_rate: int) -> FloatArray:
    """(frames,) float32 at 11.025 kHz of (channels, frames) or (frames,)."""
    mono = samples.mean(axis=0) if samples.ndim == 2 else samples
    low_rate: FloatArray = soxr.resample(mono, sample_rate, SAMPLE_RATE, quality="LQ")
    return low_rate


def fingerprints_of(mono: FloatArray, *, tempo: float = 1.0, pitches: Sequence[float] = (1.0,)) -> list[Fingerprint]:
    """Fingerprints that a recording had before it was made `tempo` times as fast and each of `pitches` times as high.

    Args:
        mono: (frames,) at 11.025 kHz.
        tempo, pitches: near 1; the 0.74 s windows stay as long as they are.
    """
    if len(mono) < WINDOW + HOP * LOOK_BACK:
        return [np.zeros(0, dtype=np.uint32) for _ in pitches]
    return [_words(energy) for energy in _band_energies(mono, tempo=tempo, pitches=pitches)]


def _words(energy: FloatArray) -> Fingerprint:
    """One word per window from `LOOK_BACK` on, of (windows, 33) energies."""
    contrast = energy[:, :-1] - energy[:, 1:]
    change = contrast[LOOK_BACK:] - contrast[:-LOOK_BACK]
    words = np.packbits(change > 0, axis=1).view(">u4")[:, 0].astype(np.uint32)
    total = energy.sum(axis=1)
    words[total[LOOK_BACK:] < total.max() * 1e-6] = 0
    return words


def _band_energies(mono: FloatArray, *, tempo: float, pitches: Sequence[float]) -> list[FloatArray]:
    """Energies of 33 logarithmic bands, (windows, 33) for each pitch."""
    places = np.arange(0.0, len(mono) - WINDOW + 0.5, HOP / tempo).round().astype(int)
    frames = np.lib.stride_tricks.sliding_window_view(mono, WINDOW)
    edges = np.geomspace(LOWEST_HZ, HIGHEST_HZ, BITS + 2) * WINDOW / SAMPLE_RATE
    bands = [(edges * pitch).round().astype(int) for pitch in pitches]
    highest = max(starts[-1] for starts in bands)
    window = np.hanning(WINDOW).astype(np.float32)
    energies: list[list[FloatArray]] = [[] for _ in pitches]
    # In blocks that stay in the cache: all windows of a track at once are 40 MB and take three times as long.
    for block in np.array_split(places, len(places) // 32 + 1):
        spectra = np.fft.rfft(frames[block] * window, axis=1)[:, :highest]
        power = spectra.real**2 + spectra.imag**2
        for starts, found in zip(bands, energies, strict=True):
            found.append(np.add.reduceat(power[:, : starts[-1]], starts[:-1], axis=1))
    return [np.concatenate(found) for found in energies]


def find_duplicates(
    new: Mapping[str, Fingerprint],
    known: Mapping[str, Fingerprint] = MappingProxyType({}),
    *,
    found: Iterable[DuplicatePair] = (),
) -> list[DuplicatePair]:
    """Every pair with a track of `new` that shares a recording or might, most similar first.

    Candidates come from an inverted index: two tracks meet only where some of their words are equal. Each candidate
    pair is then compared at every offset at once.

    Args:
        new: track id -> words, as `fingerprint` returns them.
        known: the same, of tracks that are not compared with each other again.
        found: pairs within `known`, by which a new track meets every copy of what it duplicates.
    """
    names = sorted({*new, *known})
    tracks = [np.asarray(new[name] if name in new else known[name], dtype=np.uint32) for name in names]
    fresh = np.array([name in new for name in names], dtype=bool)
    places = {name: place for place, name in enumerate(names)}
    same = {(places[pair.a], places[pair.b]) for pair in found if pair.verdict == "duplicate"}
    pairs: dict[tuple[int, int], DuplicatePair] = {}
    looked_at: set[tuple[int, int]] = set()
    todo = _candidates(tracks, fresh)
    while todo := todo - looked_at:
        looked_at |= todo
        for first, second in sorted(todo):
            similarity, offset = compare(tracks[first], tracks[second])
            if 1.0 - similarity < REVIEW_BER:
                pairs[first, second] = DuplicatePair(names[first], names[second], similarity, offset)
        same |= {key for key, pair in pairs.items() if pair.verdict == "duplicate"}
        todo = {(a, b) for a, b in _within_groups(same) if fresh[a] or fresh[b]}
    return _ranked(pairs.values())


def update_duplicates(fingerprints: Mapping[str, Fingerprint], *, memory: Path) -> list[DuplicatePair]:
    """What `find_duplicates` finds, comparing only tracks that are new or sound different than they did last time.

    Args:
        memory: JSON file with what was compared before and what was found; may be deleted at any time.
    """
    before = read_json(memory, default={})
    before = before if before.get("version") == MEMORY_VERSION else {}
    compared: Mapping[str, str] = before.get("compared", {})
    digests = {
        name: hashlib.blake2b(words.tobytes(), digest_size=8).hexdigest() for name, words in fingerprints.items()
    }
    known = {name: words for name, words in fingerprints.items() if compared.get(name) == digests[name]}
    kept = [DuplicatePair(*row) for row in before.get("pairs", ()) if row[0] in known and row[1] in known]
    new = {name: words for name, words in fingerprints.items() if name not in known}
    pairs = _ranked([*kept, *(find_duplicates(new, known, found=kept) if new else ())])
    rows = [[pair.a, pair.b, pair.similarity, pair.offset] for pair in pairs]
    if new or digests.keys() != compared.keys():
        write_json(memory, {"version": MEMORY_VERSION, "compared": digests, "pairs": rows})
    return pairs


def _ranked(pairs: Iterable[DuplicatePair]) -> list[DuplicatePair]:
    return sorted(pairs, key=lambda pair: (-pair.similarity, pair.a, pair.b))


def _within_groups(same: Iterable[tuple[int, int]]) -> set[tuple[int, int]]:
    """All pairs of tracks that a chain of copies connects."""
    group: dict[int, list[int]] = {}
    for pair in same:
        first, second = (group.setdefault(track, [track]) for track in pair)
        if first is not second:
            small, large = sorted((first, second), key=len)
            large += small
            group |= dict.fromkeys(small, large)
    members = {id(tracks): sorted(tracks) for tracks in group.values()}
    return {pair for tracks in members.values() if len(tracks) <= LARGEST_GROUP for pair in combinations(tracks, 2)}


def _candidates(tracks: Sequence[Fingerprint], fresh: NDArray[np.bool_]) -> set[tuple[int, int]]:
    """Pairs of positions, at least one of them fresh, that share enough words."""
    value, owner = _postings(tracks, fresh)
    starts = np.flatnonzero(np.diff(value, prepend=~value[:1]))
    sizes = np.diff(starts, append=len(value))
    least = np.array([max(LEAST_HITS, LEAST_HIT_SHARE * len(track)) for track in tracks])
    partners = np.repeat(np.where(sizes > MOST_TRACKS_PER_WORD, HUBS, sizes / 2), sizes)
    blocks = np.cumsum(np.bincount(owner, weights=partners, minlength=len(tracks))) // HITS_AT_ONCE
    found: set[tuple[int, int]] = set()
    for block in np.unique(blocks[owner]):
        mine = np.flatnonzero(blocks[owner] == block)
        pair, hits = np.unique(_hits(mine, value, owner, starts, count=len(tracks)), return_counts=True)
        pair, hits = pair[hits >= LEAST_HITS], hits[hits >= LEAST_HITS]
        a, b = np.divmod(pair, len(tracks))
        chosen = (hits >= np.minimum(least[a], least[b])) & (fresh[a] | fresh[b])
        found |= set(zip(a[chosen].tolist(), b[chosen].tolist(), strict=True))
    return found


def _postings(tracks: Sequence[Fingerprint], fresh: NDArray[np.bool_]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """(words, positions of the tracks that have them), sorted: only words that two tracks share, one of them fresh.

    A table of 16 million slots tells in one look-up that a known track's word is in no fresh one, so that one track
    among 100,000 costs a pass over their words and no sorting.
    """
    wanted = np.zeros(1 << 24, dtype=bool)
    for place in np.flatnonzero(fresh).tolist():
        wanted[_slots(tracks[place])] = True
    words = [
        np.unique(track[track != 0] if new else track[(track != 0) & wanted[_slots(track)]])
        for track, new in zip(tracks, fresh, strict=True)
    ]
    lengths = [len(unique) for unique in words]
    keys = np.concatenate([*words, np.zeros(0, dtype=np.uint32)]).astype(np.uint64)
    del words
    keys <<= np.uint64(32)
    keys |= np.repeat(np.arange(len(tracks), dtype=np.uint32), lengths)
    keys.sort()
    value = (keys >> np.uint64(32)).astype(np.uint32)
    twin = value[1:] == value[:-1]
    shared = np.append(twin, False) | np.append(False, twin)[: len(value)]
    value, owner = value[shared], keys[shared].astype(np.uint32).astype(np.int64)
    if fresh.all() or not len(value):
        return value, owner
    starts = np.flatnonzero(np.diff(value, prepend=~value[:1]))
    useful = np.repeat(np.logical_or.reduceat(fresh[owner], starts), np.diff(starts, append=len(value)))
    return value[useful], owner[useful]


def _slots(words: Fingerprint) -> NDArray[np.uint32]:
    return (words * np.uint32(2_654_435_761)) >> np.uint32(8)


def _hits(
    mine: NDArray[np.int64],
    value: NDArray[np.uint32],
    owner: NDArray[np.int64],
    starts: NDArray[np.int64],
    *,
    count: int,
) -> NDArray[np.int64]:
    """`first * count + second` for every word that a track at the entries `mine` shares with one before it.

    All hits of a pair come from entries of its second track, so that tracks can be counted block by block.
    """
    group = np.searchsorted(starts, mine, side="right") - 1
    rank = mine - starts[group]
    crowded = np.diff(starts, append=len(value))[group] > MOST_TRACKS_PER_WORD
    hits = [np.zeros(0, dtype=np.int64)]
    for hub in range(HUBS):
        later = crowded & (rank > hub)
        hits.append(owner[starts[group[later]] + hub] * count + owner[mine[later]])
    at, before = mine[~crowded], rank[~crowded]
    for lag in range(1, MOST_TRACKS_PER_WORD):
        at, before = at[before >= lag], before[before >= lag]
        if not len(at):
            break
        hits.append(owner[at - lag] * count + owner[at])
    return np.concatenate(hits)


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
