"""Lyrics -> token ids of ACE-Step v1's lyric encoder.

The vocabulary is a `tokenizers` BPE file of upstream's format, given by the user: it is not on the Hub and not ours to
ship. A line is first spelt out (`spelling`) in its language (`language`).
"""

from __future__ import annotations

import re
from pathlib import Path

from tokenizers import Tokenizer

from lofi_assets.lyrics.language import LANGUAGES, MARK, detect_language, script_language, split_language
from lofi_assets.lyrics.spelling import LyricError, spell_out

MAX_IDS = 4096
NO_LYRICS = [0]
INSTRUMENTAL = {"", "[instrumental]", "[inst]"}
LANGUAGE_TOKENS = {language: f"[{language}]" for language in LANGUAGES} | {"zh": "[zh-cn]"}


def is_instrumental(lyrics: str) -> bool:
    """Whether the text says that nobody sings: empty, or an instrumental mark alone."""
    return lyrics.strip().lower() in INSTRUMENTAL


def song_language(lyrics: str) -> str:
    """The language of a song: that of its first line `[Language: de]`, else the one that most of it is in.

    Raises:
        LyricError: a language that lyrics cannot be in, or py3langid is needed and not installed.
    """
    stated, words = split_language(lyrics)
    return stated or detect_language(words)


class LyricTokenizer:
    """The tokenizer of one vocabulary file; without a file it takes instrumental tracks only.

    Args:
        vocabulary: upstream's `vocab.json`, or None.
    Raises:
        LyricError: the file cannot be read, or lacks one of the tokens [START], [SPACE], [UNK], [en].
    """

    def __init__(self, vocabulary: Path | None) -> None:
        self.vocabulary = vocabulary
        self._tokenizer = None if vocabulary is None else _read(vocabulary)
        if self._tokenizer is not None:
            self._start, self._space, self._unknown = (self._id(name) for name in ("[START]", "[SPACE]", "[UNK]"))
            self._id("[en]")

    @property
    def size(self) -> int:
        """Number of ids, added marks included; 0 without a vocabulary."""
        return 0 if self._tokenizer is None else self._tokenizer.get_vocab_size(with_added_tokens=True)

    def encode(self, lyrics: str, *, language: str | None = None) -> list[int]:
        """Ids of a whole song, at most 4096.

        No lyrics give [0]. A mark such as [verse] is read as English whatever the language; a line that the song's
        language cannot spell is read in the language of its script. "[instrumental]" is read as a line of lyrics, as
        upstream reads it; without a vocabulary it counts as no lyrics.

        Args:
            language: of `LANGUAGES`; None takes `song_language(lyrics)`.
        Raises:
            LyricError: words without a vocabulary, a language that the vocabulary or this module does not have, or an
                optional library that the lyrics need.
        """
        _, lines = split_language(lyrics)
        if not lines.strip():
            return list(NO_LYRICS)
        if self._tokenizer is None:
            if is_instrumental(lines):
                return list(NO_LYRICS)
            raise LyricError(
                "these lyrics need upstream's lyric vocabulary, which is not on the Hub: name ACE-Step's vocab.json as "
                "lyric_vocabulary in the profile, or put it beside the model folders as lyric_vocab.json, or leave the "
                "lyrics empty"
            )
        song = language or song_language(lyrics)
        self._language_id(song)
        ids = [self._start]
        previous = None
        for line in map(str.strip, lines.split("\n")):
            if not line:
                ids.append(self._space)
                continue
            spoken, encoded = self._encode_line(line, song)
            if previous not in (None, spoken):
                # upstream cuts lyrics where the language changes, and the cut counts as a blank line
                ids.append(self._space)
            previous = spoken
            ids += [*encoded, self._space]
        return ids[:MAX_IDS]

    def language_of(self, ids: list[int]) -> str:
        """The language that encoded lyrics are in: the first mark that is not English, "en" without one."""
        assert self._tokenizer is not None
        marks = (re.fullmatch(r"\[([a-z]{2})(?:-[a-z]+)?\]", self._tokenizer.id_to_token(id_) or "") for id_ in ids)
        return next((mark[1] for mark in marks if mark and mark[1] != "en"), "en")

    def _encode_line(self, line: str, song: str) -> tuple[str, list[int]]:
        """The language a line is read in, and its ids."""
        if MARK.match(line):
            return "en", self._ids(line, "en")
        ids, own = self._ids(line, song), script_language(line, song=song)
        return (own, self._ids(line, own)) if self._unknown in ids and own != song else (song, ids)

    def _ids(self, line: str, language: str) -> list[int]:
        assert self._tokenizer is not None
        self._language_id(language)
        text = f"{LANGUAGE_TOKENS[language]}{spell_out(line, language=language)}"
        return list(self._tokenizer.encode(text.replace(" ", "[SPACE]")).ids)

    def _language_id(self, language: str) -> int:
        if language not in LANGUAGE_TOKENS:
            raise LyricError(f"lyrics in {language!r} are not supported: choose from {', '.join(LANGUAGES)}")
        return self._id(LANGUAGE_TOKENS[language])

    def _id(self, token: str) -> int:
        assert self._tokenizer is not None
        found = self._tokenizer.token_to_id(token)
        if found is None:
            raise LyricError(
                f"{self.vocabulary} has no token {token}: is it ACE-Step's vocab.json, and the language known?"
            )
        return int(found)


def _read(vocabulary: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(vocabulary))
    except Exception as error:  # tokenizers raises a bare Exception
        raise LyricError(f"{vocabulary}: not a tokenizer file ({error}); fetch ACE-Step's vocab.json again") from error
