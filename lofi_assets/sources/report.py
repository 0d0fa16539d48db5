"""What people see first of the inventory: which files stay out, by rule, and what a record lacks."""

from collections.abc import Mapping, Sequence
from typing import Any

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


def rejected_files(rows: Sequence[Mapping[str, Any]], *, path: str) -> list[dict[str, str]]:
    """What a person can mend, by rule: the file as it was delivered, and what the rule says of it.

    Args:
        path: column of the file's path.
    """
    shown = []
    for row in sorted(rows, key=lambda row: (row["rule"], row["track_id"])):
        name = str(row[path]).rpartition("/")[2]
        why = str(row["reason"]).removeprefix(f"{name!r}: ").removeprefix(f"{name!r} ")
        shown.append({"file": name, "rule and why": f"{row['rule']}: {why}"})
    return shown
