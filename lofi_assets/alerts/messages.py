"""What a message is made of: its kind, times, addresses in the UI. The texts stand beside what they tell of."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Literal
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict

from lofi_assets.environment import variable

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
    return (variable("LOFI_UI_URL") or DEFAULT_UI).rstrip("/")


def when(moment: float) -> str:
    """Seconds since 1970 as `27 Nov 2026 10:02 UTC`."""
    return datetime.fromtimestamp(moment, tz=UTC).strftime("%d %b %Y %H:%M UTC")
