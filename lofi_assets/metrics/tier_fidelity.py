"""One quantised tier against FP32, on samples generated in pairs: the tolerance of Quality Metrics in numbers."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lofi_assets.metrics.embedding import Embedder, Samples, embed_files
from lofi_assets.metrics.errors import MetricError, attempt
from lofi_assets.metrics.frechet import frechet_distance, frechet_statistics, paired_tier_ratio
from lofi_assets.metrics.proof import why_untrained
from lofi_assets.metrics.results import TierFidelity
from lofi_assets.metrics.sample_quality import GeneratedSample, ReferenceTrack


def evaluate_tier(
    *,
    fp32: Sequence[GeneratedSample],
    tier: Sequence[GeneratedSample],
    reference: Sequence[ReferenceTrack],
    embedder: Embedder,
    cache_dir: Path,
    seed: int,
    n_resamples: int = 1000,
    progress: bool = True,
) -> TierFidelity:
    """FAD of a tier relative to FP32; samples are paired by prompt, style and seed.

    Never raises for bad samples: they make the numbers None, with a note.
    """

    def clips(items: Sequence[GeneratedSample]) -> dict[str, Samples]:
        found = embed_files([item.path for item in items], embedder, cache_dir, progress=progress)
        keyed = {f"{item.style_id}|{item.seed}|{item.prompt}": found[item.path] for item in items}
        if len(keyed) < len(items):
            raise MetricError("two samples share prompt, style and seed, so they cannot be paired; vary the seed")
        return keyed

    def measured() -> tuple[float, float, float, float, float]:
        if embedder.trained is not True:
            raise MetricError(why_untrained(embedder))
        if not reference:
            raise MetricError("the reference holds no tracks")
        known = embed_files(sorted(track.path for track in reference), embedder, cache_dir, progress=progress)
        target = frechet_statistics(np.concatenate([*known.values()]), name="reference")
        base, other = clips(fp32), clips(tier)
        ratio = paired_tier_ratio(base, other, target, seed=seed, n_resamples=n_resamples)
        a, b = (np.concatenate([arm[key] for key in sorted(arm)]) for arm in (base, other))
        return *ratio, frechet_distance(a, target), frechet_distance(b, target), frechet_distance(b, a)

    values, note = attempt(measured)
    ratio, upper, fad_fp32, fad_tier, between = values or (None,) * 5
    if upper is not None and not np.isfinite(upper):
        note = "FP32 lies too close to the reference, or too unsurely away from it, for a ratio; generate more pairs"
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
