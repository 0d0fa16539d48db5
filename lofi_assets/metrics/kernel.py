"""Kernel audio distance: 100 times the unbiased squared MMD with a Gaussian kernel (KAD, arXiv 2502.15602).

Needs no Gaussian shape and settles with about a fifth of the windows FAD wants. Unbiased: near zero it may be negative.
"""

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist, pdist

from lofi_assets.metrics.errors import MetricError
from lofi_assets.metrics.frechet import FloatArray, checked_windows

SCALE = 100.0
MAX_FOR_MEDIAN = 4000
"""Of a larger reference every k-th window counts: pairs grow with the square, their median hardly moves."""

BLOCK = 2048


def median_distance(reference: npt.ArrayLike) -> float:
    """Median pairwise Euclidean distance of the reference's windows (n, d): the kernel's bandwidth.

    Raises:
        MetricError: every second pair of windows is identical, so that the median is zero.
    """
    windows = checked_windows(reference, name="reference")
    median = float(np.median(pdist(windows[:: -(-len(windows) // MAX_FOR_MEDIAN)])))
    if median <= 0.0:
        raise MetricError("reference: most windows are identical, so KAD has no bandwidth; look for silence or copies")
    return median


def kernel_distance(reference: npt.ArrayLike, generated: npt.ArrayLike, *, bandwidth: float | None = None) -> float:
    """KAD between reference and generated windows, (n, d) and (m, d).

    The bandwidth belongs to the reference, so that several models are measured on one scale.

    Raises:
        MetricError: see `checked_windows` and `median_distance`; unequal dimensions.
    """
    x = checked_windows(reference, name="reference")
    y = checked_windows(generated, name="generated")
    if x.shape[1] != y.shape[1]:
        raise MetricError(f"embeddings have {x.shape[1]} and {y.shape[1]} dimensions: two encoders were mixed")
    sigma = median_distance(x) if bandwidth is None else bandwidth
    n, m = len(x), len(y)
    within_x = (_kernel_sum(x, x, sigma) - n) / (n * (n - 1))
    within_y = (_kernel_sum(y, y, sigma) - m) / (m * (m - 1))
    return SCALE * (within_x + within_y - 2.0 * _kernel_sum(x, y, sigma) / (n * m))


def _kernel_sum(x: FloatArray, y: FloatArray, sigma: float) -> float:
    exponent = -0.5 / sigma**2
    blocks = (cdist(x[start : start + BLOCK], y, "sqeuclidean") for start in range(0, len(x), BLOCK))
    return float(sum(np.exp(exponent * block).sum() for block in blocks))
