"""FAD and KAD of two sets of clips with all that it takes to read them: floors, intervals, and the clips one by one."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lofi_assets.metrics.clip_moments import FixedSide, Moments, leave_one_out, spanned
from lofi_assets.metrics.errors import MetricError, attempt
from lofi_assets.metrics.frechet import (
    FrechetStatistics,
    WindowsByClip,
    clips_in_order,
    frechet_distance,
    frechet_statistics,
)
from lofi_assets.metrics.frechet_infinity import frechet_infinity
from lofi_assets.metrics.jackknife import FEWEST_CLIPS, Interval, two_sample_interval
from lofi_assets.metrics.kernel import ClipKernels, clip_kernels
from lofi_assets.metrics.reference_floor import frechet_floor, kernel_floor
from lofi_assets.metrics.results import FrechetResult

WINDOWS_PER_DIMENSION = 10
"""With fewer windows than this times the dimension on either side, FAD's upward bias is a visible part of it."""

FEWEST_WINDOWS_ALONE = 8
"""Of a clip that is compared alone; below, its covariance says nothing."""


def measure_distances(
    generated_by_clip: WindowsByClip, reference_by_clip: WindowsByClip, *, seed: int, n_splits: int = 200
) -> FrechetResult:
    """Every distance of generated clips to reference clips, (windows, d) each, by name of the clip.

    Each is measured on its own: one that needs more clips than there are is None, with a note, and does not take the
    others with it.

    Args:
        n_splits: of the reference, for KAD's floor.
    """
    counts = {
        "n_clips": len(generated_by_clip),
        "n_windows": sum(map(len, generated_by_clip.values())),
        "n_reference_clips": len(reference_by_clip),
        "n_reference_windows": sum(map(len, reference_by_clip.values())),
    }
    if not generated_by_clip:
        return unmeasured("no samples were generated", **counts)
    found, notes = _attempted(_wanted(generated_by_clip, reference_by_clip, seed=seed))
    kernels, failure = attempt(lambda: clip_kernels(reference_by_clip, generated_by_clip))
    if kernels is not None:
        more, further = _attempted(_wanted_of_kernels(kernels, seed=seed, n_splits=n_splits))
        found, notes = found | more, notes | further
    else:
        notes["kad"] = failure
    value, floor = found.get("value"), found.get("floor")
    dim = next(iter(reference_by_clip.values())).shape[1]
    few = min(counts["n_windows"], counts["n_reference_windows"])
    silent = {"infinity", "by_clip", "real_by_clip"}  # too few samples for them is the rule, not a fault
    return FrechetResult(
        value=value,
        interval=found.get("interval"),
        floor=floor,
        over_floor=value / floor if value is not None and floor else None,
        infinity=found.get("infinity"),
        infinity_note=notes.get("infinity", ""),
        by_clip=found.get("by_clip") or {},
        real_by_clip=found.get("real_by_clip"),
        kad=found.get("kad"),
        kad_interval=found.get("kad_interval"),
        kad_floor=found.get("kad_floor"),
        enough_windows=few >= WINDOWS_PER_DIMENSION * dim,
        note="; ".join(f"{name}: {note}" for name, note in notes.items() if name not in silent),
        **counts,
    )


def unmeasured(note: str, **counts: int) -> FrechetResult:
    """No number at all, and why."""
    return FrechetResult(
        value=None,
        interval=None,
        floor=None,
        over_floor=None,
        infinity=None,
        infinity_note=note,
        by_clip={},
        real_by_clip=None,
        kad=None,
        kad_interval=None,
        kad_floor=None,
        enough_windows=False,
        note=note,
        **counts,
    )


def frechet_interval(
    generated_by_clip: WindowsByClip, reference_by_clip: WindowsByClip, *, level: float = 0.95
) -> Interval:
    """Interval for the mean FAD of two such sets at these numbers of clips; jackknife over clips, of the logarithm.

    FAD of few clips lies above FAD of many. The interval is for the former, so it stands beside `frechet_floor`, which
    has the same bias, and is none for the FAD of endless sets. Where there is nothing to find it covers more than it
    says.

    Raises:
        MetricError: fewer than three clips on a side, or windows that `frechet_distance` refuses.
    """
    generated, reference = spanned(
        clips_in_order(generated_by_clip, name="generated", least=FEWEST_CLIPS),
        clips_in_order(reference_by_clip, name="reference", least=FEWEST_CLIPS),
    )
    for side, name in ((generated, "generated"), (reference, "reference")):
        if sum(map(len, side)) - max(map(len, side)) < 2:
            raise MetricError(f"{name}: without one clip fewer than two windows are left: give more or longer audio")
    ours, theirs = (FixedSide.of(Moments.of(side)) for side in (generated, reference))
    value = theirs.distance(Moments.of(generated))
    return two_sample_interval(
        value,
        [theirs.distance(moments) for moments in leave_one_out(generated)],
        [ours.distance(moments) for moments in leave_one_out(reference)],
        positive=True,
        level=level,
    )


def distances_by_clip(generated_by_clip: WindowsByClip, reference: FrechetStatistics) -> dict[str, float]:
    """FAD of each clip alone to the reference, the farthest first (per-song FAD, Gui et al. 2024).

    Raises:
        MetricError: a clip with fewer than eight windows.
    """
    shortest = min(map(len, generated_by_clip.values()), default=0)
    if shortest < FEWEST_WINDOWS_ALONE:
        raise MetricError(f"a clip has {shortest} windows; alone it needs {FEWEST_WINDOWS_ALONE}")
    found = {name: frechet_distance(clip, reference) for name, clip in generated_by_clip.items()}
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def real_distances_by_clip(reference_by_clip: WindowsByClip, *, windows: int) -> tuple[float, float]:
    """Median and highest FAD of a reference clip, cut to its middle `windows`, to the rest of the reference.

    Raises:
        MetricError: fewer than two clips, or fewer than eight windows.
    """
    clips = clips_in_order(reference_by_clip, name="reference")
    found: list[float] = []
    for index, clip in enumerate(clips):
        start = max(0, (len(clip) - windows) // 2)
        rest = frechet_statistics(np.concatenate([*clips[:index], *clips[index + 1 :]]), name="reference")
        found += distances_by_clip({"": clip[start : start + windows]}, rest).values()
    return float(np.median(found)), max(found)


def _wanted(ours: WindowsByClip, theirs: WindowsByClip, *, seed: int) -> dict[str, Callable[[], Any]]:
    typical = round(float(np.median([len(clip) for clip in ours.values()])))
    x, y = np.concatenate([*ours.values()]), np.concatenate([*theirs.values()])
    return {
        "value": lambda: frechet_distance(x, y),
        "floor": lambda: frechet_floor(theirs, n_clips=len(ours), windows_per_clip=typical, seed=seed),
        "interval": lambda: frechet_interval(ours, theirs),
        "infinity": lambda: frechet_infinity(ours, theirs, seed=seed),
        "by_clip": lambda: distances_by_clip(ours, frechet_statistics(y, name="reference")),
        "real_by_clip": lambda: real_distances_by_clip(theirs, windows=typical),
    }


def _wanted_of_kernels(kernels: ClipKernels, *, seed: int, n_splits: int) -> dict[str, Callable[[], Any]]:
    return {
        "kad": lambda: kernels.value,
        "kad_interval": kernels.interval,
        "kad_floor": lambda: kernel_floor(
            kernels.reference, n_clips=len(kernels.generated), seed=seed, n_splits=n_splits
        ),
    }


def _attempted(wanted: Mapping[str, Callable[[], Any]]) -> tuple[dict[str, Any], dict[str, str]]:
    """What could be measured, and why the rest could not."""
    tried = {name: attempt(measure) for name, measure in wanted.items()}
    found = {name: value for name, (value, _) in tried.items()}
    return found, {name: failure for name, (_, failure) in tried.items() if failure}
