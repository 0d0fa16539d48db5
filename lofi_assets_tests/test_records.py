"""The entities of the data model: what a record must hold, and what a broken one says."""

import json
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pytest

from lofi_assets.records import (
    SCHEMAS,
    STYLE_COUNTS,
    STYLE_PREFIXES,
    Checkpoint,
    Dataset,
    QualityMetrics,
    Record,
    RecordError,
    SourceRecord,
    StylePreset,
    TagCategory,
    TagCategoryName,
    Track,
    dump,
    parse,
    stale_schemas,
    violations,
    write_schemas,
)

REPOSITORY = Path(__file__).resolve().parent.parent
SHA = "0123456789abcdef" * 4

COMPLETE: dict[type[Record], dict[str, Any]] = {
    Track: {
        "track_id": "track_001",
        "filename": "track_001.mp3",
        "audio_path": "processed/core/track_001.mp3",
        "prompt_path": "processed/core/track_001_prompt.txt",
        "lyrics_path": "processed/core/track_001_lyrics.txt",
        "duration": 93.5,
        "sample_rate": 48000,
        "quality_score": 81,
        "style_ids": ["CORE-01", "SEASON-02"],
        "source_id": "source_001",
        "human_verified": True,
        "split": "validation",
    },
    StylePreset: {
        "style_id": "SEASON-02",
        "name": "Autumn",
        "category": "seasonal",
        "extends": "CORE-01",
        "base_tags": ["lofi"],
        "instruments": ["rhodes"],
        "production": ["vinyl crackle"],
        "mood_options": ["mellow"],
        "tempo_range": [70, 90],
        "atmosphere": "rain",
        "vocal_type": "instrumental",
    },
    TagCategory: {
        "category": "genre",
        "tags": ["lofi", "hip hop"],
        "canonical_forms": {"lo-fi": "lofi"},
    },
    SourceRecord: {
        "source_id": "source_001",
        "track_ids": ["track_001"],
        "source_type": "commissioned",
        "provider": "A. Artist",
        "license_type": "AI Training Rights",
        "cost": 120.0,
        "date_acquired": "2025-01-15",
        "verified_by": "B. Lawyer",
        "notes": "contract 7",
    },
    Checkpoint: {
        "checkpoint_id": "epoch=0-step=5000_lora",
        "step": 5000,
        "path": "checkpoints/epoch=0-step=5000_lora",
        "timestamp": "2025-01-15T10:00:00Z",
        "fad_score": 3.5,
        "clap_score": 0.75,
        "is_valid": True,
        "config_hash": SHA,
        "dataset_hash": SHA,
        "samples_generated": True,
    },
    QualityMetrics: {
        "checkpoint_id": "epoch=0-step=5000_lora",
        "evaluation_date": "2025-01-15T10:00:00Z",
        "fad_score": 3.5,
        "clap_score": 0.75,
        "style_coverage": {"CORE-01": {"generated": True, "recognizable": False}},
        "human_evaluation": {"evaluator_count": 10, "accuracy": 0.52, "p_value": 0.08, "date": "2025-01-15"},
    },
    Dataset: {
        "dataset_id": "lofi-0123456789ab",
        "created": "2025-01-15T10:00:00Z",
        "track_count": 500,
        "train_count": 450,
        "validation_count": 50,
        "total_duration": 12.5,
        "style_distribution": {"core": 200, "seasonal": 100, "thematic": 100, "instrumental": 50, "vocal": 50},
        "hash": SHA,
    },
}
"""One complete record of every entity, with the data model's own examples."""

REQUIRED: dict[type[Record], tuple[str, ...]] = {
    Track: (
        *("track_id", "filename", "audio_path", "prompt_path", "lyrics_path", "duration", "sample_rate"),
        *("quality_score", "style_ids", "source_id"),
    ),
    StylePreset: (
        *("style_id", "name", "category", "base_tags", "instruments", "production", "mood_options", "tempo_range"),
    ),
    TagCategory: ("category", "tags"),
    SourceRecord: ("source_id", "track_ids", "source_type", "provider", "license_type", "date_acquired"),
    Checkpoint: ("checkpoint_id", "step", "path", "timestamp", "is_valid", "config_hash", "dataset_hash"),
    QualityMetrics: ("checkpoint_id", "evaluation_date", "fad_score"),
    Dataset: (
        *("dataset_id", "created", "track_count", "train_count", "validation_count", "total_duration"),
        *("style_distribution", "hash"),
    ),
}
"""The data model's required fields. `split` has a default there; `clap_score` needs trained CLAP weights."""

BROKEN: list[tuple[type[Record], str, Any]] = [
    (Track, "track_id", "../etc/passwd"),
    (Track, "track_id", ""),
    (Track, "track_id", 7),
    (Track, "duration", 29.9),
    (Track, "duration", 240.1),
    (Track, "duration", "93.5"),
    (Track, "sample_rate", 44100),
    (Track, "quality_score", -1),
    (Track, "quality_score", 101),
    (Track, "quality_score", 81.5),
    (Track, "quality_score", True),
    (Track, "style_ids", []),
    (Track, "style_ids", ["LOFI-01"]),
    (Track, "style_ids", ["CORE-1"]),
    (Track, "split", "test"),
    (Track, "human_verified", "yes"),
    (StylePreset, "style_id", "core-01"),
    (StylePreset, "category", "ambient"),
    (StylePreset, "extends", "CORE"),
    (StylePreset, "base_tags", []),
    (StylePreset, "tempo_range", [70]),
    (StylePreset, "tempo_range", [70, 80, 90]),
    (StylePreset, "tempo_range", [70.5, 90]),
    (TagCategory, "category", "key"),
    (TagCategory, "tags", []),
    (TagCategory, "canonical_forms", {"lo-fi": 1}),
    (SourceRecord, "source_id", ""),
    (SourceRecord, "track_ids", []),
    (SourceRecord, "source_type", "royalty-free"),
    (SourceRecord, "provider", ""),
    (SourceRecord, "license_type", ""),
    (SourceRecord, "cost", -1),
    (SourceRecord, "date_acquired", "15.01.2025"),
    (SourceRecord, "date_acquired", "2025-02-30"),
    (SourceRecord, "ai_training_rights", "yes"),
    (Checkpoint, "checkpoint_id", "epoch=1-step=5000_lora"),
    (Checkpoint, "step", 0),
    (Checkpoint, "is_valid", "true"),
    (Checkpoint, "config_hash", "abc"),
    (Checkpoint, "dataset_hash", SHA.upper()),
    (QualityMetrics, "fad_score", "3.5"),
    (QualityMetrics, "style_coverage", {"CORE-01": {"generated": "yes"}}),
    (Dataset, "track_count", -1),
    (Dataset, "total_duration", -0.1),
    (Dataset, "style_distribution", {"ambient": 3}),
    (Dataset, "hash", "abc"),
]


def with_field(kind: type[Record], field: str, value: Any) -> dict[str, Any]:
    return {**deepcopy(COMPLETE[kind]), field: value}


@pytest.mark.parametrize("kind", list(SCHEMAS.values()), ids=list(SCHEMAS))
def test_the_data_models_own_examples_are_valid_and_survive_a_round_trip(kind: type[Record]) -> None:
    record = parse(kind, COMPLETE[kind], where="example")
    written = dump(record)
    assert json.loads(json.dumps(written)).items() >= COMPLETE[kind].items()
    assert parse(kind, written, where="again") == record


@pytest.mark.parametrize(
    ("kind", "field"),
    [(kind, field) for kind, fields in REQUIRED.items() for field in fields],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_a_missing_required_field_is_named(kind: type[Record], field: str) -> None:
    data = {key: value for key, value in COMPLETE[kind].items() if key != field}
    with pytest.raises(RecordError, match=f"here.json.*{kind.__name__}.*'{field}' is a required property"):
        parse(kind, data, where="here.json")


@pytest.mark.parametrize("kind", list(SCHEMAS.values()), ids=list(SCHEMAS))
def test_optional_fields_may_be_absent(kind: type[Record]) -> None:
    parse(kind, {field: COMPLETE[kind][field] for field in REQUIRED[kind]}, where="smallest")


@pytest.mark.parametrize(("kind", "field", "value"), BROKEN)
def test_a_broken_field_is_named_with_its_rule(kind: type[Record], field: str, value: Any) -> None:
    found = violations(kind, with_field(kind, field, value))
    assert len(found) == 1 and found[0].startswith(field)
    with pytest.raises(RecordError, match=f"sources.json.*{field}"):
        parse(kind, with_field(kind, field, value), where="sources.json")


@pytest.mark.parametrize("data", [None, [], "record", 3])
def test_something_else_than_an_object_is_refused_as_a_record(data: object) -> None:
    with pytest.raises(RecordError, match=r"sources.json\[3\].*\(record\)"):
        parse(SourceRecord, data, where="sources.json[3]")


def test_every_broken_field_of_a_record_is_named_at_once() -> None:
    data = {**COMPLETE[Track], "duration": 10, "sample_rate": 8000, "split": "test"}
    assert [line.partition(":")[0] for line in violations(Track, data)] == ["duration", "sample_rate", "split"]


def test_a_date_in_another_form_is_named() -> None:
    with pytest.raises(RecordError, match=r"sources\.json.*date_acquired"):
        parse(SourceRecord, with_field(SourceRecord, "date_acquired", "20250115"), where="sources.json")


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (Checkpoint, "timestamp", "yesterday"),
        (SourceRecord, "cost", float("nan")),
        (Track, "duration", float("nan")),
        (Track, "track_id", "track_001\n"),
    ],
    ids=["date", "cost", "duration", "line break"],
)
def test_whatever_is_wrong_with_a_record_the_error_names_file_and_field(
    kind: type[Record], field: str, value: Any
) -> None:
    with pytest.raises(RecordError, match=f"sources.json(?s:.*){field}"):
        parse(kind, with_field(kind, field, value), where="sources.json")


def test_fields_that_others_added_survive_a_rewrite() -> None:
    data = {**COMPLETE[SourceRecord], "contract_number": "A-17", "contacts": [{"name": "C"}]}
    written = dump(parse(SourceRecord, data, where="sources.json"))
    assert written["contract_number"] == "A-17" and written["contacts"] == [{"name": "C"}]


def test_a_record_cannot_be_changed_in_place() -> None:
    track = parse(Track, COMPLETE[Track], where="track")
    with pytest.raises(ValueError, match="frozen"):
        track.split = "train"


def test_no_invalid_record_is_ever_written() -> None:
    broken = Track.model_construct(**{**COMPLETE[Track], "duration": 900.0})
    with pytest.raises(RecordError, match=r"refusing to write.*Track.*duration"):
        dump(broken)


def test_a_score_that_could_not_be_measured_is_recorded_as_such() -> None:
    metrics = QualityMetrics(
        checkpoint_id="epoch=0-step=5000_lora", evaluation_date=datetime(2025, 1, 15, tzinfo=UTC), fad_score=None
    )
    assert dump(metrics)["fad_score"] is None


def test_a_track_without_a_split_is_for_training() -> None:
    data = {key: value for key, value in COMPLETE[Track].items() if key != "split"}
    assert parse(Track, data, where="track").split == "train"


def test_categories_and_counts_are_the_data_models() -> None:
    assert STYLE_COUNTS == {"core": 7, "seasonal": 9, "thematic": 10, "instrumental": 7, "vocal": 5}
    assert list(STYLE_PREFIXES) == ["CORE", "SEASON", "THEME", "INST", "VOCAL"]
    assert get_args(TagCategoryName) == (
        *("genre", "mood", "instruments", "tempo", "production", "atmosphere", "vocal_type"),
    )


def test_the_schema_files_are_in_step_with_the_records() -> None:
    assert stale_schemas(REPOSITORY / "config" / "schemas") == []


def test_schemas_are_written_once_and_a_missing_or_edited_one_is_found(tmp_path: Path) -> None:
    assert len(write_schemas(tmp_path)) == len(SCHEMAS)
    assert write_schemas(tmp_path) == [] == stale_schemas(tmp_path)
    (tmp_path / "track.json").write_text("{}", encoding="utf-8")
    (tmp_path / "dataset.json").unlink()
    assert set(stale_schemas(tmp_path)) == {"track.json", "dataset.json"}
    assert {path.name for path in write_schemas(tmp_path)} == {"track.json", "dataset.json"}


@pytest.mark.parametrize(("stem", "kind"), SCHEMAS.items())
def test_every_field_is_described_in_its_schema(stem: str, kind: type[Record]) -> None:
    schema = json.loads((REPOSITORY / "config" / "schemas" / f"{stem}.json").read_text(encoding="utf-8"))
    assert set(REQUIRED[kind]) == set(schema["required"])
    assert all(field.get("description") for field in schema["properties"].values())
