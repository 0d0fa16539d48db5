"""The text of a prompt, and the tags that it is made of.

What belongs here: a tag with where it comes from, what stands between two tags, their order, and what of a text nobody
sees. What does not: which words are tags (`taxonomy`), which of them a track gets (`tracks/tagging.py`).
"""

import re
from collections.abc import Iterable
from itertools import islice
from typing import Literal, get_args

from pydantic.dataclasses import dataclass

from lofi_assets.files.hashing import hash_of
from lofi_assets.files.typed import STORED
from lofi_assets.near_names import shown
from lofi_assets.records import TagCategoryName
from lofi_assets.styles.taxonomy import CATEGORIES, Taxonomy, bpm_of

TAG_SEPARATORS = re.compile(r"[,;|\u3001\u060c\u061b\t\n\v\f\r\x85\u2028\u2029]")
"""After NFKC, by which the full-width forms are plain: comma, semicolon, bar, ideographic comma, Arabic comma and
semicolon, and what ends a cell or a line."""


def split_tags(text: str) -> tuple[str, ...]:
    """The parts of a list of tags as editors and keyboards write it, without the empty ones.

    Between two tags stands a comma, semicolon or bar of any script, a tab or a line's end. What nobody sees (a soft
    hyphen, a space without width) is dropped; full-width letters and spaces that do not break are plain ones.
    """
    parts = (" ".join(part.split()) for part in TAG_SEPARATORS.split(shown(text)))
    return tuple(part for part in parts if part)


Origin = Literal["human", "metadata", "signal", "audio_model", "preset"]


ORIGINS: tuple[Origin, ...] = get_args(Origin)
"""Strongest first: of two tags that exclude each other the one whose origin stands earlier is kept."""


@dataclass(frozen=True, config=STORED)
class Tag:
    """A canonical tag, where it comes from, and how far that is to be trusted (0 to 1)."""

    category: TagCategoryName
    tag: str
    origin: Origin
    confidence: float


TRIED = 4
"""Orders that are looked at for each wording that is wanted: most prompts have thousands, one of two tags has two."""
PROMPT_CHARACTERS = 256
"""The public ACE-Step trainer cuts a prompt there, in the middle of whichever tag."""


def prompt_text(tags: Iterable[Tag]) -> str:
    """Tags as a prompt: comma and space between, category by category, alphabetical inside one, BPM after words.

    Genres that say lofi come first, as a musician would say what it is before what it leans to.
    """
    return ", ".join(dict.fromkeys(tag.tag for tag in sorted(tags, key=prompt_order)))


def prompt_variants(prompt: str, count: int) -> tuple[str, ...]:
    """At most `count` wordings of a prompt: as it is, then the same tags in other orders; fewer where there are few.

    They follow from the text alone, and those of a smaller count are the first of a larger one.
    """
    tags = split_tags(prompt)

    def ordered(turn: int) -> str:
        return ", ".join(sorted(tags, key=lambda tag: hash_of(prompt, turn, tag)))

    orders = map(ordered, range(TRIED * count))
    return tuple(islice(dict.fromkeys((prompt, *orders)), count))


def parse_prompt(text: str, taxonomy: Taxonomy) -> tuple[tuple[Tag, ...], tuple[str, ...]]:
    """(tags in prompt order, unknown words) of a prompt, taken as a person's. Inverse of `prompt_text`."""
    tags, unknown = read_tags(split_tags(text), taxonomy, origin="human", confidence=1.0)
    return tuple(sorted(tags, key=prompt_order)), unknown


def read_tags(
    words: Iterable[str], taxonomy: Taxonomy, *, origin: Origin, confidence: float
) -> tuple[list[Tag], tuple[str, ...]]:
    """(tags without repetition, words that are none), both in the order of `words`."""
    tags: dict[str, Tag] = {}
    unknown = []
    for word in words:
        known = taxonomy.canonical(word)
        if known is None:
            unknown.append(word)
        else:
            tags.setdefault(known[1], Tag(*known, origin, confidence))
    return list(tags.values()), tuple(dict.fromkeys(unknown))


def prompt_order(tag: Tag) -> tuple[int, int, bool, str]:
    """What a tag's place in a prompt is sorted by (`prompt_text`)."""
    leaning = tag.category == "genre" and not tag.tag.startswith("lofi")
    return CATEGORIES.index(tag.category), bpm_of(tag.tag) or 0, leaning, tag.tag
