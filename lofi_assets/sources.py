"""Licence records against raw files (constitution I).

What belongs here: which raw files exist, which record claims each, and whether that record permits AI training today.
What does not: whether the audio is any good (`audio/`). Licence types are data: `config/licenses.yaml`.
"""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Literal

from lofi_assets.constitution import Gate, judge_track
from lofi_assets.hand_written import HandWrittenError, decoded, parse_yaml
from lofi_assets.ledger_text import LedgerError, LedgerText
from lofi_assets.records import RecordError, SourceRecord, parse
from lofi_assets.rights import EVIDENCE, LicenceStatus, claim_measures, evidence_fault
from lofi_assets.store import Store, fingerprint, read_json, remembered, sha256_file

AUDIO_SUFFIXES = frozenset(
    {".wav", ".flac", ".aif", ".aiff", ".aifc", ".mp3", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".mp4", ".wma"}
    | {".caf", ".w64", ".rf64", ".au", ".snd", ".ape", ".wv", ".alac"}
)
"""Raw files with these suffixes are expected to be audio; their content decides what they are."""


UNREAD = "unread"
"""In the place of a hash, where the question is who claims a file and not what is in it."""

SIDECAR_BYTES = 1 << 16
"""Largest prompt or lyrics file that is read."""


class SourceError(ValueError):
    """A licence file cannot be read; the message names it and the remedy."""


@dataclass(frozen=True)
class RawFile:
    """An audio file under `raw/`."""

    track_id: str
    path: str
    """Relative to the data root, POSIX."""
    sha256: str
    """Empty for anything that is not a regular file."""
    bytes: int
    stat: str
    """Size and modification time, by which an unchanged file is not read again."""


@dataclass(frozen=True)
class SourceRow:
    """One raw file with what was decided about it; a row of `raw_inventory.parquet`."""

    track_id: str
    path: str
    sha256: str
    bytes: int
    stat: str
    status: Literal["verified", "rejected"]
    rule: str
    reason: str
    source_id: str
    license_type: str
    provider: str
    attribution: str
    measures: str
    """JSON of the measures that the licence gates judged."""


@dataclass(frozen=True)
class SourceFile:
    """`sources.json`, read: the valid records, and what is wrong with the others."""

    records: tuple[SourceRecord, ...]
    problems: tuple[str, ...]
    evidence_faults: Mapping[str, str] = field(default_factory=dict)
    """Source id -> why its evidence proves nothing; absent if it stands."""
    invalid_claims: frozenset[str] = frozenset()
    """Track ids that an invalid record lists: no other record may have them while that is so."""


@dataclass(frozen=True)
class LicenceType:
    """One row of `config/licenses.yaml`."""

    id: str
    status: LicenceStatus
    why: str
    attribution: bool = False
    """The licence asks for the rights holder's name wherever the work is used."""


UNLISTED = LicenceType("", "ambiguous", "Not listed in config/licenses.yaml; non-permissive until it is clarified.")


class LicenceTable:
    """Licence types of `config/licenses.yaml`; an unlisted one is ambiguous."""

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._types = {
            _licence_key(name): LicenceType(row["id"], row["status"], row.get("why", ""), bool(row.get("attribution")))
            for row in rows
            for name in (row["id"], *row.get("aliases", ()))
        }

    def find(self, license_type: str) -> LicenceType:
        """The listed type that a record's words mean: an id, an alias, or the address of a Creative Commons deed."""
        return self._types.get(_licence_key(license_type), UNLISTED)

    def status(self, license_type: str) -> LicenceStatus:
        """permitted, denied or ambiguous."""
        return self.find(license_type).status


def attribution_of(text: str | None, provider: str, licence: LicenceType) -> str:
    """What the model card says of a source; the provider where the licence asks for a name and the record has none."""
    if text and text.strip():
        return " ".join(text.split())
    return f"{provider} ({licence.id})" if licence.attribution else ""


_DEED = re.compile(r"^(?:https?://)?(?:www\.)?creativecommons\.org/(?:licenses|publicdomain)/([a-z-]+)/(\d\.\d)(?:/|$)")
_DEED_IDS = {"zero": "cc0", "mark": "cc pdm"}


def _licence_key(name: str) -> str:
    if deed := _DEED.match(name.strip().casefold()):
        code, version = deed.groups()
        name = f"{_DEED_IDS.get(code, f'cc {code}')} {version}"
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def load_licences(config_dir: Path) -> LicenceTable:
    """Read `config/licenses.yaml`.

    Raises:
        SourceError: a row without id or with a status that does not exist.
    """
    path = config_dir / "licenses.yaml"
    try:
        rows = parse_yaml(decoded(path.read_bytes(), where=str(path)), where=str(path))
    except HandWrittenError as error:
        raise SourceError(str(error)) from error
    rows = rows["licenses"] if isinstance(rows, dict) else rows
    for row in rows:
        if row.get("status") not in ("permitted", "denied", "ambiguous") or not row.get("id"):
            raise SourceError(f"{path}: {row}: needs an id and a status permitted, denied or ambiguous")
    return LicenceTable(rows)


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
    try:
        return LedgerText(decoded(path.read_bytes(), where=str(path)) if path.is_file() else "[]", path=path)
    except (HandWrittenError, LedgerError) as error:
        raise SourceError(f"{error}; no track is used until it can be read") from error


def track_id_of(path: Path) -> str:
    """Track id of a raw file: its stem in ASCII, everything else than letters, digits and `-` as `_`."""
    ascii_stem = unicodedata.normalize("NFKD", path.stem).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^A-Za-z0-9-]+", "_", ascii_stem).strip("_-")[:120]
    return slug or f"track_{fingerprint(path.stem)[:8]}"


def raw_paths(store: Store) -> list[tuple[Path, bool]]:
    """Every audio file under `raw/`, sorted by path, and whether it is a regular file; links are never followed."""
    paths = sorted(store.raw.rglob("*")) if store.raw.is_dir() else []
    audio = [path for path in paths if path.suffix.lower() in AUDIO_SUFFIXES and not path.name.startswith(".")]
    return [(path, path.is_file() and not path.is_symlink()) for path in audio]


def scan_raw(store: Store, *, memory: Mapping[str, tuple[str, str]]) -> list[RawFile]:
    """Every audio file under `raw/` with its hash, sorted by path.

    Args:
        memory: relative path -> (stat key, sha256) of the last inventory; a file whose size and time are unchanged is
            not read again.
    """
    by_path = {str(store.root / path): known for path, known in memory.items()}
    files = []
    for path, regular in raw_paths(store):
        stat, digest = remembered(path, sha256_file, by_path) if regular else ("", "")
        size = int(stat.partition(":")[0]) if regular else 0
        files.append(RawFile(track_id_of(path), store.relative(path), digest, size, stat))
    return files


def verify_sources(
    files: Sequence[RawFile],
    *,
    source_file: SourceFile,
    licences: LicenceTable,
    gates: Sequence[Gate],
    today: date,
) -> list[SourceRow]:
    """Judge every raw file by the track-scope licence gates; the first one missed is its rejection."""
    claims: dict[str, list[SourceRecord]] = {}
    for record in source_file.records:
        for track_id in set(record.track_ids):
            claims.setdefault(track_id, []).append(record)
    stems = Counter(file.track_id for file in files)
    return [
        _verify(
            file,
            Claim(
                tuple(claims.get(file.track_id, ())), file.track_id in source_file.invalid_claims, stems[file.track_id]
            ),
            source_file=source_file,
            licences=licences,
            gates=gates,
            today=today,
        )
        for file in files
    ]


@dataclass(frozen=True)
class Claim:
    """Who says that a raw file is theirs to license."""

    records: tuple[SourceRecord, ...]
    invalid: bool
    """A record that cannot be used lists the track too."""
    same_stem: int
    """Raw files of this track id."""

    @property
    def count(self) -> int:
        """Claims that count; an invalid one gives no rights, and takes those of others away."""
        return (len(self.records) + (self.invalid and bool(self.records))) * self.same_stem

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
) -> SourceRow:
    record = claim.record
    measures: dict[str, Any] = {}
    if not file.sha256:
        rule, reason = "audio.readable", "not a regular file (links and devices are never followed)"
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
        reason = _explain(verdict.text, claim) if verdict else ""
    return SourceRow(
        **file.__dict__,
        status="rejected" if rule else "verified",
        rule=rule,
        reason=reason,
        source_id=record.source_id if record else "",
        license_type=record.license_type if record else "",
        provider=record.provider if record else "",
        attribution=(record.attribution or "") if record else "",
        measures=json.dumps(measures, sort_keys=True),
    )


def _explain(text: str, claim: Claim) -> str:
    if claim.same_stem > 1:
        return f"{claim.same_stem} raw files share this track id; rename all but one"
    if not claim.records:
        also = "; one that lists it is invalid" if claim.invalid else ""
        return f"no record of sources.json lists this track id{also}; add one with verified rights"
    if claim.count > 1:
        names = [record.source_id for record in claim.records] + ["an invalid record"] * claim.invalid
        return f"claimed by {', '.join(names)}; one must let go"
    record = claim.records[0]
    return f"source {record.source_id} ({record.license_type}): {text}"


def curator_sidecars(store: Store, raw_path: str) -> tuple[str, str | None]:
    """Prompt and lyrics text that a curator put beside a raw file: `<stem>_prompt.txt`, `<stem>_lyrics.txt`."""
    path = store.root / raw_path
    prompt = path.with_name(f"{path.stem}_prompt.txt")
    lyrics = path.with_name(f"{path.stem}_lyrics.txt")
    return _text(prompt) or "", _text(lyrics)


def withdrawn_tracks(rows: Sequence[Mapping[str, Any]]) -> set[str]:
    """Tracks of the inventory whose rights do not hold today: what was trained on them cannot be released."""
    return {row["track_id"] for row in rows if row["rule"].startswith("licence.")}


def unlicensed(
    store: Store, tracks: Iterable[str], *, licences: LicenceTable, gates: Sequence[Gate], today: date
) -> dict[str, str]:
    """Track id -> why its rights do not hold by the records as they are now, whether or not its raw file is there.

    The inventory knows raw files as of its last materialisation; this is asked about tracks that a model learnt.
    """
    files = [RawFile(track_id, "", UNREAD, 0, "") for track_id in sorted(set(tracks))]
    found = load_sources(store.metadata("sources.json"))
    rows = verify_sources(files, source_file=found, licences=licences, gates=gates, today=today)
    return {row.track_id: f"{row.rule}: {row.reason}" for row in rows if row.rule}


def _text(path: Path) -> str | None:
    """Content of a regular file of at most 64 kB; bytes that are not UTF-8 are shown as such, not guessed."""
    if not path.is_file() or path.is_symlink() or path.stat().st_size > SIDECAR_BYTES:
        return None
    return path.read_text(encoding="utf-8", errors="backslashreplace")


def curated_styles(store: Store, *, written_by_tagger: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Style ids that a person put into `style_mapping.json`: entries that differ from what the tagger last wrote."""
    path = store.metadata("style_mapping.json")
    mapping = read_json(path, default={})
    if not isinstance(mapping, dict):
        raise SourceError(f"{path}: must be an object of track id -> [style ids]")
    for track_id, styles in mapping.items():
        if not isinstance(styles, list) or not all(isinstance(style, str) for style in styles):
            raise SourceError(f'{path}: {track_id}: must be a list of style ids such as ["CORE-01"], not {styles!r}')
    return {
        track_id: tuple(styles)
        for track_id, styles in mapping.items()
        if styles != list(written_by_tagger.get(track_id, ()))
    }


@dataclass(frozen=True)
class Landing:
    """State of everything that people put into the data root."""

    key: str
    """Moves when a file appears, goes or changes."""
    files: int
    newest: float
    """Modification time of the newest file, seconds since the epoch."""


def landing_state(store: Store) -> Landing:
    """Raw files with their sidecars, evidence, and the records that people edit; by name, size and time, unread."""
    edited = [store.metadata(name) for name in ("sources.json", "style_mapping.json", "reviews.jsonl")]
    evidence = sorted(store.metadata(EVIDENCE).rglob("*"))
    paths = [
        path for path in (*sorted(store.raw.rglob("*")), *edited, *evidence) if path.is_file() and not path.is_symlink()
    ]
    stats = [(store.relative(path), path.stat()) for path in paths if not path.name.endswith(".part")]
    key = fingerprint([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])
    return Landing(key, len(stats), max((stat.st_mtime for _, stat in stats), default=0.0))
