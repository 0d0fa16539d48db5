"""The entities of the data model, typed, each with its JSON Schema and the data model's validation rules.

Documents of single stages are no entities: each is a dataclass in the module that writes it (`files/typed.py`). Fields
beyond the data model carry "extension" in their text. Schemas are written to `config/schemas/` by `lofi schemas` and
validated with jsonschema at every boundary.
"""

import json
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import jsonschema
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lofi_assets.errors import LofiError
from lofi_assets.near_names import folded, meant

R = TypeVar("R", bound="Record")

TrackState = Literal["RAW", "PROCESSED", "TAGGED", "VERIFIED", "TRAINING_READY"]
Split = Literal["train", "validation"]
StyleCategory = Literal["core", "seasonal", "thematic", "instrumental", "vocal"]
TagCategoryName = Literal["genre", "mood", "instruments", "tempo", "production", "atmosphere", "vocal_type"]
SourceType = Literal["commissioned", "royalty_free", "creative_commons", "partnership"]

STYLE_COUNTS: dict[StyleCategory, int] = {"core": 7, "seasonal": 9, "thematic": 10, "instrumental": 7, "vocal": 5}
"""Presets per category (data model, Categories and Counts)."""

STYLE_PREFIXES: dict[str, StyleCategory] = {
    "CORE": "core",
    "SEASON": "seasonal",
    "THEME": "thematic",
    "INST": "instrumental",
    "VOCAL": "vocal",
}
StyleId = Annotated[str, Field(pattern=r"^(CORE|SEASON|THEME|INST|VOCAL)-\d{2}$")]
WITHDRAWALS = ("revo", "withdr", "rescind", "terminat", "expir")
"""What the name of a field holds that says rights ended or end."""
TrackId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,119}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class RecordError(LofiError, ValueError):
    """A record breaks its schema; the message names the file or record, the field and the rule."""


class Record(BaseModel):
    """Base of the entities: immutable; unknown fields are kept, so that a file edited by others survives a rewrite."""

    model_config = ConfigDict(frozen=True, extra="allow", use_attribute_docstrings=True)

    @classmethod
    def contradictions(cls, data: Mapping[str, Any]) -> list[str]:
        """What a schema cannot say: fields that do not go together, as `field: fault`."""
        return [
            f"{name}: no such field, but it reads like {field}; write {field}, or name it otherwise"
            for name in sorted(data.keys() - cls.model_fields.keys())
            if (field := meant(name, cls.model_fields))
        ]


class Track(Record):
    """One audio file with its training metadata."""

    track_id: TrackId
    """Unique identifier: the stem of the raw file, e.g. `track_001`."""
    filename: str
    """Audio file name without path."""
    audio_path: str
    """Processed MP3, relative to the data root."""
    prompt_path: str
    """`<track_id>_prompt.txt`, relative to the data root."""
    lyrics_path: str
    """`<track_id>_lyrics.txt`, relative to the data root."""
    duration: Annotated[float, Field(ge=30, le=240)]
    """Seconds. Training takes 30-180 s (constitution); a record may hold up to 240 s (data model)."""
    sample_rate: Literal[48000]
    """Always 48000 Hz."""
    quality_score: Annotated[int, Field(ge=0, le=100)]
    """Automated score."""
    style_ids: Annotated[list[StyleId], Field(min_length=1)]
    """Assigned styles, the first one decides the folder."""
    source_id: str
    """The SourceRecord that claims the track."""
    split: Split = "train"
    """10 % of the duplicate groups go to validation by a stable hash."""
    human_verified: bool = False
    """A person reviewed tags and audio."""
    audio_sha256: Sha256 | None = None
    """Extension: hash of the processed MP3."""
    group: str | None = None
    """Extension: near-duplicates share a group, and a group never straddles the split."""
    state: TrackState = "TRAINING_READY"
    """Extension: where in RAW -> PROCESSED -> TAGGED -> (VERIFIED) -> TRAINING_READY the track is."""


class StylePreset(Record):
    """A predefined combination of tags."""

    style_id: StyleId
    """CORE-01 to CORE-07, SEASON-01 to -09, THEME-01 to -10, INST-01 to -07, VOCAL-01 to -05."""
    name: str
    """Name for people."""
    category: StyleCategory
    """Agrees with the prefix of `style_id`."""
    extends: StyleId | None = None
    """Parent whose unset fields are inherited."""
    base_tags: Annotated[list[str], Field(min_length=1)]
    """Genre tags."""
    instruments: Annotated[list[str], Field(min_length=1)]
    """Typical instruments."""
    production: Annotated[list[str], Field(min_length=1)]
    """Production characteristics."""
    mood_options: Annotated[list[str], Field(min_length=1)]
    """Moods that fit."""
    tempo_range: Annotated[tuple[int, int], Field(json_schema_extra={"minItems": 2, "maxItems": 2})]
    """Lowest and highest BPM."""
    atmosphere: str | None = None
    """Default atmosphere tag."""
    vocal_type: str | None = None
    """Default vocal type."""


class TagCategory(Record):
    """Controlled vocabulary of one category."""

    category: TagCategoryName
    """One of the seven."""
    tags: Annotated[list[str], Field(min_length=1)]
    """Valid tags in canonical form."""
    canonical_forms: dict[str, str] = {}
    """Alias -> canonical tag."""


class Revocation(Record):
    """Extension: a licence, or part of it, that no longer holds."""

    date: date
    """When it was recorded (ISO 8601)."""
    by: Annotated[str, Field(min_length=1)]
    """Who recorded it."""
    reason: Annotated[str, Field(min_length=1)]
    """Why the rights ended."""


class SourceRecord(Record):
    """Licence and provenance of one or more tracks (constitution I)."""

    source_id: Annotated[str, Field(min_length=1)]
    """Unique identifier."""
    track_ids: Annotated[list[TrackId], Field(min_length=1)]
    """Tracks from this source."""
    source_type: SourceType
    """Source tier."""
    provider: Annotated[str, Field(min_length=1)]
    """Platform or artist."""
    license_type: Annotated[str, Field(min_length=1)]
    """Specific licence, listed in `config/licenses.yaml` or else ambiguous."""
    cost: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """USD; commissioned sources must have it."""
    date_acquired: date
    """ISO 8601, not in the future."""
    verified_by: str | None = None
    """Who verified the licence."""
    notes: str | None = None
    """Anything else about the licence."""
    ai_training_rights: bool = False
    """Extension: the rights holder explicitly permits AI training."""
    evidence: str | None = None
    """Extension: URL, or file under the data root, that proves the rights."""
    evidence_sha256: Sha256 | None = None
    """Extension: hash of the evidence file; another file under its name proves nothing."""
    verified_on: date | None = None
    """Extension: when `verified_by` confirmed the AI training rights (ISO 8601)."""
    attribution: str | None = None
    """Extension: text the licence asks the model card to carry."""
    revoked: Revocation | bool | None = None
    """Extension: the whole licence was withdrawn; `true` does the same without saying when and why."""
    revoked_tracks: dict[TrackId, Revocation] | None = None
    """Extension: tracks whose rights were withdrawn while the others' hold; each is one of `track_ids`."""

    @classmethod
    def contradictions(cls, data: Mapping[str, Any]) -> list[str]:
        """A withdrawal under a name that nothing reads, or of a track that the record does not list, is not ignored."""
        unread = [name for name in sorted(data.keys() - cls.model_fields.keys()) if not meant(name, cls.model_fields)]
        faults = [
            f"{name}: a withdrawal that nothing reads; write revoked, or revoked_tracks, or name it otherwise"
            for name in unread
            if any(word in folded(name) for word in WITHDRAWALS)
        ]
        revoked, listed = data.get("revoked_tracks"), data.get("track_ids")
        tracks = [track for track in listed if isinstance(track, str)] if isinstance(listed, list) else []
        for track in sorted(set(revoked) - set(tracks)) if isinstance(revoked, dict) else ():
            near = meant(track, tracks)
            fix = f"is it {near}?" if near else "list it there too; a revoked track stays listed"
            faults.append(f"revoked_tracks: {track} is not one of track_ids; {fix}")
        return super().contradictions(data) + faults


class Checkpoint(Record):
    """A training snapshot with its scores."""

    checkpoint_id: Annotated[str, Field(pattern=r"^epoch=0-step=\d+_lora$")]
    """`epoch=0-step={N}_lora`."""
    step: Annotated[int, Field(ge=1)]
    """Optimiser step, a multiple of the checkpoint interval."""
    path: str
    """Checkpoint folder relative to the data root."""
    timestamp: datetime
    """When it was saved (UTC)."""
    fad_score: float | None = None
    """FAD against the validation set, once evaluated."""
    clap_score: float | None = None
    """CLAP alignment, once evaluated with CLAP."""
    is_valid: bool
    """False as soon as loading fails."""
    config_hash: Sha256
    """Hash of the training configuration."""
    dataset_hash: Sha256
    """Hash of the dataset version."""
    samples_generated: bool = False
    """Sample audio exists."""


class QualityMetrics(Record):
    """Evaluation of one checkpoint."""

    checkpoint_id: str
    """The Checkpoint evaluated."""
    evaluation_date: datetime
    """When (UTC)."""
    fad_score: float | None
    """Frechet audio distance on the encoder's own scale; null when it could not be measured."""
    clap_score: float | None = None
    """Relative CLAP alignment; null without trained CLAP weights, never filled from another encoder."""
    style_coverage: dict[str, dict[str, bool]] | None = None
    """`{"CORE-01": {"generated": true, "recognizable": false}}`."""
    human_evaluation: dict[str, Any] | None = None
    """`{"evaluator_count": 10, "accuracy": 0.52, "p_value": 0.08, "date": "2025-01-15"}`."""


class Dataset(Record):
    """One immutable version of the training set."""

    dataset_id: str
    """Version identifier, from the hash."""
    created: datetime
    """When this version was first built (UTC)."""
    track_count: Annotated[int, Field(ge=0)]
    """Tracks in all."""
    train_count: Annotated[int, Field(ge=0)]
    """Tracks in the training split."""
    validation_count: Annotated[int, Field(ge=0)]
    """Tracks in the validation split."""
    total_duration: Annotated[float, Field(ge=0)]
    """Hours of audio."""
    style_distribution: dict[StyleCategory, int]
    """Tracks per style category."""
    hash: Sha256
    """Content hash: audio, prompts, lyrics and split, independent of file order and machine."""


SCHEMAS: dict[str, type[Record]] = {
    "track": Track,
    "style_preset": StylePreset,
    "tag_category": TagCategory,
    "source_record": SourceRecord,
    "checkpoint": Checkpoint,
    "quality_metrics": QualityMetrics,
    "dataset": Dataset,
}
"""Schema file stem -> record, in the data model's order."""


@cache
def json_schema(kind: type[Record]) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a record."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **kind.model_json_schema()}


@cache
def _validator(kind: type[Record]) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json_schema(kind), format_checker=jsonschema.FormatChecker())


def violations(kind: type[Record], data: object) -> list[str]:
    """Every way in which `data` breaks the schema or contradicts itself, as `field: rule`; empty if it holds."""
    contradictions = kind.contradictions(data) if isinstance(data, Mapping) else []
    errors = sorted(_validator(kind).iter_errors(data), key=lambda error: list(map(str, error.absolute_path)))
    faults = [f"{'.'.join(map(str, error.absolute_path)) or '(record)'}: {error.message}" for error in errors]
    return faults + contradictions


def parse(kind: type[R], data: object, *, where: str) -> R:
    """A record from untrusted data.

    Raises:
        RecordError: naming `where`, and every field that breaks the schema.
    """
    found = violations(kind, data)
    if found:
        raise RecordError(f"{where}: not a valid {kind.__name__}: {'; '.join(found)}")
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise RecordError(f"{where}: not a valid {kind.__name__}: {faults}") from error


def dump(record: Record) -> dict[str, Any]:
    """Plain JSON data of a record; validated against the schema on the way out, so that no invalid file is written."""
    fields = type(record).model_fields
    required = {name for name, field in fields.items() if field.is_required()}
    dumped = record.model_dump(mode="json")
    data = {name: value for name, value in dumped.items() if value is not None or name in required}
    found = violations(type(record), data)
    if found:
        raise RecordError(f"refusing to write an invalid {type(record).__name__}: {'; '.join(found)}")
    return data


def write_schemas(directory: Path) -> list[Path]:
    """Write `<stem>.json` for every record; returns the files that changed."""
    directory.mkdir(parents=True, exist_ok=True)
    changed = []
    for path, text in _schema_texts(directory):
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            changed.append(path)
    return changed


def stale_schemas(directory: Path) -> list[str]:
    """Names of schema files that are missing or differ from the records."""
    return [
        path.name
        for path, text in _schema_texts(directory)
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]


def _schema_texts(directory: Path) -> Iterable[tuple[Path, str]]:
    for stem, kind in SCHEMAS.items():
        yield directory / f"{stem}.json", json.dumps(json_schema(kind), indent=2) + "\n"
