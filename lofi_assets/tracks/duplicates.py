"""Copies of one recording: which of them stays in the library, and why the others do not.

What belongs here: the order among copies, and `duplicates.json`: the pairs that the split keeps together. What does
not: how alike two tracks are (`audio/fingerprint.py`), how alike is too alike (the gate).

The copy that stays is the lossless one before the lossy one, then the one whose licence type allows more, then the one
with the better quality score, then what was there first. All of it is asked anew over the whole library each time, from
what is on record; so a copy comes back without work when the one that stayed goes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from pydantic.dataclasses import dataclass

from lofi_assets.constitution.gates import Gate, judge_track
from lofi_assets.files.documents import read_json, write_json
from lofi_assets.files.typed import STORED, parsed, plain
from lofi_assets.files.writing import StoreError
from lofi_assets.records import Split
from lofi_assets.store import Store
from lofi_assets.tracks.track_table import TrackRow

DUPLICATE_RULE = "audio.near_duplicate"

LOSSLESS = ("wav", "flac", "aiff")
"""Codecs, as the decoder read them (`audio.decode.Codec`): the name of a file says nothing."""


_REMEDY = "materialise processed_tracks again"


@dataclass(frozen=True, config=STORED)
class LikelyCopies:
    """Two tracks that may be the same recording."""

    a: str
    b: str
    similarity: float
    """0 to 1; from the gate's limit on one of them is out."""


@dataclass(frozen=True, config=STORED)
class PartsOfOneFile:
    """Two tracks that were cut from one raw file, whether they sound alike or not."""

    a: str
    b: str
    part_of: str
    """Id of the raw file."""


Pair = LikelyCopies | PartsOfOneFile


def pairs_path(store: Store) -> Path:
    """Where the pairs lie."""
    return store.metadata("duplicates.json")


def read_pairs(store: Store) -> list[Pair]:
    """The pairs that the split keeps together; none before the first materialisation.

    Raises:
        StoreError: the file cannot be read, or is of another version.
    """
    path = pairs_path(store)
    found = read_json(path, default=[], remedy=_REMEDY)
    if not isinstance(found, list):
        raise StoreError(f"{path}: is no list of pairs; {_REMEDY}")
    return [_pair(one, where=f"{path}, pair {number}") for number, one in enumerate(found, start=1)]


def _pair(found: object, *, where: str) -> Pair:
    if isinstance(found, dict) and "part_of" in found:
        return parsed(PartsOfOneFile, found, where=where, remedy=_REMEDY)
    return parsed(LikelyCopies, found, where=where, remedy=_REMEDY)


def write_pairs(store: Store, pairs: Sequence[Pair]) -> None:
    """Write the pairs."""
    write_json(pairs_path(store), [plain(pair) for pair in pairs])


def comparisons_path(store: Store) -> Path:
    """What was compared before (`audio.fingerprint.update_duplicates`)."""
    return store.cache / "duplicates.json"


class Standing(NamedTuple):
    """Where a copy stands among its like, by field in this order; the smallest stays. True is worse than False."""

    lossy: bool
    """Or of a codec that is not on record."""
    conditional: bool
    """The licence type does not permit training by itself: what allows it is a statement on this one record."""
    score_below_100: int
    newcomer: bool
    """Not accepted the last time."""
    track_id: str


def mark_duplicates(
    rows: Sequence[TrackRow],
    *,
    recorded: Mapping[str, TrackRow],
    licences: Mapping[str, str],
    gates: Sequence[Gate],
    memory: Path,
) -> tuple[list[TrackRow], list[LikelyCopies]]:
    """Reject every track that is a copy of one that stays; also the pairs found, which the split keeps together.

    Args:
        rows: of all tracks, in any order; those that another rule rejected neither reject nor come back.
        recorded: track id -> its row after the last time.
        licences: id of the raw file -> status of its licence type (`config/licenses.yaml`).
        memory: file that remembers comparisons (`update_duplicates`).
    Returns:
        The rows in the same order, and the pairs.
    """
    from lofi_assets.audio.fingerprint import update_duplicates

    sound = {row.track_id: row for row in rows if row.accepted or row.rule == DUPLICATE_RULE}
    files = {track_id: row.whole for track_id, row in sound.items()}
    words = {track_id: row.fingerprint_words for track_id, row in sound.items()}
    found = [pair for pair in update_duplicates(words, memory=memory) if files[pair.a] != files[pair.b]]
    similar: dict[str, list[tuple[str, float]]] = {}
    for pair in found:
        similar.setdefault(pair.a, []).append((pair.b, pair.similarity))
        similar.setdefault(pair.b, []).append((pair.a, pair.similarity))
    standings = {key: _standing(row, recorded.get(key), licences.get(files[key], "")) for key, row in sound.items()}
    judged: dict[str, TrackRow] = {}
    for track_id in sorted(sound, key=standings.__getitem__):
        kept = [(value, other) for other, value in similar.get(track_id, ()) if _kept(judged.get(other))]
        similarity, other = max(kept, default=(0.0, ""))
        verdict = judge_track(gates, {"duplicate_similarity": similarity})
        why = _why(standings[other], standings[track_id]) if verdict else ""
        judged[track_id] = replace(
            sound[track_id],
            status="rejected" if verdict else "accepted",
            rule=verdict.gate.id if verdict else "",
            reason=f"{verdict.text}: the same recording as {other}, {why}" if verdict else "",
            measures={**sound[track_id].measures, "duplicate_similarity": similarity},
        )
    pairs = [LikelyCopies(pair.a, pair.b, round(pair.similarity, 4)) for pair in found]
    return [judged.get(row.track_id, row) for row in rows], pairs


def _standing(row: TrackRow, before: TrackRow | None, licence: str) -> Standing:
    return Standing(
        lossy=row.codec not in LOSSLESS,
        conditional=licence != "permitted",
        score_below_100=100 - row.quality_score,
        newcomer=not _kept(before),
        track_id=row.track_id,
    )


def _why(stays: Standing, goes: Standing) -> str:
    """In what the copy that stays is ahead."""
    if stays.lossy != goes.lossy:
        return "which is lossless"
    if stays.conditional != goes.conditional:
        return "whose licence type permits training by itself"
    if stays.score_below_100 != goes.score_below_100:
        return f"whose quality score is {100 - stays.score_below_100}, not {100 - goes.score_below_100}"
    # One wording for "was there" and "is first by name": the next run over an unchanged library says the same.
    return "which is as good and came first"


def same_file(rows: Sequence[TrackRow]) -> list[PartsOfOneFile]:
    """Pairs that keep the parts of one file on one side of the split."""
    parts: dict[str, list[str]] = {}
    for row in rows:
        if row.part_of:
            parts.setdefault(row.part_of, []).append(row.track_id)
    return [PartsOfOneFile(ids[0], other, whole) for whole, ids in sorted(parts.items()) for other in ids[1:]]


def splits_with_copies(recorded: Mapping[str, Split], *, groups: Mapping[str, str]) -> dict[str, Split]:
    """The recorded splits, carried over to every track of the same group: another copy may stay from now on.

    Args:
        recorded: track id -> split in any dataset so far.
        groups: track id -> group id, of all tracks that are known, the rejected ones too.
    """
    sides: dict[str, Split] = {}
    for track_id, split in recorded.items():
        if group := groups.get(track_id):
            # What was validated against is never trained on.
            sides[group] = "validation" if "validation" in (split, sides.get(group)) else split
    return {**recorded, **{track_id: sides[group] for track_id, group in groups.items() if group in sides}}


def _kept(row: TrackRow | None) -> bool:
    return row is not None and row.accepted
