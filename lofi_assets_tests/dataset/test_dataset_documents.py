"""What a dataset version records: read back as it was written, as an earlier version wrote it, or refused by name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lofi_assets.dataset.build import Sides, current_splits, recorded_splits
from lofi_assets.dataset.card import Described, Statistics, statistics
from lofi_assets.dataset.versions import (
    DatasetError,
    DatasetVersion,
    current_dataset,
    read_version,
    recorded_dataset,
    version_record,
    version_tracks,
    write_version_records,
)
from lofi_assets.files.documents import read_json, write_json
from lofi_assets.files.writing import StoreError
from lofi_assets.store import Store
from lofi_assets_tests.dataset.stand_in_version import dataset_record, deliver, track_record

TRACK = {
    "track_id": "autumn_walk_01",
    "filename": "autumn_walk_01.mp3",
    "audio_path": "processed/instrumental/autumn_walk_01.mp3",
    "prompt_path": "processed/instrumental/autumn_walk_01_prompt.txt",
    "lyrics_path": "processed/instrumental/autumn_walk_01_lyrics.txt",
    "duration": 45.0,
    "sample_rate": 48000,
    "quality_score": 99,
    "style_ids": ["INST-03"],
    "source_id": "demo-cc0-01",
    "split": "validation",
    "human_verified": False,
    "audio_sha256": "8" * 64,
    "group": "autumn_walk_01",
    "state": "TRAINING_READY",
}
DATASET = {
    "dataset_id": "lofi-ec59814c77d3",
    "created": "2026-11-28T00:26:59.782169Z",
    "track_count": 1,
    "train_count": 0,
    "validation_count": 1,
    "total_duration": 0.0125,
    "style_distribution": {"core": 0, "seasonal": 0, "thematic": 0, "instrumental": 1, "vocal": 0},
    "hash": "e" * 64,
}
STATISTICS = {
    "tracks": 1,
    "hours": 0.0125,
    "splits": {"train": {"tracks": 0, "hours": 0.0}, "validation": {"tracks": 1, "hours": 0.0125}},
    "groups": 1,
    "human_verified": 0,
    "categories": DATASET["style_distribution"],
    "styles": {"INST-03": 1},
    "tempo_bpm": {"75 to 80": 1},
    "loudness_lufs": {"-14 to -12": 1},
    "quality_score": {"90 to 100": 1},
    "duration_s": {"30 to 60": 1},
    "licences": {"CC0-1.0": 1},
    "providers": {"Someone": 1},
    "attributions": {},
}
SIDES = {"dataset_id": "lofi-ec59814c77d3", "splits": {"a": "train"}, "earlier": {"b": "validation"}}


@pytest.fixture
def folder(store: Store) -> Path:
    """A version, as the release before wrote it."""
    folder = store.datasets / "lofi-ec59814c77d3"
    write_json(folder / "dataset.json", DATASET)
    write_json(folder / "tracks.json", [TRACK])
    write_json(folder / "statistics.json", STATISTICS)
    write_json(store.metadata("dataset_manifest.json"), DATASET)
    return folder


def test_a_version_is_read_as_it_was_written(store: Store) -> None:
    tracks = (track_record("a", audio_sha256="a" * 64), track_record("b", split="validation", group="a"))
    folder, record = deliver(store, "lofi-1", tracks), dataset_record("lofi-1", tracks)
    assert read_version(folder) == DatasetVersion(folder, record, tracks) == current_dataset(store)
    assert current_dataset(store).of_split("validation") == [tracks[1]]


def test_a_version_of_the_release_before_is_read_and_written_again_byte_for_byte(store: Store, folder: Path) -> None:
    found = current_dataset(store)
    assert (found.record.hash, found.record.style_distribution["instrumental"]) == ("e" * 64, 1)
    (track,) = found.tracks
    assert (track.split, track.style_ids, track.audio_sha256) == ("validation", ["INST-03"], "8" * 64)
    write_version_records(store.root / "again", found.record, found.tracks)
    for name in ("dataset.json", "tracks.json"):
        assert (store.root / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_what_a_curator_notes_in_a_record_stays(folder: Path) -> None:
    write_json(folder / "dataset.json", DATASET | {"note": "for the autumn release"})
    record = version_record(folder)
    assert record is not None and record.model_extra == {"note": "for the autumn release"}


def test_without_files_there_is_no_version(store: Store) -> None:
    nowhere = store.datasets / "lofi-0"
    assert recorded_dataset(store) is None and version_tracks(nowhere) is None and read_version(nowhere) is None
    assert Statistics.read(nowhere) is None and Sides.read(store) is None and current_splits(store) == {}


def test_a_version_without_its_tracks_is_refused(folder: Path) -> None:
    (folder / "tracks.json").unlink()
    with pytest.raises(DatasetError, match=r"tracks\.json: absent; restore it, or move the folder away"):
        read_version(folder)


@pytest.mark.parametrize(
    ("name", "content", "read", "said"),
    [
        ("dataset.json", {**DATASET, "track_count": "many"}, version_record, "dataset.json: .*track_count.*; restore"),
        (
            "dataset.json",
            {"hash": "e" * 64},
            version_record,
            "dataset.json: is of another version .*dataset_id.*restore",
        ),
        ("tracks.json", {"tracks": []}, version_tracks, "tracks.json: not an array of tracks; restore"),
        ("tracks.json", [TRACK, TRACK | {"split": "test"}], version_tracks, "tracks.json, track 2: .*split.*; restore"),
        ("tracks.json", [{"track_id": "a", "split": "train"}], version_tracks, "track 1: .*filename.*; restore"),
        (
            "statistics.json",
            STATISTICS | {"keys": {}},
            Statistics.read,
            "statistics.json: .*keys.*; move the folder away",
        ),
        ("statistics.json", {"tracks": 1}, Statistics.read, "statistics.json: .*hours.*; move the folder away"),
    ],
)
def test_records_of_another_version_are_refused_by_name(
    folder: Path, name: str, content: Any, read: Callable[[Path], object], said: str
) -> None:
    (folder / name).write_text(json.dumps(content))
    with pytest.raises((DatasetError, StoreError), match=said):
        read(folder)


@pytest.mark.parametrize("content", [DATASET | {"hash": 7}, {"dataset_id": "lofi-1", "hash": "e" * 64}])
def test_a_manifest_of_another_version_is_refused_by_name(store: Store, content: Any) -> None:
    write_json(store.metadata("dataset_manifest.json"), content)
    with pytest.raises(
        StoreError, match=r"dataset_manifest\.json: is of another version .*; remove it and materialise"
    ):
        recorded_dataset(store)


def test_statistics_are_read_as_they_were_written(folder: Path, tmp_path: Path) -> None:
    counted = statistics([Described(track_record("a"), tempo_bpm=76.2, license_type="CC0-1.0", attribution="By A")])
    counted.write(tmp_path)
    assert Statistics.read(tmp_path) == counted and counted.attributions == {"By A": 1}
    before = Statistics.read(folder)
    assert before is not None and before.splits["validation"].hours == 0.0125
    before.write(tmp_path)
    assert (tmp_path / "statistics.json").read_bytes() == (folder / "statistics.json").read_bytes()


def test_sides_are_read_as_they_were_written(store: Store) -> None:
    write_json(store.metadata("dataset_splits.json"), SIDES)
    written = store.metadata("dataset_splits.json").read_bytes()
    sides = Sides.read(store)
    assert sides == Sides("lofi-ec59814c77d3", {"a": "train"}, {"b": "validation"})
    assert sides is not None
    sides.write(store)
    assert store.metadata("dataset_splits.json").read_bytes() == written
    assert recorded_splits(store) == {"a": "train", "b": "validation"}


def test_sides_of_the_first_versions_name_no_earlier_tracks(store: Store) -> None:
    write_json(store.metadata("dataset_splits.json"), {"dataset_id": "lofi-1", "splits": {"a": "train"}})
    assert Sides.read(store) == Sides("lofi-1", {"a": "train"})
    assert recorded_splits(store) == {"a": "train"}


@pytest.mark.parametrize("change", [{"splits": {"a": "test"}}, {"moved": []}, {"dataset_id": None}])
def test_sides_of_another_version_are_refused_by_name(store: Store, change: dict[str, Any]) -> None:
    write_json(store.metadata("dataset_splits.json"), SIDES | change)
    said = rf"dataset_splits\.json: is of another version .*{next(iter(change))}.*; restore it from a backup"
    with pytest.raises(StoreError, match=said):
        recorded_splits(store)
    assert read_json(store.metadata("dataset_splits.json")) == SIDES | change
