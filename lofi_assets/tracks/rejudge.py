"""Recorded tracks under the gates as they are today: an amended limit counts without the audio being worked on again.

Copies of a recording are judged over the whole library each time, in `duplicates.py`.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePath

from lofi_assets.constitution.gates import Gate, Verdict, judge_track, too_long
from lofi_assets.files.hashing import hash_of
from lofi_assets.tracks.track_table import CHAIN_VERSION, TrackRow

AMONG_TRACKS = "duplicate_similarity"
"""The one measure that a track does not have by itself."""


def rules_hash(gates: Sequence[Gate]) -> str:
    """Short hash of what tracks are judged by: rules and their order, not the words around them."""
    return hash_of([(gate.id, gate.measure, gate.op, gate.limit) for gate in _own(gates)])[:12]


def judged_today(rows: Sequence[TrackRow], *, gates: Sequence[Gate], segment: bool) -> list[TrackRow] | None:
    """The rows of one raw file, judged by today's gates from the measures on record.

    A track that is turned away now keeps its audio, so that it comes back without work if the limit is set back.

    Args:
        gates: track-scope gates of `processed_tracks`.
        segment: long files are cut into parts (`AudioSettings.segment`).
    Returns:
        None if only working on the file again can tell: a rejected one whose rule no longer rejects it, one for which
        a gate's measure was never taken, or one that is to be cut where it was whole, or the other way round, or one
        that an earlier version of the audio chain turned away.
    """
    rules = rules_hash(gates)
    if any(_turned_away_by_an_earlier_chain(row) for row in rows):
        return None
    if all(row.judged_by == rules for row in rows):
        return list(rows)
    if segment and bool(rows[0].part_of) != too_long(sum(row.duration for row in rows), gates):
        return None
    judged = [_judged(row, gates, rules) for row in rows]
    return None if None in judged else [row for row in judged if row is not None]


def _turned_away_by_an_earlier_chain(row: TrackRow) -> bool:
    return not row.accepted and not row.audio_sha256 and row.chain != CHAIN_VERSION


def _judged(row: TrackRow, gates: Sequence[Gate], rules: str) -> TrackRow | None:
    own = _own(gates)
    verdict = judge_track(own, row.measures)
    whole = bool(row.audio_sha256) and all(gate.measure in row.measures for gate in own)
    if verdict is None and not whole:
        return None
    return replace(
        row,
        status="rejected" if verdict else "accepted",
        rule=verdict.gate.id if verdict else "",
        reason=_reason(row, verdict) if verdict else "",
        judged_by=rules,
    )


def _reason(row: TrackRow, verdict: Verdict) -> str:
    """With today's limit; of a yes or no, what the decoder or the worker said stays, which no measure holds."""
    if verdict.gate.id == row.rule and isinstance(verdict.gate.limit, bool):
        return row.reason
    return f"{PurePath(row.raw_path).name!r}: {verdict.text}"


def _own(gates: Sequence[Gate]) -> list[Gate]:
    return [gate for gate in gates if gate.measure != AMONG_TRACKS]
