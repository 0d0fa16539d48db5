"""Finding where an excerpt of a recording stands in others, though its pitch or its speed was changed a little.

`fingerprint.compare` asks of two whole tracks whether they are one recording. Here every stretch of ten seconds is
looked for by itself, at every offset and undone in `CHANGES` ways, so that a clip that is copied in part is found.

What it cannot find: less than about ten seconds of a copy; pitch and tempo changed apart from each other by more than
the grid of `CHANGES` has; music that was played again, reversed, or cut and put together in another order.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt

from lofi_assets.audio.arrays import FloatArray
from lofi_assets.audio.fingerprint import BITS, WORDS_PER_S, Fingerprint, fingerprints_of
from lofi_assets.workers.side_by_side import side_by_side

BLOCK = 108
"""Words of a stretch: ten seconds. In shorter ones two songs of one band and key agree as much as a damaged copy."""
LEAST_WORDS = 86
"""A clip of fewer words, eight seconds, is not looked for."""
STEP = 2
"""Of neighbouring words, which share nine tenths of their audio, every second one is compared."""
LEAST_SOUNDING = 0.5
"""Share of a stretch that must sound."""


@dataclass(frozen=True, order=True)
class Change:
    """What was done to a copy: `pitch` in semitones, `tempo` as a factor."""

    pitch: float = 0.0
    tempo: float = 1.0


def _changes() -> tuple[Change, ...]:
    """Pitch alone, tempo alone, and both together as when a record runs too fast.

    A third of a semitone apart, since half of that costs a tenth of the agreement, and up to two semitones.
    """
    pitches = (Change(pitch=third / 3.0) for third in range(-6, 7) if third)
    tempi = (Change(tempo=tempo) for tempo in (0.9, 0.95, 1.05, 1.1))
    speeds = (Change(12.0 * float(np.log2(speed)), speed) for speed in (0.94, 0.96, 0.98, 1.02, 1.04, 1.06))
    return (*pitches, *tempi, *speeds)


CHANGES = _changes()


@dataclass(frozen=True)
class Match:
    """Where a stretch of a clip agrees best with a recording."""

    similarity: float
    """1 - bit error rate, in [0, 1]; other music agrees in about half."""
    name: str
    """The recording."""
    at_s: float
    """Into the clip."""
    of_s: float
    """Into the recording."""
    change: Change
    """What was undone to find it."""


def best_matches(
    clips: Mapping[str, FloatArray], recordings: Mapping[str, Fingerprint], *, changes: Sequence[Change] = CHANGES
) -> dict[str, Match | None]:
    """Each clip's stretch that agrees most with one of the recordings; a recording of the clip's own name is left out.

    Args:
        clips: name -> (frames,) at the fingerprint's rate (`at_fingerprint_rate`).
        recordings: name -> words.
        changes: undone besides none at all.
    Returns:
        None for a clip that is too short, silent, or has nothing to be compared with.
    """
    found = side_by_side(lambda mono: list(_stretches(mono, changes)), list(clips.values()))
    stretches = [_Stretch(name, *one) for name, of_clip in zip(clips, found, strict=True) for one in of_clip]
    best: dict[str, Match | None] = dict.fromkeys(clips)
    for length in sorted({stretch.signs.shape[0] for stretch in stretches}):
        alike = [stretch for stretch in stretches if len(stretch.signs) == length]
        queries = np.stack([stretch.signs[::STEP].ravel() for stretch in alike], axis=1)
        sounding = np.abs(queries).sum(axis=0)
        for name, words in recordings.items():
            if len(words) < length:
                continue
            agreement = _windows(signs_of(words), length) @ queries
            places = agreement.argmax(axis=0)
            similarity = 0.5 + 0.5 * agreement.max(axis=0) / sounding
            for stretch, place, value in zip(alike, places.tolist(), similarity.tolist(), strict=True):
                known = best[stretch.clip]
                if stretch.clip != name and (known is None or value > known.similarity):
                    best[stretch.clip] = Match(value, name, stretch.at_s, place / WORDS_PER_S, stretch.change)
    return best


def agreement_at(words: Fingerprint, lag: int) -> float:
    """Share of bits in which a fingerprint agrees with itself `lag` words later, where both sound; 0 if nothing."""
    first, second = words[:-lag], words[lag:]
    both = (first != 0) & (second != 0)
    different = int(np.bitwise_count(first[both] ^ second[both]).sum())
    return 1.0 - different / (BITS * int(both.sum())) if both.any() else 0.0


def signs_of(words: Fingerprint) -> npt.NDArray[np.float32]:
    """(words, 32): bits as +-1, silence as 0."""
    bits = np.unpackbits(words.astype(">u4").view(np.uint8).reshape(-1, 4), axis=1)
    return np.where(words[:, None] == 0, 0.0, bits * 2.0 - 1.0).astype(np.float32)


@dataclass(frozen=True)
class _Stretch:
    clip: str
    signs: npt.NDArray[np.float32]
    at_s: float
    change: Change


def _stretches(mono: FloatArray, changes: Sequence[Change]) -> Iterator[tuple[npt.NDArray[np.float32], float, Change]]:
    """(signs, seconds into the clip, change): half-overlapping as it is, side by side where something is undone."""
    for tempo, alike in groupby(sorted({Change(), *changes}, key=_by_tempo), key=lambda change: change.tempo):
        undone = list(alike)
        pitches = [2.0 ** (change.pitch / 12.0) for change in undone]
        for change, words in zip(undone, fingerprints_of(mono, tempo=tempo, pitches=pitches), strict=True):
            length = min(BLOCK, len(words))
            signs = signs_of(words)
            step = BLOCK // 2 if change == Change() else BLOCK
            for start in range(0, len(words) - length + 1, step) if length >= LEAST_WORDS else ():
                stretch = signs[start : start + length]
                if np.abs(stretch[:, 0]).mean() >= LEAST_SOUNDING:
                    yield stretch, start / tempo / WORDS_PER_S, change


def _by_tempo(change: Change) -> tuple[float, float]:
    return change.tempo, change.pitch


def _windows(signs: npt.NDArray[np.float32], length: int) -> npt.NDArray[np.float32]:
    """(places, words compared * 32): every stretch of `length` words."""
    view = np.lib.stride_tricks.sliding_window_view(signs, length, axis=0)[:, :, ::STEP]
    return np.ascontiguousarray(view.transpose(0, 2, 1)).reshape(len(view), -1)
