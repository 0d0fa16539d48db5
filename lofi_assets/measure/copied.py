"""`copies`: clips of a folder that are recordings of another, found by fingerprint."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic.dataclasses import dataclass

from lofi_assets.audio.fingerprint import DUPLICATE_BER, REVIEW_BER, Fingerprint, fingerprint
from lofi_assets.audio.fingerprint import compare as agreement
from lofi_assets.files.typed import STORED
from lofi_assets.measure.folders import audio_of
from lofi_assets.metrics.embedding import read_samples
from lofi_assets.metrics.errors import MetricError
from lofi_assets.progress import over
from lofi_assets.wording import shortened


@dataclass(frozen=True, kw_only=True, config=STORED)
class Nearest:
    """The recording that a clip agrees with most."""

    recording: str
    similarity: float
    """Share of fingerprint bits that agree at the best offset; .5 is chance, 1 the same recording."""
    offset_s: float
    """Seconds into the recording at which the clip starts; negative if the recording starts later."""
    verdict: Literal["copy", "listen", "other"]
    """From .85 on a copy; from .62 on a person should listen."""


@dataclass(frozen=True, kw_only=True, config=STORED)
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
    """For each clip of a folder the recording of a reference folder that it agrees with most.

    The fingerprint (Haitsma and Kalker 2002) does not hear level, format, edges or a low-pass; it does not follow a
    change of pitch or speed by more than a few per cent, and it needs half of the shorter of two clips to overlap.

    Raises:
        MetricError: a folder with fewer than two audio files, or clips that cannot be read or are too short or too
            silent to be compared, all of them named.
    """
    known, clips = audio_of(reference), audio_of(folder)
    return nearest_of(words_of(clips), words_of(known), reference=str(reference), folder=str(folder))


def words_of(files: Mapping[str, Path]) -> dict[str, Fingerprint]:
    """Fingerprint of every file, by its name; MetricError that names all files without one."""
    found: dict[str, Fingerprint] = {}
    faults: list[str] = []
    for name, path in over(list(files.items()), "fingerprinting", unit="clip"):
        try:
            samples, rate = read_samples(path)
            found[name] = fingerprint(samples, sample_rate=rate)
        except MetricError as error:
            faults.append(str(error))
            continue
        if not found[name].any():
            faults.append(f"{path}: too short or too silent for a fingerprint")
    if faults:
        raise MetricError(f"{len(faults)} of {len(files)} files: " + "; ".join(shortened(faults, most=5)))
    return found


def nearest_of(
    clips: Mapping[str, Fingerprint], recordings: Mapping[str, Fingerprint], *, reference: str, folder: str
) -> Copies:
    """The nearest recording of every clip; both are not empty."""
    nearest = {name: _nearest(words, recordings) for name, words in clips.items()}
    names = sorted(recordings)
    among = [agreement(recordings[a], recordings[b])[0] for i, a in enumerate(names) for b in names[i + 1 :]]
    ranked = dict(sorted(nearest.items(), key=lambda item: (-item[1].similarity, item[0])))
    return Copies(
        reference=reference,
        folder=folder,
        clips=ranked,
        highest=max(found.similarity for found in nearest.values()),
        floor=max(among),
        copied=sum(found.verdict == "copy" for found in nearest.values()),
    )


def _nearest(words: Fingerprint, recordings: Mapping[str, Fingerprint]) -> Nearest:
    found = {name: agreement(known, words) for name, known in recordings.items()}
    name = max(sorted(found), key=lambda each: found[each][0])
    similarity, offset = found[name]
    verdict: Literal["copy", "listen", "other"] = "other"
    if 1.0 - similarity < REVIEW_BER:
        verdict = "copy" if 1.0 - similarity < DUPLICATE_BER else "listen"
    return Nearest(recording=name, similarity=similarity, offset_s=offset, verdict=verdict)
