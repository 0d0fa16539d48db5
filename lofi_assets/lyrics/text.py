"""Lyrics files: structure markers in one spelling, words only inside a section, `[Instrumental]` without words.

The first line may give the language of the words, as in `[Language: de]`; without it the language is detected.
The rules are constitution V's. What the text says of a voice is decided in `tracks/tagging.py`.
"""

import re
import unicodedata

from lofi_assets.errors import LofiError
from lofi_assets.lyrics.language import LANGUAGE_LINE, split_language
from lofi_assets.lyrics.spelling import LyricError

INSTRUMENTAL = "[Instrumental]"
"""Content of a lyrics file without words (constitution V)."""

SECTIONS = (
    *("Intro", "Verse", "Pre-Chorus", "Chorus", "Post-Chorus", "Refrain", "Hook", "Bridge"),
    *("Interlude", "Instrumental", "Break", "Drop", "Solo", "Outro"),
)
"""Structure markers of a lyrics file; each may carry a number, as in `[Verse 2]`."""

_SECTION_OF = {name.replace("-", "").casefold(): name for name in SECTIONS}
_MARKER = re.compile(r"\[([^\[\]]+?)(?:\s+([0-9]{1,2}))?\]")
_UNSEEN = re.compile("[\u00ad\u200b\u200e\u200f\u2060\ufeff]")
"""Soft hyphen, space without width, direction marks, word joiner, byte order mark: in no language that lyrics can be in
do they change a word. Joiners (U+200C, U+200D) can."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")


class LyricsError(LofiError, ValueError):
    """A lyrics file that cannot be used; the message names the line and what to do."""


def lyrics_text(raw: str | None) -> str:
    """Validated content of a lyrics file; `[Instrumental]` when there are no lyrics.

    Markers stand on lines of their own, in one spelling; the first line that is not blank is one, or gives the
    language and is followed by one.

    Raises:
        LyricsError: naming the line of an unknown or misplaced marker, words before any, a control character, or a
            language that lyrics cannot be in.
    """
    text = _plain(raw or "")
    try:
        language, body = split_language(text)
    except LyricError as error:
        raise LyricsError(f"lyrics line 1: {error}") from error
    first = text.count("\n") - body.count("\n") + 1
    lines = [_lyrics_line(number, line.strip(" \t")) for number, line in enumerate(body.split("\n"), start=first)]
    opening = next((number for number, line in enumerate(lines) if line), None)
    if opening is None:
        return INSTRUMENTAL
    if not lines[opening].startswith("["):
        raise LyricsError(f"lyrics line {first + opening}: words before any section; put [Verse] on a line above")
    words = re.sub(r"\n{3,}", "\n\n", "\n".join(lines).strip("\n"))
    return f"[Language: {language}]\n{words}" if language and has_words(words) else words


def _plain(text: str) -> str:
    """The text as it is meant, whatever editor saved it: line ends, plain spaces, accents in one form, square brackets.

    Nothing else is folded: full-width punctuation is how some languages are written.
    """
    text = unicodedata.normalize("NFC", _UNSEEN.sub("", text.replace("\r\n", "\n").replace("\r", "\n")))
    return text.translate({0xA0: " ", 0x202F: " ", 0x3000: " ", 0xFF3B: "[", 0xFF3D: "]"})


def without_language(lyrics: str) -> str:
    """Lyrics without the line that gives their language: for readers that do not know it."""
    line = LANGUAGE_LINE.match(lyrics)
    return lyrics[line.end() :] if line else lyrics


def has_words(lyrics: str) -> bool:
    """Whether lyrics that passed `lyrics_text` hold anything but markers."""
    return any(line and not line.startswith("[") for line in lyrics.splitlines())


def _lyrics_line(number: int, line: str) -> str:
    if _CONTROL.search(line):
        raise LyricsError(f"lyrics line {number}: holds a control character; remove it")
    if "[" not in line and "]" not in line:
        return line
    match = _MARKER.fullmatch(line)
    if match is None:
        raise LyricsError(f"lyrics line {number}: {line!r}: a marker stands alone on its line, as in [Verse 1]")
    section = _SECTION_OF.get(re.sub(r"[\s-]", "", match[1]).casefold())
    if section is None:
        known = ", ".join(f"[{name}]" for name in SECTIONS)
        raise LyricsError(f"lyrics line {number}: unknown marker {line!r}; use one of {known}")
    return f"[{section} {int(match[2])}]" if match[2] else f"[{section}]"
