"""Lyrics to ids: the format, English spelt out, what is refused."""

from pathlib import Path

import pytest

from lofi_assets.ace_step.english import cardinal, ordinal, spell_out
from lofi_assets.ace_step.lyric_tokenizer import LyricError, LyricTokenizer
from lofi_assets.ace_step.tiny import write_lyric_vocabulary


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> LyricTokenizer:
    path: Path = tmp_path_factory.mktemp("lyrics") / "lyric_vocab.json"
    write_lyric_vocabulary(path)
    return LyricTokenizer(path)


@pytest.fixture(scope="module")
def ids(tokenizer) -> dict[str, int]:
    names = ("[START]", "[SPACE]", "[en]", "[fr]", "[verse]")
    return {name: tokenizer._tokenizer.token_to_id(name) for name in names}


def test_a_song_starts_with_start_and_each_line_ends_with_space(tokenizer, ids):
    encoded = tokenizer.encode("a b\n\nc")
    letters = [tokenizer._tokenizer.token_to_id(letter) for letter in "abc"]
    space, english = ids["[SPACE]"], ids["[en]"]
    assert encoded == [
        ids["[START]"],
        *(english, letters[0], space, letters[1], space),
        space,
        *(english, letters[2], space),
    ]


def test_a_mark_is_english_and_a_change_of_language_counts_as_a_blank_line(tokenizer, ids):
    encoded = tokenizer.encode("[verse]\na", language="fr")
    space = ids["[SPACE]"]
    assert encoded[:6] == [ids["[START]"], ids["[en]"], ids["[verse]"], space, space, ids["[fr]"]]


def test_no_lyrics_are_a_single_zero(tokenizer):
    assert tokenizer.encode("") == tokenizer.encode(" \n ") == [0]


def test_long_lyrics_are_cut(tokenizer):
    assert len(tokenizer.encode("la la la\n" * 2000)) == 4096


@pytest.mark.parametrize("lyrics", ["", "[Instrumental]", "[inst]"])
def test_instrumental_tracks_need_no_vocabulary(lyrics):
    assert LyricTokenizer(None).encode(lyrics) == [0]


def test_words_without_a_vocabulary_are_refused_with_the_remedy():
    with pytest.raises(LyricError, match=r"lyric_vocab\.json"):
        LyricTokenizer(None).encode("rain on the window")


@pytest.mark.parametrize(("language", "reason"), [("ja", "romanised"), ("xx", "xx")])
def test_a_language_that_cannot_be_encoded_is_refused(tokenizer, language, reason):
    with pytest.raises(LyricError, match=reason):
        tokenizer.encode("la", language=language)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (13, "thirteen"),
        (21, "twenty-one"),
        (105, "one hundred and five"),
        (1001, "one thousand and one"),
        (1234, "one thousand, two hundred and thirty-four"),
        (2_000_000, "two million"),
    ],
)
def test_numbers_are_sung_in_words(number, words):
    assert cardinal(number) == words


@pytest.mark.parametrize(("number", "words"), [(1, "first"), (12, "twelfth"), (20, "twentieth"), (22, "twenty-second")])
def test_ordinals_are_sung_in_words(number, words):
    assert ordinal(number) == words


@pytest.mark.parametrize(
    ("line", "sung"),
    [
        ("Mr. Smith paid $20.50", "mister smith paid twenty dollars, fifty cents"),
        ("$1 & 50% of 3.5", "one dollar and fifty percent of three point five"),
        ("it's 3 a.m.", "it's three a. m."),
        ('the  "2nd"   1,500', "the second one thousand, five hundred"),
    ],
)
def test_english_lines_are_spelt_out(line, sung):
    assert spell_out(line) == sung
