"""The ledger of listening tests: every test that was ever opened, and what was seen at each look, in a chain of hashes.

A new seed, a new sample set or a removed folder takes nothing back: `verdict.py` judges a checkpoint by all of its
tests. A ledger that was changed is refused as a whole, since it is what everything else is checked against.

    listening/ledger.jsonl
"""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic.dataclasses import dataclass

from lofi_assets.files.hand_written import HandWrittenError
from lofi_assets.files.typed import STORED, parsed, plain
from lofi_assets.files.writing import StoreError, locked
from lofi_assets.listening import journal
from lofi_assets.listening.errors import ListeningError
from lofi_assets.metrics.results import Verdict
from lofi_assets.store import Store

Event = Literal["opened", "started", "finished", "look", "closed", "lifted"]
TestKind = Literal["ai_or_real", "tiers"]


@dataclass(frozen=True, kw_only=True, config=STORED)
class Entry:
    """One line."""

    at: datetime
    event: Event
    test: str
    kind: TestKind
    about: str
    """SHA-256 of what was judged: a checkpoint's adapter, or the tiers' fingerprint."""
    plan_sha256: str = ""
    """When opened."""
    name: str = ""
    """Of what was judged, for people; when a session was finished, whose."""
    look: int = 0
    listeners: int = 0
    """Whose answers a look counts."""
    verdict: Verdict | None = None
    final: bool = False
    """Whether the look ends the test."""
    by: str = ""
    reason: str = ""
    previous: str = ""
    """SHA-256 of the line before."""


def ledger_path(store: Store) -> Path:
    """Where it lies."""
    return store.listening / "ledger.jsonl"


def read_ledger(store: Store) -> list[Entry]:
    """Every entry, oldest first.

    Raises:
        ListeningError: a line was changed, taken out or put in.
    """
    lines = journal.read_lines(ledger_path(store))
    return [_entry(lines, number, ledger_path(store)) for number in range(len(lines))]


def _entry(lines: Sequence[bytes], number: int, path: Path) -> Entry:
    where = f"{path}, line {number + 1}"
    remedy = "restore it from a copy: without it no listening test is evidence"
    try:
        entry = parsed(Entry, journal.parsed_line(lines[number]), where=where, remedy=remedy)
    except StoreError as error:
        raise ListeningError(str(error)) from error
    except (HandWrittenError, ValueError) as error:
        raise ListeningError(f"{where}: {error}; {remedy}") from error
    if entry.previous != journal.chained(lines[:number]):
        raise ListeningError(f"{where}: does not follow the line before it, so one of them was changed; {remedy}")
    return entry


def record(store: Store, **content: object) -> Entry:
    """Append an entry; on the disk before this returns.

    Raises:
        ListeningError: the ledger was changed.
    """
    with locked(store.listening, busy=None):
        read_ledger(store)
        lines = journal.read_lines(ledger_path(store))
        fields = {**content, "previous": journal.chained(lines)}
        entry = parsed(Entry, fields, where="a new entry of the ledger", remedy="this is a defect")
        journal.append(ledger_path(store), plain(entry))
    return entry


def head(store: Store) -> str:
    """SHA-256 of the last line: who noted it knows later whether lines were taken off the end."""
    return journal.chained(journal.read_lines(ledger_path(store)))


def contains(store: Store, noted: str) -> bool:
    """Whether a noted head is still in the chain."""
    lines = journal.read_lines(ledger_path(store))
    return any(journal.chained(lines[:number]) == noted for number in range(len(lines) + 1))


def of_test(entries: Sequence[Entry], test: str, event: Event) -> list[Entry]:
    """A test's entries of one kind."""
    return [entry for entry in entries if entry.test == test and entry.event == event]


def ended(entries: Sequence[Entry], test: str) -> bool:
    """Whether a test takes no more answers."""
    return bool(of_test(entries, test, "closed")) or any(e.final for e in of_test(entries, test, "look"))


def opened(entries: Sequence[Entry], *, kind: TestKind | None = None, about: str | None = None) -> list[Entry]:
    """Tests that were ever opened, oldest first."""
    return [
        entry
        for entry in entries
        if entry.event == "opened" and kind in (None, entry.kind) and about in (None, entry.about)
    ]


def the_test(entries: Sequence[Entry], test: str) -> Entry:
    """The opening of a test by its id, or by the beginning of it.

    Raises:
        ListeningError: no such test, or several.
    """
    found = [entry for entry in opened(entries) if test and entry.test.startswith(test)]
    if len(found) != 1:
        known = ", ".join(entry.test for entry in opened(entries)) or "none"
        raise ListeningError(f"test {test!r}: {len(found)} in the ledger begin like that; tests are: {known}")
    return found[0]
