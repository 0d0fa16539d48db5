"""What is measured of a model's samples beside distances, as it is stored: copies, spread, signal, adherence.

A number that could not be taken is None, with a note beside it.
"""

from collections.abc import Mapping

from pydantic.dataclasses import dataclass

from lofi_assets.files.typed import STORED
from lofi_assets.metrics.number import Number

CHECKS_VERSION = "1"
"""Raised when a check, a limit or a margin changes: every checkpoint is then evaluated again."""

COPY_FROM = 0.73
"""Similarity from which ten seconds are shown as a copy; docs/decisions/019 has the figures. The gates' own limit,
which alone decides, is the constitution's; a test holds the two together."""


@dataclass(frozen=True, kw_only=True, config=STORED)
class CopyFound:
    """Where a clip agrees most with another recording (`audio.excerpts.Match`)."""

    similarity: float
    """1 - bit error rate over ten seconds, in [0, 1]; other music has .55 to .7."""
    recording: str
    at_s: float
    """Into the clip."""
    of_s: float
    """Into the recording."""
    pitch: float
    """Semitones by which the clip is higher than the recording."""
    tempo: float
    """Times as fast as the recording."""


@dataclass(frozen=True, kw_only=True, config=STORED)
class CheckedClip:
    """One sample."""

    file: str
    style_id: str
    bpm_asked: int | None
    """None: the prompt names none."""
    bpm_found: Number
    key_asked: str | None
    key_found: str | None
    artefacts: tuple[str, ...]
    """What nobody would publish."""
    outside: tuple[str, ...]
    """Numbers beyond the range of real clips."""
    nearest: CopyFound | None
    """Among the real tracks; None: too short to be compared."""
    tag_auc: Number = None
    """How far the prompt's own labels rank above the others; None: it has none."""
    bpm_confidence: Number = None
    """Of `bpm_found`, in [0, 1]; None where there is no tempo, and of samples that were checked before it was kept."""
    loudness_lufs: Number = None
    """Integrated loudness (ITU-R BS.1770); None where nothing could be measured, and as of `bpm_confidence`."""


@dataclass(frozen=True, kw_only=True, config=STORED)
class Copies:
    """Whether samples are copies of the tracks that were trained on or measured against."""

    similarity: Number
    """Of the sample that agrees most with a real track, training and validation."""
    validation: Number
    """The same of the validation tracks with the training tracks: what other music reads."""
    nearness_p: Number
    """One-sided Mann-Whitney p: the samples lie nearer to the training tracks in the embedding than the validation
    tracks do (Meehan, Chaudhuri and Dasgupta, A Non-Parametric Test to Detect Data-Copying in Generative Models,
    AISTATS 2020); small is near."""
    distance: Number
    """Median distance of a sample to its nearest training track, in spreads of the training tracks."""
    validation_distance: Number
    n_recordings: int
    note: str = ""
    nearness_note: str = ""


@dataclass(frozen=True, kw_only=True, config=STORED)
class Diversity:
    """Whether samples differ from each other as real tracks do."""

    similarity: Number
    """Of the two samples that agree most by fingerprint."""
    pair: tuple[str, ...]
    """Those two."""
    reference_similarity: Number
    """The same of the validation tracks."""
    spread: Number
    """Mean distance of two samples in the embedding, in spreads of the training tracks."""
    reference_spread: Number
    over_reference: Number
    """spread / reference_spread."""
    note: str = ""


@dataclass(frozen=True, kw_only=True, config=STORED)
class Signal:
    """The full band and both channels of samples against those of real tracks."""

    clips_with_artefacts: int | None
    share_outside: Number
    """Of the samples: with a number beyond the range of real clips."""
    ranges: Mapping[str, tuple[float, float]]
    """Number -> its range over real clips."""
    n_real: int
    note: str = ""


@dataclass(frozen=True, kw_only=True, config=STORED)
class Followed:
    """How many clips have what their prompt asks for."""

    asked: int
    right: int
    others: Number
    """Share that also has what the other prompts ask for: the rate of a model that does not listen."""

    @property
    def share(self) -> float | None:
        """right / asked; None if nothing was asked."""
        return self.right / self.asked if self.asked else None


@dataclass(frozen=True, kw_only=True, config=STORED)
class Adherence:
    """Tempo and key of samples against their prompts, and the same of the real clips as the ceiling."""

    tempo: Followed
    real_tempo: Followed
    relative_tempo: Number
    """(share - others) / (real share - real others): 0 for one tempo whatever is asked, 1 for as near as real clips."""
    key: Followed
    real_key: Followed
    note: str = ""


@dataclass(frozen=True, kw_only=True, config=STORED)
class SampleChecks:
    """Of one checkpoint, or of the base."""

    clips: tuple[CheckedClip, ...]
    copies: Copies
    diversity: Diversity
    signal: Signal
    adherence: Adherence
