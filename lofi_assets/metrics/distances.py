"""Every distance of one set of clips from another, with what it takes to read it: `FrechetResult`."""

from collections.abc import Callable
from typing import Any

import numpy as np

from lofi_assets.metrics.errors import attempt
from lofi_assets.metrics.frechet import (
    WindowsByClip,
    frechet_distance,
    frechet_infinity,
    frechet_interval,
    frechet_statistics,
    split_half_floor,
)
from lofi_assets.metrics.kernel import kernel_distance
from lofi_assets.metrics.results import FrechetResult

WINDOWS_PER_DIMENSION = 10
"""With fewer windows than this times the dimension on either side, FAD's upward bias is a visible part of it."""


def measure_distances(
    generated_by_clip: WindowsByClip, reference_by_clip: WindowsByClip, *, seed: int, n_splits: int = 200
) -> FrechetResult:
    """Every distance of generated clips to reference clips, (windows, d) each, by name of the clip.

    Each is measured on its own: one that needs more clips than there are is None, with a note, and does not take the
    others with it.

    Args:
        n_splits: draws behind the interval.
    """
    parts, note = _distances(generated_by_clip, reference_by_clip, seed=seed, n_resamples=n_splits)
    value, floor = parts.get("value"), parts.get("floor")
    counts = [sum(map(len, side.values())) for side in (generated_by_clip, reference_by_clip)]
    dim = next((clip.shape[1] for clip in reference_by_clip.values()), 0)
    return FrechetResult(
        value=value,
        interval=parts.get("interval"),
        floor=floor,
        over_floor=value / floor if value is not None and floor else None,
        infinity=parts.get("infinity"),
        kad=parts.get("kad"),
        n_clips=len(generated_by_clip),
        n_windows=counts[0],
        n_reference_clips=len(reference_by_clip),
        n_reference_windows=counts[1],
        enough_windows=min(counts) >= WINDOWS_PER_DIMENSION * dim,
        note=note,
    )


def _distances(
    ours: WindowsByClip, theirs: WindowsByClip, *, seed: int, n_resamples: int
) -> tuple[dict[str, Any], str]:
    if not ours:
        return {}, "no samples were generated"
    x, y = np.concatenate([*theirs.values()]), np.concatenate([*ours.values()])
    wanted: dict[str, Callable[[], Any]] = {
        "value": lambda: frechet_distance(y, x),
        "floor": lambda: split_half_floor(theirs, seed=seed),
        "interval": lambda: tuple(frechet_interval(ours, theirs, seed=seed, n_resamples=n_resamples)),
        "kad": lambda: kernel_distance(x, y),
        "infinity": lambda: frechet_infinity(ours, frechet_statistics(x), seed=seed)[0],
    }
    parts, notes = {}, []
    for name, measure in wanted.items():
        parts[name], failure = attempt(measure)
        if failure and name != "infinity":  # too few samples for it is the rule, not a fault
            notes.append(f"{name}: {failure}")
    return parts, "; ".join(notes)
