"""What was told and what still waits: one file, replaced as a whole.

What has been seen and what waits for a receiver stand in the same file, so a message is never lost between the two. It
is written before the first delivery of a tick and after each one: a process killed between a receiver's answer and
that write sends this one message to this one receiver again.
"""

import hashlib
import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from lofi_assets.alerts.messages import Message
from lofi_assets.constitution.gates import Status
from lofi_assets.files.documents import read_json, write_text
from lofi_assets.files.writing import StoreError
from lofi_assets.store import Store

STATE = "state.json"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class OpenGate(_Record):
    """A gate that people know does not pass."""

    status: Status
    """The verdict they were told."""
    since: float
    """When it first did not pass, seconds since 1970."""


class OpenFailure(_Record):
    """Runs that people know failed, until what they failed at works again."""

    job: str
    selection: tuple[str, ...]
    """Assets of the run; empty: all of the job's."""
    assets: tuple[str, ...]
    """Assets whose step failed; empty: no step failed, or none of an asset."""
    runs: int
    """How many failed."""
    since: float
    """When the first failed."""
    latest: float
    """When the last failed."""


class Held(_Record):
    """An asset that people know is held back."""

    gates: tuple[str, ...]
    """Ids of the gates, sorted."""
    since: float
    """When a run last asked for it."""


class Queue(_Record):
    """What one receiver has still to get, oldest first."""

    shown: str = ""
    """The receiver, without its secrets."""
    messages: tuple[Message, ...] = ()
    dropped: int = 0
    """Messages that it will not get: too many waited, or it refused them while it took others."""
    tries: int = 0
    """Attempts that failed since the last that did not."""
    tried: float = 0.0
    """When the last of them was."""


class AlertState(_Record):
    """Everything that alerts remember between two ticks."""

    begun: float
    """When alerts began; runs that ended before are not told."""
    runs_until: float
    """Failed runs updated up to then were looked at."""
    runs_looked_at: dict[str, float] = {}
    """Run id -> time of its update, for the runs that a later look finds again."""
    judged: dict[str, int] = {}
    """Gate id -> number of the latest evaluation that was looked at, in Dagster's storage."""
    gates: dict[str, OpenGate] = {}
    failures: dict[str, OpenFailure] = {}
    held: dict[str, Held] = {}
    tables: str = ""
    """Which files the tracks were read from, so that unchanged ones are not read again."""
    tracks: str = ""
    """File beside this one with the tracks that people were told of."""
    queues: dict[str, Queue] = {}


def read_state(store: Store) -> AlertState | None:
    """What was told so far; None before the first tick.

    Raises:
        StoreError: the file is not such a state.
    """
    path = store.alerts / STATE
    data = read_json(path)
    try:
        return AlertState.model_validate(data) if data is not None else None
    except ValidationError as error:
        fault = error.errors()[0]
        raise StoreError(f"{path}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}") from error


def write_state(store: Store, state: AlertState) -> None:
    """Replace the file."""
    write_text(store.alerts / STATE, state.model_dump_json(indent=1) + "\n")


def set_aside(store: Store) -> Path:
    """Move a state that cannot be read out of the way, and keep it for whoever wants to know."""
    path = store.alerts / STATE
    aside = path.with_suffix(".unreadable.json")
    return path.replace(aside)


def read_told_tracks(store: Store, state: AlertState) -> dict[str, str]:
    """Track id -> what people were told of it (`arrivals.py`).

    Raises:
        StoreError: the file that the state names is no such set.
    """
    path, remedy = store.alerts / state.tracks, "remove it, every track is then told anew"
    told = read_json(path, default={}, remedy=remedy) if state.tracks else {}
    if not isinstance(told, dict) or not all(isinstance(said, str) for said in told.values()):
        raise StoreError(f"{path}: must say of track ids what was told; {remedy}")
    return told


def write_told_tracks(store: Store, tracks: dict[str, str]) -> str:
    """Write a set of told tracks under a name of its own, which the state then takes up."""
    text = json.dumps(tracks, sort_keys=True, indent=0, ensure_ascii=False)
    name = f"tracks-{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"
    write_text(store.alerts / name, text + "\n")
    return name


def clear_told_tracks(store: Store, state: AlertState) -> None:
    """Remove the sets that the state on disk no longer names."""
    for path in store.alerts.glob("tracks-*.json"):
        if path.name != state.tracks:
            path.unlink()
