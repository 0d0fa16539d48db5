"""The frame of every HTML page that the project writes: readable on a phone and on a desk, in light and dark.

Head, style, players. A page is one file, which opens from the disk as well as from the page server. It has no script,
or the one of `player.py`.
"""

from collections.abc import Sequence
from html import escape

from lofi_assets.html.player import POLICY, SCRIPT

STYLE = """
:root { color-scheme: light dark; font: 1rem/1.55 system-ui, sans-serif; }
body { max-width: 80rem; margin: 1.5rem auto; padding: 0 1rem; overflow-wrap: anywhere; }
p, ul, ol { max-width: 46rem; }
h1 { font-size: 1.6rem; line-height: 1.25; }
h2 { font-size: 1.2rem; line-height: 1.3; margin-top: 2rem; }
h3 { font-size: 1rem; margin: 1.75rem 0 .5rem; }
img { max-width: 100%; height: auto; }
pre { overflow-x: auto; }
summary { padding: .6rem 0; cursor: pointer; }
li { padding: .3rem 0; }
.players { display: grid; gap: .6rem 1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); }
figure { margin: 0; }
figcaption { font-size: .9rem; }
audio { display: block; width: 100%; height: 3.375rem; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; }
th, td { text-align: left; vertical-align: top; padding: .4rem .8rem .4rem 0; border-bottom: 1px solid #8886; }
td { overflow-wrap: break-word; }
td code { font-size: .85rem; }
@media (max-width: 64rem) {
  table, tbody, tr, td { display: block; }
  thead { display: none; }
  tr { padding: .6rem 0; border-bottom: 1px solid #8886; }
  td { padding: .1rem 0; border: 0; overflow-wrap: anywhere; }
  td:first-child { font-weight: 600; }
  td:empty { display: none; }
  td[data-label]:not([data-label=""])::before { content: attr(data-label) ": "; opacity: .7; }
}
"""
"""Cells carry their column's head as `data-label`: on a phone, where a row is a block, it stands before the cell."""


def framed(*, title: str, body: str, style: str = "", scripted: bool = False) -> str:
    """A whole page; `title` is text, `body` HTML.

    Args:
        style: CSS beside the frame's own.
        scripted: whether the page has the script of `player.py`, and with it a policy against any other.
    """
    policy = f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">\n' if scripted else ""
    script = f"<script>{SCRIPT}</script>\n" if scripted else ""
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n{policy}'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}{style}</style>\n</head>\n<body>\n{body}\n{script}"
        "</body>\n</html>\n"
    )


def players(clips: Sequence[tuple[str, str]]) -> str:
    """Players side by side as far as the screen is wide; each clip is a label (text) and a quoted relative address."""
    figures = "\n".join(
        f'<figure><figcaption>{escape(label)}</figcaption><audio controls preload="none" src="{escape(source)}"'
        f' aria-label="{escape(label)}"></audio></figure>'
        for label, source in clips
    )
    return f'<div class="players">\n{figures}\n</div>'
