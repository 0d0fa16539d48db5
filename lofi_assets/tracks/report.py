"""What people see first of the library: what waits for them, and the worst tracks as pictures."""

from collections.abc import Callable, Mapping, Sequence

from lofi_assets import pictures
from lofi_assets.constitution.gates import Gate
from lofi_assets.constitution.verdicts import track_rules
from lofi_assets.files.hashing import hash_of
from lofi_assets.files.recorded_hashes import mended_text
from lofi_assets.outcome import Outcome
from lofi_assets.sources.report import rejected_files
from lofi_assets.tracks.track_table import TrackRow, rejected_track, shown_track
from lofi_assets.wording import counted, tallied

PICTURED = 6
"""Tracks whose waveforms are drawn."""


def tracks_outcome(
    accepted: Sequence[TrackRow],
    rejected: Sequence[TrackRow],
    *,
    licensed: Mapping[str, str],
    counts: Mapping[str, int],
    gates: Sequence[Gate],
    mended: Sequence[str] = (),
) -> Outcome:
    """What processing left, for people and for the gates.

    Args:
        licensed: track id -> sha256 of the verified raw file that it comes from.
        counts: of the increment.
        mended: files that had been changed and were put back, a sentence each.
    """
    rules = [row.rule for row in rejected]
    total = len(accepted) + len(rejected)
    by_score = sorted(accepted, key=lambda row: (row.quality_score, row.track_id))
    return Outcome(
        data_version=hash_of([(row.track_id, row.audio_sha256, row.audio_path) for row in accepted]),
        summary=tracks_summary(rejected=rules, accepted=len(accepted)),
        needs=rejected_files([*map(rejected_track, rejected)]),
        counts={"accepted": len(accepted), "rejected": len(rejected), **counts},
        values={
            "accepted_tracks": len(accepted),
            "unlicensed_tracks": sum(licensed.get(row.track_id) != row.source_sha256 for row in accepted),
            "rejected_share": len(rejected) / total if total else None,
        },
        **track_rules(
            gates,
            accepted=[(row.track_id, row.measures) for row in accepted],
            rejected=[(row.track_id, row.rule) for row in rejected],
        ),
        details={
            "hours": round(sum(row.duration for row in accepted) / 3600, 3),
            "mended": mended_text(mended),
        },
        rows=[shown_track(row) for row in (*rejected, *by_score)],
        pictures=waveforms(rejected, by_score),
    )


def tracks_summary(*, rejected: Sequence[str], accepted: int) -> str:
    """What to look at of the processed tracks.

    Args:
        rejected: rule of every rejected track.
    """
    if rejected:
        total = counted(len(rejected) + accepted, "track")
        were = "was rejected and waits" if len(rejected) == 1 else "were rejected and wait"
        return f"{len(rejected)} of {total} {were} for a better file: {tallied(rejected)}."
    return f"{counted(accepted, 'track')} accepted, none rejected. Nothing waits for a person."


def waveforms(rejected: Sequence[TrackRow], accepted: Sequence[TrackRow]) -> dict[str, Callable[[], bytes]]:
    """Rejected tracks that could be heard, each with its rule, then the accepted ones as they come."""
    heard = sorted((row for row in rejected if row.envelope != "[]"), key=lambda row: (row.rule, row.track_id))
    drawn = {
        **{f"{row.track_id}: rejected, {row.rule}": row for row in heard},
        **{f"{row.track_id}: score {row.quality_score}": row for row in accepted},
    }
    if not drawn:
        return {}
    envelopes = {title: row.outline for title, row in list(drawn.items())[:PICTURED]}
    marked = frozenset(title for title in envelopes if not drawn[title].accepted)
    return {"waveforms, worst first": lambda: pictures.waveforms(envelopes, marked=marked)}
