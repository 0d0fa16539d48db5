"""Nothing that a later asset writes moves or stops `processed_tracks`: it follows sources, vocabulary and people."""

import struct
from collections.abc import Generator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pytest

from lofi_assets.dataset.dataset_manifest import assemble
from lofi_assets.files.documents import read_json, write_json
from lofi_assets.outcome import Outcome
from lofi_assets.store import CHOSEN_STYLES, STYLE_MAPPING, Store
from lofi_assets.tracks import file_tags
from lofi_assets.tracks.curation import curated_tempo_ranges
from lofi_assets.tracks.process_track import ProcessJob
from lofi_assets.tracks.processed_tracks import process_library
from lofi_assets.tracks.prompts import write_prompts
from lofi_assets.tracks.tagged_tracks import categories
from lofi_assets.tracks.track_table import read_tracks, tracks_path
from lofi_assets.workers.mapping import MapTracks
from lofi_assets_tests.tracks.stand_in_audio import GATES, SETTINGS, accepted, inventory

NOW = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
PLACES = {"wind": "core", "rain": "seasonal", "snow": "thematic"}
"""Track id -> folder: by nothing, by what its file says of itself, by a person's choice."""


def raw_file(store: Store, track_id: str, **info: str) -> Path:
    """A WAV file without sound that says things of itself."""
    padded = {name: text.encode() + b"\0" * (2 - len(text) % 2) for name, text in info.items()}
    texts = b"".join(name.encode() + struct.pack("<I", len(text)) + text for name, text in padded.items())
    chunks = b"WAVE" + (b"LIST" + struct.pack("<I", len(texts) + 4) + b"INFO" + texts if texts else b"")
    path = store.raw / f"{track_id}.wav"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"RIFF" + struct.pack("<I", len(chunks)) + chunks)
    return path


def process(store: Store) -> tuple[Outcome, list[str]]:
    """The asset's own call, with answers in place of the audio chain."""
    worked: list[str] = []

    def answered(_: object, jobs: Sequence[ProcessJob], *, label: str) -> Generator[tuple[ProcessJob, Any]]:
        for job in jobs:
            worked.append(job.track_id)
            yield job, accepted(job)

    outcome = process_library(
        store,
        gates=GATES,
        settings=SETTINGS,
        tempo_ranges=curated_tempo_ranges(store),
        style_of=categories(store),
        map_tracks=cast(MapTracks, answered),
    )
    return outcome, worked


def files(store: Store) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in store.root.rglob("*") if path.is_file()}


@pytest.fixture
def first(store: Store) -> Outcome:
    """Three tracks, processed for the first time."""
    raw_file(store, "wind")
    raw_file(store, "rain", IGNR="lofi jazz", ICMT="rainy window")
    raw_file(store, "snow")
    write_json(store.metadata(CHOSEN_STYLES), {"snow": ["THEME-02"]})
    inventory(store, wind="1", rain="2", snow="3")
    outcome, worked = process(store)
    assert sorted(worked) == sorted(PLACES)
    return outcome


def written_later(store: Store) -> list[Path]:
    """What the assets after it write or change, by what is different once they have run."""
    before = files(store)
    write_prompts(store)
    assemble(store, now=NOW)
    return [path for path, content in files(store).items() if before.get(path) != content]


def placed(store: Store) -> dict[str, str]:
    return {path.stem: path.parent.name for path in store.processed.glob("*/*.mp3")}


@pytest.mark.parametrize("harm", ["garbled", "removed"])
def test_what_later_assets_write_is_not_read(store: Store, first: Outcome, harm: str) -> None:
    later = written_later(store)
    names = {store.relative(path) for path in later}
    assert {"metadata/prompts.parquet", "metadata/quality_scores.json", "metadata/style_mapping.json"} <= names
    assert {"metadata/dataset_manifest.json", "processed/core/wind_prompt.txt"} <= names
    rows, places = read_tracks(store), placed(store)
    for path in later:
        # In the mapping people edit too, and what they write there counts: without edits it says nothing.
        if harm == "removed" or path.name == STYLE_MAPPING:
            path.unlink()
        else:
            path.chmod(0o644)
            path.write_bytes(b"not what it was")
    again, worked = process(store)
    assert (worked, again.data_version, read_tracks(store), placed(store)) == ([], first.data_version, rows, places)
    assert places == PLACES


def test_an_edit_of_the_result_by_hand_is_a_persons_word_and_moves_the_track(store: Store, first: Outcome) -> None:
    written_later(store)
    path = store.metadata(STYLE_MAPPING)
    write_json(path, read_json(path) | {"wind": ["INST-01"]})
    process(store)
    assert placed(store) == PLACES | {"wind": "instrumental"}


# --- what a raw file says of itself ----------------------------------------------------------------------------------


def test_file_tags_are_read_once_and_kept_in_the_row(
    store: Store, first: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    tags = {row.track_id: row.file_tags for row in read_tracks(store)}
    assert tags["rain"] and tags["rain"].texts == {"genre": ("lofi jazz",), "comment": ("rainy window",)}
    monkeypatch.setattr(file_tags, "read_tags", lambda path: pytest.fail(f"read again: {path}"))
    assert process(store)[0].data_version == first.data_version
    write_prompts(store)


def test_file_tags_are_read_anew_when_the_file_or_the_reader_changes(
    store: Store, first: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw_file(store, "rain", IGNR="jazz")
    inventory(store, wind="1", rain="2 changed", snow="3")
    assert process(store)[1] == ["rain"]
    read: list[str] = []
    monkeypatch.setattr(file_tags, "METADATA_VERSION", "a later one")
    monkeypatch.setattr(file_tags, "read_tags", lambda path: read.append(path.stem) or {"genre": ["ambient"]})
    assert process(store)[1] == [] and sorted(read) == sorted(PLACES)
    assert [row.file_tags.texts for row in read_tracks(store) if row.file_tags] == [{"genre": ("ambient",)}] * 3


def test_a_table_of_the_version_before_is_taken_over_without_work(store: Store, first: Outcome) -> None:
    """It kept file tags with the prompts: the raw files are asked once, the audio is not worked on."""
    written_later(store)
    rows, prompts = read_tracks(store), files(store)[store.metadata("prompts.parquet")]
    pd.read_parquet(tracks_path(store)).drop(columns="file_tags").to_parquet(tracks_path(store))
    assert {row.file_tags for row in read_tracks(store)} == {None}
    assert write_prompts(store).counts["recomputed"] == 0
    again, worked = process(store)
    assert (worked, again.data_version, read_tracks(store), placed(store)) == ([], first.data_version, rows, PLACES)
    write_prompts(store)
    assert files(store)[store.metadata("prompts.parquet")] == prompts
