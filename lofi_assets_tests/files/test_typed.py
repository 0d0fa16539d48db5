"""Documents and tables as dataclasses: the way there and back, and what is refused."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import pandas as pd
import pytest
from pydantic.dataclasses import dataclass

from lofi_assets.files.typed import STORED, plain, read_rows, read_typed, write_rows, write_typed
from lofi_assets.files.writing import StoreError

REMEDY = "materialise it again"


@dataclass(frozen=True, config=STORED)
class Part:
    name: str
    share: float


@dataclass(frozen=True, config=STORED)
class Song:
    track_id: str
    status: Literal["accepted", "rejected"]
    seconds: float | None
    measures: Mapping[str, float | bool | None]
    parts: tuple[Part, ...] = ()
    reason: str = ""


@dataclass(frozen=True, config=STORED)
class Head:
    track_id: str
    measures: Mapping[str, float | bool | None]


SONG = Song("a", "accepted", None, {"loudness_lufs": -14.5, "mono": True, "bpm": None}, (Part("x", 0.5),))


def test_a_document_comes_back_as_it_was_written(tmp_path: Path) -> None:
    assert write_typed(tmp_path / "song.json", SONG)
    assert read_typed(tmp_path / "song.json", Song, remedy=REMEDY) == SONG
    assert not write_typed(tmp_path / "song.json", SONG)


def test_an_absent_document_is_none_and_an_absent_table_has_no_rows(tmp_path: Path) -> None:
    assert read_typed(tmp_path / "song.json", Song, remedy=REMEDY) is None
    assert read_rows(tmp_path / "songs.parquet", Song, remedy=REMEDY) == []


@pytest.mark.parametrize("rows", [[], [SONG], [SONG, Song("b", "rejected", 3.5, {}, reason="clips")]])
def test_a_table_comes_back_as_it_was_written(tmp_path: Path, rows: list[Song]) -> None:
    write_rows(tmp_path / "songs.parquet", Song, rows)
    assert read_rows(tmp_path / "songs.parquet", Song, remedy=REMEDY) == rows


def test_a_part_of_the_columns_is_read_without_the_others(tmp_path: Path) -> None:
    write_rows(tmp_path / "songs.parquet", Song, [SONG])
    assert read_rows(tmp_path / "songs.parquet", Head, remedy=REMEDY, whole=False) == [Head("a", SONG.measures)]


def test_what_an_earlier_version_left_out_is_what_the_default_says(tmp_path: Path) -> None:
    (tmp_path / "song.json").write_text(json.dumps({key: plain(SONG)[key] for key in list(plain(SONG))[:4]}))
    found = read_typed(tmp_path / "song.json", Song, remedy=REMEDY)
    assert found is not None and found.parts == () and found.reason == ""


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"status": "perhaps"}, "status"),
        ({"later": 1}, "later"),
        ({"measures": {"loudness_lufs": "loud"}}, "measures.loudness_lufs"),
        ({"parts": [{"name": "x"}]}, "parts.0.share"),
        ({"track_id": None}, "track_id"),
    ],
)
def test_a_document_of_another_version_is_refused_by_name(
    tmp_path: Path, change: dict[str, object], named: str
) -> None:
    path = tmp_path / "song.json"
    path.write_text(json.dumps(plain(SONG) | change))
    with pytest.raises(StoreError, match=f"{path}: is of another version .*{named}.*{REMEDY}"):
        read_typed(path, Song, remedy=REMEDY)


def test_a_document_that_lacks_a_field_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "song.json"
    path.write_text(json.dumps({key: value for key, value in plain(SONG).items() if key != "seconds"}))
    with pytest.raises(StoreError, match="seconds"):
        read_typed(path, Song, remedy=REMEDY)


def test_a_table_with_a_column_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "songs.parquet"
    write_rows(path, Song, [SONG])
    pd.read_parquet(path).assign(later=1).to_parquet(path)
    with pytest.raises(StoreError, match=f"columns of another version .later.; {REMEDY}"):
        read_rows(path, Song, remedy=REMEDY)


def test_a_table_with_text_that_is_no_json_is_refused_with_its_row(tmp_path: Path) -> None:
    path = tmp_path / "songs.parquet"
    write_rows(path, Song, [SONG])
    pd.read_parquet(path).assign(measures="{").to_parquet(path)
    with pytest.raises(StoreError, match="row 1: a column holds no JSON"):
        read_rows(path, Song, remedy=REMEDY)


def test_an_empty_cell_of_a_table_is_an_absent_field(tmp_path: Path) -> None:
    """Rows of an earlier version beside rows with a column that it did not have."""
    path = tmp_path / "songs.parquet"
    write_rows(path, Song, [SONG, Song("b", "rejected", 3.5, {}, reason="clips")])
    table = pd.read_parquet(path).astype({"reason": object, "parts": object})
    table.loc[0, ["reason", "parts"]] = None
    table.to_parquet(path)
    first, second = read_rows(path, Song, remedy=REMEDY)
    assert (first.reason, first.parts, first.seconds, second.reason) == ("", (), None, "clips")
    table.assign(track_id=None).to_parquet(path)
    with pytest.raises(StoreError, match=r"row 1: .*track_id"):
        read_rows(path, Song, remedy=REMEDY)
