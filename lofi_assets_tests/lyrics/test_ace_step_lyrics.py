"""Lyrics to ids: the format, nine languages spelt out and told apart, upstream's own ids, what is refused."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from lofi_assets.lyrics import language as lyric_language
from lofi_assets.lyrics import spelling
from lofi_assets.lyrics.language import LANGUAGES, detect_language
from lofi_assets.lyrics.spelling import LyricError, spell_out
from lofi_assets.lyrics.tokenizer import LANGUAGE_TOKENS, LyricTokenizer, song_language

MARKS = ("[verse]", "[chorus]")
Upstream = tuple[LyricTokenizer, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> LyricTokenizer:
    """A vocabulary in upstream's format: a few marks, one id per character, [UNK] for all other signs."""
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import Whitespace

    tokens = ["[STOP]", "[UNK]", "[SPACE]", "[START]", *LANGUAGE_TOKENS.values()]
    characters = "abcdefghijklmnopqrstuvwxyz0123456789äöüßéèêñ'-,."
    model = BPE(vocab={token: id_ for id_, token in enumerate([*tokens, *characters])}, merges=[], unk_token="[UNK]")
    made = Tokenizer(model)
    made.pre_tokenizer = Whitespace()
    made.add_special_tokens([*tokens, *MARKS])
    path: Path = tmp_path_factory.mktemp("lyrics") / "lyric_vocab.json"
    made.save(str(path))
    return LyricTokenizer(path)


def ids(tokenizer: LyricTokenizer, *tokens: str) -> list[int]:
    return [tokenizer._tokenizer.token_to_id(token) for token in tokens]


def spoken(tokenizer: LyricTokenizer, encoded: list[int]) -> str:
    """What the ids spell, with | for [SPACE]."""
    return "".join(tokenizer._tokenizer.id_to_token(id_) for id_ in encoded).replace("[SPACE]", "|")


# --- the format ------------------------------------------------------------------------------------------------------


def test_a_song_starts_with_start_and_each_line_ends_with_space(tokenizer: LyricTokenizer) -> None:
    assert spoken(tokenizer, tokenizer.encode("a b\n\nc", language="en")) == "[START][en]a|b||[en]c|"


def test_a_mark_is_english_and_a_change_of_language_counts_as_a_blank_line(tokenizer: LyricTokenizer) -> None:
    assert spoken(tokenizer, tokenizer.encode("[verse]\na", language="fr")) == "[START][en][verse]||[fr]a|"


def test_no_lyrics_are_a_single_zero(tokenizer: LyricTokenizer) -> None:
    assert tokenizer.encode("") == tokenizer.encode(" \n ") == tokenizer.encode("[Language: de]\n") == [0]


def test_long_lyrics_are_cut(tokenizer: LyricTokenizer) -> None:
    assert len(tokenizer.encode("la la la\n" * 2000, language="en")) == 4096


def test_a_line_that_the_songs_language_cannot_spell_is_read_in_its_own(tokenizer: LyricTokenizer) -> None:
    encoded = tokenizer.encode("rain\n비가 내리는 밤\nrain", language="en")
    assert spoken(tokenizer, encoded) == "[START][en]rain||[ko]biga|naelineun|bam||[en]rain|"


def test_latin_lines_of_a_korean_song_stay_in_its_language(tokenizer: LyricTokenizer) -> None:
    assert spoken(tokenizer, tokenizer.encode("밤\nbaby", language="ko")) == "[START][ko]bam|[ko]baby|"


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lyrics", ["", "[Instrumental]", "[inst]"])
def test_instrumental_tracks_need_no_vocabulary(lyrics: str) -> None:
    assert LyricTokenizer(None).encode(lyrics) == [0]


def test_words_without_a_vocabulary_are_refused_with_the_remedy() -> None:
    with pytest.raises(LyricError, match=r"lyric_vocabulary in the profile"):
        LyricTokenizer(None).encode("rain on the window")


def test_a_language_that_cannot_be_encoded_is_refused(tokenizer: LyricTokenizer) -> None:
    with pytest.raises(LyricError, match="'xx' are not supported: choose from de, en"):
        tokenizer.encode("la", language="xx")
    with pytest.raises(LyricError, match=r"\[Language: xx\]: use one of de, en"):
        tokenizer.encode("[Language: xx]\nla")


def test_a_file_that_is_no_vocabulary_is_named(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(LyricError, match=r"vocab\.json: not a tokenizer file"):
        LyricTokenizer(tmp_path / "vocab.json")


@pytest.mark.parametrize(
    ("module", "line", "language"),
    [
        ("num2words", "at 3", "en"),
        ("cn2an", "3点", "zh"),
        ("pypinyin", "点", "zh"),
        ("cutlet", "雨", "ja"),
        ("hangul_romanize.rule", "밤", "ko"),
    ],
)
def test_a_missing_library_is_named_with_the_extra_that_brings_it(
    module: str, line: str, language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    spelling._japanese.cache_clear()
    spelling._korean.cache_clear()
    with pytest.raises(LyricError, match=rf"{module.partition('.')[0].replace('_', '-')}.*lofi_assets\[lyrics\]"):
        spell_out(line, language=language)


def test_without_the_detector_a_stated_language_is_enough(
    tokenizer: LyricTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    lyric_language._identifier.cache_clear()
    with pytest.raises(LyricError, match=r"py3langid is needed .* \[Language: en\]"):
        song_language("rain on the window")
    assert tokenizer.encode("[Language: en]\nrain") == tokenizer.encode("rain", language="en")
    assert song_language("비가 내리는 밤") == "ko"


def test_a_number_too_long_to_be_said_is_refused() -> None:
    with pytest.raises(LyricError, match="write it in words"):
        spell_out("9" * 700, language="en")


# --- which language --------------------------------------------------------------------------------------------------

SONGS = {
    "de": "Die Stadt schläft, ich höre den Regen",
    "en": "Rain on the window, coffee in my cup",
    "es": "Lluvia suave en la ventana",
    "fr": "La nuit tombe doucement sur la ville",
    "it": "La notte scende piano sulla città",
    "ja": "雨が降る夜に、コーヒーを飲んで",
    "ko": "비가 내리는 밤, 커피 한잔",
    "pt": "A noite cai devagar sobre a cidade",
    "zh": "雨下了一夜，我在窗边",
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_is_told_by_its_words(language: str) -> None:
    assert detect_language(f"[verse]\n{SONGS[language]}\n\n[chorus]") == language


def test_the_language_that_most_of_a_song_is_in_counts() -> None:
    assert detect_language(f"{SONGS['ko']}\n{SONGS['ko']}\nbaby, stay") == "ko"
    assert detect_language(f"{SONGS['en']}\n{SONGS['en']}\n밤") == "en"


def test_han_among_kana_is_japanese_and_a_single_kana_leaves_a_text_chinese() -> None:
    assert detect_language("夜空の星") == "ja"
    assert detect_language("雨下了一夜我在窗边想着你の名字") == "zh"


def test_what_the_author_says_goes_before_what_is_detected(tokenizer: LyricTokenizer) -> None:
    assert song_language(f"[Language: FR]\n{SONGS['de']}") == "fr"
    assert ids(tokenizer, "[fr]")[0] in tokenizer.encode(f"[language:fr]\n{SONGS['de']}")


def test_a_text_without_letters_is_english() -> None:
    assert detect_language("[verse]\n♪ 1 2 3") == "en"


def test_a_script_of_none_of_the_languages_is_refused_with_what_to_do() -> None:
    with pytest.raises(LyricError, match=r"script of none of the languages .* romanise them"):
        detect_language("Дождь за окном, и кофе на столе")


# --- spelt out -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("language", "line", "sung"),
    [
        ("en", "Mr. Smith paid $20.50", "mister smith paid twenty dollars, fifty cents"),
        ("en", "$1 & 50% of 3.5", "one dollar and fifty percent of three point five"),
        ("en", "it's 3 a.m.", "it's three a. m."),
        ("en", 'the  "2nd"   1,500', "the second one thousand, five hundred"),
        ("en", "105 of 2000000", "one hundred and five of two million"),
        ("de", "Dr. Mond, 1.500 Sterne & 20€", "doktor mond, eintausendfünfhundert sterne und zwanzig Euro"),
        ("de", "am 3. Mai um 7", "am dritte mai um sieben"),
        ("fr", "Le 1er café à 2,50€", "le premier café à deux euros et cinquante centimes"),
        ("es", "Sra. Luna, el 2º, 20%", "señora luna, el segundo, veinte por ciento"),
        ("it", "il 3° caffè alle 7", "il terzo caffè alle sette"),
        ("pt", "21 estrelas & lua", "vinte e um estrelas e lua"),
        ("zh", "凌晨3点，雨 & baby", "ling2chen2san1dian3，yu3 he2 baby"),
        ("zh", "电量14%", "dian4liang4bai3fen1zhi1shi2si4"),
        ("ja", "雨のコーヒーを飲んで", "ame no coffee wo nonde"),
        ("ko", "$20 커피 3번째", "isibdalleo keopi se beon-jjae"),
        ("ko", "비가 내리는 밤, baby", "biga naelineun bam, baby"),
    ],
)
def test_a_line_is_spelt_as_it_is_sung(language: str, line: str, sung: str) -> None:
    assert spell_out(line, language=language) == sung


# --- upstream --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def upstream(reference_dir: Path) -> Upstream:
    """Upstream's vocabulary, and ids that its own code made of lyrics."""
    folder = reference_dir / "ace_step_v1"
    return LyricTokenizer(folder / "lyric_vocab.json"), json.loads((folder / "lyric_tokens.json").read_text())


def test_ids_are_upstreams_to_the_last_one(upstream: Upstream) -> None:
    tokenizer, cases = upstream
    for case in cases:
        language = tokenizer.language_of(case["token_ids"])
        assert tokenizer.encode(case["lyrics"], language=language) == case["token_ids"], case["lyrics"]


def test_the_detected_language_is_upstreams_but_for_syllables_that_it_takes_for_spanish(upstream: Upstream) -> None:
    tokenizer, cases = upstream
    others = [c["lyrics"] for c in cases if song_language(c["lyrics"]) != tokenizer.language_of(c["token_ids"])]
    assert others == ["Ooh la la, don't you know?\n[outro]"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_upstreams_vocabulary_spells_every_language(upstream: Upstream, language: str) -> None:
    tokenizer, _ = upstream
    encoded = tokenizer.encode(SONGS[language])
    assert encoded[:2] == [261, *ids(tokenizer, LANGUAGE_TOKENS[language])] and 1 not in encoded
