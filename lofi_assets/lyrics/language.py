"""Which language lyrics are in: what their author says, else script and letter statistics; deterministic.

The author says it in a line such as `[Language: de]`. Only Latin script needs a library, since six of the languages
share it.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any, Literal

from lofi_assets.lyrics.spelling import LyricError, optional

Language = Literal["de", "en", "es", "fr", "it", "ja", "ko", "pt", "zh"]

LATIN_LANGUAGES = ("de", "en", "es", "fr", "it", "pt")
LANGUAGES = (*LATIN_LANGUAGES, "ja", "ko", "zh")
"""What lyrics can be in, as two letters of ISO 639-1."""

HANGUL = re.compile("[\u1100-\u11ff\u3130-\u318f\uac00-\ud7af]")
KANA = re.compile("[\u3040-\u30ff\uff66-\uff9f]")
HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
LATIN = re.compile("[A-Za-z\u00aa\u00ba\u00c0-\u024f]")
MARK = re.compile(r"\[.*?\]")
LANGUAGE_LINE = re.compile(r"\s*\[language:\s*([^\]]*?)\s*\][ \t]*(?:\r?\n|$)", re.IGNORECASE)

SYLLABLE_WEIGHT = 2
"""Letters that a sign of Chinese, Japanese or Korean counts for, being a syllable: as the public trainer counts."""
KANA_SHARE = 0.1
"""Kana per Han sign from which on the text is Japanese; a Chinese title may well hold one kana."""


def split_language(lyrics: str) -> tuple[str | None, str]:
    """Lyrics -> the language that their first line `[Language: de]` gives (None without one), and the lines after it.

    Raises:
        LyricError: a language that lyrics cannot be in.
    """
    line = LANGUAGE_LINE.match(lyrics)
    if line is None:
        return None, lyrics
    language = line[1].lower()
    if language not in LANGUAGES:
        raise LyricError(f"[Language: {line[1]}]: use one of {', '.join(LANGUAGES)}")
    return language, lyrics[line.end() :]


def detect_language(lyrics: str) -> str:
    """The language that most of the lyrics are in, of `LANGUAGES`; English if there is nothing to tell it by.

    Marks such as [verse] do not count. As in the public trainer, one language holds for the whole song. Latin script of
    another language is taken for the nearest of the six that are spelt in it.

    Raises:
        LyricError: most letters are of a script that none of the languages has, or py3langid is not installed.
    """
    words = MARK.sub(" ", lyrics)
    latin = len(LATIN.findall(words))
    language, signs = _syllabic(words)
    other = sum(map(str.isalpha, words)) - latin - signs
    if other > latin + signs:
        raise LyricError(
            f"most of these lyrics are in a script of none of the languages {', '.join(LANGUAGES)}: romanise them and "
            "name the nearest language in the first line, as in [Language: es], or leave the lyrics empty"
        )
    if language is not None and signs * SYLLABLE_WEIGHT >= latin:
        return language
    return _latin_language(words) if latin else "en"


def script_language(line: str, *, song: str) -> str:
    """The language that the signs of one line belong to where Latin letters cannot spell it, else the song's."""
    language, _ = _syllabic(line)
    return song if language is None or (song == "ja" and language == "zh") else language


def _syllabic(text: str) -> tuple[str | None, int]:
    """The commonest of Korean, Japanese and Chinese in a text, None without a sign of them; and how many signs."""
    hangul, kana, han = (len(script.findall(text)) for script in (HANGUL, KANA, HAN))
    japanese = kana > 0 and kana >= KANA_SHARE * han
    counts = {"ko": hangul, "ja": kana + han * japanese, "zh": han * (not japanese)}
    commonest = max(counts, key=counts.__getitem__)
    return (commonest if counts[commonest] else None), hangul + kana + han


def _latin_language(words: str) -> str:
    language, _ = _identifier().classify(" ".join(words.split()))
    return str(language)


@cache
def _identifier() -> Any:
    langid = optional(
        "py3langid.langid",
        package="py3langid",
        why="to find out the language of lyrics; or say it in their first line, as in [Language: en]",
    )
    identifier = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE)
    identifier.set_languages(list(LATIN_LANGUAGES))
    return identifier
