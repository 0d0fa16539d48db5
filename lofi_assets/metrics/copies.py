"""Whether samples are copies: of the tracks that were trained on or measured against, or of each other.

The fingerprint finds ten seconds of a recording at any offset, level and bit rate, and with its pitch or speed changed
a little (`audio/excerpts.py` says what it does not find). The embedding finds no recording; it says whether samples as
a set lie nearer to the training tracks than music does that was held out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import comb

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist, pdist
from scipy.stats import mannwhitneyu

from lofi_assets.audio.arrays import FloatArray
from lofi_assets.audio.excerpts import Match, best_matches
from lofi_assets.audio.fingerprint import Fingerprint
from lofi_assets.metrics.known_music import KnownMusic
from lofi_assets.metrics.sample_checks import Copies, Diversity
from lofi_assets.wording import named

LEAST_P = 0.01
"""A p that few clips cannot reach is not given."""


def nearest_tracks(audio: Mapping[str, FloatArray], known: KnownMusic) -> dict[str, Match | None]:
    """Where each sample agrees most with a real track; samples are (frames,) at the fingerprint's rate."""
    apart = {f"{name} (sample)": mono for name, mono in audio.items()}  # a sample may be called like a track
    found = best_matches(apart, known.words)
    return {name: found[f"{name} (sample)"] for name in audio}


def copies_of(
    matches: Mapping[str, Match | None], means: npt.NDArray[np.float64] | None, known: KnownMusic, *, note: str
) -> Copies:
    """Nearness of samples to real tracks.

    Args:
        matches: of every sample, by `nearest_tracks`.
        means: (samples, dim) in the embedding; None, with `note`, where it could not be had.
    """
    compared = [match.similarity for match in matches.values() if match]
    missing = [name for name, match in matches.items() if match is None]
    result = Copies(
        similarity=max(compared) if compared and not missing else None,
        validation=known.similarity,
        nearness_p=None,
        distance=None,
        validation_distance=None,
        n_recordings=len(known.words),
        note=_why(matches, missing) + (f"; of the others {max(compared):.2f}" if compared and missing else ""),
        nearness_note=note or known.embedding_note,
    )
    music = known.embedded
    if means is None or not len(means) or music is None:
        return replace(result, nearness_note=result.nearness_note or "no samples were generated")
    ours = cdist(means / music.spreads, music.training).min(axis=1)
    theirs = cdist(music.validation, music.training).min(axis=1)
    result = replace(result, distance=float(np.median(ours)), validation_distance=float(np.median(theirs)))
    if 1.0 / comb(len(ours) + len(theirs), len(ours)) >= LEAST_P:
        few = f"{len(ours)} samples and {len(theirs)} validation tracks are too few to tell"
        return replace(result, nearness_note=few)
    return replace(result, nearness_p=float(mannwhitneyu(ours, theirs, alternative="less").pvalue))


def diversity_of(
    audio: Mapping[str, FloatArray],
    words: Mapping[str, Fingerprint],
    means: npt.NDArray[np.float64] | None,
    known: KnownMusic,
    *,
    note: str,
    lost: Sequence[str] = (),
) -> Diversity:
    """Difference of samples from each other, with that of the validation tracks beside it.

    Args:
        words: fingerprint of every sample.
        means, note: as for `copies_of`.
        lost: samples that hold nothing to be compared.
    """
    matches = best_matches(audio, words, changes=())
    best = max(matches.items(), key=lambda item: item[1].similarity if item[1] else -1.0, default=("", None))
    missing = [*lost, *(name for name, match in matches.items() if match is None)]
    whole = len(audio) > 1 and not missing
    music = known.embedded
    spread = _spread(None if means is None or music is None else means / music.spreads)
    real = _spread(music.validation if music else None)
    few = "fewer than 2 samples" if len(audio) + len(lost) < 2 else ""
    return Diversity(
        similarity=best[1].similarity if best[1] and whole else None,
        pair=(best[0], best[1].name) if best[1] and whole else (),
        reference_similarity=known.validation_similarity,
        spread=spread,
        reference_spread=real,
        over_reference=spread / real if spread is not None and real else None,
        note=few or note or known.embedding_note or _why(matches, missing),
    )


def _spread(means: npt.NDArray[np.float64] | None) -> float | None:
    return None if means is None or len(means) < 2 else float(pdist(means).mean())


def _why(matches: Mapping[str, Match | None], missing: Sequence[str]) -> str:
    if missing:
        return f"{named(sorted(missing))}: too short or too silent to be compared"
    return "" if matches else "no samples were generated"
