"""What a distance is read against besides the floor: noise, the worst that a generator can do."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lofi_assets.metrics.embedding import Embedder, Samples, embed_files
from lofi_assets.metrics.errors import attempt
from lofi_assets.metrics.frechet import frechet_distance
from lofi_assets.metrics.kernel import clip_kernels
from lofi_assets.metrics.results import NoiseDistances
from lofi_assets.workers.side_by_side import side_by_side

NOISE_LEVEL = 0.1
"""Standard deviation; encoders hear everything at one loudness anyway."""


def white_noise(count: int, *, seconds: float, sample_rate: int, seed: int) -> list[Samples]:
    """Stereo clips (2, frames) of Gaussian noise, the same for the same arguments."""
    random = np.random.default_rng(seed)
    shape = (2, round(seconds * sample_rate))
    return [random.standard_normal(shape, dtype=np.float32) * np.float32(NOISE_LEVEL) for _ in range(count)]


def noise_distances(
    reference: Sequence[Path], *, embedder: Embedder, cache_dir: Path, count: int, seconds: float, seed: int
) -> NoiseDistances:
    """FAD and KAD of `count` clips of white noise to the reference files.

    Raises:
        MetricError: a reference that cannot be read, or too little of it for FAD.
    """
    heard = embed_files(sorted(reference), embedder, cache_dir, progress=False)
    noise = white_noise(count, seconds=seconds, sample_rate=embedder.sample_rate, seed=seed)
    ours = {f"{index:06d}": windows for index, windows in enumerate(side_by_side(embedder.embed, noise))}
    theirs = {str(path): clip for path, clip in heard.items()}
    x, y = (np.concatenate([*side.values()]) for side in (ours, theirs))
    kernels, _ = attempt(lambda: clip_kernels(theirs, ours))
    return NoiseDistances(fad=frechet_distance(x, y), kad=kernels.value if kernels else None)
