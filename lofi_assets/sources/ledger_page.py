"""The licence ledger as people read it: which sources hold today, what they cost, and what was made from them.

The state of every record and raw file is judged by today's rules (`claims.py`, `rights.py`); what was made from which
track comes from `training/made_from.py`.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal

from lofi_assets.constitution.gates import Gate, gates_of, judge_track
from lofi_assets.records import SourceRecord
from lofi_assets.sources.claims import SourceFile, SourceVerdict, load_sources, verify_sources
from lofi_assets.sources.ledger_text import SOURCES, ledger_path
from lofi_assets.sources.licences import LicenceTable, LicenceType, attribution_of
from lofi_assets.sources.raw_files import list_raw, tree_of
from lofi_assets.sources.rights import claim_measures, is_address, revocation_of
from lofi_assets.sources.unread import problems as unread_problems
from lofi_assets.store import Store


@dataclass(frozen=True)
class SourceState:
    """A record, and what today's rules say of it."""

    record: SourceRecord
    licence: LicenceType
    rule: str
    """The first licence gate that the record as a whole misses; empty if it holds."""
    reason: str
    evidence: str
    """What a look at the evidence found."""
    files: tuple[SourceVerdict, ...]
    """Raw files that this record claims and no other."""

    @property
    def usable(self) -> int:
        """Files that may be trained on today."""
        return sum(file.verified for file in self.files)

    @property
    def withdrawn(self) -> dict[str, str]:
        """Track id -> revocation."""
        marks = {track: revocation_of(self.record, track) for track in self.record.track_ids}
        return {track: mark for track, mark in marks.items() if mark}


@dataclass(frozen=True)
class Survey:
    """The whole ledger by today's rules."""

    states: tuple[SourceState, ...]
    stray: tuple[SourceVerdict, ...]
    """Raw files that no record claims, or more than one."""
    problems: tuple[str, ...]
    unread: tuple[str, ...]
    """What nothing reads: files under `raw/`, and names that are no track's."""

    @property
    def clean(self) -> bool:
        """Whether every record can be read and every file has exactly one claim."""
        return not self.stray and not self.problems


@dataclass(frozen=True)
class Use:
    """Something that was made from tracks."""

    kind: Literal["dataset", "checkpoint"]
    name: str
    """Path relative to the data root; for a checkpoint that retention removed, where its record is."""
    tracks: frozenset[str]
    """Tracks in the dataset, or in the training split of the checkpoint's run."""


def survey(store: Store, *, licences: LicenceTable, gates: Sequence[Gate], today: date) -> Survey:
    """Judge every record and every raw file by the licence gates, from names and records alone: no audio is read."""
    source_file = load_sources(ledger_path(store))
    track_gates = gates_of(gates, asset="licensed_sources", scope="track")
    tree = tree_of(store.raw)
    files = list_raw(store, tree)
    rows = verify_sources(files, source_file=source_file, licences=licences, gates=track_gates, today=today)
    by_source: dict[str, list[SourceVerdict]] = {}
    for row in rows:
        by_source.setdefault(row.source_id, []).append(row)
    states = [
        _state(
            store, record, by_source.get(record.source_id, []), source_file=source_file, licences=licences,
            gates=track_gates, today=today,
        )
        for record in source_file.records
    ]  # fmt: skip
    unread = unread_problems(store, tree, files, records=source_file.records)
    return Survey(tuple(states), tuple(by_source.get("", ())), source_file.problems, tuple(unread))


def usable_files(found: Survey) -> int:
    """Raw files that may be trained on today."""
    return sum(state.usable for state in found.states)


def _state(
    store: Store,
    record: SourceRecord,
    files: Sequence[SourceVerdict],
    *,
    source_file: SourceFile,
    licences: LicenceTable,
    gates: Sequence[Gate],
    today: date,
) -> SourceState:
    kind, fault = licences.find(record.license_type), source_file.evidence_faults.get(record.source_id, "")
    measures = claim_measures(record, track_id=None, evidence_fault=fault, license_status=kind.status, today=today)
    verdict = judge_track(gates, {"claiming_records": 1, **measures})
    return SourceState(
        record=record,
        licence=kind,
        rule=verdict.gate.id if verdict else "",
        reason=(verdict.note or verdict.text) if verdict else "",
        evidence=_evidence_check(record, fault),
        files=tuple(files),
    )


def _evidence_check(record: SourceRecord, fault: str) -> str:
    if fault:
        return f"NOT PROVEN: {fault}"
    if is_address(str(record.evidence)):
        return "an address; its content is not checked"
    if record.evidence_sha256:
        return f"file present, its sha256 is the recorded {record.evidence_sha256}"
    return "file present; no sha256 was recorded, so a change would go unnoticed"


def used_in(made: Sequence[Use], tracks: Iterable[str]) -> list[Use]:
    """What was made from any of the tracks."""
    wanted = set(tracks)
    return [use for use in made if wanted & use.tracks]


def ledger_page(store: Store, found: Survey, *, made: Sequence[Use], today: date) -> str:
    """The ledger in Markdown; the same text for the same records, files and day.

    Args:
        made: whatever was made from tracks (`training.made_from.uses`).
    """
    parts = [
        f"# Licence ledger, {today}",
        _preamble(store),
        "## Summary\n\n" + _summary(found),
        "## Revoked\n\n" + _revoked(found, made),
        "## Files without exactly one claim\n\n" + _stray(found),
        "## Records that cannot be used as they are\n\n" + _bullets(found.problems, empty="None."),
        "## Sources",
        *(_section(state, made) for state in found.states),
    ]
    return "\n\n".join(parts) + "\n"


def _preamble(store: Store) -> str:
    path = ledger_path(store)
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "no such file"
    return (
        f"From `metadata/{SOURCES}` (sha256 `{digest}`) and `config/licenses.yaml`. A file may be trained on if "
        "exactly one valid record claims it, its licence type is not denied, a named person confirmed AI training "
        "rights by evidence that is there, the rights are held today, commissioned work carries its cost, and nothing "
        "was revoked. This is a record of facts and of a project's policy, not legal advice."
    )


def _summary(found: Survey) -> str:
    rows = []
    for kind in sorted({state.record.source_type for state in found.states}):
        states = [state for state in found.states if state.record.source_type == kind]
        costs = [state.record.cost for state in states if state.record.cost is not None]
        unknown = len(states) - len(costs)
        cost = f"{sum(costs):,.2f}" + (f" ({unknown} without a cost)" if unknown else "")
        rows.append([kind, len(states), *_counts(states), cost])
    total = sum(state.record.cost or 0.0 for state in found.states)
    rows.append(["all", len(found.states), *_counts(found.states), f"{total:,.2f}"])
    return _table(["type", "records", "tracks claimed", "raw files", "usable today", "cost, USD"], rows)


def _counts(states: Sequence[SourceState]) -> list[int]:
    return [
        sum(len(set(state.record.track_ids)) for state in states),
        sum(len(state.files) for state in states),
        sum(state.usable for state in states),
    ]


def _revoked(found: Survey, made: Sequence[Use]) -> str:
    rows = []
    for state in found.states:
        for mark, number in Counter(state.withdrawn.values()).items():
            tracks = [track for track, text in state.withdrawn.items() if text == mark]
            names = _codes(use.name for use in used_in(made, tracks)) or "nothing"
            whole = number == len(set(state.record.track_ids))
            rows.append([f"`{state.record.source_id}`", "all" if whole else _codes(tracks), _line(mark), names])
    if not rows:
        return "Nothing was revoked."
    note = "What was made from them must not be published; dataset versions and checkpoints are never rewritten."
    return _table(["source", "tracks", "revocation", "made from them"], rows) + f"\n\n{note}"


def _stray(found: Survey) -> str:
    if not found.stray:
        return "None: every raw file is claimed by exactly one record."
    rows = [[f"`{_line(row.file.path)}`", row.rule, _line(row.reason)] for row in found.stray]
    return "None of these is used.\n\n" + _table(["file", "rule", "why"], rows)


def _section(state: SourceState, made: Sequence[Use]) -> str:
    record, kind = state.record, state.licence
    holds = f"holds; {state.usable} of {len(state.files)} files usable"
    confirmed = f"confirmed by {_line(record.verified_by)}, {record.verified_on or 'day not recorded'}"
    read_as = f"{kind.id or 'no listed type'}: {kind.status}. {kind.why}"
    facts = [
        ["Today", f"**{state.rule}**: {_line(state.reason)}" if state.rule else holds],
        ["Source type", record.source_type],
        ["Licence", f"{_line(record.license_type)}, read as {read_as}"],
        ["AI training rights", confirmed if record.ai_training_rights and record.verified_by else "not confirmed"],
        ["Evidence", f"{_line(record.evidence)} ({_line(state.evidence)})" if record.evidence else "none"],
        ["Acquired", str(record.date_acquired)],
        ["Cost", "not recorded" if record.cost is None else f"{record.cost:,.2f} USD"],
        ["Attribution", _line(attribution_of(record.attribution, record.provider, kind)) or "not asked for"],
        ["Notes", _line(record.notes)],
        *([_line(name), _line(json.dumps(value, ensure_ascii=False))] for name, value in _unknown(record).items()),
        ["Made from it", _codes(use.name for use in used_in(made, record.track_ids)) or "nothing"],
    ]
    table = _table(["", ""], facts)
    return f"### {_line(record.source_id)}: {_line(record.provider)}\n\n{table}\n\n{_tracks(state)}"


def _unknown(record: SourceRecord) -> Mapping[str, object]:
    return record.model_extra or {}


def _tracks(state: SourceState) -> str:
    files = {row.file.track_id: row for row in state.files}
    rows = []
    for track in dict.fromkeys(state.record.track_ids):
        row = files.get(track)
        said = "usable" if row and row.verified else row.rule if row else state.withdrawn.get(track, "")
        rows.append([f"`{track}`", f"`{_line(row.file.path)}`" if row else "no file of its own in raw/", said])
    return _table(["track", "file", "today"], rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, cells)) + " |" for cells in lines)


def _bullets(items: Sequence[str], *, empty: str) -> str:
    return "\n".join(f"- {_line(item)}" for item in items) or empty


def _codes(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _line(text: object) -> str:
    """Text of others on one line of a table: no line break, column or tag of its own."""
    return " ".join(str(text or "").split()).replace("|", "\\|").replace("<", "&lt;")
