"""From a domain outcome to what Dagster shows and what the gates judge.

The UI keeps the order of metadata, plots whole and real numbers, shows Markdown of less than 1,000 characters at once
and longer one behind a click. Its box grows with the widest word, and then cuts every sentence in it off.
"""

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import dagster as dg

from lofi_assets.constitution import evidence
from lofi_assets.constitution.made_with import profile_used
from lofi_assets.defs.event_log import EVIDENCE, InstanceLog, shown_digest
from lofi_assets.defs.resources import Platform
from lofi_assets.files.writing import StoreError
from lofi_assets.outcome import Outcome
from lofi_assets.store import Store
from lofi_assets.wording import named

MAX_ROWS = 50
"""Metadata stays in the event log for ever: 500 rows cost 0.29 MB of SQLite a materialisation."""

MAX_NEEDS = 20
"""Rows of what needs a person: the sentence before it counts them all, and the table after it has the others."""

MAX_PICTURE_BYTES = 50_000
"""The same for a picture inlined into markdown."""

SUMMARY, NEEDS, OPEN, TABLE = "summary", "needs a person", "open", "table"
"""Names under which the sentence, the two tables and the links stand."""

BOX, CHARACTER, PADDING = 460.0, 8.4, 17.0
"""Pixels, measured at a window of 1440: the box that values stand in, a character, and what a column adds."""


SHOWN_AT_ONCE = 1000
"""Characters from which on the UI shows Markdown behind a click."""

NUMBERS = (dg.IntMetadataValue, dg.FloatMetadataValue)
"""What the UI plots."""

Row = Mapping[str, Any]


def report(context: dg.AssetExecutionContext, platform: Platform, outcome: Outcome) -> dg.MaterializeResult[Any]:
    """Write an outcome's evidence, by which the gates judge, and return what the UI shows and the event log keeps."""
    asset = context.asset_key.to_user_string()
    log = InstanceLog(context.instance)
    latest = log.latest_by_run(asset)
    sha256 = evidence.write(
        platform.store,
        outcome,
        asset=asset,
        upstream=[key.to_user_string() for key in context.assets_def.asset_deps[context.asset_key]],
        profile=profile_used(platform.profile),
        before=latest.evidence if latest else "",
        attempts=lambda: log.attempts(asset, running=context.run.run_id),
    )
    context.log.info(f"{asset}: " + ", ".join(f"{name} {count}" for name, count in outcome.counts.items()))
    if mended := outcome.details.get("mended"):
        context.log.warning(f"{asset}: files that a person or a program had changed:\n{mended}")
    shown = metadata(outcome) | {EVIDENCE: dg.MetadataValue.text(shown_digest(sha256))}
    return dg.MaterializeResult(metadata=shown, data_version=dg.DataVersion(outcome.data_version))


def evidence_of_runs(instance: dg.DagsterInstance, store: Store, asset: str) -> Iterator[evidence.Evidence]:
    """What the runs of an asset left as evidence, the latest first."""
    for made in InstanceLog(instance).history(asset):
        if made.run_id and made.evidence:
            with suppress(StoreError):  # gone or changed: it vouches for nothing, and `report` says so by name
                yield evidence.read(store, asset, made.evidence)


def metadata(outcome: Outcome) -> dict[str, dg.MetadataValue]:
    """In reading order: the sentence, what needs a person, links, pictures, numbers, facts, the table."""
    shown: dict[str, dg.MetadataValue] = {}
    if outcome.summary:
        shown[SUMMARY] = dg.MetadataValue.text(outcome.summary)
    if outcome.needs:
        shown[NEEDS] = table(outcome.needs[:MAX_NEEDS])
    if links := ", ".join(f"[{title}]({url})" for title, url in outcome.links.items() if url):
        shown[OPEN] = dg.MetadataValue.md(links)
    shown |= {title: _picture(title, draw()) for title, draw in outcome.pictures.items()}
    facts = {name: _fact(value) for name, value in outcome.details.items() if value is not None}
    shown |= {name: fact for name, fact in facts.items() if isinstance(fact, NUMBERS)}
    shown |= {name: dg.MetadataValue.int(n) for name, n in outcome.counts.items()}
    shown |= facts
    if outcome.rows:
        shown[TABLE] = table(outcome.rows) if _fits(outcome.rows) else dg.MetadataValue.md(_markdown(outcome.rows))
        shown["dagster/row_count"] = dg.MetadataValue.int(len(outcome.rows))
    return shown


def _picture(title: str, picture: bytes) -> dg.MetadataValue:
    if len(picture) > MAX_PICTURE_BYTES:
        return dg.MetadataValue.text(f"not shown: {len(picture)} bytes, at most {MAX_PICTURE_BYTES}")
    return dg.MetadataValue.md(f"![{title}](data:image/png;base64,{base64.b64encode(picture).decode('ascii')})")


def _fact(value: Any) -> dg.MetadataValue:
    if isinstance(value, dg.MetadataValue):
        return value
    if isinstance(value, bool):
        return dg.MetadataValue.bool(value)
    if isinstance(value, int):
        return dg.MetadataValue.int(value)
    if isinstance(value, float):
        return dg.MetadataValue.float(value)
    text = named(value, most=MAX_ROWS) if isinstance(value, list | tuple) else str(value)
    if text.startswith(("http://", "https://")):
        return dg.MetadataValue.url(text)
    return dg.MetadataValue.md(text) if "\n" in text else dg.MetadataValue.text(text)


def table(rows: Sequence[Row]) -> dg.TableMetadataValue:
    """The first 50 rows, with the columns of the first that are not empty in all of them."""
    return dg.MetadataValue.table(
        records=[dg.TableRecord({name: _cell(row.get(name)) for name in _columns(rows)}) for row in rows[:MAX_ROWS]]
    )


def _columns(rows: Sequence[Row]) -> list[str]:
    return [name for name in rows[0] if any(row.get(name) not in (None, "") for row in rows[:MAX_ROWS])]


def _cell(value: Any) -> str | int | float | bool:
    return value if isinstance(value, str | int | float | bool) else ("" if value is None else str(value))


def _fits(rows: Sequence[Row]) -> bool:
    """Whether the table is no wider than the box: a column is as wide as its longest word."""
    widths = [
        max(len(word) for row in rows[:MAX_ROWS] for word in (name, *re.split(r"[\s-]", str(_cell(row.get(name))))))
        for name in _columns(rows)
    ]
    return sum(width * CHARACTER + PADDING for width in widths) <= BOX


def _markdown(rows: Sequence[Row]) -> str:
    """The same table for a window of its own: long enough, by its rule, that the UI does not put it into the box."""
    columns = _columns(rows)
    lines = [[_cell(row.get(name)) for name in columns] for row in rows[:MAX_ROWS]]
    cells = [[re.sub(r"([\\`*_\[\]<>|~])", r"\\\1", " ".join(str(cell).split())) for cell in line] for line in lines]
    rule = ["-" * (SHOWN_AT_ONCE // len(columns))] * len(columns)
    return "\n".join(f"| {' | '.join(line)} |" for line in [columns, rule, *cells])
