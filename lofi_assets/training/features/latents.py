"""Latents of a track beside those of the others: what would outweigh them all in training, and what looks unlike them.

What belongs here: statistics of latents and what they say. What does not: the files (`files`), which asset and trainer
act on it (`training.feature_cache`, `training.trainer.loop`). Imports without torch. How the limits were found:
docs/decisions/032-tracks-that-hurt.md.

The loss is a squared error, so that latents at 30 times their scale weigh 900 times as much as any other track's.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, TypeVar

from lofi_assets.backbones import Backbone
from lofi_assets.backbones.features import LATENTS, FeatureError
from lofi_assets.training.features.files import FeatureKey, read_array
from lofi_assets.wording import counted

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")
U = TypeVar("U")

UNIT_RANGE = (1 / 16, 5.0)
"""Standard deviations that latents may have whatever other tracks have, in units of `LatentShape.deviation`. Flow
matching mixes latents with noise of 1: far above it the noise is too weak to hide anything, far below it there is
nothing to see in it."""
FAR = 3.0
"""Factor between a track's standard deviation and the median of the others from which on it outlies."""
FAR_PEAK = 4.0
"""The same for the largest absolute value, upwards."""
STILL = 1 / 6
"""Part of the others' movement below which there is no music: silence has 1/28 of it, one sustained tone 1/8."""
UNUSUAL = 6.0
"""Robust z-score (median and MAD of the others) from which on a person should listen, if the difference is also large
enough to matter: see `_NOTICEABLE`."""
FEW = 8
"""Fewer other tracks than this have no spread to speak of."""
REMEDY = (
    "Listen to it: mend its raw file, or take it out with `lofi review reject`, and materialise the dataset and "
    "feature_cache again. If the audio is fine, delete the named file and materialise feature_cache again"
)
MANY = 64
"""From so many tracks on, a median with a track and one without it are the same for every purpose here."""
MAD_TO_SIGMA = 1.4826
"""A normal distribution's standard deviation over its median absolute deviation."""


@dataclass(frozen=True)
class LatentStatistics:
    """The latents of one track, over all their numbers, in the model's own unit."""

    mean: float
    deviation: float
    """Standard deviation."""
    largest: float
    """Absolute value."""
    movement: float
    """Standard deviation over time, averaged over all channels and bands: 0 for what never changes."""


@dataclass(frozen=True)
class Finding:
    """A track that is not as the others are."""

    track_id: str
    why: str


_NOTICEABLE = {"mean": 0.12, "deviation": math.log(1.4), "largest": math.log(2.0), "movement": math.log(2.0)}
"""Differences below these are not worth a person's time however alike the others are. `mean`: in standard deviations of
the others; the rest: logarithm of the factor."""


def statistics_of(latents: "np.ndarray", *, frame_axis: int) -> LatentStatistics:
    """Statistics of finite latents of one track, computed in float64.

    Args:
        latents: as `LatentShape` says.
        frame_axis: where the frames are.
    """
    import numpy as np

    exact = latents.astype(np.float64)
    return LatentStatistics(
        mean=float(exact.mean()),
        deviation=float(exact.std()),
        largest=float(np.abs(exact).max()),
        movement=float(exact.std(axis=frame_axis).mean()),
    )


def outlying(statistics: Mapping[str, LatentStatistics], *, scale: float = 1.0) -> list[Finding]:
    """Tracks that must not be trained on, by track id.

    A track is held against `UNIT_RANGE`, and against the median of all others that are within it. Where two tracks
    differ and nothing says which of them is wrong, both are named.

    Args:
        scale: `LatentShape.deviation`.
    """
    found, sound = [], {name: own for name, own in statistics.items() if not _off_scale(own, scale)}
    medians = of_others(sound, _medians)
    for track_id, own in sorted(statistics.items()):
        usual = medians(track_id)
        if reasons := [*_off_scale(own, scale), *(_far_from(own, usual) if usual else ())]:
            found.append(Finding(track_id, "; ".join(reasons)))
    return found


def unusual(statistics: Mapping[str, LatentStatistics], *, scale: float = 1.0) -> list[Finding] | None:
    """Tracks that a person should listen to, the outlying ones not among them; None where there are too few tracks to
    say what is usual."""
    if len(statistics) <= FEW:
        return None
    stopped, found = {finding.track_id for finding in outlying(statistics, scale=scale)}, []
    places = {name: _coordinates(own) for name, own in statistics.items()}
    spreads = of_others(places, _spreads)
    for track_id, own in sorted(places.items()):
        usual = spreads(track_id)
        if usual and track_id not in stopped and (reasons := _unlike(own, usual)):
            found.append(Finding(track_id, "; ".join(reasons)))
    return found


@dataclass(frozen=True)
class MeasuredLatents:
    """The latents of a set of tracks, and what to make of them."""

    files: Mapping[str, Path]
    """Track id -> file of its latents."""
    statistics: Mapping[str, LatentStatistics]
    outlying: Sequence[Finding]
    unusual: Sequence[Finding] | None

    def values(self) -> dict[str, Any]:
        """Measures for gates: how many tracks. Which they are is in `needs`."""
        few = f"fewer than {FEW + 1} tracks: nothing is usual among them"
        odd = {"value": None, "note": few} if self.unusual is None else _told(self.unusual)
        return {"outlying_latents": _told(self.outlying), "unusual_latents": odd}

    def needs(self) -> list[dict[str, str]]:
        """A row for each track that a person has to listen to."""
        stopped = [self._need(finding, "not trained on") for finding in self.outlying]
        return stopped + [self._need(finding, "listen to it") for finding in self.unusual or ()]

    def rows(self) -> list[dict[str, Any]]:
        """A row for each track, those that outlie or are unusual first, then the largest first."""
        marked = [finding.track_id for finding in (*self.outlying, *(self.unusual or ()))]
        order = sorted(self.statistics, key=lambda name: (name not in marked, -self.statistics[name].deviation))
        names = ("mean", "deviation", "largest", "movement")
        return [
            {"track": track, **{name: round(getattr(self.statistics[track], name), 3) for name in names}}
            for track in order
        ]

    def refusal(self) -> str | None:
        """Why these tracks cannot be trained on, each with its file and what to do; None if they can."""
        if not self.outlying:
            return None
        tracks = [f"{finding.track_id} ({self.files[finding.track_id]}): {finding.why}" for finding in self.outlying]
        return f"{counted(len(tracks), 'track')} cannot be trained on. {'. '.join(tracks)}. {REMEDY}"

    def _need(self, finding: Finding, what: str) -> dict[str, str]:
        return {"track": finding.track_id, "what": what, "why": finding.why, "file": self.files[finding.track_id].name}


def measured_latents(backbone: Backbone, features_dir: Path, keys: Mapping[str, str]) -> MeasuredLatents:
    """The latents of tracks in a feature cache.

    Args:
        keys: track id -> `FeatureKey` as text.
    Raises:
        FeatureError: cached features are missing or damaged.
    """
    files: dict[str, Path] = {}
    for track_id, key in keys.items():
        path = FeatureKey.parse(key).files(features_dir).get(LATENTS)
        if path is None:
            raise FeatureError(f"{track_id}: {key!r} names no latents; materialise feature_cache again")
        files[track_id] = path
    latents = backbone.latents
    by_file = {
        path: statistics_of(read_array(path, shape=latents.shape), frame_axis=latents.frame_axis)
        for path in sorted(set(files.values()))
    }
    found, scale = {track_id: by_file[path] for track_id, path in files.items()}, latents.deviation
    return MeasuredLatents(files, found, outlying(found, scale=scale), unusual(found, scale=scale))


def _told(findings: Sequence[Finding]) -> dict[str, Any]:
    """Without the tracks' names: a measure is evidence, which may be published."""
    return {"value": len(findings), "note": f"the first: {findings[0].why}" if findings else ""}


def _off_scale(own: LatentStatistics, scale: float) -> list[str]:
    low, high = (scale * end for end in UNIT_RANGE)
    if low <= own.deviation <= high:
        return []
    return [f"standard deviation {own.deviation:.3g}, where latents have {low:.3g} to {high:.3g} beside noise of 1"]


def of_others(values: Mapping[str, T], summary: Callable[[Sequence[T]], U]) -> Callable[[str], U | None]:
    """Name -> summary of the values of all others; None where there are none."""
    if len(values) > MANY:
        whole = summary(list(values.values()))
        return lambda name: whole

    def others(name: str) -> U | None:
        found = [value for key, value in values.items() if key != name]
        return summary(found) if found else None

    return others


def _medians(others: Sequence[LatentStatistics]) -> dict[str, float]:
    return {name: median(getattr(other, name) for other in others) for name in ("deviation", "largest", "movement")}


def _far_from(own: LatentStatistics, usual: Mapping[str, float]) -> list[str]:
    reasons = []
    for name, most, least in (("deviation", FAR, 1 / FAR), ("largest", FAR_PEAK, 0.0), ("movement", FAR, STILL)):
        value, ratio = getattr(own, name), getattr(own, name) / max(usual[name], 1e-12)
        if not least <= ratio <= most:
            reasons.append(f"{_WORDS[name]} {value:.3g} is {ratio:.2g} times the others' {usual[name]:.3g}")
    return reasons


_WORDS = {
    "mean": "mean",
    "deviation": "standard deviation",
    "largest": "largest value",
    "movement": "change over time",
}


def _coordinates(own: LatentStatistics) -> dict[str, float]:
    """The mean as it is, the rest as logarithms: scales differ by factors."""
    logs = {name: math.log(max(getattr(own, name), 1e-12)) for name in ("deviation", "largest", "movement")}
    return {"mean": own.mean, **logs}


def _spreads(others: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, float]]:
    """Median and robust standard deviation of each coordinate."""
    found = {}
    for name in _NOTICEABLE:
        usual = median(other[name] for other in others)
        found[name] = usual, MAD_TO_SIGMA * median(abs(other[name] - usual) for other in others)
    return found


def _unlike(own: Mapping[str, float], spreads: Mapping[str, tuple[float, float]]) -> list[str]:
    common = math.exp(spreads["deviation"][0])
    reasons = []
    for name, least in _NOTICEABLE.items():
        usual, spread = spreads[name]
        if abs(own[name] - usual) > max(least * (common if name == "mean" else 1.0), UNUSUAL * spread):
            shown, expected = (number if name == "mean" else math.exp(number) for number in (own[name], usual))
            reasons.append(f"{_WORDS[name]} {shown:.3g}, usually {expected:.3g}")
    return reasons
