"""A line of lyrics as it is sung, in the letters that the lyric vocabulary has.

Lower case; numbers, money, ordinals, abbreviations and symbols in words; Chinese as pinyin with tones, Japanese as
romaji, Korean romanised. Spelt as the published model heard it ("one hundred and five", "yu3", "coffee wo").

The libraries are optional, and each is imported when a line needs it: `pip install 'lofi_assets[lyrics]'`.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any


class LyricError(ValueError):
    """Lyrics that cannot be turned into ids: says why and what to do."""


@dataclass(frozen=True)
class Orthography:
    """What a language writes short and sings in full."""

    symbols: Mapping[str, str] = field(default_factory=dict)
    abbreviations: Mapping[str, str] = field(default_factory=dict)
    """Without the full stop that ends them."""
    ordinal: str = r"(?!)"
    """Pattern of what follows a number to make it an ordinal."""
    thousands: str = "."
    """Sign between groups of three digits."""


ORTHOGRAPHY = {
    "en": Orthography(
        {"&": "and", "@": "at", "%": "percent", "#": "hash", "$": "dollar", "£": "pound", "°": "degree"},
        {
            **{"mr": "mister", "mrs": "misess", "dr": "doctor", "st": "saint", "jr": "junior", "rev": "reverend"},
            **{"sgt": "sergeant", "capt": "captain", "lt": "lieutenant", "gen": "general", "col": "colonel"},
        },
        r"(?:st|nd|rd|th)\b",
        thousands=",",
    ),
    "de": Orthography(
        {"&": "und", "@": "at", "%": "prozent", "#": "raute", "$": "dollar", "£": "pfund", "°": "grad"},
        {"fr": "frau", "dr": "doktor", "st": "sankt"},
        r"\.(?=\s|$)",
    ),
    "es": Orthography(
        {"&": "y", "@": "arroba", "%": "por ciento", "#": "numeral", "$": "dolar", "£": "libra", "°": "grados"},
        {"sr": "señor", "sra": "señora", "dr": "doctor", "dra": "doctora", "st": "santo"},
        r"(?:[ºª]|(?:er|os|as|o|a)\b)",
    ),
    "fr": Orthography(
        {"&": "et", "@": "arobase", "%": "pour cent", "#": "dièse", "$": "dollar", "£": "livre", "°": "degrés"},
        {"mr": "monsieur", "mme": "madame", "dr": "docteur", "st": "saint"},
        r"(?:[ºª]|(?:ère|ème|er|re|e)\b)",
    ),
    "it": Orthography(
        {"&": "e", "@": "chiocciola", "%": "per cento", "#": "cancelletto", "$": "dollaro", "£": "sterlina"}
        | {"°": "gradi"},
        {"sig": "signore", "dr": "dottore", "st": "santo"},
        r"(?:[º°ª]|[oaie]\b)",
    ),
    "pt": Orthography(
        {"&": "e", "@": "arroba", "%": "por cento", "#": "cardinal", "$": "dólar", "£": "libra", "°": "graus"},
        {"sr": "senhor", "sra": "senhora", "dr": "doutor", "dra": "doutora", "st": "santo"},
        r"(?:[ºª]|(?:os|as|o|a)\b)",
    ),
    "ko": Orthography(
        {"&": "그리고", "%": "퍼센트", "$": "달러", "£": "파운드", "°": "도"}, ordinal=r"\s?번째", thousands=","
    ),
    "zh": Orthography({"&": "和", "$": "美元", "£": "英镑", "°": "度"}),
}
CURRENCIES = {"$": "USD", "€": "EUR", "£": "GBP"}
AMOUNT = r"[0-9]+(?:[.,][0-9]{1,2})?(?![0-9])"
MONEY = re.compile(rf"([$€£])\s?({AMOUNT})|({AMOUNT})\s?([$€£])")


def spell_out(line: str, *, language: str) -> str:
    """A line as it is sung, single-spaced.

    Args:
        language: two letters (`language.LANGUAGES`).
    Raises:
        LyricError: a library that the line needs is not installed, or a number is too long to be said.
    """
    if language == "ja":
        return str(_japanese().romaji(line)).lower()
    text = line.replace('"', "").lower()
    orthography = ORTHOGRAPHY.get(language, Orthography())
    if re.search("[0-9]", text):
        text = _chinese_numbers(text) if language == "zh" else _numbers(text, language, orthography)
    if orthography.abbreviations:
        short = rf"\b({'|'.join(orthography.abbreviations)})\."
        text = re.sub(short, lambda found: orthography.abbreviations[found[1]], text)
    if language == "en":
        # the public tokenizer takes "a.m." apart before it gets here
        text = re.sub(r"(?<=[a-z])\.(?=[a-z])", ". ", text)
    for symbol, word in orthography.symbols.items():
        text = text.replace(symbol, f" {word} ")
    text = " ".join(text.split())
    if language == "zh":
        return _pinyin(text)
    return str(_korean().translit(text)) if language == "ko" else text


def optional(module: str, *, package: str, why: str) -> Any:
    """A module of an optional package.

    Raises:
        LyricError: it is not installed; names the package, and the extra that brings all of them.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise LyricError(
            f"the package {package} is needed {why}; pip install {package}, or all of them: "
            "pip install 'lofi_assets[lyrics]'"
        ) from error


def _numbers(text: str, language: str, orthography: Orthography) -> str:
    num2words = optional("num2words", package="num2words", why="to sing numbers").num2words

    def say(number: float, **form: object) -> str:
        try:
            return str(num2words(number, lang=language, **form))
        except OverflowError as error:
            raise LyricError(f"{str(number)[:20]}... is too long a number to be sung; write it in words") from error

    def money(found: re.Match[str]) -> str:
        amount = float((found[2] or found[3]).replace(",", "."))
        currency = CURRENCIES[found[1] or found[4]]
        try:
            if not amount.is_integer():
                return say(amount, to="currency", currency=currency)
            # "zero cents" are not sung; Korean has a space before them whatever the separator
            return re.split(r"\||(?<=달러) ", say(amount, to="currency", currency=currency, separator="|"))[0]
        except NotImplementedError:
            return found[0]

    text = re.sub(rf"(?<=[0-9])\{orthography.thousands}(?=[0-9]{{3}}(?![0-9]))", "", text)
    text = MONEY.sub(money, text)
    text = re.sub(r"([0-9]+)[.,]([0-9]+)", lambda found: say(float(f"{found[1]}.{found[2]}")), text)
    text = re.sub(rf"([0-9]+){orthography.ordinal}", lambda found: say(int(found[1]), ordinal=True), text)
    return re.sub("[0-9]+", lambda found: say(int(found[0])), text)


def _chinese_numbers(text: str) -> str:
    cn2an = optional("cn2an", package="cn2an", why="to sing numbers in Chinese")
    return str(cn2an.transform(text, "an2cn"))


def _pinyin(text: str) -> str:
    """Syllables with tone digits, 5 for the neutral tone, not spaced: "yu3xia4le5"."""
    pypinyin = optional("pypinyin", package="pypinyin", why="to romanise Chinese")
    style = pypinyin.Style.TONE3
    syllables = pypinyin.pinyin(text, style=style, heteronym=False, neutral_tone_with_five=True)
    return "".join(readings[0] for readings in syllables)


@cache
def _japanese() -> Any:
    """Hepburn romaji, loan words in their own spelling."""
    optional("unidic_lite", package="unidic-lite", why="as the dictionary to romanise Japanese with")
    return optional("cutlet", package="cutlet", why="to romanise Japanese").Cutlet()


@cache
def _korean() -> Any:
    """Letter by letter: what is written, not what is heard."""
    rule = optional("hangul_romanize.rule", package="hangul-romanize", why="to romanise Korean").academic
    return importlib.import_module("hangul_romanize").Transliter(rule)
