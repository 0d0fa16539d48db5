"""What people see first of the inventory: which files stay out, by rule, and what a record lacks."""

from collections.abc import Sequence
from typing import NamedTuple

from lofi_assets.wording import counted, tallied


def inventory_summary(*, rejected: Sequence[str], verified: int, problems: Sequence[str]) -> str:
    """What to look at of the inventory.

    Args:
        rejected: rule of every rejected file.
        problems: records that cannot be used, and what nothing reads, a sentence each.
    """
    unread = f" {counted(len(problems), 'problem')} with records, names or texts: see problems." if problems else ""
    if rejected:
        total = counted(len(rejected) + verified, "file")
        stay = "stays" if len(rejected) == 1 else "stay"
        return (
            f"{len(rejected)} of {total} {stay} out, without rights to train on them: {tallied(rejected)}. "
            f"lofi sources verify says what the records lack.{unread}"
        )
    if not verified:
        return f"No audio yet: put it under raw/ and add its licence with lofi sources add.{unread}"
    return f"{counted(verified, 'file')} verified, none rejected.{unread or ' Nothing waits for a person.'}"


class RejectedFile(NamedTuple):
    """A raw file that stays out, or a track made from it."""

    track_id: str
    path: str
    """Of the raw file, relative to the data root."""
    rule: str
    reason: str


def rejected_files(files: Sequence[RejectedFile]) -> list[dict[str, str]]:
    """What a person can mend, by rule: the file as it was delivered, and what the rule says of it."""
    shown = []
    for file in sorted(files, key=lambda file: (file.rule, file.track_id)):
        name = file.path.rpartition("/")[2]
        why = file.reason.removeprefix(f"{name!r}: ").removeprefix(f"{name!r} ")
        shown.append({"file": name, "rule and why": f"{file.rule}: {why}"})
    return shown
