"""What one licence record proves: confirmed rights, their evidence, and whether they were withdrawn (constitution I).

Which raw file a record is about is in `claims.py`.
"""

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Literal

from lofi_assets.files.hashing import sha256_file
from lofi_assets.near_names import says_nothing
from lofi_assets.records import Revocation, SourceRecord

LicenceStatus = Literal["permitted", "denied", "ambiguous"]
ClaimMeasure = bool | int | str | Mapping[str, bool | int | str]
"""What a licence gate judges: a value, or one with a note (`constitution.gates.judge`)."""

EVIDENCE = "evidence"
"""Folder of `metadata/` that receives evidence files; others may lie anywhere under the data root."""


def latest_day(now: datetime) -> date:
    """The day that has begun somewhere on Earth, at UTC+14: what was signed there today is no future."""
    return (now.astimezone(UTC) + timedelta(hours=14)).date()


def not_begun(day: date, *, today: date) -> str:
    """Why nothing can have been acquired on a day; empty if it has begun.

    Args:
        today: `latest_day` of now.
    """
    return f"{day} has not begun anywhere on Earth, where it is {today} at the latest (UTC+14)" if day > today else ""


def claim_measures(
    record: SourceRecord, *, track_id: str | None, evidence_fault: str, license_status: LicenceStatus, today: date
) -> dict[str, ClaimMeasure]:
    """What the licence gates judge of a record, for one of its tracks or (None) for the record as a whole.

    Args:
        today: `latest_day` of now.
    """
    days, early = (record.date_acquired - today).days, not_begun(record.date_acquired, today=today)
    return {
        "license_status": license_status,
        "ai_training_rights_confirmed": _noted(_rights_fault(record, evidence_fault), good=True),
        "days_until_acquired": {"value": days, "note": early} if early else days,
        "cost_recorded": record.source_type != "commissioned" or record.cost is not None,
        "revoked": _noted(revocation_of(record, track_id), good=False),
    }


def _noted(fault: str, *, good: bool) -> ClaimMeasure:
    """`good` where nothing is at fault, else its contrary with the fault as a note."""
    return {"value": not good, "note": fault} if fault else good


def _rights_fault(record: SourceRecord, evidence_fault: str) -> str:
    if not record.ai_training_rights:
        return "ai_training_rights is not true"
    return "verified_by names nobody" if says_nothing(record.verified_by) else evidence_fault


def revocation_of(record: SourceRecord, track_id: str | None) -> str:
    """When, by whom and why the rights in a track (or, with None, the whole record) were withdrawn; empty if not."""
    mark = record.revoked or ((record.revoked_tracks or {}).get(track_id) if track_id else None)
    if isinstance(mark, Revocation):
        return f"revoked {mark.date} by {mark.by}: {mark.reason}"
    return "revoked" if mark else ""


def evidence_fault(record: SourceRecord, *, root: Path) -> str:
    """Why a record's evidence proves nothing; empty if it stands. An address is taken as it is: nothing is fetched."""
    evidence = (record.evidence or "").strip()
    if not evidence:
        return "no evidence is named"
    if is_address(evidence):
        return ""
    path = evidence_path(evidence, root=root)
    if path is None:
        return f"evidence {evidence} is not a file under the data root (links are never followed)"
    try:
        changed = record.evidence_sha256 and sha256_file(path) != record.evidence_sha256
    except OSError as error:
        return f"evidence {evidence} cannot be read ({error.strerror})"
    if changed:
        return f"evidence {evidence} is not the file whose evidence_sha256 was recorded"
    return ""


def is_address(evidence: str) -> bool:
    """Whether evidence is an address rather than a file."""
    return re.match(r"https?://[^\s/]+", evidence) is not None


def evidence_path(evidence: str, *, root: Path) -> Path | None:
    """The regular file that evidence names, relative to the data root; None for anything else."""
    relative = PurePosixPath(evidence)
    if relative.is_absolute() or ".." in relative.parts or "\0" in evidence:
        return None
    path = root / relative
    steps = [root.joinpath(*relative.parts[:count]) for count in range(1, len(relative.parts) + 1)]
    try:
        return path if path.is_file() and not any(step.is_symlink() for step in steps) else None
    except OSError:
        return None
