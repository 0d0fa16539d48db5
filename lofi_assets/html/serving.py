"""What the small servers share: how they are served, the names that they answer to, the headers of every answer."""

from collections.abc import Mapping
from urllib.parse import urlsplit

import uvicorn
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lofi_assets.html.player import SCRIPT_SOURCE

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
"""Names by which this machine calls itself."""

POLICY = (
    f"default-src 'none'; img-src 'self' data:; media-src 'self' data:; style-src 'unsafe-inline'; "
    f"script-src {SCRIPT_SOURCE}; "
)
CLOSED = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
HEADERS = {
    "Content-Security-Policy": POLICY + CLOSED,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-site",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
"""Of every answer. Pages have one script, known by its hash, so nothing in a prompt or a file name can be one."""


def serve(app: ASGIApp, *, host: str, port: int) -> None:
    """Serve until Ctrl-C or SIGTERM; what a proxy says of the client is not believed. The port must be free."""
    uvicorn.run(
        app,
        host=host,
        port=port,
        http="h11",
        ws="none",
        lifespan="off",
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_level="warning",
    )


def bracketed(host: str | None) -> str:
    """A host as it stands in a Host header: IPv6 in brackets."""
    return f"[{host}]" if host and ":" in host else host or ""


def host_of(address: str) -> str:
    """The host of an address, as it stands in a Host header."""
    return bracketed(urlsplit(address).hostname)


class Headers:
    """Adds headers to every answer that does not say otherwise."""

    def __init__(self, app: ASGIApp, headers: Mapping[str, str] = HEADERS) -> None:
        self.app = app
        self.headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self.headers.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, with_headers)
