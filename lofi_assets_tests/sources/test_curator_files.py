"""Prompts and lyrics as people's editors save them: read as meant, or refused with the file and what to do."""

import os
import unicodedata
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from lofi_assets.cli.review import review
from lofi_assets.files.documents import read_json
from lofi_assets.lyrics.text import lyrics_text
from lofi_assets.sources.curator_files import CuratorFiles, Sidecars
from lofi_assets.store import Store
from lofi_assets.styles.prompt_text import split_tags
from lofi_assets.tracks.prompt_table import read_prompts
from lofi_assets.tracks.prompts import write_prompts
from lofi_assets.tracks.track_table import read_tracks, write_tracks
from lofi_assets_tests.stage_rows import track_row


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """One accepted track as the audio chain leaves it."""
    store = Store(tmp_path / "data")
    heard = {"tempo_bpm": 74.2, "tempo_confidence": 0.9}
    write_tracks(store, [track_row("rain", raw_path="raw/partnerships/rain.wav", measures=heard)])
    raw(store, "rain.wav", b"RIFF")
    return store


def raw(store: Store, name: str | bytes, content: bytes) -> Path:
    path = store.raw / "partnerships" / os.fsdecode(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def beside(store: Store) -> Sidecars:
    return CuratorFiles(store).beside("raw/partnerships/rain.wav")


# --- what cannot be read ---------------------------------------------------------------------------------------------

REFUSED: Mapping[str, tuple[str, bytes, str, str]] = {
    "lyrics in Latin-1": (
        "rain_lyrics.txt",
        b"[Verse]\nCaf\xe9\n",
        "prompts.readable",
        "'rain_lyrics.txt': line 2 holds the byte 0xe9, which is not UTF-8; save it again with the encoding UTF-8",
    ),
    "a prompt in Latin-1": ("rain_prompt.txt", b"lofi, caf\xe9", "prompts.readable", "line 1 holds the byte 0xe9"),
    "a prompt in UTF-16": ("rain_prompt.txt", "lofi".encode("utf-16"), "prompts.readable", "saved as UTF-16"),
    "lyrics too large": ("rain_lyrics.txt", b"x" * 70_000, "prompts.readable", "has 70000 bytes, more than the 65536"),
    "lyrics without a section": ("rain_lyrics.txt", b"words", "prompts.lyrics", "lyrics line 1: words before any"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_text_that_cannot_be_read_as_it_stands_sends_the_track_to_quarantine(store: Store, case: str) -> None:
    name, content, rule, said = REFUSED[case]
    path = raw(store, name, content)
    outcome = write_prompts(store)
    (row,) = read_prompts(store)
    assert (row.status, row.rule) == ("rejected", rule) and said in row.reason
    told = read_json(store.quarantine / "prompts" / "rain.json")
    assert said in told["reason"] and told["raw_path"] == "raw/partnerships/rain.wav"
    assert outcome.tracks[rule] == {"accepted": 0, "violating": 0, "rejected": 1}
    path.unlink()
    assert write_prompts(store).counts["rejected"] == 0


def test_a_linked_text_is_a_fault_and_never_followed(store: Store, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (store.raw / "partnerships" / "rain_prompt.txt").symlink_to(tmp_path / "secret")
    found = beside(store)
    assert (found.prompt, found.lyrics) == ("", None) and "'rain_prompt.txt' is a link" in found.fault


def test_the_review_list_shows_the_name_of_a_file_that_its_id_does_not_say(store: Store) -> None:
    (row,) = read_tracks(store)
    path = "raw/partnerships/Дождь 1.wav"
    write_tracks(store, [row, replace(row, track_id="1_5d9ff404", raw_path=path, audio_path="processed/core/1.mp3")])
    write_prompts(store)
    listed = CliRunner().invoke(review, ["list", "--all"], env={"LOFI_DATA_DIR": str(store.root)}).output
    assert "1_5d9ff404 (Дождь 1.wav)  TAGGED" in listed and "\nrain  TAGGED" in listed


# --- which file is meant ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Rain_Lyrics.txt", "rain_lyrics.TXT", "RAIN_LYRICS.TXT"])
def test_a_text_whose_name_differs_in_case_is_taken(store: Store, name: str) -> None:
    raw(store, name, b"[Verse]\nrain")
    assert beside(store) == ("", "[Verse]\nrain", "")


def test_a_text_whose_accents_are_stored_apart_is_taken(store: Store) -> None:
    raw(store, unicodedata.normalize("NFC", "Café.wav"), b"RIFF")
    raw(store, unicodedata.normalize("NFD", "Café_prompt.txt"), b"lofi")
    raw_path = f"raw/partnerships/{unicodedata.normalize('NFC', 'Café.wav')}"
    assert CuratorFiles(store).beside(raw_path).prompt == "lofi"


def test_the_exact_name_wins_and_two_others_are_a_fault(store: Store) -> None:
    raw(store, "Rain_prompt.txt", b"sad")
    raw(store, "RAIN_prompt.txt", b"happy")
    assert "'RAIN_prompt.txt' and 'Rain_prompt.txt' could be meant; keep one and call it 'rain_prompt.txt'" in (
        beside(store).fault
    )
    raw(store, "rain_prompt.txt", b"lofi")
    assert beside(store) == ("lofi", None, "")


def test_a_text_that_could_be_of_two_tracks_is_neither_ones(store: Store) -> None:
    raw(store, "Rain.flac", b"fLaC")
    raw(store, "RAIN_lyrics.txt", b"[Verse]\nrain")
    for name in ("rain.wav", "Rain.flac"):
        found = CuratorFiles(store).beside(f"raw/partnerships/{name}")
        assert found.lyrics is None and "could be meant" in found.fault
    raw(store, "Rain_lyrics.txt", b"[Verse]\nhers")
    raw(store, "rain_lyrics.txt", b"[Verse]\nhis")
    assert beside(store).lyrics == "[Verse]\nhis"


# --- text as editors write it ----------------------------------------------------------------------------------------

MEANT = ("lofi", "chill", "rhodes", "vinyl crackle")


@pytest.mark.parametrize(
    "text",
    [
        "\ufefflofi, chill, rhodes, vinyl crackle",
        "lofi，chill，rhodes，vinyl crackle",
        "lofi、chill、rhodes、vinyl crackle",
        "lofi; chill；rhodes; vinyl crackle;",
        "lofi | chill｜rhodes|vinyl crackle",
        "lofi\r\nchill\r\n\r\nrhodes\r\nvinyl crackle\r\n",
        "lofi\rchill\rrhodes\rvinyl crackle",
        "lofi\tchill\trhodes\tvinyl crackle",
        "\u200blofi\u200b, \u2060chill, rho\u00addes, vinyl\u00a0crackle",
        "ｌｏｆｉ, ｃｈｉｌｌ, rhodes, vinyl\u3000crackle",
        "lofi،chill\u2028rhodes\u2029vinyl  crackle",
    ],
    ids=ascii,
)
def test_a_prompt_is_read_as_it_is_meant(store: Store, text: str) -> None:
    assert split_tags(text.removeprefix("\ufeff")) == MEANT
    raw(store, "rain_prompt.txt", text.encode())
    assert split_tags(beside(store).prompt) == MEANT
    write_prompts(store)
    (row,) = read_prompts(store)
    assert row.unknown_curated == ()


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("\ufeff[Verse]\r\nrain", "[Verse]\nrain"),
        ("[Verse]\rrain\rsnow", "[Verse]\nrain\nsnow"),
        ("\u200b[Verse\u00a01]\nra\u00adin\u200b", "[Verse 1]\nrain"),
        ("［Verse］\n雨，夜。", "[Verse]\n雨，夜。"),
        ("[Verse]\nCafe\u0301", "[Verse]\nCafé"),
        ("[Verse]\nqu’elle\u202f? oui", "[Verse]\nqu’elle ? oui"),
    ],
    ids=ascii,
)
def test_lyrics_lose_what_nobody_sees_and_no_word(text: str, meant: str) -> None:
    assert lyrics_text(text) == meant
    assert lyrics_text(meant) == meant
