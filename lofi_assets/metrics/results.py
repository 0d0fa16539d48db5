"""What the metrics give back, as it is stored and read where nothing is computed: without numpy.

A number that could not be taken is None, with a note beside it. NaN and infinity are such numbers: JSON has neither.
"""

from collections.abc import Mapping
from dataclasses import field
from typing import Any, Literal

from pydantic.dataclasses import dataclass

from lofi_assets.files.typed import STORED
from lofi_assets.metrics.number import Number
from lofi_assets.metrics.sample_checks import SampleChecks

Verdict = Literal["indistinguishable", "distinguishable", "inconclusive"]
FEWEST_PAIRS = 16
"""Pairs of clips; with fewer, a tier's distance has no bound. From 16 on it lets about 1 in 20 tiers pass, at most,
that are worse by just the tolerance (`lofi_assets_tests/metrics/test_metrics_coverage.py`)."""


@dataclass(frozen=True, kw_only=True, config=STORED)
class ProofCheck:
    """One thing that an encoder was asked."""

    name: str
    value: Number
    """What came out; None where it is no number."""
    passed: bool | None
    """None: worth knowing, and decides nothing."""
    told: str
    """For people: the value, what was asked of it, and where that comes from."""


@dataclass(frozen=True, kw_only=True, config=STORED)
class EncoderProof:
    """Everything that an encoder was asked when it was loaded."""

    checks: tuple[ProofCheck, ...]

    @property
    def trained(self) -> bool:
        """Something decided, and nothing failed."""
        decided = [check.passed for check in self.checks if check.passed is not None]
        return bool(decided) and all(decided)

    @property
    def text(self) -> str:
        """For people: the checks that failed, or all that passed."""
        failed = [check for check in self.checks if check.passed is False]
        return "; ".join(check.told for check in failed or self.checks)


@dataclass(frozen=True, kw_only=True, config=STORED)
class FrechetResult:
    """FAD with what it takes to read it; `value` is None, with a note, when it could not be measured."""

    value: Number
    interval: tuple[Number, Number] | None
    """95 % for the mean FAD of such sets at these numbers of clips, bias of few clips included: jackknife over the
    clips of both sets. It is not one for the FAD of endless sets, which lies below."""
    floor: Number
    """Mean FAD that as many clips of the reference's own kind have to it: what this encoder reads here when there is no
    difference."""
    over_floor: Number
    """`value` / `floor`: about 1 for clips like the reference's, up to 1.5 where there are fewer than 16 on a side."""
    infinity: Number
    """FAD extrapolated to endless clips on both sides, where that can be told."""
    infinity_note: str
    """Why `infinity` is None."""
    by_clip: Mapping[str, Number]
    """FAD of each clip alone to the reference, the farthest first. It ranks clips; it is no FAD of a set. Empty where
    clips have too few windows."""
    real_by_clip: tuple[Number, Number] | None
    """Median and highest of the same for reference clips to the rest of the reference, cut to as many windows."""
    kad: Number
    """KAD over pairs of clips; its mean is zero where there is no difference."""
    kad_interval: tuple[Number, Number] | None
    """95 % for the KAD of endless clips, jackknife over the clips of both sets."""
    kad_floor: Number
    """KAD that as many clips of the reference's own kind stay below, 19 times of 20."""
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
    """One-sided 95 % lower bound, over prompts."""
    raw_cosine: float
    """Mean cosine of generated clips with their prompts."""
    shuffled_cosine: Number
    """Mean cosine of generated clips with each other's prompts."""
    real_cosine: float
    """Mean cosine of real clips with their own captions."""
    real_shuffled_cosine: Number
    """Mean cosine of real clips with each other's captions."""
    captions_p: Number
    """Chance of real clips this close to their captions if the captions were dealt at random."""
    recall: Number
    """R@1: share of generated clips whose nearest prompt is of their style."""
    recall_chance: Number
    """R@1 of the same nearest prompts if the clips were dealt at random."""
    real_recall: Number
    real_recall_chance: Number
    n_generated: int
    n_real: int
    n_prompts: int
    """Different prompts of the generated clips."""
    note: str = ""


@dataclass(frozen=True, kw_only=True, config=STORED)
class TagAlignment:
    """Whether a label of the tagger is higher in clips asked for it than in the others. This is not CLAP."""

    auc: Number
    """0.5 is chance and what one clip for every prompt has, 1 is perfect: P(a clip asked for a label has more of it
    than one that was not)."""
    lower: Number
    """One-sided 95 % lower bound, jackknife over clips."""
    reference_auc: Number
    """The same for the reference clips with their own prompts: what real clips reach."""
    n_clips: int
    """Generated clips that were asked for a label which others were not asked for."""
    n_unmapped: int
    """Generated clips left out, having no such label."""
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
class Aesthetics:
    """Scores that a model predicts people would give, 1 to 10 (`metrics.aesthetics`). Advisory: no gate reads them."""

    scorer: str
    version: str
    weights_sha256: str
    trained: bool
    """What `proof` came to."""
    proof: EncoderProof
    clips: Mapping[str, Mapping[str, Number]]
    """File name -> axis -> score."""
    means: Mapping[str, Number]
    """Axis -> mean over the clips; None where one of them has no score."""
    note: str = ""


@dataclass(frozen=True, kw_only=True, config=STORED)
class Evaluation:
    """Everything measured of one checkpoint."""

    checkpoint_id: str
    encoder: str
    encoder_version: str
    encoder_weights_sha256: str
    trained: bool
    """What `proof` came to when the numbers were taken."""
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
    proof: EncoderProof | None = None
    """What the encoder was asked; None of numbers that were taken before encoders were."""
    clap_proof: EncoderProof | None = None
    """What CLAP was asked; None without CLAP, and before it was."""
    checks: SampleChecks | None = None
    """Copies, diversity, signal, adherence; None: not measured, as in earlier versions."""
    aesthetics: Aesthetics | None = None
    """None: the profile names no scorer, or an earlier version measured."""


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
    """One-sided 95 % upper bound, by which the tolerance is judged, never below `ratio`; None, with a note, where there
    are too few pairs or it is endless."""
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
class FormResult:
    """One form of question of a listening test."""

    n_trials: int
    n_correct: int
    accuracy: float
    p_value: float
    equivalence_p: float
    design_effect: float


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
    """Exact two-sided binomial test against guessing, as if there were no other look."""
    equivalence_p: float
    """The larger of exact TOST on the effective trials and TOST by Student's t on the listeners' shares."""
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
    """Whose answers count, one entry per invitation; up to version 1, per name as it was typed."""
    excluded_listeners: tuple[str, ...]
    """Those whom the rule leaves out, each with the reason; they are not among `listeners`."""
    notes: tuple[str, ...]
    date: str
    """ISO date of the last answer."""
    forms: Mapping[str, FormResult] = field(default_factory=dict)
    """By form of question; none in what was recorded before there were two."""
    look: int = 0
    """Which planned look this is; 0 in what was recorded before looks were planned, which supports no claim."""
    looks: int = 0
    adjusted_p: Number = None
    """`p_value` with the earlier looks accounted for."""

    def human_evaluation(self) -> dict[str, Any]:
        """The data model's object."""
        return {
            "evaluator_count": self.evaluator_count,
            "accuracy": self.accuracy,
            "p_value": self.p_value,
            "date": self.date,
        }
