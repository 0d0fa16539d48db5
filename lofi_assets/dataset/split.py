"""Which side of the split a track is on: by a stable hash of its group, and for good once it is on record.

Tracks of a group must not straddle the split. The record of earlier sides is kept by `build.py`.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

from lofi_assets.records import Split
from lofi_assets.tracks.duplicates import Pair
from lofi_assets.tracks.track_table import TrackSound
from lofi_assets.wording import counted

VALIDATION_SHARE = 0.10
"""Share of groups in the validation split (data model, Track)."""

SPLIT_SALT = "lofi-split-1"
"""Part of every split decision; changing it would move every track."""


def split_of(group: str) -> Split:
    """The split of a group by its hash alone, so that adding tracks never moves an old one."""
    return "validation" if _place(group) < VALIDATION_SHARE else "train"


def _place(group: str) -> float:
    """A group's hash as a number in [0, 1)."""
    return int.from_bytes(hashlib.sha256(f"{SPLIT_SALT}:{group}".encode()).digest()[:8], "big") / 2**64


def group_tracks(track_ids: Iterable[str], *, linked: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Track id -> group id: the connected components of `linked` pairs, named by their smallest track id."""
    parent = {track_id: track_id for track_id in track_ids}

    def root(track_id: str) -> str:
        while parent[track_id] != track_id:
            parent[track_id] = parent[parent[track_id]]
            track_id = parent[track_id]
        return track_id

    for first, second in linked:
        if first in parent and second in parent:
            low, high = sorted((root(first), root(second)))
            parent[high] = low
    return {track_id: root(track_id) for track_id in parent}


def linked_tracks(rows: Sequence[TrackSound], pairs: Iterable[Pair]) -> Iterator[tuple[str, str]]:
    """Pairs that share a group: near-duplicates down to the review band, and whatever comes from one raw file."""
    yield from ((pair.a, pair.b) for pair in pairs)
    first: dict[str, str] = {}
    for row in rows:
        for origin in filter(None, (row.raw_path, row.source_sha256)):
            yield first.setdefault(origin, row.track_id), row.track_id


def assign_splits(groups: Mapping[str, str], *, recorded: Mapping[str, Split]) -> dict[str, Split]:
    """Split of every track; a group keeps the split that any of its members already has, others go by their hash.

    Both sides hold a group as soon as there are two: where the hash leaves validation empty, the new group with the
    lowest hash goes there, and where it leaves training empty, the new one with the highest.

    A track that was validated against is never trained on. So were a new track to bridge two recorded groups,
    validation wins; were every group in validation on record, training stays empty until a track is added; and were the
    last validation track withdrawn with nothing new beside it, the recorded training group with the lowest hash goes to
    validation. What moves from train holds for checkpoints of the new version only: those of the old one have heard it,
    and the gate on checkpoints of another dataset keeps the two apart.

    Args:
        groups: track id -> group id.
        recorded: track id -> split in any dataset so far.
    """
    kept: dict[str, Split] = {}
    for track_id, split in recorded.items():
        group = groups.get(track_id)
        if group is not None:
            kept[group] = "validation" if "validation" in (split, kept.get(group)) else split
    sides = {group: kept.get(group) or split_of(group) for group in groups.values()}
    fresh = sorted(sides.keys() - kept.keys(), key=_place)
    if len(sides) > 1 and "validation" not in sides.values():
        sides[fresh[0] if fresh else min(sides, key=_place)] = "validation"
    elif len(sides) > 1 and "train" not in sides.values() and fresh:
        sides[fresh[-1]] = "train"
    return {track_id: sides[group] for track_id, group in groups.items()}


def straddling_groups(splits: Mapping[str, Split], groups: Mapping[str, str]) -> list[str]:
    """Groups with tracks on both sides of the split; empty unless something is broken."""
    sides: dict[str, set[Split]] = {}
    for track_id, split in splits.items():
        sides.setdefault(groups[track_id], set()).add(split)
    return sorted(group for group, found in sides.items() if len(found) > 1)


_ENDS = {"validation": "lowest", "train": "highest"}


def split_note(side: Split, splits: Mapping[str, Split], groups: Mapping[str, str]) -> str:
    """What the gate on one side says of it: how many of how many tracks, and why, where the hash alone did not decide.

    Args:
        splits: track id -> split, of the tracks in the dataset.
        groups: track id -> group id, of at least these.
    """
    chosen = sorted(track_id for track_id, split in splits.items() if split == side)
    told = f"{len(chosen)} of {counted(len(splits), 'track')}"
    if chosen and all(split_of(groups[track_id]) != side for track_id in splits):
        return f"{told}; the group with the {_ENDS[side]} hash, since the hash alone left {side} empty"
    if chosen or not splits:
        return told
    if len({groups[track_id] for track_id in splits}) < 2:
        return f"{told}: they are one group (near-duplicates, parts of one file), which never straddles; add another"
    return f"{told}: every group has been validated against, and so is never trained on; add a recording"
