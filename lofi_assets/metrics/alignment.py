"""How well generated audio follows its prompts: CLAP relative to real pairs, and MusiCNN tags where CLAP is absent.

A raw CLAP cosine depends on the checkpoint (published music systems sit at 0.19 to 0.52), so 0.7 is asked of
A = (s_gen - shuffled_gen) / (s_real - shuffled_real): 0 is chance, 1 is as aligned as real clips with their captions.
Tag alignment is another measure with another name; it never stands in for CLAP.
"""

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from lofi_assets.metrics.clap import unit_rows
from lofi_assets.metrics.errors import MetricError
from lofi_assets.metrics.frechet import Float64Array
from lofi_assets.metrics.jackknife import FEWEST_CLIPS, pseudo_values, ratio_bounds
from lofi_assets.metrics.results import RelativeAlignment, TagAlignment
from lofi_assets.metrics.tag_labels import TAG_LABELS
from lofi_assets.styles.taxonomy import fold

LOGIT_CLIP = 1e-6
SPREAD_FLOOR = 0.25
"""In logits. A label the reference never varies in would otherwise turn rounding into a large z-score."""

CAPTIONS_CERTAIN = 0.01
"""Mispaired captions pass for paired ones this often."""

FEWEST_PROMPTS = 8
"""Different ones, of both sets, for a lower bound."""


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Clips with the texts that belong to them: row i of everything is one clip."""

    audio: npt.ArrayLike
    """(n, d) embeddings of the clips."""
    text: npt.ArrayLike
    """(n, d) embeddings of their texts."""
    texts: Sequence[str]
    styles: Sequence[Collection[str]]
    """Of each clip; clips that share one are of one group."""


def relative_alignment(*, generated: Pairs, real: Pairs, seed: int, n_permutations: int = 999) -> RelativeAlignment:
    """Alignment of generated clips with their prompts, relative to that of real clips with their captions.

    A = (s_gen - shuffled_gen) / (s_real - shuffled_real). Each set's own shuffled pairs are subtracted: the mean over
    all pairs of a clip with the text of another, so that neither a clip that fits every text nor a text that fits every
    clip counts. One clip for all prompts has exactly 0, and so has any choice of clips that does not look at the
    prompts. Pairs of a clip with another's text of the same words are counted out.

    The reference is checked first: real clips have to be nearer to their captions than to captions dealt at random
    (permutation test, p <= .01), or mispaired captions would make the denominator, and A, anything.

    The lower bound is Fieller's, over prompts: clips of one prompt are left out together, real and generated, so that
    what a prompt is good for in both sets cancels.

    Raises:
        MetricError: rows that do not belong together, or an embedding of length zero.
    """
    ours, theirs = (_Contrast.of(pairs, name=name) for pairs, name in ((generated, "generated"), (real, "real")))
    p = theirs.chance(seed=seed, n_permutations=n_permutations) if theirs.value is not None else None
    (recall, recall_chance), (real_recall, real_recall_chance) = ours.recall(), theirs.recall()
    found = RelativeAlignment(
        value=None,
        lower=None,
        raw_cosine=ours.own,
        shuffled_cosine=ours.shuffled,
        real_cosine=theirs.own,
        real_shuffled_cosine=theirs.shuffled,
        captions_p=p,
        recall=recall,
        recall_chance=recall_chance,
        real_recall=real_recall,
        real_recall_chance=real_recall_chance,
        n_generated=len(ours.texts),
        n_real=len(theirs.texts),
        n_prompts=len(set(ours.texts)),
    )
    if p is None or theirs.value is None or p > CAPTIONS_CERTAIN or theirs.value <= 0.0:
        return replace(found, note=_no_reference(theirs, p))
    if ours.value is None:
        return replace(found, note="the prompts are all alike, or one, so there are no shuffled pairs")
    found = replace(found, value=ours.value / theirs.value)
    lower, note = _lower(ours, theirs)
    return replace(found, lower=lower, note=note)


def prompt_labels(prompt: str) -> tuple[str, ...]:
    """MusiCNN labels ("msd:jazz", "mtt:piano") that a comma-separated prompt asks for, each once.

    Within a tag the longest known words are read first and taken out, so that "female vocals" is not also "vocals".
    """
    labels: dict[str, None] = {}
    for part in prompt.split(","):
        rest = f" {fold(part)} "
        for words in _WORDS:
            if f" {words} " in rest:
                rest = rest.replace(f" {words} ", "  ")
                labels.update(dict.fromkeys(TAG_LABELS[words]))
    return tuple(labels)


def tag_alignment(
    *,
    generated_tags: npt.ArrayLike,
    generated_prompts: Sequence[str],
    reference_tags: npt.ArrayLike,
    reference_prompts: Sequence[str],
    labels: Sequence[str],
    level: float = 0.95,
) -> TagAlignment:
    """Whether labels are higher in the clips whose prompts ask for them than in the other clips of the same set.

    Clips are compared with clips, label by label, and never labels within a clip: one clip for every prompt ties with
    itself and has exactly 0.5, whatever the tagger likes to say. A label that every prompt asks for tells nothing.

    Args:
        generated_tags: (n, labels) mean tag probabilities of each generated clip; row i has prompt i.
        reference_tags: (m, labels) of the real clips, which have a value of their own.
    Raises:
        MetricError: tags, prompts and labels that do not belong together, or NaN.
    """
    asked = asked_labels(generated_prompts, labels)
    scores = label_aucs(generated_tags, asked)
    real = label_aucs(reference_tags, asked_labels(reference_prompts, labels))
    known = np.isfinite(scores)
    found = TagAlignment(
        auc=None,
        lower=None,
        reference_auc=float(np.nanmean(real)) if np.isfinite(real).any() else None,
        n_clips=int(known.sum()),
        n_unmapped=int((~known).sum()),
    )
    if not known.any():
        note = (
            "no prompt asks for a label that another does not ask for (known words: lofi_assets/metrics/tag_labels.py)"
        )
        return replace(found, note=note)
    value = float(scores[known].mean())
    if known.sum() < FEWEST_CLIPS:
        return replace(found, auc=value, note=f"{known.sum()} clips; a bound needs {FEWEST_CLIPS}")
    tags = np.atleast_2d(np.asarray(generated_tags))
    kept = [np.delete(np.arange(len(tags)), i) for i in range(len(tags))]
    without = np.array([_mean_known(label_aucs(tags[rows], asked[rows])) for rows in kept])
    spread = pseudo_values(value, without[np.isfinite(without)])
    half = float(stdtrit(len(spread) - 1, level)) * float(spread.std(ddof=1)) / math.sqrt(len(spread))
    return replace(found, auc=value, lower=max(0.0, value - half))


def asked_labels(prompts: Sequence[str], labels: Sequence[str]) -> npt.NDArray[np.bool_]:
    """(prompts, labels): whether a prompt asks for a label."""
    position = {label: index for index, label in enumerate(labels)}
    asked = np.zeros((len(prompts), len(labels)), dtype=bool)
    for row, prompt in zip(asked, prompts, strict=True):
        row[[position[label] for label in prompt_labels(prompt)]] = True
    return asked


def label_aucs(tags: npt.ArrayLike, asked: npt.NDArray[np.bool_]) -> Float64Array:
    """(clips,): P(a clip has more of a label that it was asked for than one that was not), over its labels.

    Ties count half; NaN for a clip without a label that another was not asked for.

    Args:
        tags: (clips, labels) tag probabilities, or anything that rises with them.
        asked: (clips, labels).
    Raises:
        MetricError: other shapes, or NaN.
    """
    values = np.atleast_2d(np.asarray(tags, dtype=np.float64))
    if values.shape != asked.shape:
        raise MetricError(f"{values.shape} tags and {asked.shape} labels asked for do not belong together")
    if not np.isfinite(values).all():
        raise MetricError("tag probabilities hold NaN; find the clip and look at its audio")
    found = np.full(asked.shape, np.nan)
    for label in np.flatnonzero(asked.any(axis=0) & ~asked.all(axis=0)):
        wanted = asked[:, label]
        difference = values[wanted, label][:, None] - values[~wanted, label]
        found[wanted, label] = ((difference > 0) + 0.5 * (difference == 0)).mean(axis=1)
    counts = np.isfinite(found).sum(axis=1)
    aucs: Float64Array = np.where(counts > 0, np.nansum(found, axis=1) / np.maximum(counts, 1), np.nan)
    return aucs


def _mean_known(values: Float64Array) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else math.nan


def tag_logits(tags: npt.ArrayLike) -> Float64Array:
    """Log-odds of tag probabilities, (clips, labels) float64, kept within those of 1e-6; MetricError for NaN."""
    p = np.clip(np.atleast_2d(np.asarray(tags, dtype=np.float64)), LOGIT_CLIP, 1.0 - LOGIT_CLIP)
    if not np.isfinite(p).all():
        raise MetricError("tag probabilities hold NaN; find the clip and look at its audio")
    return np.log(p / (1.0 - p))


def standardised_tags(tags: npt.ArrayLike, reference_tags: npt.ArrayLike) -> Float64Array:
    """Logits of tag probabilities in standard deviations of the reference clips (two at least) from their mean."""
    reference = tag_logits(reference_tags)
    spread = np.maximum(reference.std(axis=0, ddof=1), SPREAD_FLOOR)
    standardised: Float64Array = (tag_logits(tags) - reference.mean(axis=0)) / spread
    return standardised


_WORDS = sorted(TAG_LABELS, key=lambda words: (-len(words), words))


@dataclass(frozen=True)
class _Contrast:
    """How much nearer clips are to their own text than to those of the others."""

    audio: Float64Array
    text: Float64Array
    """Both (n, d), of length 1."""
    texts: tuple[str, ...]
    styles: tuple[frozenset[str], ...]

    @classmethod
    def of(cls, pairs: Pairs, *, name: str) -> "_Contrast":
        a, b = (np.atleast_2d(np.asarray(rows, dtype=np.float64)) for rows in (pairs.audio, pairs.text))
        if a.shape != b.shape or not a.size or {len(pairs.texts), len(pairs.styles)} != {len(a)}:
            raise MetricError(
                f"{name}: audio {a.shape} and text {b.shape} embeddings, {len(pairs.texts)} texts and "
                f"{len(pairs.styles)} styles are not pairs"
            )
        return cls(unit_rows(a), unit_rows(b), tuple(pairs.texts), tuple(frozenset(found) for found in pairs.styles))

    @cached_property
    def own(self) -> float:
        """Mean cosine of a clip with its own text."""
        return float(self._owns.mean())

    @property
    def shuffled(self) -> float | None:
        """Mean cosine of a clip with another's text of other words."""
        return None if self.value is None else self.own - self.value

    @cached_property
    def value(self) -> float | None:
        """Own less shuffled; None where all texts are alike.

        Own less all pairs of different clips is the trace of the cross-covariance of audio and text. Pairs of one
        wording, whose cosines are like those of own pairs, take their share off it.
        """
        return self._value(np.zeros(len(self.texts), dtype=bool), "")

    def without(self, text: str) -> float | None:
        """The value of the clips of the other texts."""
        return self._value(np.array([other == text for other in self.texts]), text)

    @cached_property
    def _owns(self) -> Float64Array:
        cosines: Float64Array = (self.audio * self.text).sum(axis=1)
        return cosines

    @cached_property
    def _sums(self) -> tuple[Float64Array, Float64Array]:
        return self.audio.sum(axis=0), self.text.sum(axis=0)

    @cached_property
    def _counts(self) -> Counter[str]:
        return Counter(self.texts)

    def _value(self, left_out: npt.NDArray[np.bool_], text: str) -> float | None:
        """Of the clips but those left out, all of `text`: sums less theirs, not a pass over all."""
        n = len(self.texts) - int(left_out.sum())
        pairs = n * (n - 1)
        same = sum(count * (count - 1) for other, count in self._counts.items() if other != text)
        if same == pairs:
            return None
        own = float(self._owns.sum() - self._owns[left_out].sum()) / n
        audio, words = (
            total - rows[left_out].sum(axis=0) for total, rows in zip(self._sums, (self.audio, self.text), strict=True)
        )
        return (own - float(audio @ words) / n**2) * n / (n - 1) / (1.0 - same / pairs)

    def chance(self, *, seed: int, n_permutations: int) -> float:
        """P of so high a value if the texts were dealt to the clips at random; permutation test."""
        generator = np.random.default_rng(seed)
        cosines = self.audio @ self.text.T
        rows = np.arange(len(cosines))
        dealt = [cosines[rows, generator.permutation(len(rows))].mean() for _ in range(n_permutations)]
        # rounding must not tell a permutation from the same mean in another order
        as_high = int(np.sum(np.asarray(dealt) >= self.own - 1e-12))
        return (1 + as_high) / (1 + n_permutations)

    def recall(self) -> tuple[float | None, float | None]:
        """R@1 by style, and what the same nearest texts would have if the clips were dealt to them at random.

        A clip's nearest text counts where it is the text of a clip of one of its styles, or its own. None where all
        texts are alike.
        """
        n = len(self.texts)
        if self.value is None:
            return None, None
        nearest = np.argmax(self.audio @ self.text.T, axis=1)
        related = _sharing(self.styles) | _sharing([{text} for text in self.texts])
        hits = related[:, nearest]  # clip i, nearest text of clip j
        own = float(np.trace(hits)) / n
        return own, (float(hits.sum()) - np.trace(hits)) / (n * (n - 1))


def _sharing(groups: Sequence[Collection[str]]) -> npt.NDArray[np.bool_]:
    """(n, n): whether two have a name in common."""
    column = {name: index for index, name in enumerate(sorted({name for group in groups for name in group}))}
    members = np.zeros((len(groups), len(column)))
    for row, group in zip(members, groups, strict=True):
        row[[column[name] for name in group]] = 1.0
    shared: npt.NDArray[np.bool_] = members @ members.T > 0.0
    return shared


def _no_reference(theirs: _Contrast, p: float | None) -> str:
    if p is None:
        return "the real captions are all alike, so there are no shuffled pairs to compare with"
    return (
        f"real clips are not certainly nearer to their own captions than to shuffled ones (p = {p:.3g}): look whether "
        f"captions and tracks belong together; give more than {len(theirs.texts)} of them, or another checkpoint"
    )


def _lower(ours: _Contrast, theirs: _Contrast) -> tuple[float | None, str]:
    """One-sided lower bound of the ratio over prompts, or None and why."""
    shared = sorted({*ours.texts, *theirs.texts})
    fewest = min(len(set(ours.texts)), len(set(theirs.texts)))
    if fewest < FEWEST_PROMPTS:
        return None, f"{fewest} different prompts or captions; a bound needs {FEWEST_PROMPTS}"
    gained, real = (
        pseudo_values(_known(side.value), [_known(side.without(text)) for text in shared]) for side in (ours, theirs)
    )
    bounds = ratio_bounds(gained, real, at=(_known(ours.value), _known(theirs.value)), freedom=fewest - 1)
    if bounds is None:
        return None, "real clips are too unevenly nearer to their captions for a bound; give more of them"
    return bounds.low, ""


def _known(value: float | None) -> float:
    assert value is not None, "eight texts, less one, are not all alike"
    return value


def clip_aucs(scores: Float64Array, prompts: Sequence[str], labels: Sequence[str]) -> list[float]:
    """P(a label of the prompt ranks above another), one per clip whose prompt has a label; ties count half."""
    if len(scores) != len(prompts) or scores.shape[1] != len(labels):
        raise MetricError(
            f"{scores.shape} tags, {len(prompts)} prompts and {len(labels)} labels do not belong together"
        )
    position = {label: index for index, label in enumerate(labels)}
    aucs = []
    for row, prompt in zip(scores, prompts, strict=True):
        own = np.zeros(len(labels), dtype=bool)
        own[[position[label] for label in prompt_labels(prompt)]] = True
        if own.any() and not own.all():
            difference = row[own][:, None] - row[~own][None, :]
            aucs.append(float((difference > 0).mean() + 0.5 * (difference == 0).mean()))
    return aucs
