"""Lyrics -> token ids of ACE-Step v1's lyric encoder.

The vocabulary is a `tokenizers` BPE file of upstream's format, given by the user: it is not on the Hub and not ours to
ship. Not here: spelling English out (`english`), finding out the language, romanising Chinese, Japanese and Korean.
"""

from __future__ import annotations

import re
from pathlib import Path

from tokenizers import Tokenizer

from lofi_assets.ace_step.english import spell_out

MAX_IDS = 4096
NO_LYRICS = [0]
STRUCTURE = re.compile(r"\[.*?\]")
NEEDS_ROMANISING = {"zh", "ja", "ko"}
INSTRUMENTAL = {"", "[instrumental]", "[inst]"}


class LyricError(ValueError):
    """Lyrics that cannot be turned into ids: says why and what to do."""


def is_instrumental(lyrics: str) -> bool:
    """Whether the text says that nobody sings: empty, or an instrumental mark alone."""
    return lyrics.strip().lower() in INSTRUMENTAL


class LyricTokenizer:
    """The tokenizer of one vocabulary file; without a file it takes instrumental tracks only.

    Args:
        vocabulary: upstream's `vocab.json`, or None.
    Raises:
        LyricError: the file lacks one of the tokens [START], [SPACE], [en].
    """

    def __init__(self, vocabulary: Path | None) -> None:
        self.vocabulary = vocabulary
        self._tokenizer = None if vocabulary is None else Tokenizer.from_file(str(vocabulary))
        if self._tokenizer is not None:
            self._start, self._space = self._id("[START]"), self._id("[SPACE]")
            self._id("[en]")

    @property
    def size(self) -> int:
        """Number of ids, added marks included; 0 without a vocabulary."""
        return 0 if self._tokenizer is None else self._tokenizer.get_vocab_size(with_added_tokens=True)

    def encode(self, lyrics: str, *, language: str = "en") -> list[int]:
        """Ids of a whole song, at most 4096.

        No lyrics give [0]. A mark such as [verse] is read as English whatever the language. "[instrumental]" is read as
        a line of lyrics, as upstream reads it; without a vocabulary it counts as no lyrics.

        Args:
            language: two letters; upstream detects it, here the caller says it. In other languages than English digits
                and abbreviations stay as they are, and what the vocabulary lacks becomes [UNK].
        Raises:
            LyricError: words without a vocabulary, or a language that the vocabulary or this module does not have.
        """
        if not lyrics.strip():
            return list(NO_LYRICS)
        if self._tokenizer is None:
            if is_instrumental(lyrics):
                return list(NO_LYRICS)
            raise LyricError(
                "these lyrics need upstream's lyric vocabulary, which is not on the Hub: put ACE-Step's vocab.json "
                "beside the model folders as lyric_vocab.json, or leave the lyrics empty"
            )
        self._check_language(language)
        ids = [self._start]
        previous = None
        for line in map(str.strip, lyrics.split("\n")):
            if not line:
                ids.append(self._space)
                continue
            spoken = "en" if STRUCTURE.match(line) else language
            if previous not in (None, spoken):
                # upstream cuts lyrics where the language changes, and the cut counts as a blank line
                ids.append(self._space)
            previous = spoken
            ids += [*self._encode_line(line, spoken), self._space]
        return ids[:MAX_IDS]

    def language_of(self, ids: list[int]) -> str:
        """The language that encoded lyrics are in: the first mark that is not English, "en" without one."""
        assert self._tokenizer is not None
        marks = (re.fullmatch(r"\[([a-z]{2})(?:-[a-z]+)?\]", self._tokenizer.id_to_token(id_) or "") for id_ in ids)
        return next((mark[1] for mark in marks if mark and mark[1] != "en"), "en")

    def _encode_line(self, line: str, language: str) -> list[int]:
        text = spell_out(line) if language == "en" else " ".join(line.replace('"', "").lower().split())
        assert self._tokenizer is not None
        return list(self._tokenizer.encode(f"[{language}]{text}".replace(" ", "[SPACE]")).ids)

    def _check_language(self, language: str) -> None:
        if language in NEEDS_ROMANISING:
            raise LyricError(f"lyrics in {language!r} must be romanised, which is not supported: leave them empty")
        self._id(f"[{language}]")

    def _id(self, token: str) -> int:
        assert self._tokenizer is not None
        found = self._tokenizer.token_to_id(token)
        if found is None:
            raise LyricError(
                f"{self.vocabulary} has no token {token}: is it ACE-Step's vocab.json, and the language known?"
            )
        return int(found)
