"""The real tracks that samples are compared with, measured once for all checkpoints: training and validation.

What belongs here: their fingerprints, the range of their signals, their place in the embedding, and what other music
reads when it is compared with them. What does not: samples (`checked_samples.py`).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lofi_assets.audio.excerpts import Match, best_matches
from lofi_assets.audio.fingerprint import Fingerprint, at_fingerprint_rate
from lofi_assets.metrics.clip_measures import SAMPLE_RATE, ClipMeasures, clip_audio, measured_clips, middle
from lofi_assets.metrics.embedding import Embedder, embed_files
from lofi_assets.metrics.errors import MetricError, attempt
from lofi_assets.metrics.signal_range import Range, range_of

Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class KnownMusic:
    """Training and validation tracks as `known_music` measured them."""

    words: Mapping[str, Fingerprint]
    """Track -> fingerprint of the whole track, of both splits."""
    training_words: Mapping[str, Fingerprint]
    ranges: Mapping[str, Range]
    n_real: int
    """Clips that the ranges rest on."""
    validation: tuple[ClipMeasures, ...]
    """The middle of each validation track, in their order."""
    validation_prompts: tuple[str, ...]
    similarity: float | None
    """Of the validation track that agrees most with a training track."""
    validation_similarity: float | None
    """Of the two validation tracks that agree most."""
    embedded: "EmbeddedMusic | None"
    """None, with `embedding_note`, for an untrained encoder or fewer than two training tracks."""
    embedding_note: str = ""


@dataclass(frozen=True, kw_only=True)
class EmbeddedMusic:
    """Mean embeddings of the real tracks, in spreads of the training tracks."""

    training: Float64Array
    """(tracks, dim)"""
    validation: Float64Array
    """(tracks, dim)"""
    spreads: Float64Array
    """(dim,) by which other means are divided before they are compared with these."""


def known_music(
    *,
    training: Sequence[Path],
    validation: Sequence[Path],
    prompts: Sequence[str],
    embedder: Embedder,
    cache_dir: Path,
    seconds: float | None,
    progress: bool = True,
) -> KnownMusic:
    """Measure the real tracks.

    Args:
        prompts: of the validation tracks, in their order.
        seconds: length of a sample; the middle of each track is compared with samples.
    Raises:
        MetricError: a track cannot be read. That is no property of a checkpoint.
    """
    paths = [*training, *validation]
    found = measured_clips(
        paths, seconds=seconds, cache_dir=cache_dir, label="measuring real tracks", progress=progress
    )
    for path, clip in found.items():
        if not clip.words:
            raise MetricError(f"{path}: {clip.fault}; restore the dataset version")
    names = names_of(paths)
    words = {names[path]: clip.fingerprint for path, clip in found.items()}
    training_words = {names[path]: words[names[path]] for path in training}
    held_out = {names[path]: _excerpt(path, seconds=seconds) for path in validation}
    panels = [clip.panel for clip in found.values() if clip.panel]
    embedded, embedding_note = attempt(lambda: _embedded(training, validation, embedder, cache_dir, progress=progress))
    return KnownMusic(
        words=words,
        training_words=training_words,
        ranges=range_of(panels),
        n_real=len(panels),
        validation=tuple(found[path] for path in validation),
        validation_prompts=tuple(prompts),
        similarity=highest(best_matches(held_out, training_words)),
        validation_similarity=highest(best_matches(held_out, {name: words[name] for name in held_out}, changes=())),
        embedded=embedded,
        embedding_note=embedding_note,
    )


def names_of(paths: Sequence[Path]) -> dict[Path, str]:
    """What each file is called: its name without suffix, or its whole path where two have one name."""
    stems = Counter(path.stem for path in set(paths))
    return {path: path.stem if stems[path.stem] == 1 else str(path) for path in paths}


def _excerpt(path: Path, *, seconds: float | None) -> npt.NDArray[np.float32]:
    return at_fingerprint_rate(middle(clip_audio(path), seconds=seconds), sample_rate=SAMPLE_RATE)


def highest(matches: Mapping[str, Match | None]) -> float | None:
    """The highest similarity; None if nothing could be compared."""
    return max((match.similarity for match in matches.values() if match), default=None)


def clip_means(paths: Sequence[Path], embedder: Embedder, cache_dir: Path, *, progress: bool) -> Float64Array:
    """(clips, dim): mean of each clip's windows.

    Raises:
        MetricError: the encoder is untrained, or a clip cannot be embedded.
    """
    if embedder.trained is not True:
        raise MetricError(f"{embedder.name} is untrained: its distances mean nothing")
    windows = embed_files(paths, embedder, cache_dir, progress=progress)
    return np.array([windows[path].mean(axis=0, dtype=np.float64) for path in paths]).reshape(-1, embedder.dim)


def _embedded(
    training: Sequence[Path], validation: Sequence[Path], embedder: Embedder, cache_dir: Path, *, progress: bool
) -> EmbeddedMusic:
    if len(training) < 2:
        raise MetricError(f"{len(training)} training track; their spread needs at least 2")
    means = clip_means([*training, *validation], embedder, cache_dir, progress=progress)
    trained, held_out = means[: len(training)], means[len(training) :]
    spreads = spreads_of(trained)
    return EmbeddedMusic(training=trained / spreads, validation=held_out / spreads, spreads=spreads)


def spreads_of(means: Float64Array) -> Float64Array:
    """(dim,) standard deviations of (clips, dim), of 2 clips at least, none under the median one.

    A dimension that real music hardly moves would otherwise decide every distance.
    """
    spread: Float64Array = means.std(axis=0, ddof=1)
    floor = float(np.median(spread))
    floored: Float64Array = np.maximum(spread, floor if floor > 0.0 else 1.0)
    return floored
