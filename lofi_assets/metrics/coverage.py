"""Whether a checkpoint can make every style: audio that is there at all, and sounds like the style it was asked for.

Recognition is by the nearest style centroid in tag space. It says that styles differ from each other as the reference's
do, not that a listener would name them.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv

from lofi_assets.audio.measure import clipped_share
from lofi_assets.metrics.alignment import SPREAD_FLOOR, tag_logits
from lofi_assets.metrics.embedding import Samples
from lofi_assets.metrics.frechet import Float64Array
from lofi_assets.metrics.results import StyleCoverage, StyleFound
from lofi_assets.metrics.signal_panel import band_flatness, power_spectra
from lofi_assets.metrics.signal_range import NOISE

SILENT_BELOW_DBFS = -50.0
MAX_CLIPPED_SHARE = 0.001
LENGTH_TOLERANCE_S = 0.1


@dataclass(frozen=True, kw_only=True)
class SampleCheck:
    """What is wrong with a generated sample, empty when nothing is; and a hash that equal audio shares."""

    problems: tuple[str, ...]
    audio_sha256: str

    @property
    def usable(self) -> bool:
        return not self.problems


@dataclass(frozen=True, kw_only=True)
class StyleSample:
    """One sample as coverage sees it: its style, whether its audio is usable, and its mean tags, if they are known."""

    style_id: str
    usable: bool
    tags: npt.NDArray[np.floating] | None


def check_sample(samples: Samples, *, sample_rate: int, seconds: float | None) -> SampleCheck:
    """Judge (channels, frames) audio: finite, as long as asked for, not silent, not clipped, not noise."""
    digest = hashlib.sha256(np.ascontiguousarray(samples).tobytes()).hexdigest()
    if not samples.size or not np.isfinite(samples).all():
        return SampleCheck(problems=("empty, NaN or infinite",), audio_sha256=digest)
    problems = []
    duration = samples.shape[-1] / sample_rate
    if seconds is not None and abs(duration - seconds) > LENGTH_TOLERANCE_S:
        problems.append(f"{duration:.2f} s instead of {seconds:.2f} s")
    rms = float(np.sqrt(np.square(samples, dtype=np.float64).mean()))
    if rms <= 10.0 ** (SILENT_BELOW_DBFS / 20.0):
        problems.append(f"silent (RMS not above {SILENT_BELOW_DBFS:g} dBFS)")
        return SampleCheck(problems=tuple(problems), audio_sha256=digest)
    clipped = clipped_share(samples)
    if clipped >= MAX_CLIPPED_SHARE:
        problems.append(f"clipped ({clipped:.2%} of samples)")
    power = power_spectra(samples)
    noise = band_flatness(power, np.linspace(0.0, sample_rate / 2, power.shape[1]))
    if noise >= NOISE:
        problems.append(f"noise (spectral flatness {noise:.2f} within bands)")
    return SampleCheck(problems=tuple(problems), audio_sha256=digest)


def style_coverage(
    samples: Sequence[StyleSample],
    reference_tags: Mapping[str, npt.ArrayLike],
    *,
    asked: Sequence[str] | None = None,
) -> StyleCoverage:
    """Coverage of the styles asked for.

    A style is generated when as many samples as were asked for are there, and every one is usable. It is recognizable
    when the one-sided lower bound of its hit rate lies above chance, so that with few styles one lucky sample is not
    enough.

    Args:
        reference_tags: (clips, labels) mean tags of each style's reference tracks; a track may be in several.
        asked: style of every sample that was asked for; None: what is there was asked for.
    """
    reference = {style: tag_logits(tags) for style, tags in sorted(reference_tags.items()) if np.size(tags)}
    spread = np.maximum(np.concatenate([*reference.values()]).std(axis=0), SPREAD_FLOOR) if reference else np.ones(1)
    centroids = {style: tags.mean(axis=0) / spread for style, tags in reference.items()}
    wanted = Counter(sample.style_id for sample in samples) if asked is None else Counter(asked)
    by_style: dict[str, list[StyleSample]] = {style: [] for style in wanted}
    for sample in samples:
        by_style.setdefault(sample.style_id, []).append(sample)
    chance = 1.0 / len(centroids) if len(centroids) > 1 else None
    styles, hits, judged = {}, 0, 0
    for style, members in sorted(by_style.items()):
        found = sum(_nearest(member, centroids, spread) == style for member in members)
        known = style in centroids and chance is not None
        hits, judged = hits + found * known, judged + len(members) * known
        styles[style] = StyleFound(
            generated=len(members) >= max(1, wanted[style]) and all(member.usable for member in members),
            recognizable=known and lower_bound(found, len(members)) > (chance or 1.0),
        )
    return StyleCoverage(
        styles=styles,
        top1=hits / judged if judged else None,
        top1_lower=lower_bound(hits, judged) if judged else None,
        chance=chance,
        without_reference=tuple(style for style in styles if style not in centroids),
    )


def lower_bound(successes: int, n: int, *, level: float = 0.95) -> float:
    """One-sided Clopper-Pearson lower bound of a proportion."""
    return float(betaincinv(successes, n - successes + 1, 1.0 - level)) if successes else 0.0


def _nearest(sample: StyleSample, centroids: Mapping[str, Float64Array], spread: Float64Array) -> str | None:
    if not sample.usable or sample.tags is None or not centroids:
        return None
    tags = tag_logits(sample.tags)[0] / spread
    return min(centroids, key=lambda style: (float(np.square(centroids[style] - tags).sum()), style))
