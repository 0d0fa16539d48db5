"""The language line of a lyrics file: kept for training, checked by line, left out for readers that do not know it."""

import pytest

from lofi_assets.lyrics.text import INSTRUMENTAL, LyricsError, has_words, lyrics_text, without_language
from lofi_assets.lyrics.tokenizer import song_language

WORDS = "[Verse]\nRegen am Fenster"


@pytest.mark.parametrize("line", ["[Language: de]", "[language:DE]", "\ufeff[LANGUAGE: de]\r", "\n  [Language: de]"])
def test_the_first_line_may_give_the_language_and_gets_one_spelling(line: str) -> None:
    text = lyrics_text(f"{line}\n\n[verse]\nRegen am Fenster\n")
    assert text == f"[Language: de]\n{WORDS}"
    assert lyrics_text(text) == text and song_language(text) == "de"


def test_readers_that_do_not_know_the_line_get_the_lyrics_without_it() -> None:
    assert without_language(f"[Language: de]\n{WORDS}") == without_language(WORDS) == WORDS


@pytest.mark.parametrize("raw", ["[Language: de]", "[Language: de]\n[Instrumental]\n", "[Language: de]\n\n"])
def test_a_language_without_words_says_nothing(raw: str) -> None:
    assert lyrics_text(raw) == INSTRUMENTAL and not has_words(raw)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("[Language: nl]\n[Verse]\nregen", r"line 1: \[Language: nl\]: use one of de, en"),
        ("[Language: German]\n[Verse]\nRegen", r"line 1: \[Language: German\]: use one of de, en"),
        ("[Language: de]\nRegen", "line 2: words before any section"),
        ("[Language: de]\n[Verse]\nRegen\n[Nonsense]", "line 4: unknown marker"),
        ("[Verse]\nRegen\n[Language: de]", "line 3: unknown marker"),
    ],
)
def test_a_wrong_language_line_is_refused_by_line(raw: str, message: str) -> None:
    with pytest.raises(LyricsError, match=message):
        lyrics_text(raw)
