"""The vocabulary of prompts, read from `config/styles/taxonomy.yaml` and checked.

With it comes the table that says which tags the audio tagger's labels support (`musicnn_map.yaml`).
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from lofi_assets.records import (
    TagCategory,
    TagCategoryName,
    parse,
)
from lofi_assets.styles.strict_yaml import StyleError, expected_shape, read_yaml

CATEGORIES: tuple[TagCategoryName, ...] = get_args(TagCategoryName)
"""The seven categories in the order of a prompt (constitution V)."""

AudioTagger = Literal["msd", "mtt"]
Index = dict[str, tuple[TagCategoryName, str]]
"""Folded spelling -> (category, canonical tag)."""
_BPM = re.compile(r"(?:bpm:? )?0*([0-9]{2,3}(?:\.[0-9]+)?) ?(?:bpm)?")


@dataclass(frozen=True)
class TempoWord:
    """A tempo tag: the BPM that earn it when measured, and the wider range that does not contradict it."""

    tag: str
    measured: tuple[int, int]
    plausible: tuple[int, int]


@dataclass(frozen=True)
class HeardRule:
    """What one label of the audio tagger means: a tag from probability `at` upwards, or nothing, and why."""

    tag: str | None
    at: float
    reason: str


@dataclass(frozen=True)
class Taxonomy:
    """The controlled vocabulary: seven categories, their aliases, what excludes what, and what labels mean."""

    categories: tuple[TagCategory, ...]
    bpm_range: tuple[int, int]
    tempo_words: tuple[TempoWord, ...]
    kinds: Mapping[str, frozenset[str]]
    """General tag -> the tags of its category that already say it."""
    opposites: Mapping[str, frozenset[str]]
    heard: Mapping[AudioTagger, Mapping[str, HeardRule]]
    index: Index

    @cached_property
    def voices(self) -> frozenset[str]:
        """Tags that say somebody sings or speaks: all that exclude `instrumental`."""
        return self.opposites.get("instrumental", frozenset())

    def canonical(self, tag: str) -> tuple[TagCategoryName, str] | None:
        """(category, canonical tag) of any known spelling, or None. `<n> bpm` is a tempo tag within `bpm_range`."""
        folded = fold(tag)
        bpm = bpm_of(folded)
        if bpm is not None:
            low, high = self.bpm_range
            return ("tempo", bpm_tag(bpm)) if low <= bpm <= high else None
        return self.index.get(folded)

    def contradicts(self, a: str, b: str) -> bool:
        """Whether two canonical tags exclude each other. Two different BPM do, and a BPM and a word far from it."""
        first, second = bpm_of(a), bpm_of(b)
        if first is not None and second is not None:
            return first != second
        if first is not None:
            return self._implausible(b, first)
        if second is not None:
            return self._implausible(a, second)
        return b in self.opposites.get(a, frozenset())

    def tempo_word(self, bpm: float) -> str | None:
        """The word for a measured tempo, or None outside `bpm_range`."""
        whole = round(bpm)
        return next((word.tag for word in self.tempo_words if word.measured[0] <= whole <= word.measured[1]), None)

    def _implausible(self, tag: str, bpm: int) -> bool:
        return any(word.tag == tag and not word.plausible[0] <= bpm <= word.plausible[1] for word in self.tempo_words)


def fold(tag: str) -> str:
    """Spelling reduced to what counts: compatibility form, no case, hyphens and underscores as single spaces."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", tag).casefold())
    return re.sub(r"[\s_\-‐-―]+", " ", text).strip(" .;:!#'\"")


def bpm_tag(bpm: float) -> str:
    """The tempo tag of a BPM, rounded to a whole number."""
    return f"{round(bpm)} bpm"


def bpm_of(tag: str) -> int | None:
    """The BPM that a tag such as `82 bpm` or `bpm 82` names, or None if it names none."""
    match = _BPM.fullmatch(tag) if "bpm" in tag else None
    return round(float(match[1])) if match else None


def load_taxonomy(config_dir: Path) -> Taxonomy:
    """Read `styles/taxonomy.yaml` and `styles/musicnn_map.yaml` under `config_dir`.

    Raises:
        StyleError: a file is missing or not YAML, a tag stands twice, or an alias, rule or contradiction names a tag
            that the vocabulary lacks.
    """
    path, map_path = (config_dir / "styles" / name for name in ("taxonomy.yaml", "musicnn_map.yaml"))
    data = read_yaml(path)
    categories = _categories(path, data)
    index = _index(path, categories)
    bpm_range, words = _tempo(path, data, index)
    return Taxonomy(
        categories=categories,
        bpm_range=bpm_range,
        tempo_words=words,
        kinds=_kinds(path, data, index),
        opposites=_opposites(path, data, index),
        heard=_heard_rules(map_path, index),
        index=index,
    )


def _categories(path: Path, data: Any) -> tuple[TagCategory, ...]:
    with expected_shape(path, "categories", "must list rows with category, tags and aliases, all of them text"):
        rows = [
            {"category": row["category"], "tags": row["tags"], "canonical_forms": row.get("aliases", {})}
            for row in data["categories"]
        ]
        categories = tuple(parse(TagCategory, row, where=str(row["category"])) for row in rows)
    names = tuple(category.category for category in categories)
    if names != CATEGORIES:
        raise StyleError(f"{path}: categories are {names}; the constitution has {CATEGORIES} in this order")
    return categories


def _index(path: Path, categories: Sequence[TagCategory]) -> Index:
    index: Index = {}
    for category in categories:
        name = category.category
        for spelling, tag in [(tag, tag) for tag in category.tags] + list(category.canonical_forms.items()):
            where = f"{path}: {name}: {spelling!r}"
            if tag not in category.tags:
                raise StyleError(f"{where} is an alias of {tag!r}, which is no {name} tag; add that tag or mend it")
            if tag != tag.casefold().strip() or "," in tag or "bpm" in tag or not tag.isprintable() or not fold(tag):
                raise StyleError(f"{where}: a tag is lower case, on one line, without comma or bpm; rename it")
            known = index.setdefault(fold(spelling), (name, tag))
            if known != (name, tag):
                raise StyleError(f"{where} already means {known[1]!r} in {known[0]}; keep it in one place")
        if len(set(category.tags)) != len(category.tags):
            raise StyleError(f"{path}: {name}: a tag stands twice; keep one")
    return index


def _tempo(path: Path, data: Any, index: Index) -> tuple[tuple[int, int], tuple[TempoWord, ...]]:
    with expected_shape(path, "tempo", "must give bpm lowest / highest, and words with tag and two ranges"):
        low, high = int(data["tempo"]["bpm"]["lowest"]), int(data["tempo"]["bpm"]["highest"])
        words = tuple(
            TempoWord(word["tag"], _pair(word["measured"]), _pair(word["plausible"])) for word in data["tempo"]["words"]
        )
    expected = low
    for word in words:
        _require_known(path, "tempo.words", [word.tag], index)
        inside = word.plausible[0] <= word.measured[0] <= word.measured[1] <= word.plausible[1]
        if word.measured[0] != expected or not inside:
            raise StyleError(f"{path}: tempo.words: {word.tag!r} must be measured from {expected}, inside plausible")
        expected = word.measured[1] + 1
    if expected != high + 1:
        raise StyleError(f"{path}: tempo.words end at {expected - 1} bpm; they must reach bpm.highest, {high}")
    return (low, high), words


def _pair(value: Any) -> tuple[int, int]:
    low, high = value
    return int(low), int(high)


def _kinds(path: Path, data: Any, index: Index) -> dict[str, frozenset[str]]:
    with expected_shape(path, "kinds", "must map a general tag to a list of tags"):
        kinds = {str(tag): [str(kind) for kind in rows] for tag, rows in data.get("kinds", {}).items()}
    for tag, rows in kinds.items():
        _require_known(path, f"kinds: {tag}", [tag, *rows], index)
        strange = [kind for kind in rows if kind == tag or index[fold(kind)][0] != index[fold(tag)][0]]
        if strange:
            raise StyleError(f"{path}: kinds: {tag!r}: {strange} is no kind of it; name other tags of its category")
    return {tag: frozenset(rows) for tag, rows in kinds.items()}


def _opposites(path: Path, data: Any, index: Index) -> dict[str, frozenset[str]]:
    with expected_shape(path, "exclusive / opposed", "must be lists of tags / rows with one and other"):
        pairs = [(a, b) for group in data.get("exclusive", []) for a in group for b in group if a != b]
        pairs += [(a, b) for row in data.get("opposed", []) for a in row["one"] for b in row["other"]]
    opposites: dict[str, set[str]] = {}
    for a, b in pairs:
        _require_known(path, "exclusive / opposed", [a, b], index)
        if a == b:
            raise StyleError(f"{path}: opposed: {a!r} stands on both sides; take it off one")
        opposites.setdefault(a, set()).add(b)
        opposites.setdefault(b, set()).add(a)
    return {tag: frozenset(others) for tag, others in opposites.items()}


def _require_known(path: Path, key: str, tags: Sequence[str], index: Index) -> None:
    for tag in tags:
        if index.get(fold(str(tag)), ("", ""))[1] != tag:
            raise StyleError(f"{path}: {key}: {tag!r} is not a canonical tag of taxonomy.yaml; add it there or mend it")


def _heard_rules(path: Path, index: Index) -> dict[AudioTagger, dict[str, HeardRule]]:
    data = read_yaml(path)
    rules: dict[AudioTagger, dict[str, HeardRule]] = {}
    for tagger in get_args(AudioTagger):
        with expected_shape(path, tagger, "each label needs {tag, at: 0 to 1} or {ignore: reason}"):
            rules[tagger] = {label: _heard_rule(label, row) for label, row in data[tagger].items()}
        for label, rule in rules[tagger].items():
            _require_known(path, f"{tagger}.{label}", [rule.tag] if rule.tag else [], index)
    return rules


def _heard_rule(label: str, row: Mapping[str, Any]) -> HeardRule:
    if set(row) == {"ignore"} and row["ignore"]:
        return HeardRule(tag=None, at=1.0, reason=str(row["ignore"]))
    if set(row) == {"tag", "at"} and row["tag"] and 0 < float(row["at"]) < 1:
        return HeardRule(tag=str(row["tag"]), at=float(row["at"]), reason="")
    raise ValueError(f"{label}: {dict(row)}")
