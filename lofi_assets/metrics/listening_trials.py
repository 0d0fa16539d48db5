"""Can listeners tell generated tracks from real ones? Answers read strictly, and the statistics that bear a claim.

`p > 0.05` alone is passed by asking few people: with 20 trials, listeners who are right six times in ten are missed
seven times in eight. So beside the constitution's test stands an equivalence test (TOST); the verdict rests on both.
Answers of one listener, and answers about one clip, resemble each other; the equivalence test therefore runs on the
effective number of trials, and the interval draws whole listeners.
"""

import math
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic.dataclasses import dataclass as stored
from scipy.special import ndtri

from lofi_assets.files.hand_written import parse_json
from lofi_assets.files.typed import STORED, read_typed
from lofi_assets.files.writing import StoreError
from lofi_assets.metrics import binomial
from lofi_assets.metrics.errors import MetricError
from lofi_assets.metrics.results import ListeningResult, Verdict

Answer = Literal["ai", "real"]
Kind = Literal["test", "control"]

MIN_LISTENERS = 2
"""One listener, however patient, says nothing about listeners."""
BALANCE = (0.4, 0.6)
"""Share of generated clips; outside it "always AI" beats guessing, and accuracy no longer means telling apart."""

INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0" + "".join(map(chr, range(0xFE00, 0xFE10))))
"""Letters and marks that show nothing; whatever else has no width is neither."""

ROW_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "session": str,
    "listener": str,
    "trial_id": str,
    "order": int,
    "answer": str,
    "confidence": int,
    "rt_ms": (int, float),
    "plays": int,
    "ts": str,
    "manifest_sha256": str,
}


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One answer of one listener about one clip."""

    session: str
    listener: str
    trial_id: str
    truth: Answer
    answer: Answer
    ts: datetime
    kind: Kind = "test"
    """A control is an obviously generated clip: who calls it real is not listening."""
    order: int | None = None
    confidence: int | None = None
    rt_ms: float | None = None
    plays: int | None = None
    style_id: str | None = None

    @property
    def correct(self) -> bool:
        return self.answer == self.truth

    @property
    def person(self) -> str:
        """Who answered, however the name was typed (`person_of`)."""
        return person_of(self.listener)


@stored(frozen=True, kw_only=True, config=STORED)
class TrialTruth:
    """What a clip of a test is."""

    truth: Answer
    kind: Kind = "test"
    style_id: str | None = None
    source: str = ""
    """The file that it is an excerpt of."""


@stored(frozen=True, kw_only=True, config=STORED)
class ListeningTruth:
    """`truth.json` of a listening test, which listeners never get."""

    manifest_sha256: str
    """Of the page's manifest: answers name the page that they are about by it."""
    seed: int
    trials: Mapping[str, TrialTruth]
    """By trial id."""

    @classmethod
    def read(cls, path: Path) -> "ListeningTruth":
        """The truth of a test.

        Raises:
            MetricError: absent, or not the truth of a test.
        """
        try:
            if found := read_typed(path, cls, remedy="write_listening_page makes it"):
                return found
        except StoreError as error:
            raise MetricError(f"{path}: not the truth file of a listening test ({error})") from error
        raise MetricError(f"{path}: not the truth file of a listening test (absent); write_listening_page makes it")


def person_of(listener: str) -> str:
    """What stays of a name that is typed in another way: letters and digits, in one case and one Unicode form.

    Names that differ by case, spaces, punctuation, characters without width or composition are one person, since
    counting a person twice makes two answers of one habit look like a panel. "" for a name without letter or digit.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", listener).casefold())
    return "".join(c for c in folded if unicodedata.category(c)[0] in "LMN" and c not in INVISIBLE)


def _names(trials: Iterable[Trial]) -> tuple[str, ...]:
    """One entry per person, in the order of the people."""
    spelt: dict[str, set[str]] = defaultdict(set)
    for trial in trials:
        spelt[trial.person].add(" ".join(trial.listener.split()))
    named = ((min(names), sorted(names)[1:]) for _, names in sorted(spelt.items()))
    return tuple(f"{first} (also {', '.join(others)})" if others else first for first, others in named)


def read_trials(path: Path, *, truth_path: Path) -> list[Trial]:
    """Answers from a JSON Lines file, joined with the truth that was kept from the listeners.

    Args:
        truth_path: `truth.json` of the test, as `write_listening_page` wrote it.
    Raises:
        MetricError: naming file and line: not JSON, a missing, unknown or mistyped field, an unknown trial, answers to
            another page, or a second answer of the same listener to the same clip.
    """
    truth = ListeningTruth.read(truth_path)
    trials: dict[tuple[str, str], Trial] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise MetricError(f"{path}: cannot be read ({error}); export the answers from the listening page") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            trial = _trial(line, truth)
            if earlier := trials.get((trial.person, trial.trial_id)):
                also = f", as {earlier.listener!r}" if earlier.listener != trial.listener else ""
                raise ValueError(
                    f"listener {trial.listener!r} already answered {trial.trial_id!r}{also}: remove one line, or name "
                    "two people differently"
                )
        except ValueError as error:
            raise MetricError(f"{path}, line {number}: {error}") from error
        trials[trial.person, trial.trial_id] = trial
    return list(trials.values())


def evaluate_trials(
    trials: Sequence[Trial],
    *,
    margin: float = 0.10,
    alpha: float = 0.05,
    power: float = 0.8,
    seed: int = 0,
    n_resamples: int = 2000,
) -> ListeningResult:
    """Statistics and verdict of a listening test.

    Raises:
        MetricError: no trial is left, or only generated or only real clips were judged.
    """
    excluded = {trial.person for trial in trials if trial.kind == "control" and not trial.correct}
    kept = sorted(
        (t for t in trials if t.kind == "test" and t.person not in excluded), key=lambda t: (t.person, t.trial_id)
    )
    generated = [t for t in kept if t.truth == "ai"]
    real = [t for t in kept if t.truth == "real"]
    if not generated or not real:
        raise MetricError(
            f"{len(generated)} answers about generated and {len(real)} about real clips are left of {len(trials)} "
            f"({len(excluded)} listeners missed a control): a test needs both; collect more"
        )
    n, correct = len(kept), sum(t.correct for t in kept)
    listeners = len({t.person for t in kept})
    effect = design_effect(kept)
    effective = max(1, math.floor(n / effect))
    equivalence = _scaled_equivalence(correct, n, effective, margin=margin)
    p_value = binomial.two_sided_p(correct, n)
    notes = _notes(kept, listeners=listeners, share=len(generated) / n)
    verdict: Verdict = "inconclusive"
    if p_value <= alpha:
        verdict = "distinguishable"
    elif equivalence < alpha and not notes:
        verdict = "indistinguishable"
    needed = math.ceil(binomial.trials_needed(margin=margin, alpha=alpha, power=power) * effect)
    hits, alarms = (sum(t.answer == "ai" for t in part) for part in (generated, real))
    return ListeningResult(
        evaluator_count=listeners,
        n_trials=n,
        n_correct=correct,
        accuracy=correct / n,
        accuracy_interval=binomial.clopper_pearson(correct, n),
        listener_interval=_listener_interval(kept, seed=seed, n_resamples=n_resamples),
        p_value=p_value,
        equivalence_p=equivalence,
        margin=margin,
        verdict=verdict,
        hit_rate=hits / len(generated),
        false_alarm_rate=alarms / len(real),
        d_prime=float(ndtri((hits + 0.5) / (len(generated) + 1)) - ndtri((alarms + 0.5) / (len(real) + 1))),
        design_effect=effect,
        effective_trials=effective,
        trials_needed=needed,
        trials_missing=max(0, needed - n) if verdict == "inconclusive" else 0,
        listeners=_names(kept),
        excluded_listeners=_names(t for t in trials if t.person in excluded),
        notes=notes,
        date=max(t.ts for t in kept).date().isoformat(),
    )


def design_effect(trials: Sequence[Trial]) -> float:
    """Factor by which correlated answers count for less: 1 + (m - 1) ICC, for listeners and clips together."""
    by_listener = _intraclass([(t.person, t.correct) for t in trials])
    by_clip = _intraclass([(t.trial_id, t.correct) for t in trials])
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
        groups[trial.person].append(trial.correct)
    if len(groups) < MIN_LISTENERS:
        return None
    sizes, right = (np.array([fold(g) for g in groups.values()], dtype=np.float64) for fold in (len, sum))
    drawn = np.random.default_rng(seed).integers(len(sizes), size=(n_resamples, len(sizes)))
    low, high = np.quantile(right[drawn].sum(axis=1) / sizes[drawn].sum(axis=1), [0.025, 0.975])
    return float(low), float(high)


def _notes(trials: Sequence[Trial], *, listeners: int, share: float) -> tuple[str, ...]:
    """Faults of the test itself; any of them keeps the verdict from being `indistinguishable`."""
    notes = []
    if listeners < MIN_LISTENERS:
        notes.append(f"{listeners} listener; the answer of one person does not carry over to others")
    if not BALANCE[0] <= share <= BALANCE[1]:
        notes.append(f"{share:.0%} of the judged clips were generated; balance them, or one habit decides the accuracy")
    answers: dict[str, set[str]] = defaultdict(set)
    for trial in trials:
        answers[trial.person].add(trial.answer)
    stuck = _names(t for t in trials if len(answers[t.person]) == 1)
    if 2 * len(stuck) >= listeners:
        notes.append(
            f"{len(stuck)} of {listeners} listeners gave one and the same answer throughout, e.g. {stuck[0]!r}"
        )
    return tuple(notes)


def _trial(line: str, truth: ListeningTruth) -> Trial:
    """One parsed line; ValueError says what is wrong with it."""
    row = parse_json(line, where="this line")
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    if missing := sorted(ROW_TYPES.keys() - row.keys()):
        raise ValueError(f"lacks {', '.join(missing)}")
    if unknown := sorted(row.keys() - ROW_TYPES.keys()):
        raise ValueError(f"has unknown fields {', '.join(unknown)}; known are {', '.join(ROW_TYPES)}")
    for name, kind in ROW_TYPES.items():
        if not isinstance(row[name], kind) or isinstance(row[name], bool):
            raise ValueError(f"{name} is {row[name]!r}, of the wrong type")
    if row["answer"] not in ("ai", "real"):
        raise ValueError(f"answer is {row['answer']!r}, not 'ai' or 'real'")
    if not 1 <= row["confidence"] <= 5:
        raise ValueError(f"confidence is {row['confidence']}, not 1 to 5")
    if not person_of(row["listener"]):
        raise ValueError(f"listener {row['listener']!r} is empty: a name has a letter or a digit")
    if row.pop("manifest_sha256") != truth.manifest_sha256:
        raise ValueError("answers another listening page than this truth file belongs to")
    known = truth.trials.get(row["trial_id"])
    if known is None:
        raise ValueError(f"trial {row['trial_id']!r} is not in the truth file")
    ts = datetime.fromisoformat(row.pop("ts"))
    return Trial(**row, ts=ts, truth=known.truth, kind=known.kind, style_id=known.style_id)
