"""The read-only page server: what people are meant to open of the data root and of `docs/`, for browsers beside the UI.

It has no login, so it listens on loopback only and answers only to loopback's names and to the name in
`LOFI_PAGES_URL`: a site on the internet that points a name at 127.0.0.1 gets no answer. A proxy with authentication
stands in front of it where others than this machine's users should read. Which files are shown is in `files.py`.

    /                  the list of pages
    /data/<path>       a file below the data root
    /docs/<name>       a page of docs/, Markdown rendered
    /ledger            the licence ledger as it holds today
    /review            the tracks that wait for a person, to be heard
"""

from pathlib import Path
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from lofi_assets.errors import LofiError
from lofi_assets.html.links import base_url
from lofi_assets.html.serving import LOOPBACK, Headers, bracketed, host_of, serve
from lofi_assets.pages.files import CONTENT_TYPES, document, shown_file
from lofi_assets.pages.index import index_page, ledger, review_page
from lofi_assets.pages.markdown import markdown_page
from lofi_assets.store import Store

HOST = "127.0.0.1"
DEFAULT_PORT = 3001


def pages_port() -> int:
    """The port of `LOFI_PAGES_URL` if it names this machine, else 3001."""
    address = urlsplit(base_url())
    return address.port or DEFAULT_PORT if bracketed(address.hostname) in LOOPBACK else DEFAULT_PORT


def serve_pages(store: Store, docs: Path, *, port: int) -> None:
    """Serve until Ctrl-C or SIGTERM. The port must be free."""
    serve(page_app(store, docs), host=HOST, port=port)


def page_app(store: Store, docs: Path) -> Starlette:
    """The ASGI application over one data root and one folder of documents."""
    hosts = [*LOOPBACK, host_of(base_url())]

    def index(request: Request) -> Response:
        return HTMLResponse(index_page(store, docs))

    def data(request: Request) -> Response:
        path = request.path_params["path"]
        file = shown_file(store, f"{path}index.html" if path.endswith("/") else path)
        return _file(file)

    def documents(request: Request) -> Response:
        file = document(docs, request.path_params["path"])
        if file is None or file.suffix != ".md":
            return _file(file)
        home = "../" * (1 + request.path_params["path"].count("/"))
        return HTMLResponse(markdown_page(file.read_text(encoding="utf-8"), title=file.stem, home=home))

    def ledger_today(request: Request) -> Response:
        return HTMLResponse(markdown_page(ledger(store), title="Licence ledger", home="./"))

    def review_today(request: Request) -> Response:
        return HTMLResponse(review_page(store))

    app = Starlette(
        routes=[
            Route("/", index),
            Route("/data/{path:path}", data),
            Route("/docs/{path:path}", documents),
            Route("/ledger", ledger_today),
            Route("/review", review_today),
        ],
        middleware=[Middleware(Headers), Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)],
        exception_handlers={HTTPException: _refusal, LofiError: _unreadable},
    )
    # A redirect would be built from what the request says of its host.
    app.router.redirect_slashes = False
    return app


def _file(file: Path | None) -> Response:
    if file is None:
        raise HTTPException(404)
    return FileResponse(file, media_type=CONTENT_TYPES[file.suffix])


def _refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    texts = {404: "There is no page here; the list of pages is at /", 405: "Pages are read: GET and HEAD only"}
    text = texts.get(error.status_code, error.detail)
    return PlainTextResponse(f"{text}\n", status_code=error.status_code, headers=error.headers)


def _unreadable(request: Request, error: Exception) -> Response:
    """What a page is about cannot be read; the message says what to mend."""
    return PlainTextResponse(f"{error}\n", status_code=500)
