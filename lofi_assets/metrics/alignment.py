"""How well generated audio follows its prompts: CLAP relative to real pairs, and MusiCNN tags where CLAP is absent.

A raw CLAP cosine depends on the checkpoint (published music systems sit at 0.19 to 0.52), so 0.7 is asked of
A = (s_gen - s_shuffled) / (s_real - s_shuffled): 0 is chance, 1 is as aligned as real clips with their own captions.
Tag alignment is another measure with another name; it never stands in for CLAP.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from lofi_assets.metrics.clap import unit_rows
from lofi_assets.metrics.errors import MetricError
from lofi_assets.metrics.frechet import Float64Array
from lofi_assets.metrics.results import RelativeAlignment, TagAlignment
from lofi_assets.metrics.tag_labels import TAG_LABELS
from lofi_assets.styles.taxonomy import fold

LOGIT_CLIP = 1e-6
SPREAD_FLOOR = 0.25
"""In logits. A label the reference never varies in would otherwise turn rounding into a large z-score."""


def relative_alignment(
    *,
    generated_audio: npt.ArrayLike,
    generated_text: npt.ArrayLike,
    real_audio: npt.ArrayLike,
    real_text: npt.ArrayLike,
    seed: int,
    n_resamples: int = 1000,
    level: float = 0.95,
) -> RelativeAlignment:
    """Relative alignment of (n, d) generated clips with their prompts, given (m, d) real clips with their captions.

    Row i of an audio array belongs to row i of its text array. Shuffled pairs are all pairs of a real clip with another
    clip's caption of different wording: the mean over every permutation, without drawing one.
    """
    own = _row_cosines(generated_audio, generated_text, name="generated")
    audio, text = _unit_pairs(real_audio, real_text, name="real")
    cosines = audio @ text.T
    others = ~np.isclose(text @ text.T, 1.0, atol=1e-6)
    real = np.diag(cosines)
    unknown = RelativeAlignment(
        value=None,
        lower=None,
        raw_cosine=float(own.mean()),
        real_cosine=float(real.mean()),
        shuffled_cosine=None,
        n_generated=len(own),
        n_real=len(real),
    )
    if not others.any():
        return replace(unknown, note="the real captions are all alike, so there are no shuffled pairs to compare with")
    shuffled = float(cosines[others].mean())
    unknown = replace(unknown, shuffled_cosine=shuffled)
    gaps, values = [], []
    for generated_draw, real_draw in _draw(len(own), len(real), seed=seed, n_resamples=n_resamples):
        weights = np.bincount(real_draw, minlength=len(real)).astype(np.float64)
        mask = np.outer(weights, weights) * others
        if mask.sum() == 0.0:
            continue
        chance = float((mask * cosines).sum() / mask.sum())
        gap = float(real[real_draw].mean()) - chance
        gaps.append(gap)
        values.append((float(own[generated_draw].mean()) - chance) / gap if gap > 0.0 else -np.inf)
    if not gaps or np.quantile(gaps, 1.0 - level) <= 0.0:
        note = "the encoder does not tell real captions from shuffled ones here; give more pairs or another checkpoint"
        return replace(unknown, note=note)
    value = (unknown.raw_cosine - shuffled) / (unknown.real_cosine - shuffled)
    return replace(unknown, value=value, lower=float(np.quantile(values, 1.0 - level, method="lower")))


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
    seed: int,
    n_resamples: int = 1000,
    level: float = 0.95,
) -> TagAlignment:
    """AUC of the prompt's labels among all labels, on logits standardised by the reference set.

    Args:
        generated_tags: (n, labels) mean tag probabilities of each generated clip; row i has prompt i.
        reference_tags: (m, labels) of the real clips. Standardising by them asks whether a clip has more piano than
            usual here, not whether the tagger likes to say piano.
    """
    generated, reference = np.atleast_2d(generated_tags), np.atleast_2d(reference_tags)
    if len(reference) < 2:
        note = f"{len(reference)} reference clip(s); standardising the tags needs at least 2"
        return TagAlignment(auc=None, lower=None, reference_auc=None, n_clips=0, n_unmapped=len(generated), note=note)
    scores = clip_aucs(standardised_tags(generated, reference), generated_prompts, labels)
    real = clip_aucs(standardised_tags(reference, reference), reference_prompts, labels)
    reference_auc = float(np.mean(real)) if real else None
    unmapped = len(generated) - len(scores)
    if not scores:
        note = "no prompt holds a word that MusiCNN has a label for (lofi_assets/metrics/tag_labels.py)"
        return TagAlignment(
            auc=None, lower=None, reference_auc=reference_auc, n_clips=0, n_unmapped=unmapped, note=note
        )
    drawn = np.random.default_rng(seed).choice(scores, size=(n_resamples, len(scores)))
    return TagAlignment(
        auc=float(np.mean(scores)),
        lower=float(np.quantile(drawn.mean(axis=1), 1.0 - level)) if len(scores) > 1 else None,
        reference_auc=reference_auc,
        n_clips=len(scores),
        n_unmapped=unmapped,
    )


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


def _unit_pairs(audio: npt.ArrayLike, text: npt.ArrayLike, *, name: str) -> tuple[Float64Array, Float64Array]:
    a, b = (np.atleast_2d(np.asarray(rows, dtype=np.float64)) for rows in (audio, text))
    if a.shape != b.shape or not a.size:
        raise MetricError(f"{name}: audio {a.shape} and text {b.shape} embeddings are not pairs")
    return unit_rows(a), unit_rows(b)


def _row_cosines(audio: npt.ArrayLike, text: npt.ArrayLike, *, name: str) -> Float64Array:
    a, b = _unit_pairs(audio, text, name=name)
    cosines: Float64Array = (a * b).sum(axis=1)
    return cosines


def _draw(n: int, m: int, *, seed: int, n_resamples: int) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    generator = np.random.default_rng(seed)
    return [(generator.integers(n, size=n), generator.integers(m, size=m)) for _ in range(n_resamples)]


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
