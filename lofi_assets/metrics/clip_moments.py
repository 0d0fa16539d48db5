"""FAD of subsets of clips: each clip left out in turn, and any draw of clips, without a decomposition for each side.

Windows of one clip depend on each other, so whatever is left out or drawn here is a whole clip.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lofi_assets.metrics.frechet import Float64Array


@dataclass(frozen=True)
class Moments:
    """Mean (d,) and unbiased covariance (d, d) of windows."""

    mean: Float64Array
    covariance: Float64Array

    @classmethod
    def of(cls, clips: Sequence[Float64Array]) -> "Moments":
        """Of all windows of the clips, (windows, d) each; two windows at least."""
        windows = np.concatenate(clips)
        mean = windows.mean(axis=0)
        centred = windows - mean
        return cls(mean, centred.T @ centred / (len(windows) - 1))


def leave_one_out(clips: Sequence[Float64Array]) -> Iterator[Moments]:
    """Moments of the clips without the first, without the second, and so on; two windows are left at least.

    Each is the whole less one clip, not a pass over all windows.
    """
    centre = np.concatenate(clips).mean(axis=0)
    shifted = [clip - centre for clip in clips]
    total = float(sum(map(len, clips)))
    products = sum((clip.T @ clip for clip in shifted[1:]), shifted[0].T @ shifted[0])
    for clip in shifted:
        n = total - len(clip)
        mean = -clip.sum(axis=0) / n
        yield Moments(mean + centre, (products - clip.T @ clip - n * np.outer(mean, mean)) / (n - 1.0))


@dataclass(frozen=True)
class FixedSide:
    """One side of FAD, decomposed once."""

    mean: Float64Array
    root: Float64Array
    """Symmetric root of the covariance."""

    @classmethod
    def of(cls, moments: Moments) -> "FixedSide":
        """The side that stays while the other varies."""
        weights, vectors = np.linalg.eigh(moments.covariance)
        return cls(moments.mean, (vectors * np.sqrt(np.clip(weights, 0.0, None))) @ vectors.T)

    def distance(self, other: Moments) -> float:
        """FAD; good to 1e-8 of the total variance, which is enough for spreads and means over draws."""
        inner = self.root @ other.covariance @ self.root
        cross = float(np.sqrt(np.clip(np.linalg.eigvalsh(inner), 0.0, None)).sum())
        variance = float(np.square(self.root).sum() + np.trace(other.covariance))
        return max(0.0, float(np.square(self.mean - other.mean).sum()) + variance - 2.0 * cross)


def spanned(*sides: Sequence[Float64Array]) -> tuple[list[Float64Array], ...]:
    """The same clips in a basis of the space that their windows span: exact, and small for few windows.

    FAD does not change under a common shift and rotation.
    """
    windows = np.concatenate([clip for side in sides for clip in side])
    n, d = windows.shape
    centre = windows.mean(axis=0)
    basis = np.linalg.svd(windows - centre, full_matrices=False)[2] if n < d else np.eye(d)
    return tuple([(clip - centre) @ basis.T for clip in side] for side in sides)
