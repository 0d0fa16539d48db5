"""Editing `metadata/sources.json`: adding, verifying and revoking licences (constitution I).

What belongs here: who may change a record and how. What does not: the file's text (`ledger_text.py`), what records mean
(`claims.py`, `rights.py`), the report over them (`ledger_page.py`).

Every edit holds a lock, replaces the file atomically, and leaves the bytes of every other record as they were.
"""

import contextlib
import fcntl
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from lofi_assets.files.documents import write_text
from lofi_assets.files.hand_written import Element, HandWrittenError, decoded
from lofi_assets.files.hashing import READ_BLOCK, sha256_file
from lofi_assets.files.writing import atomic_path, linked_to, make_folder
from lofi_assets.near_names import meant, says_nothing
from lofi_assets.records import RecordError, SourceRecord, dump, parse, violations
from lofi_assets.sources.ledger_text import LedgerError, LedgerText, ledger_path
from lofi_assets.sources.licences import LicenceTable
from lofi_assets.sources.rights import EVIDENCE, evidence_fault, evidence_path, is_address, not_begun
from lofi_assets.store import Store

LOCK = ".sources.lock"
LOCK_WAIT_S = 30.0
"""An edit takes milliseconds; whoever holds the lock longer hangs."""

EVIDENCE_BYTES = 100 << 20
"""Largest evidence file that is copied: a contract, a page saved as PDF, a mail; not a delivery."""

FIXES: Mapping[str, str] = {
    "source_id": "a name of its own, such as studio-7",
    "track_ids": "stems of raw files in letters, digits, _ and -, such as rain_01",
    "source_type": "commissioned, royalty_free, creative_commons or partnership",
    "provider": "platform or artist",
    "license_type": "an id or alias of config/licenses.yaml, such as CC-BY-4.0",
    "cost": "US dollars, 0 or more; commissioned work must have it, even if it was free",
    "date_acquired": "a day as YYYY-MM-DD, not in the future",
    "verified_by": "the name of the person who confirmed the rights",
    "evidence": "an address (https://...), or a file under the data root; --evidence-file copies one there",
}
"""Field -> what it should be."""


@contextlib.contextmanager
def _locked(store: Store) -> Iterator[LedgerText]:
    """The ledger, kept to this process for the block.

    Raises:
        LedgerError: another process keeps it, or it cannot be read.
    """
    path = ledger_path(store)
    shared = linked_to(path)
    make_folder(shared.parent)
    if shared.exists() and not shared.is_file():
        raise LedgerError(f"{path}: is no file; put the ledger itself there")
    # Beside what a link leads to: data roots that share a ledger keep it from one another.
    with shared.with_name(LOCK).open("w") as lock:
        _wait(lambda: fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB), path)
        try:
            text = decoded(path.read_bytes(), where=str(path)) if path.exists() else "[]\n"
        except HandWrittenError as error:
            raise LedgerError(str(error)) from error
        yield LedgerText(text if text.strip() else "[]\n", path=path)


def _wait(take: Callable[[], None], path: Path) -> None:
    until = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            return take()
        except BlockingIOError as error:
            if time.monotonic() > until:
                raise LedgerError(f"{path}: another process has been editing it for {LOCK_WAIT_S:.0f} s") from error
            time.sleep(0.02)


def add(
    store: Store,
    data: Mapping[str, Any],
    *,
    evidence_file: Path | None = None,
    licences: LicenceTable,
    today: date,
    latest: date | None = None,
) -> SourceRecord:
    """Add a record; its evidence file, if given, is copied to `metadata/evidence/` and its hash recorded.

    Args:
        today: goes on record as the day of a confirmation.
        latest: day after which nothing can have been acquired (`rights.latest_day`); default: today.
    Raises:
        LedgerError: naming every field at fault and what it should be; nothing is written then.
    """
    with _locked(store) as ledger:
        stated = {key: value for key, value in data.items() if value is not None}
        if stated.get("ai_training_rights") and stated.get("verified_by"):
            stated.setdefault("verified_on", today.isoformat())
        stated = _evidence(store, str(stated.get("source_id")), stated.get("evidence"), evidence_file) | stated
        record = _valid(stated)
        faults = [
            *_claim_faults(ledger, record),
            *_policy_faults(record, latest=latest or today),
            *_rights_faults(store, record, licences, copied=evidence_file is not None),
        ]
        if faults:
            raise LedgerError(f"source {record.source_id} was not added:\n" + "\n".join(f"- {text}" for text in faults))
        _keep_evidence(store, record, evidence_file)
        write_text(ledger.path, ledger.appended(dump(record)))
    return record


def verify(
    store: Store,
    source_id: str,
    *,
    by: str,
    evidence: str | None = None,
    evidence_file: Path | None = None,
    licences: LicenceTable,
    today: date,
) -> SourceRecord:
    """Record who confirmed the AI training rights of a source, when, and by what evidence (default: the recorded one).

    Raises:
        LedgerError: no such record, a denied or revoked licence, no name, or evidence that proves nothing.
    """
    with _locked(store) as ledger:
        item = ledger.find(source_id)
        if item.fault:
            raise LedgerError(f"{ledger.path}: {item.fault}; then verify source {source_id} again")
        data = dict(item.value)
        outdated = ("evidence_sha256",) if evidence or evidence_file else ()
        stated: dict[str, Any] = {"ai_training_rights": True, "verified_by": by, "verified_on": today.isoformat()}
        if evidence or evidence_file:
            data.pop("evidence_sha256", None)
            stated |= _evidence(store, source_id, evidence, evidence_file)
        elif not data.get("evidence_sha256"):
            stated |= _evidence(store, source_id, data.get("evidence"), None)
        record = _valid(data | stated)
        faults = _rights_faults(store, record, licences, copied=evidence_file is not None)
        if record.revoked:
            faults.append("revoked: the licence was withdrawn; a new one is a new record, over new track ids")
        if faults:
            raise LedgerError(f"source {source_id} was not verified:\n" + "\n".join(f"- {text}" for text in faults))
        _keep_evidence(store, record, evidence_file)
        write_text(ledger.path, ledger.edited(item, stated, without=outdated))
    return record


def revoke(
    store: Store, source_id: str, *, reason: str, by: str, track: str | None = None, today: date
) -> tuple[str, ...]:
    """Mark a licence, or one track of it, as withdrawn; returns the tracks concerned. Nothing is deleted.

    A record that is otherwise invalid can be revoked too: a withdrawal must not wait for a clean ledger. Where it says
    more than once whether it was revoked, this mark takes the place of all.

    Raises:
        LedgerError: no such record or track, no name or reason, or revoked before (the first mark stays).
    """
    missing = [f"--{name}" for name, text in (("by", by), ("reason", reason)) if says_nothing(text)]
    if missing:
        raise LedgerError(f"a revocation goes on record with a name and a reason; {' and '.join(missing)} is empty")
    mark = {"date": today.isoformat(), "by": by.strip(), "reason": reason.strip()}
    with _locked(store) as ledger:
        item = ledger.find(source_id)
        tracks = ledger.tracks(item)
        if track is not None and track not in tracks:
            near = f"; is it {meant(track, tracks)}?" if meant(track, tracks) else ""
            raise LedgerError(f"source {source_id} does not list track {track!r}; it lists {', '.join(tracks)}{near}")
        marked = _withdrawn(ledger, item) if track else {}
        if before := _only(ledger.stated(item, "revoked")) or (track and marked.get(track)):
            raise LedgerError(f"{track or 'source ' + source_id} is revoked already: {json.dumps(before)}")
        changes = {"revoked_tracks": {**marked, track: mark}} if track else {"revoked": mark}
        write_text(ledger.path, ledger.edited(item, changes))
    return (track,) if track else tracks


def _withdrawn(ledger: LedgerText, item: Element) -> dict[str, Any]:
    """Track id -> mark of the tracks that a record says were withdrawn.

    Raises:
        LedgerError: it says so twice, or not legibly; no mark may be lost.
    """
    faults = [member.fault for member in ledger.members(item, "revoked_tracks")]
    if len(faults) > 1 or any(faults):
        raise LedgerError(
            f"{ledger.path}: {item.fault}; none of its tracks is used while it stands so. "
            "Mend it before one track is withdrawn, or withdraw the whole source: leave --track out"
        )
    marked = _only(ledger.stated(item, "revoked_tracks"))
    return dict(marked) if isinstance(marked, dict) else {}


def _only(stated: Sequence[Any]) -> Any:
    """What a record says once; None where it says two things, since neither is to be chosen."""
    return stated[0] if len(stated) == 1 else None


def _valid(data: Mapping[str, Any]) -> SourceRecord:
    faults = violations(SourceRecord, dict(data))
    if faults:
        shown = [f"- {_with_fix(fault)}" for fault in faults]
        raise LedgerError(f"not a valid record of source {data.get('source_id')!r}:\n" + "\n".join(shown))
    try:
        return parse(SourceRecord, dict(data), where="record")
    except RecordError as error:
        raise LedgerError(str(error)) from error


def _with_fix(fault: str) -> str:
    name = fault.partition(":")[0].partition(".")[0]
    if name == "(record)":
        name = next((field for field in FIXES if f"'{field}'" in fault), name)
    return f"{fault}; it should be {FIXES[name]}" if name in FIXES else fault


def _claim_faults(ledger: LedgerText, record: SourceRecord) -> list[str]:
    faults = []
    if any(record.source_id in ledger.stated(item, "source_id") for item in ledger.items):
        taken = record.source_id
        faults.append(f"source_id: {taken} is taken; a later delivery is a record of its own, such as {taken}-2")
    for item in ledger.items:
        if shared := sorted(set(record.track_ids) & set(ledger.tracks(item))):
            (owner,) = ledger.stated(item, "source_id")[:1] or ["without an id"]
            faults.append(f"track_ids: {', '.join(shared)} belongs to source {owner}; one must let go")
    return faults


def _policy_faults(record: SourceRecord, *, latest: date) -> list[str]:
    faults = []
    blank = [name for name in ("source_id", "provider", "license_type") if says_nothing(getattr(record, name))]
    faults += [f"{name}: blank; it should be {FIXES[name]}" for name in blank]
    if early := not_begun(record.date_acquired, today=latest):
        faults.append(f"date_acquired: {early}; it should be {FIXES['date_acquired']}")
    if record.source_type == "commissioned" and record.cost is None:
        faults.append(f"cost: missing; it should be {FIXES['cost']}")
    return faults


def _rights_faults(store: Store, record: SourceRecord, licences: LicenceTable, *, copied: bool) -> list[str]:
    """What stands against rights that a record claims; nothing if it claims none. `copied` evidence is checked."""
    faults = []
    if record.ai_training_rights:
        kind = licences.find(record.license_type)
        if kind.status == "denied":
            faults.append(f"license_type: {record.license_type} is denied and no statement lifts that: {kind.why}")
        if says_nothing(record.verified_by):
            faults.append(f"verified_by: missing; it should be {FIXES['verified_by']}")
    if not copied and (record.ai_training_rights or record.evidence is not None):
        fault = evidence_fault(record, root=store.root)
        faults += [f"evidence: {fault}; it should be {FIXES['evidence']}"] if fault else []
    return faults


def _evidence(store: Store, source_id: str, evidence: str | None, file: Path | None) -> dict[str, str]:
    """Fields `evidence` and `evidence_sha256`: of an address, a file of the data root, or a file to be copied."""
    if file is not None and evidence:
        raise LedgerError(
            "evidence: give --evidence (an address or file of the data root) or --evidence-file, not both"
        )
    if file is not None:
        digest = _digest(file)
        name = re.sub(r"[^A-Za-z0-9-]+", "_", source_id)[:60] or "source"
        suffix = re.sub(r"[^A-Za-z0-9.]", "", file.suffix)[:12].lower()
        path = store.metadata(EVIDENCE) / f"{name}-{digest[:12]}{suffix}"
        return {"evidence": store.relative(path), "evidence_sha256": digest}
    if not evidence:
        return {}
    path_in_root = None if is_address(evidence) else evidence_path(evidence, root=store.root)
    return {"evidence": evidence} | ({"evidence_sha256": sha256_file(path_in_root)} if path_in_root else {})


def _digest(file: Path) -> str:
    if not file.is_file():
        raise LedgerError(f"--evidence-file {file}: not a regular file")
    if not 0 < file.stat().st_size <= EVIDENCE_BYTES:
        raise LedgerError(f"--evidence-file {file}: empty, or larger than {EVIDENCE_BYTES >> 20} MB")
    return sha256_file(file)


def _keep_evidence(store: Store, record: SourceRecord, file: Path | None) -> None:
    """Copy a new evidence file to where the record says it is; the bytes are those that were hashed."""
    if file is None:
        return
    target, digest = store.root / str(record.evidence), hashlib.sha256()
    if evidence_path(str(record.evidence), root=store.root) and sha256_file(target) == record.evidence_sha256:
        return
    with atomic_path(target) as temporary, file.open("rb") as source, temporary.open("wb") as copy:
        while block := source.read(READ_BLOCK):
            digest.update(block)
            copy.write(block)
        if digest.hexdigest() != record.evidence_sha256:
            raise LedgerError(f"--evidence-file {file}: it changed while it was copied; try again")
