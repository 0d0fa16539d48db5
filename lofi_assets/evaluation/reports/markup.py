"""Pieces of HTML that the pages share: tables, numbers with their intervals, verdicts, pictures.

Arguments called `cells` or `body` are HTML; any other text is escaped here.
"""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape

NOT_MEASURED = '<span class="none">not measured</span>'
"""In the place of a number that there is not: never empty, never zero."""

STYLE = """
.badge { border-radius: .3rem; padding: .1rem .45rem; color: #fff; font-size: .85rem; white-space: nowrap; }
.pass { background: #1b6e37; } .fail { background: #a3211a; } .inconclusive { background: #6b5200; }
.none { font-style: italic; opacity: .8; }
.small { font-size: .88rem; }
.strip { display: block; width: 100%; height: 4rem; object-fit: fill; border-radius: .3rem; background: #000; }
.chart { background: #fff; padding: .3rem; border-radius: .3rem; }
figure.playing figcaption { font-weight: 600; }
figure.playing { outline: .15rem solid #c8553d; outline-offset: .2rem; border-radius: .3rem; }
figure.unplayable figcaption::after { content: " (this audio cannot be played from here)"; font-style: italic; }
figcaption { min-height: 1.5em; }
dl.facts { display: grid; grid-template-columns: max-content 1fr; gap: .15rem .9rem; margin: .5rem 0; }
dl.facts { font-size: .92rem; }
dl.facts dt { opacity: .75; } dl.facts dd { margin: 0; }
.clip { border-top: 1px solid #8886; padding: .4rem 0 1rem; }
.bar { display: block; width: 9rem; height: .875rem; margin-top: .35rem; overflow: visible; }
th { overflow-wrap: normal; }
@media (min-width: 64rem) { body { max-width: 92rem; } table { font-size: .94rem; } }
.best td { background: #c8553d22; }
button { font: inherit; padding: .3rem .7rem; min-height: 2.4rem; cursor: pointer; }
button[aria-pressed=true] { font-weight: 600; }
.hash { font-family: ui-monospace, monospace; font-size: .85rem; overflow-wrap: anywhere; }
caption { text-align: left; font-size: .92rem; opacity: .85; padding-bottom: .3rem; }
@media (max-width: 64rem) { caption { display: block; } dl.facts { grid-template-columns: 1fr; }
  dl.facts dt { margin-top: .3rem; } }
@media print { audio, button { display: none; } }
"""


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, caption: str, attributes: Sequence[str] = ()) -> str:
    """A table; on a phone each row is a block whose cells carry their heads.

    Args:
        heads: text.
        rows: cells, HTML.
        attributes: of each row's element, HTML.
    """
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in heads)
    lines = list(rows)
    marks = [f" {mark}" if mark else "" for mark in attributes] or [""] * len(lines)
    body = "\n".join(
        f"<tr{mark}>{''.join(_cell(name, cell) for name, cell in zip(heads, cells, strict=True))}</tr>"
        for mark, cells in zip(marks, lines, strict=True)
    )
    said = f"<caption>{escape(caption)}</caption>"
    return f"<table>{said}\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"


def _cell(head: str, cell: str) -> str:
    return f'<td data-label="{escape(head)}">{cell}</td>'


def facts(items: Iterable[tuple[str, str]]) -> str:
    """Names (text) and what they are (HTML), under each other."""
    lines = "".join(f"<dt>{escape(name)}</dt><dd>{body}</dd>" for name, body in items)
    return f'<dl class="facts">{lines}</dl>'


def number(value: float | None, digits: int = 2, *, unit: str = "", why: str = "") -> str:
    """A number; without one it says so, and why."""
    if value is None:
        return NOT_MEASURED + (f' <span class="small">({escape(why)})</span>' if why else "")
    return f"{value:.{digits}f}{escape(unit)}"


def share(right: int, asked: int, *, what: str = "") -> str:
    """`6 of 8`; that nothing was asked for if so."""
    return f"{right} of {asked}{escape(what)}" if asked else '<span class="none">none was asked for</span>'


def span(interval: tuple[float | None, float | None] | None, digits: int = 2) -> str:
    """Both ends of an interval, or that there is none."""
    low, high = interval or (None, None)
    if low is None or high is None:
        return '<span class="none">no interval</span>'
    return f"{low:.{digits}f} to {high:.{digits}f}"


def interval_bar(
    value: float | None, interval: tuple[float | None, float | None] | None, *, most: float, mark: float | None
) -> str:
    """A value as a dot and its interval as a line, from 0 to `most`; `mark` is a dashed line across, as of real clips.

    It says nothing that the cells beside it do not say in numbers, so it is hidden from screen readers.
    """
    low, high = interval or (None, None)
    if value is None or most <= 0.0:
        return ""
    drawn = ['<line x1="0" x2="100%" y1="7" y2="7" stroke="#8888"/>']
    if mark is not None:
        at = _percent(mark, most)
        drawn.append(f'<line x1="{at}" x2="{at}" y1="0" y2="14" stroke="currentColor" stroke-dasharray="2 2"/>')
    if low is not None and high is not None:
        ends = f'x1="{_percent(low, most)}" x2="{_percent(high, most)}"'
        drawn.append(f'<line {ends} y1="7" y2="7" stroke="#c8553d" stroke-width="3"/>')
    drawn.append(f'<circle cx="{_percent(value, most)}" cy="7" r="4.5" fill="#c8553d"/>')
    return f'<svg class="bar" aria-hidden="true">{"".join(drawn)}</svg>'


def _percent(value: float, most: float) -> str:
    return f"{100.0 * min(max(value / most, 0.0), 1.0):.1f}%"


def verdict_badge(status: str) -> str:
    """pass, fail or inconclusive, in a word as well as in a colour."""
    return f'<span class="badge {escape(status)}">{escape(status)}</span>'


def picture(png: bytes, *, said: str, kind: str) -> str:
    """A PNG inside the page; `said` is what it shows, for whoever does not see it."""
    source = data_address(png, "image/png")
    return f'<img class="{escape(kind)}" src="{source}" alt="{escape(said)}">'


def data_address(content: bytes, media_type: str) -> str:
    """Content as an address."""
    return f"data:{media_type};base64,{b64encode(content).decode('ascii')}"


def section(title: str, body: str, *, place: str) -> str:
    """A part of a page with its heading; `place` is its id."""
    return f'<section aria-labelledby="{place}">\n<h2 id="{place}">{escape(title)}</h2>\n{body}\n</section>'
