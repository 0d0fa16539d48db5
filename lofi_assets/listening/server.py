"""The server of listening tests: one page, one invitation per listener, excerpts as they are asked for.

It listens on loopback unless told otherwise and answers only to loopback's names and to the name in `LOFI_LISTEN_URL`.
Who has no token gets the page and nothing else. The page is told what to play, never what it is.

    /                             the page, with its script and style beside it
    /api/state, check, event, answer    JSON, with the token in the header Authorization
    /api/tones/<round>            the headphone check
    /api/audio/<question>/<n>     an excerpt of the question that is asked now
"""

import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, cast, get_args

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from lofi_assets.environment import variable
from lofi_assets.errors import LofiError
from lofi_assets.files.writing import StoreError, locked
from lofi_assets.html.serving import CLOSED, HEADERS, LOOPBACK, Headers, host_of, serve
from lofi_assets.listening.playback import Told
from lofi_assets.listening.room import Room, Seat
from lofi_assets.listening.session import RefusedError
from lofi_assets.store import Store

LISTEN_URL = "LOFI_LISTEN_URL"
"""How listeners reach the server; another address behind a proxy."""
HOST = "127.0.0.1"
DEFAULT_PORT = 3002
PAGE = Path(__file__).with_name("page")
PAGE_FILES: Mapping[str, str] = {
    "listen.html": "text/html; charset=utf-8",
    "listen.js": "text/javascript; charset=utf-8",
    "tiers.js": "text/javascript; charset=utf-8",
    "listen.css": "text/css; charset=utf-8",
}
LARGEST_BODY = 4096
"""Bytes of a request."""
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; media-src blob:; img-src data:; "
    + CLOSED
)
LISTEN_HEADERS = HEADERS | {"Content-Security-Policy": _POLICY, "Cache-Control": "no-store"}
NOT_NOW = "The test cannot go on just now. Your answers are kept; please try again later."
LOG = logging.getLogger(__name__)

Handler = Callable[[Request], Awaitable[Response]]


def listen_url(port: int = DEFAULT_PORT) -> str:
    """Address under which listeners find the page, without a slash at its end."""
    return (variable(LISTEN_URL) or f"http://{HOST}:{port}").rstrip("/")


def serve_listening(store: Store, *, host: str, port: int) -> None:
    """Serve until Ctrl-C or SIGTERM. The port must be free.

    Raises:
        StoreError: another server works on this data root.
    """
    busy = StoreError(f"{store.listening}: another `lofi listen serve` works here; end it first")
    with locked(store.listening / "server", busy=busy):
        serve(listening_app(Room(store, clock=time.time)), host=host, port=port)


def listening_app(room: Room) -> Starlette:
    """The ASGI application over one room. Its handlers do not wait for one another, and neither does the room."""

    def seated(handle: Callable[[Request, Seat], Awaitable[Response]]) -> Handler:
        async def with_seat(request: Request) -> Response:
            scheme, _, token = request.headers.get("authorization", "").partition(" ")
            if scheme != "Bearer" or not token:
                return JSONResponse({"message": "An invitation is needed."}, status_code=401)
            return await handle(request, room.seat(token))

        return with_seat

    async def state(request: Request, seat: Seat) -> Response:
        return JSONResponse(room.state(seat))

    async def check(request: Request, seat: Seat) -> Response:
        quietest = (await _body(request)).get("quietest")
        passed = room.check(seat, quietest if isinstance(quietest, list) else [])
        return JSONResponse({"passed": passed, "state": room.state(seat)})

    async def event(request: Request, seat: Seat) -> Response:
        body = await _body(request)
        question, slot, kind, position = (body.get(key) for key in ("question", "excerpt", "event", "position"))
        fits = isinstance(slot, int) and isinstance(position, int | float) and 0 <= position < 3600
        if not fits or kind not in get_args(Told):
            raise HTTPException(400, "no event")
        told = room.tell(seat, str(question), cast(int, slot), cast(Told, kind), position=float(cast(float, position)))
        return JSONResponse(told)

    async def answer(request: Request, seat: Seat) -> Response:
        body = await _body(request)
        feedback = room.answer(seat, str(body.get("question")), body)
        return JSONResponse({"feedback": feedback, "state": room.state(seat)})

    async def tones(request: Request, seat: Seat) -> Response:
        return Response(room.tones(seat, request.path_params["round"]), media_type="audio/wav")

    async def audio(request: Request, seat: Seat) -> Response:
        parameters = request.path_params
        return Response(room.excerpt(seat, parameters["question"], parameters["excerpt"]), media_type="audio/wav")

    async def page(request: Request) -> Response:
        name = request.path_params.get("name", "listen.html")
        if name not in PAGE_FILES:
            raise HTTPException(404)
        return FileResponse(PAGE / name, media_type=PAGE_FILES[name])

    app = Starlette(
        routes=[
            Route("/", page),
            Route("/{name}", page),
            *(Route(f"/api/{h.__name__}", seated(h), methods=["POST"]) for h in (state, check, event, answer)),
            Route("/api/tones/{round:int}", seated(tones)),
            Route("/api/audio/{question}/{excerpt:int}", seated(audio)),
        ],
        middleware=[
            Middleware(Headers, headers=LISTEN_HEADERS),
            Middleware(TrustedHostMiddleware, allowed_hosts=[*LOOPBACK, host_of(listen_url())], www_redirect=False),
        ],
        exception_handlers={HTTPException: _no_page, RefusedError: _refused, LofiError: _broken},
    )
    app.router.redirect_slashes = False
    return app


async def _body(request: Request) -> dict[str, Any]:
    """A small JSON object."""
    data = b""
    async for part in request.stream():
        data += part
        if len(data) > LARGEST_BODY:
            raise HTTPException(413)
    try:
        found = json.loads(data)
    except ValueError as error:
        raise HTTPException(400, "no JSON") from error
    if not isinstance(found, dict):
        raise HTTPException(400, "no JSON object")
    return found


def _no_page(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return PlainTextResponse(f"{error.detail}\n", status_code=error.status_code, headers=error.headers)


def _refused(request: Request, error: Exception) -> Response:
    return JSONResponse({"message": str(error)}, status_code=409)


def _broken(request: Request, error: Exception) -> Response:
    """What is wrong is for whoever runs the server: it names files."""
    LOG.error("%s", error)
    return JSONResponse({"message": NOT_NOW}, status_code=503)
