"""Licence records against raw files (constitution I).

What belongs here: which record claims each raw file, and whether that record permits AI training today. What does not:
which raw files exist (`raw_files.py`), the table of what was decided (`inventory.py`), what one record proves
(`rights.py`), the licence types (`licences.py`).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path, PurePosixPath

from lofi_assets.constitution.gates import Gate, judge_track
from lofi_assets.files.hand_written import HandWrittenError, decoded
from lofi_assets.files.writing import linked_to
from lofi_assets.near_names import folded
from lofi_assets.records import RecordError, SourceRecord, parse
from lofi_assets.sources.ledger_text import LedgerError, LedgerText, ledger_path
from lofi_assets.sources.licences import LicenceTable, SourceError
from lofi_assets.sources.raw_files import RawFile, plain_id
from lofi_assets.sources.rights import ClaimMeasure, claim_measures, evidence_fault
from lofi_assets.store import Store


@dataclass(frozen=True)
class SourceVerdict:
    """One raw file with what was decided about it, read or not."""

    file: RawFile
    rule: str
    """The first gate missed; empty for a file that is verified."""
    reason: str
    record: SourceRecord | None
    """The one record that claims it; None if there is none, or more than one claim."""
    measures: Mapping[str, ClaimMeasure]
    """What the licence gates judged."""

    @property
    def verified(self) -> bool:
        """Whether it may be trained on."""
        return not self.rule

    @property
    def source_id(self) -> str:
        """Id of the one record that claims it; empty without one."""
        return self.record.source_id if self.record else ""


@dataclass(frozen=True)
class SourceFile:
    """`sources.json`, read: the valid records, and what is wrong with the others."""

    records: tuple[SourceRecord, ...]
    problems: tuple[str, ...]
    evidence_faults: Mapping[str, str] = field(default_factory=dict)
    """Source id -> why its evidence proves nothing; absent if it stands."""
    invalid_claims: frozenset[str] = frozenset()
    """Track ids that an invalid record lists: no other record may have them while that is so."""


def load_sources(path: Path) -> SourceFile:
    """Read `<data root>/metadata/sources.json`, record by record: one bad record does not hide the others.

    Raises:
        SourceError: the file is not a JSON array.
    """
    records: list[SourceRecord] = []
    problems, invalid_claims = [], set()
    ledger = _ledger(path)
    for index, item in enumerate(ledger.items):
        named = "".join(f" ({name})" for name in ledger.stated(item, "source_id"))
        where = f"{path.name}[{index}]{named}"
        try:
            if item.fault:
                raise RecordError(f"{where}: {item.fault}")
            records.append(parse(SourceRecord, item.value, where=where))
        except RecordError as error:
            problems.append(str(error))
            invalid_claims |= set(ledger.tracks(item))
    twice = {source_id for source_id, n in Counter(record.source_id for record in records).items() if n > 1}
    problems += [f"{path.name}: source_id {source_id!r} is used by more than one record" for source_id in sorted(twice)]
    invalid_claims |= {track for record in records if record.source_id in twice for track in record.track_ids}
    valid = tuple(record for record in records if record.source_id not in twice)
    faults = {record.source_id: evidence_fault(record, root=path.parent.parent) for record in valid}
    proofless = {source_id: fault for source_id, fault in faults.items() if fault}
    return SourceFile(valid, tuple(problems), proofless, frozenset(invalid_claims))


def _ledger(path: Path) -> LedgerText:
    if (real := linked_to(path)).exists() and not real.is_file():
        raise SourceError(f"{path}: is no file; put the ledger itself there, no track is used until it can be read")
    try:
        return LedgerText(decoded(path.read_bytes(), where=str(path)) if real.is_file() else "[]", path=path)
    except (HandWrittenError, LedgerError) as error:
        raise SourceError(f"{error}; no track is used until it can be read") from error


def verify_sources(
    files: Sequence[RawFile],
    *,
    source_file: SourceFile,
    licences: LicenceTable,
    gates: Sequence[Gate],
    today: date,
) -> list[SourceVerdict]:
    """Judge every raw file by the track-scope licence gates; the first one missed is its rejection."""
    claims: dict[str, list[SourceRecord]] = {}
    for record in source_file.records:
        for track_id in set(record.track_ids):
            claims.setdefault(track_id, []).append(record)
    alike: dict[str, list[str]] = {}
    for file in files:
        alike.setdefault(file.track_id, []).append(file.path)
    other_words = {folded(track_id): track_id for track_id in (*claims, *source_file.invalid_claims)}
    return [
        _verify(
            file,
            Claim(
                tuple(claims.get(file.track_id, ())),
                file.track_id in source_file.invalid_claims,
                tuple(alike[file.track_id]),
                near=_near_claim(file, other_words),
            ),
            source_file=source_file,
            licences=licences,
            gates=gates,
            today=today,
        )
        for file in files
    ]


def _near_claim(file: RawFile, listed: Mapping[str, str]) -> str:
    """What a record lists in place of the id: the same in other case or spacing, or the name without its hash."""
    for name in (file.track_id, plain_id(PurePosixPath(file.path))):
        if (near := listed.get(folded(name))) and near != file.track_id:
            return near
    return ""


@dataclass(frozen=True)
class Claim:
    """Who says that a raw file is theirs to license."""

    records: tuple[SourceRecord, ...]
    invalid: bool
    """A record that cannot be used lists the track too."""
    files: tuple[str, ...]
    """Paths of the raw files of this track id."""
    near: str
    """A track id that a record lists and that may be meant for this file; empty if there is none."""

    @property
    def count(self) -> int:
        """Claims that count; an invalid one gives no rights, and takes those of others away."""
        return (len(self.records) + (self.invalid and bool(self.records))) * len(self.files)

    @property
    def record(self) -> SourceRecord | None:
        """The one record, if there is exactly one claim."""
        return self.records[0] if self.count == 1 else None


def _verify(
    file: RawFile,
    claim: Claim,
    *,
    source_file: SourceFile,
    licences: LicenceTable,
    gates: Sequence[Gate],
    today: date,
) -> SourceVerdict:
    record = claim.record
    measures: dict[str, ClaimMeasure] = {}
    if file.fault:
        rule, reason = "audio.readable", file.fault
    else:
        measures = {"claiming_records": claim.count}
        if record:
            fault = source_file.evidence_faults.get(record.source_id, "")
            measures |= claim_measures(
                record,
                track_id=file.track_id,
                evidence_fault=fault,
                license_status=licences.status(record.license_type),
                today=today,
            )
        verdict = judge_track(gates, measures)
        rule = verdict.gate.id if verdict else ""
        reason = _explain(verdict.text, file, claim) if verdict else ""
    return SourceVerdict(file, rule, reason, record, measures)


def _explain(text: str, file: RawFile, claim: Claim) -> str:
    if len(claim.files) > 1:
        return f"{len(claim.files)} raw files share this track id ({', '.join(claim.files)}); rename all but one"
    if not claim.records:
        also = "; one that lists it is invalid" if claim.invalid else ""
        near = f"; a record lists {claim.near}: if this file is meant, list {file.track_id}" if claim.near else ""
        return f"no record of sources.json lists this track id{also}{near}; `lofi sources add` claims it"
    if claim.count > 1:
        names = [record.source_id for record in claim.records] + ["an invalid record"] * claim.invalid
        return f"claimed by {', '.join(names)}; one must let go"
    record = claim.records[0]
    return f"source {record.source_id} ({record.license_type}): {text}"


def unlicensed(
    store: Store, tracks: Iterable[str], *, licences: LicenceTable, gates: Sequence[Gate], today: date
) -> dict[str, str]:
    """Track id -> why its rights do not hold by the records as they are now, whether or not its raw file is there.

    The inventory knows raw files as of its last materialisation; this is asked about tracks that a model learnt.
    """
    files = [RawFile(track_id, path="") for track_id in sorted(set(tracks))]
    found = load_sources(ledger_path(store))
    verdicts = verify_sources(files, source_file=found, licences=licences, gates=gates, today=today)
    return {one.file.track_id: f"{one.rule}: {one.reason}" for one in verdicts if one.rule}
