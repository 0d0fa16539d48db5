"""What a distance reads when there is nothing to find: clips of the reference against other clips of it.

Both distances fall with the number of clips, so the floor has to be that of as many clips as are compared: n generated
with R of the reference. The reference has R clips only, and two sets drawn from it must not share one. Its a = min(n,
R / 2) and R - a clips are compared, and the result is scaled by (1/n + 1/R) / (1/a + 1/(R - a)), the law that the null
of both distances follows for many clips. For few clips FAD grows more slowly than that law, so its floor is too low,
not too high: .67 to .91 of the true null at 8 and 5 clips, .90 to .98 at 64 and 40 (the table is printed by
`lofi_assets_tests/metrics/test_metrics_coverage.py`). A floor that is too low refuses more, not less.
"""

from collections.abc import Iterator

import numpy as np

from lofi_assets.metrics.clip_moments import FixedSide, Moments, spanned
from lofi_assets.metrics.errors import MetricError
from lofi_assets.metrics.frechet import Float64Array, WindowsByClip, clips_in_order
from lofi_assets.metrics.kernel import between_clips

FEWEST_REFERENCE_CLIPS = 4
"""Two on each side of a split."""


def frechet_floor(
    reference_by_clip: WindowsByClip, *, n_clips: int, windows_per_clip: int, seed: int, n_splits: int = 16
) -> float:
    """Mean FAD that `n_clips` clips like the reference's would have to it.

    Args:
        windows_per_clip: as the generated clips have; longer clips of the reference are cut to it where they stand for
            generated ones, at a random place.
    Raises:
        MetricError: fewer than four reference clips, or windows that `checked_windows` refuses.
    """
    clips = clips_in_order(reference_by_clip, name="reference", least=FEWEST_REFERENCE_CLIPS)
    (clips,) = spanned(clips)
    generator = np.random.default_rng(seed)
    found = []
    for ours, theirs in _splits(len(clips), n_clips, generator=generator, n_splits=n_splits):
        cut = [_cut(clips[i], windows_per_clip, generator) for i in ours]
        if sum(map(len, cut)) < 2:
            raise MetricError("one window per clip; the floor needs two windows on each side: give longer clips")
        fixed = FixedSide.of(Moments.of([clips[i] for i in theirs]))
        found.append(fixed.distance(Moments.of(cut)))
    return float(np.mean(found)) * _scale(len(clips), n_clips)


def kernel_floor(kernels: Float64Array, *, n_clips: int, seed: int, n_splits: int = 200, level: float = 0.95) -> float:
    """KAD that `n_clips` clips like the reference's stay below with probability `level`; their mean is zero.

    In simulation .04 to .10 of such sets lie above it.

    Args:
        kernels: (R, R) mean kernel of each two reference clips (`kernel.clip_kernels`).
    Raises:
        MetricError: fewer than four reference clips, or fewer than two to compare.
    """
    if len(kernels) < FEWEST_REFERENCE_CLIPS or n_clips < 2:
        raise MetricError(
            f"{n_clips} clip(s) against {len(kernels)}; the floor needs 2 against {FEWEST_REFERENCE_CLIPS} at least"
        )
    generator = np.random.default_rng(seed)
    found = [
        between_clips(kernels[np.ix_(theirs, theirs)], kernels[np.ix_(ours, ours)], kernels[np.ix_(theirs, ours)])
        for ours, theirs in _splits(len(kernels), n_clips, generator=generator, n_splits=n_splits)
    ]
    return float(np.quantile(found, level)) * _scale(len(kernels), n_clips)


def _share(n_reference: int, n_clips: int) -> int:
    """How many reference clips stand for generated ones."""
    return min(n_clips, n_reference // 2)


def _splits(
    n_reference: int, n_clips: int, *, generator: np.random.Generator, n_splits: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    share = _share(n_reference, n_clips)
    for _ in range(n_splits):
        order = generator.permutation(n_reference)
        yield order[:share], order[share:]


def _scale(n_reference: int, n_clips: int) -> float:
    share = _share(n_reference, n_clips)
    return (1.0 / n_clips + 1.0 / n_reference) / (1.0 / share + 1.0 / (n_reference - share))


def _cut(clip: Float64Array, windows: int, generator: np.random.Generator) -> Float64Array:
    start = int(generator.integers(max(1, len(clip) - windows + 1)))
    return clip[start : start + windows]
