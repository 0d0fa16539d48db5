"""What the metrics give back, as it is stored and read where nothing is computed: without numpy.

A number that could not be taken is None, with a note beside it. NaN and infinity are such numbers: JSON has neither.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic.dataclasses import dataclass

from lofi_assets.files.typed import STORED
from lofi_assets.metrics.number import Number
from lofi_assets.metrics.sample_checks import SampleChecks

Verdict = Literal["indistinguishable", "distinguishable", "inconclusive"]


@dataclass(frozen=True, kw_only=True, config=STORED)
class FrechetResult:
    """FAD with what it takes to read it; `value` is None, with a note, when it could not be measured."""

    value: Number
    interval: tuple[Number, Number] | None
    """95 %, clip bootstrap of both sets."""
    floor: Number
    """Median FAD between halves of the reference: what this encoder reads when there is no difference."""
    over_floor: Number
    infinity: Number
    """FAD extrapolated to endless samples, where there are enough of them."""
    kad: Number
    n_clips: int
    n_windows: int
    n_reference_clips: int
    n_reference_windows: int
    enough_windows: bool
    note: str = ""


@dataclass(frozen=True, kw_only=True, config=STORED)
class RelativeAlignment:
    """CLAP alignment against real and shuffled pairs; `value` is None, with a note, when it means nothing."""

    value: Number
    """A in the formula of `metrics.alignment`."""
    lower: Number
    """One-sided 95 % lower bound, clip bootstrap."""
    raw_cosine: float
    """Mean cosine of generated clips with their prompts."""
    real_cosine: float
    """Mean cosine of real clips with their own captions."""
    shuffled_cosine: Number
    """Mean cosine of real clips with the other captions."""
    n_generated: int
    n_real: int
    note: str = ""


@dataclass(frozen=True, kw_only=True, config=STORED)
class TagAlignment:
    """How far the tagger ranks a prompt's own labels above all others. This is not CLAP."""

    auc: Number
    """0.5 is chance, 1 is perfect: mean over clips of P(own label ranks above another)."""
    lower: Number
    """One-sided 95 % lower bound, clip bootstrap."""
    reference_auc: Number
    """The same for the reference clips with their own prompts: what a real clip reaches."""
    n_clips: int
    """Generated clips whose prompt has a label."""
    n_unmapped: int
    """Generated clips left out, their prompts having none."""
    note: str = ""


@dataclass(frozen=True, config=STORED)
class StyleFound:
    """One style that was asked for."""

    generated: bool
    """Every sample is usable."""
    recognizable: bool
    """Its hits lie above chance."""


@dataclass(frozen=True, kw_only=True, config=STORED)
class StyleCoverage:
    """Per style as the data model has it, with the counts it rests on."""

    styles: Mapping[str, StyleFound]
    """By style id."""
    top1: Number
    """Share of samples nearest to their own style's centroid."""
    top1_lower: Number
    """One-sided 95 % Clopper-Pearson lower bound of it."""
    chance: Number
    """1 / number of styles with a centroid."""
    without_reference: tuple[str, ...]
    """Styles that no reference track has, so that nothing could be recognised."""


@dataclass(frozen=True, kw_only=True, config=STORED)
class Evaluation:
    """Everything measured of one checkpoint."""

    checkpoint_id: str
    encoder: str
    encoder_version: str
    encoder_weights_sha256: str
    trained: bool
    reference_sha256: str
    """Over the reference's audio hashes, in any order."""
    fad: FrechetResult
    clap: RelativeAlignment | None
    clap_note: str
    """Why `clap` is None, or which checkpoint it is of."""
    tag_alignment: TagAlignment | None
    style_coverage: StyleCoverage
    problems: Mapping[str, tuple[str, ...]]
    """Per sample file name what is wrong with its audio; without those that are right."""
    checks: SampleChecks | None = None
    """Copies, diversity, signal, adherence; None: not measured, as in earlier versions."""


@dataclass(frozen=True, kw_only=True, config=STORED)
class NoiseDistances:
    """White noise against the reference, the worst that a generator can do; None where it was not measured."""

    fad: Number = None
    kad: Number = None


@dataclass(frozen=True, kw_only=True, config=STORED)
class TierFidelity:
    """How much farther from the reference a tier lies than FP32, on paired samples."""

    ratio: Number
    """FAD_tier / FAD_fp32 - 1."""
    upper: Number
    """One-sided 95 % upper bound, by which the tolerance is judged; None, with a note, where it is endless."""
    fad_fp32: Number
    fad_tier: Number
    fad_between: Number
    """FAD of the tier's samples against FP32's own: finer than the ratio."""
    n_pairs: int
    encoder: str
    encoder_version: str
    trained: bool
    note: str = ""


@dataclass(frozen=True, kw_only=True, config=STORED)
class ListeningResult:
    """Statistics of a listening test; `verdict` is the only field that supports "indistinguishable"."""

    evaluator_count: int
    n_trials: int
    n_correct: int
    accuracy: float
    accuracy_interval: tuple[float, float]
    """95 % Clopper-Pearson, trials taken as independent."""
    listener_interval: tuple[float, float] | None
    """95 % bootstrap over listeners; None for one listener."""
    p_value: float
    """Exact two-sided binomial test against guessing."""
    equivalence_p: float
    """Exact TOST on the effective number of trials."""
    margin: float
    verdict: Verdict
    hit_rate: float
    """Generated clips called AI."""
    false_alarm_rate: float
    """Real clips called AI."""
    d_prime: float
    """Sensitivity apart from the habit of one answer (log-linear correction)."""
    design_effect: float
    effective_trials: int
    trials_needed: int
    """In all, for power 0.8 at this design effect when listeners truly guess."""
    trials_missing: int
    listeners: tuple[str, ...]
    """As they were counted, one entry per person with every spelling: `Ann`, or `Ann (also ann, ANN)`."""
    excluded_listeners: tuple[str, ...]
    """Those who called a control real, in the same form; they are not among `listeners`."""
    notes: tuple[str, ...]
    date: str
    """ISO date of the last answer."""

    def human_evaluation(self) -> dict[str, Any]:
        """The data model's object."""
        return {
            "evaluator_count": self.evaluator_count,
            "accuracy": self.accuracy,
            "p_value": self.p_value,
            "date": self.date,
        }
