"""What there is to open, in plain words: the list of pages, and the tracks that wait for a person, to be heard.

Addresses are relative, so that the pages work under any prefix that a proxy gives them.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime
from html import escape
from pathlib import Path
from urllib.parse import quote

from lofi_assets.html.frame import framed, players
from lofi_assets.pages.files import document, shown_file
from lofi_assets.sources.raw_files import with_file_name
from lofi_assets.store import Store
from lofi_assets.wording import counted

LISTENING = (
    "<p>They have a server of their own, for whoever was invited: <code>lofi listen plan</code> opens a test,"
    " <code>lofi listen invite</code> makes links, <code>lofi listen serve</code> takes the answers.</p>"
)
MOST = 500
"""Entries of one list; a page of thousands is of no use to anyone."""


def index_page(store: Store, docs: Path) -> str:
    """The list of pages over one data root and one folder of documents."""
    sections = (
        ("Checkpoints", _reports(store)),
        ("Tracks that wait for a person", '<p><a href="review">The review queue</a>, each track to be heard.</p>'),
        ("Tracks that were rejected", _rejected(store)),
        ("Licences", '<p><a href="ledger">The licence ledger</a> as it holds today.</p>'),
        ("Blind listening tests", LISTENING),
        ("Previews of training", _list(_links(store, sorted(store.logs.glob("*/previews/index.html")), part=-3))),
        ("Model card", _card(store)),
        ("Accepted tracks", _accepted(store)),
        ("Rules and reasons", _documents(docs)),
    )
    body = "\n".join(f"<h2>{title}</h2>\n{text or '<p>Nothing yet.</p>'}" for title, text in sections)
    return framed(
        title="Lofi pages", body=f"<h1>Lofi pages</h1>\n<p>Of the data under {escape(str(store.root))}.</p>\n{body}"
    )


def review_page(store: Store) -> str:
    """Every track that waits for a person, with the reasons and a player.

    Raises:
        ReviewError, StoreError: tracks or decisions cannot be read.
    """
    from lofi_assets.tracks.review import queue
    from lofi_assets.tracks.track_table import track_sounds

    audio = {row.track_id: row.audio_path for row in track_sounds(store)}
    waiting = [item for item in queue(store) if item.reasons]
    parts = [
        '<p><a href="./">All pages</a></p>\n<h1>Tracks that wait for a person</h1>\n<p>Hear a track, then say on the'
        " command line: <code>lofi review accept TRACK --by NAME</code>, with <code>--styles</code> or"
        " <code>--tags</code> to correct it, or <code>lofi review reject TRACK --by NAME --reason TEXT</code>.</p>"
    ]
    for item in waiting[:MOST]:
        clips = [(path, f"data/{quote(path)}") for path in [audio.get(item.row.track_id, "")] if path]
        name = with_file_name(item.row.track_id, item.row.raw_path)
        parts.append(f"<h2>{escape(name)}</h2>\n<p>{escape(item.row.prompt)}</p>\n{_list(map(escape, item.reasons))}")
        parts.append(players(clips))
    parts.append(_left_out(len(waiting)) if waiting else "<p>None.</p>")
    return framed(title="Review queue", body="\n".join(parts))


def ledger(store: Store, *, today: date | None = None) -> str:
    """The licence ledger of a day (UTC), in Markdown.

    Raises:
        SourceError, LedgerError, StoreError: the records or the licence types cannot be read.
    """
    from lofi_assets.constitution.gates import load_gates
    from lofi_assets.sources.ledger_page import ledger_page, survey
    from lofi_assets.sources.licences import load_licences
    from lofi_assets.store import CONFIG_DIR
    from lofi_assets.training.made_from import uses

    day = today or datetime.now(UTC).date()
    found = survey(store, licences=load_licences(CONFIG_DIR), gates=load_gates(), today=day)
    return ledger_page(store, found, made=uses(store), today=day)


def _reports(store: Store) -> str:
    """The comparing page, and that of each checkpoint."""
    pages = sorted((store.samples / "reports").glob("*.html"), key=lambda path: (path.name != "index.html", path.name))
    shown = [path for path in pages if shown_file(store, store.relative(path))]
    names = {"index": "All checkpoints, compared: the base, each step and the real tracks, to hear and see"}
    return _list(
        f'<a href="data/{quote(store.relative(path))}">{escape(names.get(path.stem, path.stem))}</a>' for path in shown
    )


def _rejected(store: Store) -> str:
    from lofi_assets.tracks.quarantine import quarantined, read_quarantined

    files = quarantined(store)
    lines = []
    for path in files[:MOST]:
        if (found := read_quarantined(path)) is None:
            continue
        rule, name = escape(found.rule), escape(with_file_name(found.track_id, found.raw))
        link = f'<a href="data/{quote(store.relative(path))}">{name}</a>'
        gate = f' (<a href="docs/gates.md#{rule}">{rule}</a>)' if rule else ""  # none: a person rejected it
        lines.append(f"{link}: {escape(found.reason)}{gate}")
    return _list(lines) + _left_out(len(files)) if files else ""


def _card(store: Store) -> str:
    path = "release/README.md"
    if shown_file(store, path) is None:
        return ""
    return f'<p><a href="data/{path}">The card as it would be published</a>; a person who read it approves it.</p>'


def _accepted(store: Store) -> str:
    parts = []
    for folder in sorted(path for path in store.processed.glob("*") if path.is_dir()):
        files = sorted(folder.glob("*.mp3"))
        links = _list(_links(store, files[:MOST], part=-1)) + _left_out(len(files))
        parts.append(
            f"<details><summary>{escape(folder.name)}: {counted(len(files), 'track')}</summary>{links}</details>"
        )
    return "\n".join(parts)


def _documents(docs: Path) -> str:
    shown = [path for path in sorted(docs.glob("*.md")) if document(docs, path.name)]
    shown += [path for path in [docs / "decisions" / "README.md"] if path.is_file()]
    return _list(f'<a href="docs/{quote(path.relative_to(docs).as_posix())}">{_heading(path)}</a>' for path in shown)


def _heading(path: Path) -> str:
    return escape(path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# "))


def _links(store: Store, paths: Sequence[Path], *, part: int) -> list[str]:
    """Links to the files that are shown, named by one part of their path."""
    shown = [path for path in paths if shown_file(store, store.relative(path))]
    return [f'<a href="data/{quote(store.relative(path))}">{escape(path.parts[part])}</a>' for path in shown]


def _list(items: Iterable[str]) -> str:
    lines = "\n".join(f"<li>{item}</li>" for item in items)
    return f"<ul>\n{lines}\n</ul>" if lines else ""


def _left_out(number: int) -> str:
    return f"<p>And {number - MOST} more.</p>" if number > MOST else ""
