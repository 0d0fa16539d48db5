"""The files of sources and tracks: read as what they are, also as the version before wrote them, or refused by name."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lofi_assets.files.documents import read_json, write_json
from lofi_assets.files.typed import parsed
from lofi_assets.files.writing import StoreError
from lofi_assets.sources.inventory import inventory_path, known_files, read_inventory
from lofi_assets.sources.licences import SourceError
from lofi_assets.store import STYLE_MAPPING, Store
from lofi_assets.styles.prompt_text import Tag
from lofi_assets.tracks.curation import hand_edits
from lofi_assets.tracks.duplicates import LikelyCopies, PartsOfOneFile, pairs_path, read_pairs, write_pairs
from lofi_assets.tracks.file_tags import FileTags
from lofi_assets.tracks.prompt_table import (
    given_styles,
    prompt_verdicts,
    prompts_path,
    read_prompts,
    track_prompts,
    write_prompt_rows,
    written_fingerprints,
)
from lofi_assets.tracks.prompts import QualityScore, write_prompts
from lofi_assets.tracks.quarantine import Quarantined, quarantined, read_quarantined, write_quarantine
from lofi_assets.tracks.track_table import (
    Measures,
    WorkedTrack,
    lossless_masters,
    part_ids,
    read_tracks,
    track_sounds,
    track_verdicts,
    tracks_path,
    write_tracks,
)
from lofi_assets.tracks.work_files import read_work, work_file, write_work
from lofi_assets_tests.stage_rows import prompt_row, source_row, track_row, write_sources

MEASURES: Measures = {"codec": "wav", "duration_s": 61.5, "dual_mono": False, "frames": 2952000, "tempo_bpm": None}
SOURCE = source_row("rain", measures={"license_status": "permitted", "days_until_acquired": {"value": 1, "note": "x"}})
TRACK = track_row(
    "long_s01",
    part_of="long",
    measures=MEASURES,
    heard={"msd": {"jazz": 0.25}},
    score_parts={"noise": 0.5},
    lossless_sha256="c" * 64,
    lossless_path="cache/tracks/long_s01.flac",
    judged_by="0123456789ab",
    chain="2",
    file_tags=FileTags("1:5", {"genre": ("jazz", "lofi")}),
)
PROMPT = prompt_row(
    "rain",
    tags=(Tag("genre", "lofi", "human", 1.0), Tag("tempo", "74 bpm", "signal", 0.5)),
    unknown_curated=("zzyzx",),
    curated_styles=("CORE-01",),
    measures={"texts_readable": True},
    file_tags={"title": ("Rain",)},
)

# --- tables ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """A table, and the row that stands in it as the version before wrote it."""

    path: Callable[[Store], Path]
    read: Callable[[Store], list[Any]]
    write: Callable[[Store, list[Any]], None]
    row: Any
    before: dict[str, Any]
    asset: str


TABLES = {
    "inventory": Table(
        inventory_path,
        read_inventory,
        write_sources,
        SOURCE,
        {
            **{"track_id": "rain", "path": "raw/rain.wav", "sha256": "5" * 64, "bytes": 4, "stat": "4:0"},
            **{"status": "verified", "rule": "", "reason": "", "source_id": "s1", "license_type": "CC0"},
            **{"provider": "Someone", "attribution": ""},
            "measures": '{"days_until_acquired": {"note": "x", "value": 1}, "license_status": "permitted"}',
        },
        "licensed_sources",
    ),
    "tracks": Table(
        tracks_path,
        read_tracks,
        write_tracks,
        TRACK,
        {
            **{"track_id": "long_s01", "part_of": "long", "fingerprint": "f" * 64, "status": "accepted", "rule": ""},
            **{"reason": "", "heard": '{"msd": {"jazz": 0.25}}', "score_parts": '{"noise": 0.5}'},
            **{"envelope": "[[0.0, 0.0]]", "source_sha256": "5" * 64, "audio_sha256": "a" * 64},
            **{"lossless_sha256": "c" * 64, "quality_score": 80, "duration": 60.0, "words": ""},
            **{"judged_by": "0123456789ab", "chain": "2", "source_id": "s1"},
            **{"raw_path": "raw/royalty-free/long_s01.wav", "audio_path": "processed/core/long_s01.mp3"},
            "lossless_path": "cache/tracks/long_s01.flac",
            "measures": '{"codec": "wav", "duration_s": 61.5, "dual_mono": false, "frames": 2952000, '
            '"tempo_bpm": null}',
            "file_tags": '{"read_from": "1:5", "texts": {"genre": ["jazz", "lofi"]}}',
        },
        "processed_tracks",
    ),
    "prompts": Table(
        prompts_path,
        read_prompts,
        write_prompt_rows,
        PROMPT,
        {
            **{"track_id": "rain", "status": "tagged", "state": "TAGGED", "rule": "", "reason": "", "prompt": "lofi"},
            **{"raw_path": "raw/royalty-free/rain.wav", "lyrics": "[Instrumental]", "style_ids": '["CORE-01"]'},
            **{"style_confidence": 1.0, "style_origin": "human", "curated_styles": '["CORE-01"]'},
            **{"needs_review": False, "unknown_curated": '["zzyzx"]', "unknown_in_prompt": 0, "notes": ""},
            **{"measures": '{"texts_readable": true}', "audio_sha256": "a" * 64, "proposal": "0" * 64},
            **{"reviewed_by": "", "reviewed_on": "", "reviewed_styles": False, "file_tags_of": ""},
            **{"file_tags": '{"title": ["Rain"]}', "fingerprint": "f" * 64},
            "tags": '[{"category": "genre", "tag": "lofi", "origin": "human", "confidence": 1.0}, '
            '{"category": "tempo", "tag": "74 bpm", "origin": "signal", "confidence": 0.5}]',
        },
        "prompts",
    ),
}


@pytest.fixture(params=TABLES)
def table(request: pytest.FixtureRequest) -> Table:
    return TABLES[request.param]


def plain(value: Any) -> Any:
    """What stands in a cell; JSON text as what it says, since the order of its keys says nothing."""
    return json.loads(value) if isinstance(value, str) and value[:2] in ('{"', '["', "[{", "[[") else value


def stored(store: Store, table: Table, **changes: Any) -> Path:
    """The table as pandas writes it from plain columns; a change of None takes the column out."""
    row = {name: value for name, value in (table.before | changes).items() if value is not None}
    table.path(store).parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame([row]).to_parquet(table.path(store), index=False)
    return table.path(store)


def test_a_table_comes_back_as_it_was_written(store: Store, table: Table) -> None:
    assert table.read(store) == []
    table.write(store, [table.row])
    assert table.read(store) == [table.row]
    table.write(store, [])
    assert table.read(store) == []


def test_a_table_holds_the_columns_that_it_had_before_and_is_read_from_them(store: Store, table: Table) -> None:
    table.write(store, [table.row])
    (row,) = pd.read_parquet(table.path(store)).to_dict("records")
    assert row.keys() == table.before.keys()
    assert {name: plain(value) for name, value in row.items()} == {
        name: plain(value) for name, value in table.before.items()
    }
    stored(store, table)
    assert table.read(store) == [table.row]


def test_a_table_of_another_version_is_refused_with_the_asset_that_writes_it(store: Store, table: Table) -> None:
    for changes, said in (({"later": 1}, "later"), ({"rule": None}, "rule"), ({"status": "perhaps"}, "status")):
        path = stored(store, table, **changes)
        with pytest.raises(StoreError, match=f"{path}.*{said}.*materialise {table.asset} again"):
            table.read(store)


@pytest.mark.parametrize("absent", ["file_tags", "lossless_sha256", "lossless_path", "part_of", "judged_by", "chain"])
def test_a_column_that_earlier_tables_of_tracks_lack_is_what_its_default_says(store: Store, absent: str) -> None:
    stored(store, TABLES["tracks"], **{absent: None})
    (row,) = read_tracks(store)
    assert getattr(row, absent) == (None if absent == "file_tags" else "")


def test_rows_of_two_versions_stand_in_one_table(store: Store) -> None:
    """As a version that knew no chain left them beside those that were worked on since."""
    before = TABLES["tracks"].before
    earlier = {name: value for name, value in before.items() if name not in ("chain", "file_tags")}
    path = stored(store, TABLES["tracks"])
    pd.DataFrame([earlier, before]).to_parquet(path, index=False)
    assert [(row.chain, row.file_tags) for row in read_tracks(store)] == [("", None), ("2", TRACK.file_tags)]


def test_a_part_of_a_row_is_read_from_a_table_whatever_else_it_holds(store: Store) -> None:
    stored(store, TABLES["inventory"], later="x", rule=None)
    assert [(row.track_id, row.stat, row.status) for row in known_files(store)] == [("rain", "4:0", "verified")]
    stored(store, TABLES["tracks"], later="x")
    assert [(row.track_id, row.rule) for row in track_verdicts(store)] == [("long_s01", "")]
    assert [(row.audio_sha256, row.measures) for row in track_sounds(store)] == [("a" * 64, MEASURES)]
    assert part_ids(store) == {"long_s01": "long"} and lossless_masters(store) == {}
    stored(store, TABLES["prompts"], later="x")
    assert [(row.prompt, row.style_ids) for row in track_prompts(store)] == [("lofi", ("CORE-01",))]
    assert [(row.track_id, row.rule) for row in prompt_verdicts(store)] == [("rain", "")]
    assert written_fingerprints(store) == {"rain": "f" * 64}
    stored(store, TABLES["prompts"], reviewed_styles=None)
    assert given_styles(store)["rain"].curated_styles == ("CORE-01",)


def test_the_remedy_for_prompts_of_another_version_mends_them(store: Store) -> None:
    stored(store, TABLES["prompts"], later="x")
    write_tracks(store, [track_row("rain")])
    assert write_prompts(store).counts["stale"] == 1
    assert [row.track_id for row in read_prompts(store)] == ["rain"]


# --- JSON ------------------------------------------------------------------------------------------------------------


def test_pairs_come_back_as_they_were_written_and_as_the_version_before_wrote_them(store: Store) -> None:
    pairs: list[LikelyCopies | PartsOfOneFile] = [LikelyCopies("a", "b", 0.7012), PartsOfOneFile("l_s01", "l_s02", "l")]
    assert read_pairs(store) == []
    write_pairs(store, pairs)
    before = [{"a": "a", "b": "b", "similarity": 0.7012}, {"a": "l_s01", "b": "l_s02", "part_of": "l"}]
    assert read_pairs(store) == pairs and read_json(pairs_path(store)) == before


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, "no list"),
        ([{"a": "a", "b": "b"}], "pair 1.*similarity"),
        ([{"a": "a", "b": "b", "similarity": 0.7, "part_of": "l"}], "pair 1.*similarity"),
        ([{"a": "a", "b": "b", "similarity": 0.7, "kind": "review"}], "pair 1.*kind"),
    ],
)
def test_pairs_of_another_version_are_refused(store: Store, content: Any, said: str) -> None:
    write_json(pairs_path(store), content)
    with pytest.raises(StoreError, match=f"{pairs_path(store)}.*{said}.*materialise processed_tracks again"):
        read_pairs(store)


def test_quarantine_leaves_out_what_is_empty_and_is_read_back(store: Store) -> None:
    out = [
        Quarantined(track_id="a", rule="audio.clipping", reason="0.2", raw_path="raw/a.wav", measures={"b": 1, "a": 2}),
        Quarantined(track_id="b", reason="rejected by Ada: hum"),
    ]
    write_quarantine(store, "tracks", out)
    assert [read_quarantined(path) for path in quarantined(store)] == out
    before = {"track_id": "a", "rule": "audio.clipping", "reason": "0.2", "raw_path": "raw/a.wav"}
    first, second = map(read_json, quarantined(store))
    assert first == before | {"measures": {"a": 2, "b": 1}} and [*first["measures"]] == ["a", "b"]
    assert second == {"track_id": "b", "reason": "rejected by Ada: hum", "measures": {}}


def test_quarantine_of_another_version_is_refused(store: Store) -> None:
    path = store.quarantine / "tracks" / "a.json"
    assert read_quarantined(path) is None
    for content, said in (({"rule": "audio.clipping"}, "track_id"), ({"track_id": "a", "later": 1}, "later")):
        write_json(path, content)
        with pytest.raises(StoreError, match=f"{path}: .*{said}.*materialise the asset"):
            read_quarantined(path)


def test_scores_stand_as_the_data_model_has_them(store: Store) -> None:
    write_tracks(store, [track_row("rain", quality_score=90, score_parts={"noise": 0.8, "dc": 0.5})])
    write_prompts(store)
    scores = read_json(store.metadata("quality_scores.json"))
    assert scores == {"rain": {"score": 90, "verified": False, "date": None, "parts": {"dc": 0.5, "noise": 0.8}}}
    found = parsed(QualityScore, scores["rain"], where="rain", remedy="")
    assert found == QualityScore(90, False, None, {"dc": 0.5, "noise": 0.8})
    with pytest.raises(StoreError, match="later"):
        parsed(QualityScore, scores["rain"] | {"later": 1}, where="rain", remedy="")


WORKED = WorkedTrack(
    track_id="rain",
    fingerprint="f" * 64,
    status="accepted",
    rule="",
    reason="",
    measures=MEASURES,
    heard={"mtt": {"piano": 0.5}},
    score_parts={},
    envelope="[]",
    source_sha256="5" * 64,
    audio_sha256="a" * 64,
    quality_score=80,
    duration=61.5,
    words="AAAA",
    chain="2",
)


def test_rows_beside_work_files_come_back_in_the_form_that_the_version_before_has_them(store: Store) -> None:
    assert read_work(store, "rain", "f" * 64) == []
    write_work(store, "rain", "f" * 64, [WORKED])
    assert read_work(store, "rain", "f" * 64) == [WORKED]
    (row,) = read_json(work_file(store, "rain", "f" * 64, ".json"))
    assert json.loads(row["measures"]) == MEASURES and row["heard"] == '{"mtt": {"piano": 0.5}}'
    assert not row.keys() & {"source_id", "raw_path", "audio_path", "lossless_path", "file_tags"}
    earlier = {name: value for name, value in row.items() if name not in ("part_of", "lossless_sha256", "judged_by")}
    write_json(work_file(store, "rain", "f" * 64, ".json"), [earlier])
    assert read_work(store, "rain", "f" * 64) == [WORKED]


@pytest.mark.parametrize("content", [{}, [1], [{"track_id": "rain"}], [{"later": 1}]])
def test_rows_beside_work_files_of_another_version_are_refused(store: Store, content: Any) -> None:
    path = work_file(store, "rain", "f" * 64, ".json")
    write_json(path, content)
    with pytest.raises(StoreError, match=f"{path}: .*remove it, the file is then worked on again"):
        read_work(store, "rain", "f" * 64)


@pytest.mark.parametrize("content", [{}, ["CORE-01"], [{"a": "CORE-01"}]])
def test_a_copy_of_the_mapping_that_is_none_is_refused(store: Store, content: Any) -> None:
    write_json(store.cache / STYLE_MAPPING, content)
    with pytest.raises(SourceError, match=str(store.cache / STYLE_MAPPING)):
        hand_edits(store)
