"""One quantised tier against FP32, on samples generated in pairs: the tolerance of Quality Metrics in numbers."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lofi_assets.metrics.clip_moments import FixedSide, Moments, leave_one_out, spanned
from lofi_assets.metrics.embedding import Embedder, Samples, embed_files
from lofi_assets.metrics.errors import MetricError, attempt
from lofi_assets.metrics.frechet import WindowsByClip, clips_in_order, frechet_distance
from lofi_assets.metrics.jackknife import FEWEST_CLIPS, pseudo_values, ratio_bounds
from lofi_assets.metrics.proof import why_untrained
from lofi_assets.metrics.results import FEWEST_PAIRS, TierFidelity
from lofi_assets.metrics.sample_quality import GeneratedSample, ReferenceTrack


class TierRatio(NamedTuple):
    """FAD of a tier over FAD of FP32, minus one, and its one-sided upper bound; infinite where it has no end."""

    ratio: float
    upper: float


def paired_tier_ratio(
    fp32_by_clip: WindowsByClip, tier_by_clip: WindowsByClip, reference: npt.ArrayLike, *, level: float = 0.95
) -> TierRatio:
    """How much farther from the reference a tier lies than FP32, and the upper bound of it: paired jackknife-t.

    Both arms leave out the same pair, which was generated from one prompt and seed; the reference stays fixed. FAD of
    few clips lies above FAD of many, in both arms, which pulls their ratio towards one. The bound is that of the pseudo
    values, which are free of that bias to order 1 / n; by Fieller's way, an FP32 that is not certainly away from the
    reference has no bound. It never lies below the ratio as it was measured.

    Args:
        reference: (windows, d).
    Raises:
        MetricError: the arms hold different clips, or fewer than three.
    """
    if set(fp32_by_clip) != set(tier_by_clip):
        odd = sorted(set(fp32_by_clip) ^ set(tier_by_clip))[:5]
        raise MetricError(f"the tier and FP32 were not generated in pairs, e.g. {odd}: use the same prompts and seeds")
    base, tier, known = spanned(
        clips_in_order(fp32_by_clip, name="fp32", least=FEWEST_CLIPS),
        clips_in_order(tier_by_clip, name="tier", least=FEWEST_CLIPS),
        clips_in_order({"": np.asarray(reference)}, name="reference", least=1),
    )
    fixed = FixedSide.of(Moments.of(known))
    points = [fixed.distance(Moments.of(arm)) for arm in (base, tier)]
    if points[0] <= 0.0:
        return TierRatio(math.inf, math.inf)
    ratio = points[1] / points[0] - 1.0
    fp32, quantised = (
        pseudo_values(point, [fixed.distance(moments) for moments in leave_one_out(arm)])
        for point, arm in zip(points, (base, tier), strict=True)
    )
    bounds = ratio_bounds(quantised, fp32, level=level)
    return TierRatio(ratio, max(ratio, bounds.high - 1.0) if bounds else math.inf)


def evaluate_tier(
    *,
    fp32: Sequence[GeneratedSample],
    tier: Sequence[GeneratedSample],
    reference: Sequence[ReferenceTrack],
    embedder: Embedder,
    cache_dir: Path,
    progress: bool = True,
) -> TierFidelity:
    """FAD of a tier relative to FP32; samples are paired by prompt, style and seed.

    Never raises for bad samples: they make the numbers None, with a note. With fewer than 16 pairs there is no bound,
    so that the gate on it stays inconclusive.
    """

    def clips(items: Sequence[GeneratedSample]) -> dict[str, Samples]:
        found = embed_files([item.path for item in items], embedder, cache_dir, progress=progress)
        keyed = {f"{item.style_id}|{item.seed}|{item.prompt}": found[item.path] for item in items}
        if len(keyed) < len(items):
            raise MetricError("two samples share prompt, style and seed, so they cannot be paired; vary the seed")
        return keyed

    def measured() -> tuple[TierRatio, float, float, float]:
        if embedder.trained is not True:
            raise MetricError(why_untrained(embedder))
        if not reference:
            raise MetricError("the reference holds no tracks")
        known = embed_files(sorted(track.path for track in reference), embedder, cache_dir, progress=progress)
        target = np.concatenate([*known.values()])
        base, other = clips(fp32), clips(tier)
        ratio = paired_tier_ratio(base, other, target)
        a, b = (np.concatenate([arm[key] for key in sorted(arm)]) for arm in (base, other))
        return ratio, frechet_distance(a, target), frechet_distance(b, target), frechet_distance(b, a)

    values, note = attempt(measured)
    (ratio, upper), fad_fp32, fad_tier, between = values or ((None, None), None, None, None)
    if upper is not None and not math.isfinite(upper):
        note = "FP32 lies too close to the reference, or too unsurely away from it, for a ratio; generate more pairs"
    if upper is not None and len(fp32) < FEWEST_PAIRS:
        upper, note = None, f"inconclusive: {len(fp32)} pairs, needs {FEWEST_PAIRS}"
    return TierFidelity(
        ratio=ratio,
        upper=upper,
        fad_fp32=fad_fp32,
        fad_tier=fad_tier,
        fad_between=between,
        n_pairs=len(fp32),
        encoder=embedder.name,
        encoder_version=embedder.version,
        trained=embedder.trained is True,
        note=note,
    )
