"""English lyrics as they are sung: lower case, numbers and abbreviations in words.

Worded so that the lyric vocabulary sees what it was trained on ("one hundred and five", "twenty dollars, fifty cents").
"""

from __future__ import annotations

import re

UNITS = (
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
)
TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
SCALES = ((10**12, "trillion"), (10**9, "billion"), (10**6, "million"), (10**3, "thousand"))
IRREGULAR_ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
ABBREVIATIONS = {
    "mr": "mister",
    "mrs": "misess",
    "dr": "doctor",
    "st": "saint",
    "jr": "junior",
    "sgt": "sergeant",
    "capt": "captain",
    "lt": "lieutenant",
    "gen": "general",
    "col": "colonel",
    "rev": "reverend",
}
SYMBOLS = {"&": "and", "@": "at", "%": "percent", "#": "hash", "$": "dollar", "£": "pound", "°": "degree"}
CURRENCIES = {"$": ("dollar", "cent"), "€": ("euro", "cent"), "£": ("pound", "penny")}
LARGEST_IN_WORDS = 10**15


def cardinal(number: int) -> str:
    """105 -> "one hundred and five"; digits one by one from 10^15 up."""
    if number >= LARGEST_IN_WORDS:
        return " ".join(UNITS[int(digit)] for digit in str(number))
    for scale, name in SCALES:
        if number >= scale:
            rest = number % scale
            joint = "" if rest == 0 else " and " if rest < 100 else ", "
            return f"{cardinal(number // scale)} {name}{joint}{cardinal(rest) if rest else ''}"
    if number >= 100:
        rest = number % 100
        return f"{UNITS[number // 100]} hundred" + (f" and {cardinal(rest)}" if rest else "")
    if number >= 20:
        return TENS[number // 10] + (f"-{UNITS[number % 10]}" if number % 10 else "")
    return UNITS[number]


def ordinal(number: int) -> str:
    """22 -> "twenty-second"."""
    words = cardinal(number)
    head, last = re.fullmatch(r"(.*?)([a-z]+)", words).groups()  # type: ignore[union-attr]
    if last in IRREGULAR_ORDINALS:
        return head + IRREGULAR_ORDINALS[last]
    return head + (last[:-1] + "ieth" if last.endswith("y") else last + "th")


def spell_out(text: str) -> str:
    """One line in lower case, with numbers, money, ordinals, abbreviations and symbols in words, and single spaces."""
    text = text.replace('"', "").lower()
    text = re.sub(r"(?<=\d),(?=\d{3})", "", text)
    text = re.sub(r"([$€£])(\d+)(?:\.(\d{1,2}))?", _money, text)
    text = re.sub(r"(\d+)(?:st|nd|rd|th)\b", lambda found: ordinal(int(found[1])), text)
    text = re.sub(r"(\d+)\.(\d+)", _decimal, text)
    text = re.sub(r"\d+", lambda found: cardinal(int(found[0])), text)
    text = re.sub(r"\b(" + "|".join(ABBREVIATIONS) + r")\.", lambda found: ABBREVIATIONS[found[1]], text)
    text = re.sub(r"(?<=[a-z])\.(?=[a-z])", ". ", text)
    for symbol, word in SYMBOLS.items():
        text = text.replace(symbol, f" {word} ")
    return " ".join(text.split())


def _money(found: re.Match[str]) -> str:
    unit, part = CURRENCIES[found[1]]
    whole, cents = int(found[2]), int((found[3] or "0").ljust(2, "0"))
    words = f"{cardinal(whole)} {unit}{'' if whole == 1 else 's'}"
    if not cents:
        return words
    parts = "pence" if part == "penny" and cents != 1 else part + ("" if cents == 1 else "s")
    return f"{words}, {cardinal(cents)} {parts}"


def _decimal(found: re.Match[str]) -> str:
    return f"{cardinal(int(found[1]))} point {' '.join(UNITS[int(digit)] for digit in found[2])}"
