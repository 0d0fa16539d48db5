"""Who may listen: random tokens, of which only hashes are kept.

    listening/<test>/invitations.jsonl

A token is a person; whoever gives one person two makes two listeners of them, which no server can see. It stands behind
the # of the link, where no proxy's log has it.
"""

import hashlib
import secrets
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from pydantic.dataclasses import dataclass

from lofi_assets.errors import LofiError
from lofi_assets.files.typed import STORED, parsed, plain
from lofi_assets.files.writing import locked
from lofi_assets.listening import journal
from lofi_assets.store import Store


@dataclass(frozen=True, kw_only=True, config=STORED)
class Invitation:
    """One token that was given out."""

    listener: str
    """`L001`: how the listener is named on record."""
    token_sha256: str
    at: datetime


def invitations_path(store: Store, test: str) -> Path:
    """Where a test's invitations lie."""
    return store.listening / test / "invitations.jsonl"


def read_invitations(store: Store, test: str) -> list[Invitation]:
    """Those that were given out, oldest first; a line that is none lets nobody in, and keeps nobody else out."""
    path = invitations_path(store, test)
    found = []
    for line in journal.read_lines(path):
        with suppress(LofiError, ValueError):
            found.append(parsed(Invitation, journal.parsed_line(line), where=str(path), remedy="remove that line"))
    return found


def invite(store: Store, test: str, *, count: int, now: datetime) -> list[str]:
    """Make tokens; this is the only time that they can be seen."""
    path = invitations_path(store, test)
    tokens = [secrets.token_urlsafe(16) for _ in range(count)]
    with locked(path.parent, busy=None):
        known = len(journal.read_lines(path))
        for number, token in enumerate(tokens, start=known + 1):
            entry = Invitation(listener=f"L{number:03d}", token_sha256=token_hash(token), at=now)
            journal.append(path, plain(entry))
    return tokens


def token_hash(token: str) -> str:
    """As it is kept: 128 random bits need no slow hash."""
    return hashlib.sha256(token.encode()).hexdigest()
