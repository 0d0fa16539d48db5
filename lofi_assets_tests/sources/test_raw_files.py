"""What files under raw/ are called: ids, names that are no text, what tools leave behind, and what nothing reads."""

import json
import os
import unicodedata
from collections.abc import Mapping
from datetime import date
from pathlib import Path

import pytest

import lofi_assets.sources.raw_files
from lofi_assets.constitution.gates import load_gates
from lofi_assets.files.documents import write_json
from lofi_assets.files.hashing import sha256_file
from lofi_assets.files.typed import plain_row
from lofi_assets.sources.inventory import SourceRow, read_inventory
from lofi_assets.sources.ledger_page import survey
from lofi_assets.sources.licences import load_licences
from lofi_assets.sources.licensed_sources import inventory_sources
from lofi_assets.sources.raw_files import left_behind, scan_raw, track_id_of, tree_of
from lofi_assets.store import CONFIG_DIR, Store
from lofi_assets.tracks.landing import landing_state

TODAY = date(2025, 12, 22)
GATES = load_gates()
CLAIM = {
    "source_id": "studio-7",
    "source_type": "royalty_free",
    "provider": "Studio 7",
    "license_type": "AI Training Rights",
    "date_acquired": "2025-05-04",
    "verified_by": "M. Keller",
    "ai_training_rights": True,
    "evidence": "https://example.org/contract",
}


def raw(store: Store, name: str | bytes, content: bytes = b"") -> Path:
    path = store.raw / os.fsdecode(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content or os.fsencode(name))
    return path


def claim(store: Store, *tracks: str) -> None:
    write_json(store.metadata("sources.json"), [{**CLAIM, "track_ids": list(tracks)}])


def inventory(store: Store) -> tuple[str, dict[str, SourceRow]]:
    """Problems as they are shown, and rows by path."""
    outcome = inventory_sources(store, gates=GATES, today=TODAY)
    return outcome.details["problems"] or "", {row.path: row for row in read_inventory(store)}


# --- ids -------------------------------------------------------------------------------------------------------------


def ids(*names: str) -> list[str]:
    return [track_id_of(Path(f"{name}.wav")) for name in names]


@pytest.mark.parametrize(
    "names", [("Дождь 1", "Снег 1"), ("夜 lofi", "雨 lofi"), ("rain ☀", "rain ☂"), ("Straße", "Strae")]
)
def test_two_names_that_differ_in_letters_of_another_script_have_two_ids(names: tuple[str, str]) -> None:
    first, second = ids(*names)
    assert first != second and first[0].isalnum() and first.isascii()


def test_the_readable_rest_of_a_name_stays_in_its_id() -> None:
    (track_id,) = ids("Дождь 1")
    assert track_id.startswith("1_") and len(track_id) == len("1_") + 8
    assert len(ids("a" * 130 + "ж")[0]) == 120


def test_one_name_is_one_id_however_accents_are_stored() -> None:
    name = "Ёлка Café 3"
    assert track_id_of(Path(unicodedata.normalize("NFD", name))) == track_id_of(
        Path(unicodedata.normalize("NFC", name))
    )


@pytest.mark.parametrize(
    ("name", "track_id"), [("rain-01 (final)", "rain-01_final"), ("x" * 130, "x" * 120), ("Café – live", "Cafe_live")]
)
def test_names_that_lose_no_letter_keep_the_id_that_they_had(name: str, track_id: str) -> None:
    assert ids(name) == [track_id]


def test_a_record_that_lists_the_id_of_before_is_told_the_one_of_today(store: Store) -> None:
    raw(store, "partnerships/Дождь 1.wav")
    claim(store, "1")
    _, rows = inventory(store)
    (row,) = rows.values()
    assert row.rule == "licence.record"
    assert f"a record lists 1: if this file is meant, list {row.track_id}" in row.reason
    claim(store, "1", row.track_id)
    assert [row.rule for row in inventory(store)[1].values()] == [""]


# --- names that nothing can be called by -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shown", "said"),
    [
        (b"Caf\xe9.wav", r"raw/partnerships/Caf\xe9.wav", r"not UTF-8 (b'Caf\xe9.wav'); rename it"),
        ("rain\n1.wav", r"raw/partnerships/rain\n1.wav", "control character"),
        ("rain\x1b[2J.wav", r"raw/partnerships/rain\x1b[2J.wav", "control character"),
    ],
)
def test_a_name_that_is_no_text_is_rejected_by_itself(store: Store, name: str | bytes, shown: str, said: str) -> None:
    raw(store, b"partnerships/" + os.fsencode(name))
    raw(store, "partnerships/rain_01.wav")
    claim(store, "rain_01")
    _, rows = inventory(store)
    assert rows[shown].rule == "audio.readable" and said in rows[shown].reason
    assert rows["raw/partnerships/rain_01.wav"].rule == ""
    shown_rows = json.dumps([*map(plain_row, rows.values())], ensure_ascii=False)
    assert shown_rows.isprintable() and landing_state(store).files == 3
    assert len(survey(store, licences=load_licences(CONFIG_DIR), gates=GATES, today=TODAY).stray) == 1


@pytest.mark.parametrize("name", ["-rf.wav", "CON.wav", "a" * 251 + ".wav", "  .wav", "雨" * 83 + ".wav"])
def test_an_odd_name_that_is_text_is_a_name(store: Store, name: str) -> None:
    raw(store, f"partnerships/{name}")
    claim(store, track_id_of(Path(name)))
    assert [row.rule for row in inventory(store)[1].values()] == [""]


def test_a_file_that_may_not_be_read_is_rejected_by_itself(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    raw(store, "partnerships/rain_01.wav")
    raw(store, "partnerships/snow.wav")
    claim(store, "rain_01", "snow")

    def read(path: Path) -> str:
        if path.name == "snow.wav":
            raise PermissionError(13, "Permission denied")
        return sha256_file(path)

    monkeypatch.setattr(lofi_assets.sources.raw_files, "sha256_file", read)
    _, rows = inventory(store)
    assert rows["raw/partnerships/rain_01.wav"].rule == ""
    assert rows["raw/partnerships/snow.wav"].reason == "cannot be read (Permission denied)"


# --- what tools leave behind, and what goes while it is looked at ----------------------------------------------------

LEFTOVERS = [
    *(".DS_Store", "._rain.wav", "Thumbs.db", "desktop.ini", "rain.wav.filepart", "rain.wav.crdownload", "rain.tmp"),
    *(
        "~$notes.docx",
        "rain.wav~",
        "rain.wav.part",
        ".rain.wav.Xy12",
        "Icon\r",
        "__MACOSX/rain.wav",
        ".hidden/rain.wav",
    ),
]


@pytest.mark.parametrize("name", LEFTOVERS)
def test_what_tools_leave_behind_starts_nothing_and_is_no_problem(store: Store, name: str) -> None:
    raw(store, "partnerships/snow.wav")
    before = landing_state(store)
    raw(store, f"partnerships/{name}")
    assert landing_state(store) == before
    problems, rows = inventory(store)
    assert (problems, list(rows)) == ("", ["raw/partnerships/snow.wav"])


@pytest.mark.parametrize("name", ["rain.wav", "rain.part1.wav", "template.wav", "~rain.wav", "tmp.wav", "rain.TXT"])
def test_a_name_of_a_person_is_none_of_a_tools(name: str) -> None:
    assert not left_behind(name)


def test_a_file_that_goes_while_it_is_looked_at_is_not_there(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = raw(store, "partnerships/rain.wav")
    raw(store, "partnerships/snow.wav")
    tree = tree_of(store.raw)
    gone.unlink()
    assert [file.path for file in scan_raw(store, tree, memory={})] == ["raw/partnerships/snow.wav"]
    monkeypatch.setattr(
        "lofi_assets.tracks.landing.tree_of", lambda folder: tree if folder == store.raw else tree_of(folder)
    )
    assert landing_state(store).files == 1


# --- what nothing reads ----------------------------------------------------------------------------------------------

UNREAD: Mapping[str, str] = {
    "partnerships/cover.jpg": "not read: raw/partnerships/cover.jpg: no audio format that is read",
    "partnerships/rain_01.wave": "not read: raw/partnerships/rain_01.wave: no audio format that is read",
    "partnerships/fog_prompt.txt": "not read: raw/partnerships/fog_prompt.txt: no audio file of that name beside it",
    "partnerships/rain_01-lyrics.txt": "raw/partnerships/rain_01-lyrics.txt: call it 'rain_01_lyrics.txt'",
    "partnerships/rain_01_Prompts.txt": "raw/partnerships/rain_01_Prompts.txt: call it 'rain_01_prompt.txt'",
    "partnerships/rain_01_LYRICS.txt": "raw/partnerships/rain_01_LYRICS.txt: 'rain_01_lyrics.txt' is read in its place",
    "misc/snow.wav": "raw/misc: audio outside the folders of raw/ (commissioned, royalty-free,",
    "snow.wav": "raw/: audio outside the folders of raw/",
    "partnerships/1_5d9ff404_prompt.txt": "raw/partnerships/1_5d9ff404_prompt.txt: call it 'Дождь 1_prompt.txt'",
    os.fsdecode(b"partnerships/Caf\xe9.txt"): r"not read: raw/partnerships/Caf\xe9.txt: no audio",
}


@pytest.mark.parametrize("name", UNREAD, ids=ascii)
def test_what_nothing_reads_is_said_by_name(store: Store, name: str) -> None:
    raw(store, "partnerships/rain_01.wav")
    raw(store, "partnerships/Дождь 1.wav")
    if "LYRICS" in name:
        raw(store, "partnerships/rain_01_lyrics.txt")
    assert inventory(store)[0] == ""
    raw(store, name)
    problems, _ = inventory(store)
    assert problems.count("\n") == 0 and UNREAD[name] in problems


def test_a_link_to_a_folder_is_said_and_never_followed(store: Store, tmp_path: Path) -> None:
    (tmp_path / "album").mkdir()
    (tmp_path / "album" / "rain.wav").write_bytes(b"not ours")
    raw(store, "partnerships/snow.wav")
    (store.raw / "partnerships" / "album").symlink_to(tmp_path / "album")
    problems, rows = inventory(store)
    assert list(rows) == ["raw/partnerships/snow.wav"]
    assert "not read: raw/partnerships/album: a link to a folder, which is never followed; put" in problems


def test_many_of_a_kind_are_one_line(store: Store) -> None:
    for number in range(30):
        raw(store, f"partnerships/{number:02}.pdf")
    problems, _ = inventory(store)
    assert problems.count("\n") == 0 and "09.pdf and 20 more" in problems


# --- what went, and names that link to nothing -----------------------------------------------------------------------


def test_a_track_that_went_is_said_and_one_that_moved_is_not(store: Store) -> None:
    rain, snow, fog = (raw(store, f"partnerships/{name}.wav") for name in ("rain", "snow", "fog"))
    claim(store, "rain", "snow", "fog")
    assert inventory(store)[0] == ""
    rain.unlink()
    snow.rename(raw(store, "commissioned/x").with_name("snow.wav"))
    (store.raw / "commissioned" / "x").unlink()
    fog.rename(fog.with_name("Nebel.wav"))
    problems, _ = inventory(store)
    assert "gone since the last inventory: raw/partnerships/rain.wav (verified): not in the dataset" in problems
    assert "fog.wav is now raw/partnerships/Nebel.wav: track fog became Nebel; list Nebel where fog was" in problems
    assert "snow" not in problems


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("speakers.json", ["speakers.json names Rain_01, which is no track; is it rain_01?", "names fog: no track"]),
        ("chosen_styles.json", ["names Rain_01, which is no track; is it rain_01?", "names fog: no track"]),
        ("style_mapping.json", ["style_mapping.json names Rain_01, which is no track; is it rain_01?"]),
    ],
)
def test_a_name_that_links_to_no_track_is_said(store: Store, name: str, said: list[str]) -> None:
    raw(store, "partnerships/rain_01.wav")
    write_json(store.metadata(name), {"Rain_01": ["CORE-01"], "rain_01": ["CORE-01"], "fog": ["CORE-01"]})
    lines = inventory(store)[0].splitlines()
    assert len(lines) == len(said) and all(text in line for text, line in zip(said, lines, strict=True))


def test_a_decision_about_a_track_in_other_letters_is_said_and_one_about_a_track_that_went_is_not(store: Store) -> None:
    raw(store, "partnerships/rain_01.wav")
    store.metadata("").mkdir(parents=True)
    store.metadata("reviews.jsonl").write_text('{"track_id": "Rain_01"}\n{"track_id":"fog"}\n{"track_id": "rain_01"}\n')
    assert inventory(store)[0] == "- reviews.jsonl names Rain_01, which is no track; is it rain_01?"


def test_a_record_that_lists_a_track_in_other_letters_is_said_at_both_ends(store: Store) -> None:
    raw(store, "partnerships/rain_01.wav")
    claim(store, "Rain-01")
    problems, rows = inventory(store)
    said = "source studio-7 lists Rain-01, which no file has; is it rain_01 (raw/partnerships/rain_01.wav)?"
    assert said in problems
    (row,) = rows.values()
    assert "a record lists Rain-01: if this file is meant, list rain_01" in row.reason
