"""FAD as it would be with endless clips on both sides, where that can be told (after Chong & Forsyth, CVPR 2020).

FAD's bias falls as 1 / n in the number of independent clips. Windows of a clip are not independent, and the reference
is finite as well, so clips are drawn and both sides shrink together: FAD at all, half and a quarter of the clips.
Twice the whole less the half takes the bias out, if it falls as 1 / n. The same from half and quarter has to agree;
where it does not, there is no number. R^2 of a line does not tell: it was above .97 for values of 52 where the truth is
zero.
"""

from collections.abc import Sequence

import numpy as np

from lofi_assets.metrics.clip_moments import FixedSide, Moments, spanned
from lofi_assets.metrics.errors import MetricError
from lofi_assets.metrics.frechet import Float64Array, WindowsByClip, clips_in_order

FEWEST_CLIPS = 32
"""On each side: eight are left in a quarter."""

MOST_DISAGREEMENT = 0.2
"""Between the two extrapolations, as a share of the bias taken out. What is left of a bias beyond 1 / n is about a
third of the disagreement."""


def frechet_infinity(
    generated_by_clip: WindowsByClip, reference_by_clip: WindowsByClip, *, seed: int, n_draws: int = 24
) -> float:
    """FAD extrapolated to endless clips on both sides; about zero may come out slightly negative.

    Clips are drawn without replacement, since copies of a window would lower the rank of the covariance.

    Raises:
        MetricError: fewer than 32 clips on a side, or the bias does not fall as 1 / n here.
    """
    n, m = len(generated_by_clip), len(reference_by_clip)
    if min(n, m) < FEWEST_CLIPS:
        raise MetricError(f"FAD-inf needs {FEWEST_CLIPS} clips on each side, got {n} and {m}")
    generated, reference = spanned(
        clips_in_order(generated_by_clip, name="generated"), clips_in_order(reference_by_clip, name="reference")
    )
    generator = np.random.default_rng(seed)
    generated, reference = (_multiple_of_four(side, generator) for side in (generated, reference))
    whole = FixedSide.of(Moments.of(reference)).distance(Moments.of(generated))
    half, quarter = (
        float(np.mean([_drawn(generated, reference, share, generator) for _ in range(n_draws)])) for share in (2, 4)
    )
    value, coarser = 2.0 * whole - half, 2.0 * half - quarter
    bias = whole - value
    if bias <= 0.0 or abs(value - coarser) > MOST_DISAGREEMENT * bias:
        raise MetricError(
            f"FAD does not fall as 1/n here ({quarter:.4g}, {half:.4g}, {whole:.4g} at a quarter, half and all clips), "
            "so FAD-inf cannot be read off; generate more clips"
        )
    return value


def _multiple_of_four(side: Sequence[Float64Array], generator: np.random.Generator) -> list[Float64Array]:
    """All but up to three clips, so that half and quarter are exactly that."""
    return [side[i] for i in generator.permutation(len(side))[: len(side) - len(side) % 4]]


def _drawn(
    generated: Sequence[Float64Array], reference: Sequence[Float64Array], divisor: int, generator: np.random.Generator
) -> float:
    ours, theirs = (
        [side[i] for i in generator.permutation(len(side))[: len(side) // divisor]] for side in (generated, reference)
    )
    return FixedSide.of(Moments.of(theirs)).distance(Moments.of(ours))
