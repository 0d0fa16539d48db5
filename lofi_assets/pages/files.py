"""Which files of the data root and of `docs/` a browser may open, and the file behind an address.

Whatever is not on the list is not served: metadata, checkpoints, raw audio, logs, and anything of a listening test,
which has a server of its own (`lofi listen serve`).
"""

import re
from pathlib import Path

from lofi_assets.store import Store

_NAME = r"[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*"
"""A name in a path: nothing hidden, no way up."""

SHOWN = tuple(
    re.compile(pattern.replace("*", _NAME))
    for pattern in (
        r"samples/reports/*\.html",
        r"samples/*/*\.mp3",
        r"dataset/*/audio/*\.mp3",
        r"logs/*/previews/index\.html",
        r"logs/*/previews/*/*\.mp3",
        r"processed/*/*\.mp3",
        r"quarantine/*/*\.json",
        r"release/README\.md",
    )
)
"""Paths below the data root; `*` is one name. Reports and previews play clips that lie where they were made."""

DOCUMENTS = re.compile(rf"(decisions/)?{_NAME}\.(md|png)")
"""Paths below `docs/`."""

CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".md": "text/plain; charset=utf-8",
    ".mp3": "audio/mpeg",
    ".png": "image/png",
}
"""By suffix, of everything that is served."""


def shown_file(store: Store, path: str) -> Path | None:
    """The file at a path below the data root, or None where there is nothing that people are meant to open."""
    top, _, rest = path.partition("/")
    real = _inside(store.root / top, rest) if _shown(path) else None
    if real is None:
        return None
    # A link inside a folder may lead to a file of that folder which is not on the list.
    return real if _shown(f"{top}/{real.relative_to((store.root / top).resolve()).as_posix()}") else None


def document(docs: Path, path: str) -> Path | None:
    """The file at a path below `docs/`, or None."""
    return _inside(docs, path) if DOCUMENTS.fullmatch(path) else None


def _shown(path: str) -> bool:
    return any(pattern.fullmatch(path) for pattern in SHOWN)


def _inside(folder: Path, path: str) -> Path | None:
    """The regular file that `path` leads to, links followed, if it lies in `folder`, which may itself be a link."""
    try:
        real = (folder / path).resolve(strict=True)
        return real if real.is_relative_to(folder.resolve()) and real.is_file() else None
    except (OSError, RuntimeError, ValueError):
        return None
