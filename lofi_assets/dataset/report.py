"""What people see first of a dataset version: what changed, and which accepted tracks are not in it.

The sentence, the table and the numbers of the asset's page; the card in the version's folder is made by `card.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from lofi_assets.files.recorded_hashes import mended_text
from lofi_assets.records import Dataset, Split
from lofi_assets.wording import counted, named, tallied


def about(
    record: Dataset,
    *,
    before: Mapping[str, Split],
    splits: Mapping[str, Split],
    left_out: Sequence[str],
    mended: Sequence[str] = (),
) -> dict[str, Any]:
    """`summary`, `needs` and `details` of the version's `Outcome`.

    Args:
        before: track id -> split in the version that was current until now; `splits` in this one.
        left_out: accepted and tagged tracks whose source is not verified today.
        mended: files that had been changed and were put back, a sentence each.
    """
    changed = {
        "added": sorted(splits.keys() - before.keys()),
        "removed": sorted(before.keys() - splits.keys()),
        "moved": sorted(key for key in splits.keys() & before.keys() if splits[key] != before[key]),
    }
    return {
        "summary": _summary(record, changed, left_out),
        "needs": [{"track": track, "why": "its file has no verified licence today"} for track in left_out],
        "details": {
            "hours": round(record.total_duration, 3),
            **{kind: len(tracks) for kind, tracks in changed.items()},
            **{f"{kind} tracks": named(tracks) for kind, tracks in changed.items() if tracks},
            "styles": tallied({name: count for name, count in dict(record.style_distribution).items() if count}),
            "dataset_id": record.dataset_id,
            "mended": mended_text(mended),
        },
    }


def _summary(record: Dataset, changed: Mapping[str, Sequence[str]], left_out: Sequence[str]) -> str:
    moves = [f"{len(tracks)} {kind}" for kind, tracks in changed.items() if tracks]
    since = f"since the version before: {', '.join(moves)}" if moves else "as the version before"
    waits = (
        f"{counted(len(left_out), 'accepted track')} left out for want of a verified licence: lofi sources verify."
        if left_out
        else "Nothing waits for a person."
    )
    return (
        f"{record.dataset_id}: {counted(record.track_count, 'track')}, {record.total_duration:.2f} hours, "
        f"{record.train_count} to train and {record.validation_count} to validate; {since}. {waits}"
    )
