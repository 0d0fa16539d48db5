"""Markdown of the project as a page: `docs/`, and the licence ledger.

CommonMark and tables by markdown-it (a dependency of rich). HTML inside the text stays text, so that nothing that a
record or a file name says becomes markup.
"""

import re
from collections.abc import Sequence
from html import escape
from itertools import pairwise

from markdown_it import MarkdownIt
from markdown_it.token import Token

from lofi_assets.html.frame import framed


def markdown_page(text: str, *, title: str, home: str) -> str:
    """A whole page of Markdown. `home` is the relative address of the list of pages.

    Headings have ids in GitHub's manner; a table's row whose first cell is one piece of code has that as its id, as
    the gates in `docs/gates.md` do.
    """
    renderer = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = renderer.parse(text)
    _name_headings(tokens)
    _name_rows(tokens)
    body = renderer.renderer.render(tokens, renderer.options, {})
    return framed(title=title, body=f'<p><a href="{escape(home)}">All pages</a></p>\n{body}')


def _name_headings(tokens: Sequence[Token]) -> None:
    used: dict[str, int] = {}
    for token, content in pairwise(tokens):
        if token.type != "heading_open":
            continue
        slug = re.sub(r"[^\w\- ]", "", content.content.lower()).replace(" ", "-")
        used[slug] = used.get(slug, -1) + 1
        token.attrSet("id", f"{slug}-{used[slug]}" if used[slug] else slug)


def _name_rows(tokens: Sequence[Token]) -> None:
    """Ids of rows, and in every cell its column's head, for screens that are too narrow for columns."""
    heads: list[str] = []
    column, row = 0, None
    for token, content in pairwise(tokens):
        if token.type == "table_open":
            heads = []
        elif token.type == "tr_open":
            column, row = 0, token
        elif token.type == "th_open":
            heads.append(content.content)
        elif token.type == "td_open" and row is not None:
            token.attrSet("data-label", heads[column])
            cell = content.children or []
            if column == 0 and len(cell) == 1 and cell[0].type == "code_inline":
                row.attrSet("id", cell[0].content)
            column += 1
