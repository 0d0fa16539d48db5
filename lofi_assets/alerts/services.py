"""Receivers of alerts: which the configuration names, and how one message reaches one of them by apprise.

An address is shown without its secrets.
"""

import hashlib
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lofi_assets.alerts.messages import WORD, Kind, Message
from lofi_assets.environment import variable

if TYPE_CHECKING:
    from lofi_assets.profiles import Profile

VARIABLE = "LOFI_ALERT_URLS"
"""apprise URLs, separated by commas; they add to those of the profile."""

SEND_SECONDS = 20.0
"""One message to one receiver, name look-up and answer included."""


@dataclass(frozen=True)
class Service:
    """One receiver."""

    where: str
    """Where it is configured, by position."""
    url: str = field(repr=False)
    """apprise URL; it holds secrets."""

    @property
    def key(self) -> str:
        """Under what its queue is kept: tells receivers apart and gives nothing of the address away."""
        return _key(self.url)

    @property
    def shown(self) -> str:
        """For people: scheme and host, with secrets masked by apprise; paths and options may hold some and are cut."""
        return _shown(self.url)

    def __str__(self) -> str:
        return f"{self.where}: {self.shown}"


def services(profile: "Profile | None") -> list[Service]:
    """Every receiver that the profile and `LOFI_ALERT_URLS` name, each once.

    Args:
        profile: None if it cannot be read; then only the variable counts.
    """
    named = []
    if profile:
        source = f"alerts of config/profiles/{profile.name}.yaml"
        named = [Service(f"{source}, {_ordinal(index)}", url.strip()) for index, url in enumerate(profile.alerts, 1)]
    urls = _split(variable(VARIABLE))
    named += [Service(f"{VARIABLE}, {_ordinal(index)}", url) for index, url in enumerate(urls, 1)]
    once: dict[str, Service] = {}
    for service in named:
        once.setdefault(service.url, service)
    return [service for url, service in once.items() if url]


def _split(text: str) -> list[str]:
    """A comma inside an address stays: what follows it does not begin like one."""
    return [url for part in re.split(r"[\s,;]+(?=\w+://)", text) if (url := part.strip(" \t\r\n,;"))]


def _ordinal(number: int) -> str:
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending} URL"


@cache
def _key(url: str) -> str:
    """A slow hash: a short password in an address cannot be found by trying."""
    return hashlib.scrypt(url.encode(), salt=b"lofi alerts", n=2**14, r=8, p=1, dklen=12).hex()


@cache
def _shown(url: str) -> str:
    plugin = _plugin(url)
    if plugin is None:
        return f"{url.partition('://')[0]}://…" if "://" in url else "…"
    parts = urlsplit(plugin.url(privacy=True))
    rest = "/…" if parts.path.strip("/") else ""
    return f"{parts.scheme}://{parts.netloc}{rest}"


def _plugin(url: str) -> Any:
    """apprise's side of a receiver, None if it does not understand the address."""
    import apprise

    with _quiet():
        return apprise.Apprise.instantiate(url)


@contextmanager
def _quiet() -> Iterator[None]:
    """apprise prints an address that it does not understand, secrets and all."""
    logger = logging.getLogger("apprise")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def send(service: Service, message: Message) -> str:
    """Deliver one message; returns "" if it was taken, else why not, without secrets."""
    import apprise

    plugin = _plugin(service.url)
    if plugin is None:
        return "not an address that apprise understands; https://github.com/caronc/apprise/wiki lists them"
    if plugin.overflow_mode == apprise.OverflowMode.UPSTREAM:
        # Else a service with a smaller limit refuses the message for ever.
        plugin.overflow_mode = apprise.OverflowMode.SPLIT
    sender = apprise.Apprise()
    sender.add(plugin)
    taken = sender.notify(
        title=message.title,
        body=message.body,
        notify_type=message.kind,
        body_format=apprise.NotifyFormat.TEXT,
        timeout=SEND_SECONDS,
    )
    return "" if taken else _reason(taken, service.url)


def _reason(result: Any, url: str) -> str:
    said = [entry.message for entry in getattr(result, "logs", list)()]
    if not said:
        return f"no answer within {SEND_SECONDS:.0f} s, or none that apprise understands"
    text = " ".join(" ".join(said).split())
    return _without_secrets(text, url)


def _without_secrets(text: str, url: str) -> str:
    """Blank every part of the address that is not shown anyway."""
    shown = _shown(url)
    for part in sorted(set(re.split(r"[/:@?&=,]+", url.partition("://")[2])), key=len, reverse=True):
        if len(part) > 3 and part not in shown:
            text = text.replace(part, "…")
    return text


_LOOKS: dict[Kind, str] = {
    "failure": "This is how a failed run or a gate of severity ERROR looks. Nothing is wrong.",
    "warning": "This is how a gate of severity WARN or a delivery with rejects looks.",
    "info": "This is how a delivery that was accepted or a held release looks.",
    "success": "This is how something that passes or works again looks.",
}

TEST_MESSAGES = tuple(
    Message(kind=kind, title=f"{WORD[kind]} lofi alerts test", body=body) for kind, body in _LOOKS.items()
)
"""One message of each kind."""
