"""Can listeners tell generated tracks from real ones? The statistics that bear a claim.

`p > 0.05` alone is passed by asking few people: with 20 trials, listeners who are right six times in ten are missed
seven times in eight. So beside the constitution's test stands an equivalence test (TOST); the verdict rests on both.
Answers of one listener, and answers about one clip, resemble each other; the equivalence test therefore runs on the
effective number of trials, and again on the listeners' own shares, and the larger p counts. Both tests are at the
levels of the look (`sequential.py`).
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtr

from lofi_assets.metrics import binomial
from lofi_assets.metrics.errors import MetricError
from lofi_assets.metrics.listener_screening import Form, Said
from lofi_assets.metrics.results import FormResult, ListeningResult, Verdict

MIN_LISTENERS = 2
"""One listener, however patient, says nothing about listeners."""
BALANCE = (0.4, 0.6)
"""Share of generated clips; outside it "always AI" beats guessing, and accuracy no longer means telling apart."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One answer of one listener that counts."""

    listener: str
    form: Form
    clip: str
    """The recording that the excerpt is of; of a pair, the generated one."""
    truth: Said
    answer: Said
    style_id: str | None = None

    @property
    def correct(self) -> bool:
        return self.answer == self.truth

    @property
    def signal(self) -> bool:
        """Whether the only excerpt, or the first of two, is generated."""
        return self.truth in ("ai", "first")

    @property
    def yes(self) -> bool:
        """Whether the only excerpt, or the first of two, was called AI."""
        return self.answer in ("ai", "first")


@dataclass(frozen=True, kw_only=True)
class Levels:
    """At which levels a look is tested."""

    p: float = 0.05
    """Two-sided, against guessing."""
    equivalence: float = 0.05
    """Of each of the two one-sided tests."""
    margin: float = 0.10
    """Accuracies of 0.5 +- margin count as telling apart."""


def evaluate_trials(
    trials: Sequence[Trial],
    *,
    levels: Levels,
    date: str,
    power: float = 0.8,
    seed: int = 0,
    n_resamples: int = 2000,
) -> ListeningResult:
    """Statistics and verdict of the answers that count, as if this were the only look but for its `levels`.

    Of two forms both have to be within the margin, and one in which people tell apart is enough: its p is doubled.

    Raises:
        MetricError: only generated or only real clips were judged.
    """
    kept = sorted(trials, key=lambda t: (t.listener, t.clip, t.form))
    signal, other = ([t for t in kept if t.signal is side] for side in (True, False))
    if not signal or not other:
        raise MetricError(
            f"{len(signal)} answers about generated and {len(other)} about real clips are left: a test needs both; "
            "collect more"
        )
    n, correct = len(kept), sum(t.correct for t in kept)
    listeners = len({t.listener for t in kept})
    forms: dict[str, FormResult] = {form: _form_result(part, levels) for form, part in _by_form(kept).items()}
    notes = _notes(kept, listeners=listeners)
    p_value = min(1.0, len(forms) * min(found.p_value for found in forms.values()))
    equivalence = max(found.equivalence_p for found in forms.values())
    verdict: Verdict = "inconclusive"
    if p_value <= levels.p:
        verdict = "distinguishable"
    elif equivalence <= levels.equivalence and not notes:
        verdict = "indistinguishable"
    effect = max(found.design_effect for found in forms.values())
    fewest = binomial.trials_needed(margin=levels.margin, alpha=levels.equivalence, power=power)
    needed = math.ceil(fewest * effect) * len(forms)
    hits, alarms = (sum(t.yes for t in part) for part in (signal, other))
    return ListeningResult(
        evaluator_count=listeners,
        n_trials=n,
        n_correct=correct,
        accuracy=correct / n,
        accuracy_interval=binomial.clopper_pearson(correct, n),
        listener_interval=_listener_interval(kept, seed=seed, n_resamples=n_resamples),
        p_value=p_value,
        equivalence_p=equivalence,
        margin=levels.margin,
        verdict=verdict,
        hit_rate=hits / len(signal),
        false_alarm_rate=alarms / len(other),
        d_prime=_d_prime(hits / len(signal), alarms / len(other), len(signal), len(other), forms),
        design_effect=effect,
        effective_trials=max(1, math.floor(n / effect)),
        trials_needed=needed,
        trials_missing=max(0, needed - n) if verdict == "inconclusive" else 0,
        listeners=tuple(sorted({t.listener for t in kept})),
        excluded_listeners=(),
        notes=notes,
        date=date,
        forms=forms,
    )


def _d_prime(hit: float, alarm: float, n_signal: int, n_other: int, forms: Mapping[str, FormResult]) -> float:
    """Log-linear correction; of pairs alone by sqrt(2), since two excerpts are compared (Macmillan and Creelman)."""
    z = [float(ndtri((rate * n + 0.5) / (n + 1))) for rate, n in ((hit, n_signal), (alarm, n_other))]
    return (z[0] - z[1]) / (math.sqrt(2.0) if set(forms) == {"pair"} else 1.0)


def _by_form(trials: Iterable[Trial]) -> dict[Form, list[Trial]]:
    parts: dict[Form, list[Trial]] = defaultdict(list)
    for trial in trials:
        parts[trial.form].append(trial)
    return dict(sorted(parts.items()))


def _form_result(trials: Sequence[Trial], levels: Levels) -> FormResult:
    n, correct = len(trials), sum(t.correct for t in trials)
    effect = design_effect(trials)
    effective = max(1, math.floor(n / effect))
    return FormResult(
        n_trials=n,
        n_correct=correct,
        accuracy=correct / n,
        p_value=binomial.two_sided_p(correct, n),
        equivalence_p=max(
            _scaled_equivalence(correct, n, effective, margin=levels.margin),
            _listener_equivalence(trials, margin=levels.margin),
        ),
        design_effect=effect,
    )


def _listener_equivalence(trials: Sequence[Trial], *, margin: float) -> float:
    """TOST by Student's t on the listeners' shares of right answers: few listeners have few degrees of freedom.

    A spread that is smaller than guessing itself makes is taken for that, so that no chance evenness counts as proof.
    """
    groups: dict[str, list[bool]] = defaultdict(list)
    for trial in trials:
        groups[trial.listener].append(trial.correct)
    if len(groups) < MIN_LISTENERS:
        return 1.0
    shares = np.array([np.mean(group) for group in groups.values()])
    of_guessing = 0.25 * float(np.mean([1.0 / len(group) for group in groups.values()]))
    error = math.sqrt(max(float(shares.var(ddof=1)), of_guessing) / len(shares))
    mean, freedom = float(shares.mean()), len(shares) - 1
    tails = (stdtr(freedom, (mean - 0.5 - margin) / error), stdtr(freedom, (0.5 - margin - mean) / error))
    return float(max(tails))


def design_effect(trials: Sequence[Trial]) -> float:
    """Factor by which correlated answers count for less: 1 + (m - 1) ICC, for listeners and clips together."""
    by_listener = _intraclass([(t.listener, t.correct) for t in trials])
    by_clip = _intraclass([(t.clip, t.correct) for t in trials])
    return 1.0 + by_listener + by_clip


def _intraclass(pairs: Iterable[tuple[str, bool]]) -> float:
    """(m - 1) ICC of right and wrong answers within groups, never negative: the one-way analysis of variance."""
    groups: dict[str, list[float]] = defaultdict(list)
    for group, correct in pairs:
        groups[group].append(float(correct))
    sizes = np.array([len(g) for g in groups.values()], dtype=np.float64)
    n, k = sizes.sum(), len(sizes)
    if k < 2 or n == k:
        return 0.0
    means = np.array([np.mean(g) for g in groups.values()])
    between = float((sizes * np.square(means - (sizes * means).sum() / n)).sum() / (k - 1))
    within = float(sum(np.square(np.asarray(g) - np.mean(g)).sum() for g in groups.values()) / (n - k))
    typical = (n - np.square(sizes).sum() / n) / (k - 1)
    total = between + (typical - 1.0) * within
    share = max(0.0, (between - within) / total) if total > 0.0 else 0.0
    return float((np.square(sizes).sum() / n - 1.0) * share)


def _scaled_equivalence(correct: int, n: int, effective: int, *, margin: float) -> float:
    """TOST on the effective trials; a fraction of an answer is rounded away from one half, against the claim."""
    exact = correct * effective / n
    counts = (math.floor(exact), math.ceil(exact))
    return max(binomial.equivalence_p(count, effective, margin=margin) for count in counts)


def _listener_interval(trials: Sequence[Trial], *, seed: int, n_resamples: int) -> tuple[float, float] | None:
    groups: dict[str, list[bool]] = defaultdict(list)
    for trial in trials:
        groups[trial.listener].append(trial.correct)
    if len(groups) < MIN_LISTENERS:
        return None
    sizes, right = (np.array([fold(g) for g in groups.values()], dtype=np.float64) for fold in (len, sum))
    drawn = np.random.default_rng(seed).integers(len(sizes), size=(n_resamples, len(sizes)))
    low, high = np.quantile(right[drawn].sum(axis=1) / sizes[drawn].sum(axis=1), [0.025, 0.975])
    return float(low), float(high)


def _notes(trials: Sequence[Trial], *, listeners: int) -> tuple[str, ...]:
    """Faults of the test itself; any of them keeps the verdict from being `indistinguishable`."""
    notes = []
    if listeners < MIN_LISTENERS:
        notes.append(f"{listeners} listener; the answer of one person does not carry over to others")
    single = [t.truth == "ai" for t in trials if t.form == "single"]
    if single and not BALANCE[0] <= (share := sum(single) / len(single)) <= BALANCE[1]:
        notes.append(f"{share:.0%} of the judged clips were generated; balance them, or one habit decides the accuracy")
    return tuple(notes)
