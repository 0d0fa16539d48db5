"""What differs between two dataset versions, track by track."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from lofi_assets.dataset.versions import DatasetError, read_texts, version_tracks
from lofi_assets.records import Split, Track

T = TypeVar("T")
Value = str | list[str] | None
"""Of one field of a track."""


@dataclass(frozen=True)
class Difference:
    """What changed from one version to another; every pair is before and after."""

    versions: tuple[str, str]
    tracks: tuple[int, int]
    hours: tuple[float, float]
    splits: Mapping[Split, tuple[int, int]]
    styles: Mapping[str, tuple[int, int]]
    """Tracks by their first style."""
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: Mapping[str, Mapping[str, tuple[Value, Value]]]
    """Field -> track id -> what it was and is."""


@dataclass(frozen=True)
class _Contents:
    """A track and its texts."""

    track: Track
    prompt: str
    lyrics: str


_FIELDS: Mapping[str, Callable[[_Contents], Value]] = {
    "split": lambda found: found.track.split,
    "prompt": lambda found: found.prompt,
    "lyrics": lambda found: found.lyrics,
    "audio": lambda found: found.track.audio_sha256,
    "style_ids": lambda found: found.track.style_ids,
    "source_id": lambda found: found.track.source_id,
}


def difference(before: Path, after: Path) -> Difference:
    """What changed from one version to another.

    Raises:
        DatasetError, StoreError: a version lacks a file, or its records are broken.
    """
    first, second = (_contents(folder) for folder in (before, after))

    def both(count: Callable[[list[Track]], T]) -> tuple[T, T]:
        return count([found.track for found in first.values()]), count([found.track for found in second.values()])

    styles = both(lambda tracks: Counter(track.style_ids[0] for track in tracks))
    splits: tuple[Split, ...] = ("train", "validation")
    return Difference(
        versions=(before.name, after.name),
        tracks=both(len),
        hours=both(lambda tracks: round(sum(track.duration for track in tracks) / 3600, 4)),
        splits={side: both(partial(_counted, side=side)) for side in splits},
        styles={name: (styles[0][name], styles[1][name]) for name in sorted(styles[0] | styles[1])},
        added=tuple(sorted(second.keys() - first.keys())),
        removed=tuple(sorted(first.keys() - second.keys())),
        changed={
            field: {
                key: (value(first[key]), value(second[key]))
                for key in sorted(first.keys() & second.keys())
                if value(first[key]) != value(second[key])
            }
            for field, value in _FIELDS.items()
        },
    )


def _counted(tracks: list[Track], *, side: Split) -> int:
    return sum(track.split == side for track in tracks)


def _contents(folder: Path) -> dict[str, _Contents]:
    contents = {}
    for track in version_tracks(folder) or ():
        try:
            contents[track.track_id] = _Contents(track, *read_texts(folder, track.track_id))
        except OSError as error:
            raise DatasetError(f"{error.filename}: is missing; run: lofi dataset verify {folder.name}") from error
    return contents
