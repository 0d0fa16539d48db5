"""`copies`: clips of a folder that are recordings of another, also in part, found by fingerprint."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic.dataclasses import dataclass as stored

from lofi_assets.audio.arrays import FloatArray
from lofi_assets.audio.excerpts import LEAST_WORDS, Match, best_matches
from lofi_assets.audio.fingerprint import WORDS_PER_S, Fingerprint, at_fingerprint_rate, fingerprints_of
from lofi_assets.files.typed import STORED
from lofi_assets.measure.folders import audio_of
from lofi_assets.metrics.embedding import read_samples
from lofi_assets.metrics.errors import MetricError
from lofi_assets.metrics.sample_checks import COPY_FROM
from lofi_assets.progress import over
from lofi_assets.wording import shortened


@dataclass(frozen=True)
class Heard:
    """The files of a folder, by name."""

    audio: Mapping[str, FloatArray]
    """(frames,) at the fingerprint's rate."""
    words: Mapping[str, Fingerprint]


@stored(frozen=True, kw_only=True, config=STORED)
class Nearest:
    """The recording that ten seconds of a clip agree with most."""

    recording: str
    similarity: float
    """Share of fingerprint bits that agree; about .5 is chance, 1 the same recording."""
    at_s: float
    """Seconds into the clip."""
    of_s: float
    """Seconds into the recording."""
    pitch: float
    """Semitones by which the clip lies above the recording."""
    tempo: float
    """Tempo of the clip over that of the recording."""
    verdict: Literal["copy", "listen", "other"]
    """A copy from `COPY_FROM` on, unless recordings of the reference agree as much: then a person listens."""


@stored(frozen=True, kw_only=True, config=STORED)
class Copies:
    """Every clip of a folder with its nearest recording of the reference."""

    reference: str
    folder: str
    clips: dict[str, Nearest]
    """The nearest first."""
    highest: float
    """Highest similarity of a clip to a recording."""
    floor: float
    """Highest similarity of two recordings of the reference to each other: what music of this kind reads."""
    copied: int
    """Clips that are copies."""


def copies(reference: Path | str, folder: Path | str) -> Copies:
    """For each clip of a folder the recording of a reference folder that ten seconds of it agree with most.

    The fingerprint does not hear level, format or a low-pass, and pitch and speed are undone in a grid of changes
    (`audio.excerpts`, which says what is not found).

    Raises:
        MetricError: a folder with fewer than two audio files, or clips that cannot be read or are too short or too
            silent to be compared, all of them named.
    """
    known, clips = read_all(audio_of(reference)), read_all(audio_of(folder))
    return nearest_of(clips, known, floor=similarity_among(known), reference=str(reference), folder=str(folder))


def read_all(files: Mapping[str, Path]) -> Heard:
    """Every file at the fingerprint's rate; MetricError that names all that cannot be compared."""
    audio: dict[str, FloatArray] = {}
    words: dict[str, Fingerprint] = {}
    faults: list[str] = []
    for name, path in over(list(files.items()), "reading", unit="clip"):
        try:
            samples, rate = read_samples(path)
        except MetricError as error:
            faults.append(str(error))
            continue
        audio[name] = at_fingerprint_rate(samples, sample_rate=rate)
        words[name] = fingerprints_of(audio[name])[0]
        if len(words[name]) < LEAST_WORDS or not words[name].any():
            least = LEAST_WORDS / WORDS_PER_S
            faults.append(f"{path}: too short or too silent for a fingerprint; it takes {least:.0f} s")
    if faults:
        raise MetricError(f"{len(faults)} of {len(files)} files: " + "; ".join(shortened(faults, most=5)))
    return Heard(audio, words)


def similarity_among(recordings: Heard) -> float:
    """Highest similarity of two recordings to each other, as they are."""
    found = best_matches(recordings.audio, recordings.words, changes=()).values()
    return max((match.similarity for match in found if match), default=0.0)


def nearest_of(clips: Heard, recordings: Heard, *, floor: float, reference: str, folder: str) -> Copies:
    """The nearest recording of every clip; both are not empty."""
    apart = {f"{name} (clip)": mono for name, mono in clips.audio.items()}  # a clip may be called like a recording
    matches = best_matches(apart, recordings.words)
    nearest: dict[str, Nearest] = {}
    for name in clips.audio:
        match = matches[f"{name} (clip)"]
        if match is None:
            raise MetricError(f"{name}: too silent to be compared")
        nearest[name] = _nearest(match, floor=floor)
    ranked = dict(sorted(nearest.items(), key=lambda item: (-item[1].similarity, item[0])))
    return Copies(
        reference=reference,
        folder=folder,
        clips=ranked,
        highest=max(found.similarity for found in nearest.values()),
        floor=floor,
        copied=sum(found.verdict == "copy" for found in nearest.values()),
    )


def _nearest(match: Match, *, floor: float) -> Nearest:
    verdict: Literal["copy", "listen", "other"] = "other"
    if match.similarity >= COPY_FROM:
        verdict = "copy" if match.similarity > floor else "listen"
    return Nearest(
        recording=match.name,
        similarity=match.similarity,
        at_s=match.at_s,
        of_s=match.of_s,
        pitch=match.change.pitch,
        tempo=match.change.tempo,
        verdict=verdict,
    )
