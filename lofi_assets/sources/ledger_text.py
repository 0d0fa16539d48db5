"""The text of `metadata/sources.json`, of which one record at a time is changed and every other byte stays."""

import json
import re
from collections.abc import Container, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from lofi_assets.errors import LofiError
from lofi_assets.files.hand_written import Element, HandWrittenError, Member, json_elements, members
from lofi_assets.store import Store

SOURCES = "sources.json"


def ledger_path(store: Store) -> Path:
    """Where the licence records lie."""
    return store.metadata(SOURCES)


class LedgerError(LofiError, ValueError):
    """A record cannot be added or changed; the message names the field or file and the remedy."""


class LedgerText:
    """The text of `sources.json`, of which one record at a time is changed, member by member."""

    def __init__(self, text: str, *, path: Path) -> None:
        self.text, self.path = text, path
        try:
            self.items = json_elements(text, where=str(path))
        except HandWrittenError as error:
            raise LedgerError(f"{error}; mend it by hand first") from error

    def find(self, source_id: str) -> Element:
        """The record of a source, as it stands in the file, whether or not it can be read as it stands.

        Raises:
            LedgerError: none, or more than one.
        """
        found = [item for item in self.items if source_id in self.stated(item, "source_id")]
        if len(found) != 1:
            known = ", ".join(sorted({str(name) for item in self.items for name in self.stated(item, "source_id")}))
            what = f"{len(found)} records have" if found else "no record has"
            raise LedgerError(f"{self.path}: {what} source_id {source_id!r}; there are: {known or 'none'}")
        return found[0]

    def members(self, item: Element, key: str) -> list[Member]:
        """Every member of a record under a key: more than one where the key stands twice."""
        if not isinstance(item.value, dict):
            return []
        return [member for member in members(self.text, item.start) if member.key == key]

    def stated(self, item: Element, key: str) -> list[Any]:
        """What a record says under a key: more than one thing where the key stands twice."""
        return [member.value for member in self.members(item, key)]

    def tracks(self, item: Element) -> tuple[str, ...]:
        """The track ids that a record lists, wherever it lists any."""
        lists = [listed for listed in self.stated(item, "track_ids") if isinstance(listed, list)]
        return tuple(dict.fromkeys(track for listed in lists for track in listed if isinstance(track, str)))

    def edited(self, item: Element, changes: Mapping[str, Any], *, without: Container[str] = ()) -> str:
        """The file's text with members of one record set or left out; every other byte is as it was."""
        found = list(members(self.text, item.start))
        gaps = [self.text[one.end : other.start] for one, other in pairwise(found)]
        opening = self.text[item.start : found[0].start]
        left, kept = dict(changes), []
        for gap, member in zip(("", *gaps), found, strict=True):
            if member.key in left:
                kept.append((gap, self._member(member.key, left.pop(member.key), like=item)))
            elif member.key not in changes and member.key not in without:
                kept.append((gap, self.text[member.start : member.end]))
        gap = gaps[-1] if gaps else "," + (opening[1:] or " ")
        kept += [(gap, self._member(key, value, like=item)) for key, value in left.items()]
        (_, first), *others = kept
        text = opening + first + "".join(gap + text for gap, text in others)
        return self.text[: item.start] + text + self.text[found[-1].end :]

    def appended(self, data: Mapping[str, Any]) -> str:
        """The file's text with one record after the last."""
        if not self.items:
            return _json([dict(data)], indent=2) + "\n"
        last = self.items[-1]
        before = self.items[-2].end if len(self.items) > 1 else self.text.index("[") + 1
        gap = self.text[before : last.start].replace(",", "")
        return f"{self.text[: last.end]},{gap or ' '}{self._dumped(data, like=last)}{self.text[last.end :]}"

    def _member(self, key: str, value: Any, *, like: Element) -> str:
        return f"{json.dumps(key)}: {self._dumped(value, like=like, depth=1)}"

    def _dumped(self, data: Any, *, like: Element, depth: int = 0) -> str:
        """JSON in the form of a record of the file: its margin and indent, on one line or on many."""
        text, line = self.text[like.start : like.end], self.text[: like.start].rpartition("\n")[2]
        margin = line if not line.strip() else ""
        inner = re.match(r"\{\r?\n([ \t]+)\"", text)
        unit = inner.group(1).removeprefix(margin) or "  " if inner else None
        escaped = self.text.isascii() and "\\u" in self.text
        dumped = _json(data, indent=unit, escaped=escaped)
        return dumped.replace("\n", ("\r\n" if "\r\n" in self.text else "\n") + margin + (unit or "") * depth)


def _json(data: Any, *, indent: int | str | None, escaped: bool = False) -> str:
    text = json.dumps(data, indent=indent, ensure_ascii=escaped, allow_nan=False)
    try:
        json.dumps(data, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise LedgerError("a word given is not UTF-8 text; set the terminal to UTF-8 and write it again") from error
    return text
