"""The loss of each track beside what is usual at its timesteps, and the tracks that stand out.

What belongs here: from a run's log to a table, an alarm and a picture. What does not: the log (`trainer.log`), latents
before training (`features.latents`). Imports without torch.

A loss depends on the timestep first of all: between little noise and pure noise it rises tenfold, and which timesteps a
track gets is chance. So each loss is divided by what is usual at its timestep, the median over all tracks there, and a
track's number is the median of these quotients over its items. 1 is usual. What it finds and what it does not is in
docs/decisions/032-tracks-that-hurt.md.
"""

import csv
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from lofi_assets import pictures
from lofi_assets.files.writing import atomic_path
from lofi_assets.training.features.latents import FEW, MAD_TO_SIGMA, UNUSUAL, of_others
from lofi_assets.training.trainer.log import read_log
from lofi_assets.wording import counted, named

if TYPE_CHECKING:
    import numpy as np

LATEST = 20_000
"""Items that are looked at, the latest of the run: 40 of each of 500 tracks."""
FEWEST_ITEMS = 3
"""Of a track: fewer say nothing of it."""
ITEMS_PER_BIN = 31
MOST_BINS = 50
NOTICEABLE = math.log(2.0)
"""A smaller difference is no alarm however alike the other tracks are."""
TABLE = "track_losses.csv"
PICTURE = "track_losses.png"


@dataclass(frozen=True)
class TrackLoss:
    """What training saw of one track."""

    track_id: str
    items: int
    """Of those that were looked at."""
    skipped: int
    """Items whose loss was no finite number, and that were left out."""
    loss: float | None
    """Mean over its items; None where none had a loss."""
    relative: float | None
    """Median over its items of loss / usual loss at the same timestep; None for too few items."""
    score: float | None
    """How far the logarithm of `relative` is from that of the others, in robust standard deviations (MAD) with the
    uncertainty of its own; None where there is no `relative`, or too few tracks to compare with."""

    @property
    def outlying(self) -> bool:
        """Whether a person should listen to it."""
        far = self.score is not None and abs(self.score) > UNUSUAL
        return far and self.relative is not None and abs(math.log(self.relative)) > NOTICEABLE


def track_losses(lines: Iterable[Mapping[str, Any]]) -> list[TrackLoss]:
    """One row per track of a run's log, the highest relative loss first.

    Lines without losses of single items (an earlier version wrote them) are passed over.
    """
    import numpy as np

    tracks, timesteps, losses = _items(lines)
    finite = np.isfinite(losses) & (losses > 0)
    relative = np.full(len(losses), np.nan)
    relative[finite] = np.log(losses[finite]) - _usual(timesteps[finite], np.log(losses[finite]))
    by_track = {track: np.flatnonzero(tracks == track) for track in sorted(set(tracks.tolist()))}
    medians = {
        track: float(np.median(found))
        for track, at in by_track.items()
        if len(found := relative[at][finite[at]]) >= FEWEST_ITEMS
    }
    scores = _scores(medians, {track: relative[by_track[track]][finite[by_track[track]]] for track in medians})
    rows = [
        TrackLoss(
            track_id=track,
            items=len(at),
            skipped=int((~np.isfinite(losses[at])).sum()),
            loss=float(losses[at][finite[at]].mean()) if finite[at].any() else None,
            relative=math.exp(medians[track]) if track in medians else None,
            score=scores.get(track),
        )
        for track, at in by_track.items()
    ]
    return sorted(rows, key=lambda row: (-(row.relative or 0.0), row.track_id))


def outlying_tracks(rows: Sequence[TrackLoss]) -> dict[str, Any]:
    """The measure for a gate: how many tracks stand out; None where that cannot be told.

    Without their names: a measure is evidence, which may be published.
    """
    if not any(row.score is not None for row in rows):
        return {"value": None, "note": f"takes {FEW + 1} tracks with {FEWEST_ITEMS} logged losses each"}
    found = [row for row in rows if row.outlying]
    return {"value": len(found), "note": f"the first: {_compared(found[0])}" if found else ""}


def skipped_items(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The measure for a gate: items that the run left out since their loss was no finite number; None where the log
    does not say it."""
    if not any("losses" in line for line in lines):
        return {"value": None, "note": "the log has no losses of single items"}
    tracks = [label.rsplit("@", 1)[0] for line in lines for label in line.get("skipped", ())]
    return {"value": len(tracks), "note": f"of {counted(len(set(tracks)), 'track')}" if tracks else ""}


def told(row: TrackLoss) -> str:
    """A track that stands out, in a few words."""
    return f"{row.track_id}: {_compared(row)}"


def report(log: Path, *, say: Callable[[str], None]) -> None:
    """Write the table beside a run's log, and say which tracks stand out."""
    rows = track_losses(read_log(log))
    if not rows:
        return
    write_table(log.with_suffix(""), rows)
    if found := [told(row) for row in rows if row.outlying]:
        say(f"listen to {named(found)}; all tracks are in {log.with_suffix('') / TABLE}")


def write(folder: Path, rows: Sequence[TrackLoss]) -> None:
    """Write `track_losses.csv` and `track_losses.png` into the folder beside a run's log; nothing without a row."""
    if not rows:
        return
    write_table(folder, rows)
    if drawn := picture(rows):
        with atomic_path(folder / PICTURE) as temporary:
            temporary.write_bytes(drawn)


def picture(rows: Sequence[TrackLoss]) -> bytes | None:
    """Relative loss of every track, those that stand out named; None without any."""
    values = {row.track_id: row.relative for row in rows if row.relative is not None}
    marked = [row.track_id for row in rows if row.outlying]
    return pictures.ranked(values, label="loss / usual loss", marked=marked) if values else None


def write_table(folder: Path, rows: Sequence[TrackLoss]) -> None:
    """Write `track_losses.csv` beside the log."""
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / TABLE) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["track", "items", "skipped", "mean loss", "relative to usual", "score", "outlying"])
        for row in rows:
            numbers = ["" if number is None else f"{number:.4g}" for number in (row.loss, row.relative, row.score)]
            writer.writerow([row.track_id, row.items, row.skipped, *numbers, "yes" if row.outlying else ""])


def markdown(rows: Sequence[TrackLoss], *, most: int = 10) -> str:
    """The tracks that are furthest from usual, as a table; "" for none."""
    scored = sorted((row for row in rows if row.score is not None), key=lambda row: -abs(row.score or 0.0))[:most]
    lines = [
        f"| {row.track_id} | {row.items} | {row.relative:.2f} | {row.score:.1f} | {_mark(row)} |" for row in scored
    ]
    head = ["| track | items | to usual | score | |", "|---|---|---|---|---|"]
    return "\n".join([*head, *lines]) if lines else ""


def _compared(row: TrackLoss) -> str:
    return f"loss {row.relative:.3g} times the usual at its timesteps ({row.items} items)"


def _mark(row: TrackLoss) -> str:
    return "**listen**" if row.outlying else ""


def _items(lines: Iterable[Mapping[str, Any]]) -> "tuple[np.ndarray, np.ndarray, np.ndarray]":
    """Tracks, timesteps and losses of the latest items; NaN for a skipped one."""
    import numpy as np

    found = [
        (*label.rsplit("@", 1), math.nan if loss is None else loss)
        for line in lines
        if "losses" in line
        for label, loss in zip(line["items"], line["losses"], strict=True)
    ][-LATEST:]
    tracks = np.array([track for track, _, _ in found], dtype=object)
    timesteps = np.array([float(timestep) for _, timestep, _ in found])
    return tracks, timesteps, np.array([loss for _, _, loss in found], dtype=float)


def _usual(timesteps: "np.ndarray", logs: "np.ndarray") -> "np.ndarray":
    """The usual logarithm of the loss at each timestep: medians of bins of equally many items, joined by lines."""
    import numpy as np

    if not len(logs):
        return logs
    bins = min(max(len(logs) // ITEMS_PER_BIN, 1), MOST_BINS)
    parts = np.array_split(np.argsort(timesteps, kind="stable"), bins)
    places = [float(np.median(timesteps[part])) for part in parts]
    usual: np.ndarray = np.interp(timesteps, places, [float(np.median(logs[part])) for part in parts])
    return usual


def _scores(medians: Mapping[str, float], items: "Mapping[str, np.ndarray]") -> dict[str, float]:
    """Robust z-scores of the tracks' medians.

    The spread is that of the other tracks (MAD) and of the median itself: 1.2533 sigma / sqrt(n), the standard error of
    a median of n normal numbers.
    """
    import numpy as np

    if len(medians) <= FEW:
        return {}
    spread = MAD_TO_SIGMA * median(
        float(value) for track, found in items.items() for value in np.abs(found - medians[track])
    )
    scores, others = {}, of_others(medians, _median_and_spread)
    for track, own in medians.items():
        usual, among = others(track) or (own, 0.0)
        scores[track] = (own - usual) / max(math.hypot(among, 1.2533 * spread / math.sqrt(len(items[track]))), 1e-9)
    return scores


def _median_and_spread(values: Sequence[float]) -> tuple[float, float]:
    usual = median(values)
    return usual, MAD_TO_SIGMA * median(abs(value - usual) for value in values)
