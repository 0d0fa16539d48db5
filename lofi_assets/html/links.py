"""Addresses of pages that a browser opens: a path on the server is no link.

A small read-only server (beside the UI, loopback) serves the data root's pages and `docs/` below one base address.
"""

from pathlib import Path
from urllib.parse import quote

from lofi_assets.environment import variable
from lofi_assets.store import Store

PAGES_URL = "LOFI_PAGES_URL"
"""Where the page server is reached by people; another address behind a proxy."""
DEFAULT_PAGES_URL = "http://127.0.0.1:3001"


def base_url() -> str:
    """Base address of the page server, without a slash at its end; a blank setting is unset."""
    return (variable(PAGES_URL) or DEFAULT_PAGES_URL).rstrip("/")


def page_url(store: Store, path: Path) -> str:
    """Address of a file under the data root.

    Raises:
        ValueError: the file lies elsewhere, so that no page server shows it.
    """
    return f"{base_url()}/data/{quote(path.relative_to(store.root).as_posix())}"


def docs_url(name: str, anchor: str = "") -> str:
    """Address of a page of `docs/`, as `gates.md`; `anchor` is the id of a place on it, as a gate's id."""
    return f"{base_url()}/docs/{quote(name)}" + (f"#{quote(anchor)}" if anchor else "")
