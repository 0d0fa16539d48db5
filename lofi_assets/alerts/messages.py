"""What a message is made of: its kind, words for numbers and times, addresses in the UI.

What belongs here: what every text needs. What does not: the texts themselves, which stand beside what they tell of.
"""

import os
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Literal
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict

from lofi_assets.constitution import Gate, Verdict

Kind = Literal["failure", "warning", "info", "success"]
"""apprise's notify types: services colour a message by them."""

WORD: dict[Kind, str] = {"failure": "ERROR", "warning": "WARNING", "info": "INFO", "success": "RESOLVED"}
"""How a title begins, for receivers without colours."""

DEFAULT_UI = "http://127.0.0.1:3000"
"""The UI that `make dev` starts; `LOFI_UI_URL` names another."""

MAX_BODY = 1900
"""Characters; Discord, the strictest of the usual services, takes 2,000."""


class Message(BaseModel):
    """One message for people, in plain text."""

    model_config = ConfigDict(frozen=True)

    kind: Kind
    title: str
    body: str


def message(kind: Kind, title: str, lines: Iterable[str], *, link: str) -> Message:
    """A message; a body that is too long loses the end of its lines, never the link."""
    text = "\n".join(line for line in lines if line)
    room = MAX_BODY - len(link) - 1
    if len(text) > room:
        text = text[: room - 2].rstrip() + " …"
    return Message(kind=kind, title=f"{WORD[kind]} {title}", body=f"{text}\n{link}")


def asset_link(asset: str, *, checks: bool = False) -> str:
    """Address of an asset's page, or of its checks."""
    return f"{_ui()}/assets/{quote(asset)}" + ("?view=checks" if checks else "")


def run_link(run_id: str) -> str:
    """Address of a run's page."""
    return f"{_ui()}/runs/{quote(run_id)}"


def _ui() -> str:
    return (os.environ.get("LOFI_UI_URL", "").strip() or DEFAULT_UI).rstrip("/")


def count(number: int, noun: str) -> str:
    """`1 gate`, `2 gates`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def some(texts: Sequence[str], *, at_most: int) -> list[str]:
    """The first texts, and how many more there are."""
    more = len(texts) - at_most
    return [*texts[:at_most], f"and {more} more"] if more > 0 else list(texts)


def when(moment: float) -> str:
    """Seconds since 1970 as `27 Nov 2026 10:02 UTC`."""
    return datetime.fromtimestamp(moment, tz=UTC).strftime("%d %b %Y %H:%M UTC")


def reading(found: Verdict) -> str:
    """What a gate found beside its limit: `fad = 6.12, limit < 5`; a value that nobody measured says so."""
    gate, note = found.gate, f" ({found.note})" if found.note else ""
    if found.value is None:
        return f"{gate.measure}: {found.note or 'not measured'}; limit {_limit(gate)}"
    if found.counted:
        return f"{count(int(found.value), 'accepted track')} against {gate.measure} {_limit(gate)}{note}"
    return f"{gate.measure} = {_shown(found.value, apart_from=gate.limit)}, limit {_limit(gate)}{note}"


def _limit(gate: Gate) -> str:
    bound = f" on the scale of {gate.encoder}" if gate.encoder else ""
    op = "" if gate.op == "==" else "not " if gate.op == "!=" else f"{gate.op} "
    return f"{op}{_shown(gate.limit)}{bound}"


def _shown(value: object, *, apart_from: object = None) -> str:
    """A number with 4 digits, or all of them where rounding would hide on which side of a limit it is."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, float):
        return str(value)
    shown = f"{value:.4g}"
    return str(value) if float(shown) == apart_from != value else shown
