"""From a domain outcome to what Dagster shows and what the gates judge."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from lofi_assets.outcome import Outcome
from lofi_assets.store import Store
from lofi_assets.verdicts import Measures, record, upstream_versions

MAX_ROWS = 50
"""Metadata stays in the event log for ever: 500 rows cost 0.29 MB of SQLite a materialisation."""

MAX_PICTURE_BYTES = 50_000
"""The same for a picture inlined into markdown."""


def report(context: dg.AssetExecutionContext, store: Store, outcome: Outcome) -> dg.MaterializeResult:
    """Record an outcome's measures for the gates, and return what the UI shows."""
    asset = context.asset_key.to_user_string()
    upstream = [key.to_user_string() for key in context.assets_def.asset_deps[context.asset_key]]
    record(
        store,
        Measures(
            asset=asset,
            data_version=outcome.data_version,
            upstream=upstream_versions(store, upstream),
            values=outcome.values,
            tracks=outcome.tracks,
            counts=outcome.counts,
        ),
    )
    context.log.info(f"{asset}: " + ", ".join(f"{name} {count}" for name, count in outcome.counts.items()))
    if mended := outcome.details.get("mended"):
        context.log.warning(f"{asset}: files that a person or a program had changed:\n{mended}")
    return dg.MaterializeResult(metadata=metadata(outcome), data_version=dg.DataVersion(outcome.data_version))


def metadata(outcome: Outcome) -> dict[str, dg.MetadataValue]:
    """Counts as numbers, facts by type, at most 50 table rows, pictures inline."""
    shown: dict[str, dg.MetadataValue] = {name: dg.MetadataValue.int(n) for name, n in outcome.counts.items()}
    shown |= {name: _fact(value) for name, value in outcome.details.items() if value is not None}
    for title, draw in outcome.pictures.items():
        picture = draw()
        if len(picture) <= MAX_PICTURE_BYTES:
            shown[title] = dg.MetadataValue.md(
                f"![{title}](data:image/png;base64,{base64.b64encode(picture).decode('ascii')})"
            )
        else:
            shown[title] = dg.MetadataValue.text(f"not shown: {len(picture)} bytes, at most {MAX_PICTURE_BYTES}")
    if outcome.rows:
        shown["table"] = _table(outcome.rows)
        shown["dagster/row_count"] = dg.MetadataValue.int(len(outcome.rows))
    return shown


def _fact(value: Any) -> dg.MetadataValue:
    if isinstance(value, dg.MetadataValue):
        return value
    if isinstance(value, bool):
        return dg.MetadataValue.bool(value)
    if isinstance(value, int):
        return dg.MetadataValue.int(value)
    if isinstance(value, float):
        return dg.MetadataValue.float(value)
    if isinstance(value, dict | list | tuple):
        return dg.MetadataValue.json(value if isinstance(value, dict) else list(value))
    return dg.MetadataValue.md(str(value)) if "\n" in str(value) else dg.MetadataValue.text(str(value))


def _table(rows: Sequence[Mapping[str, Any]]) -> dg.TableMetadataValue:
    def cell(value: Any) -> str | int | float | bool:
        return value if isinstance(value, str | int | float | bool) else ("" if value is None else str(value))

    columns = list(rows[0])
    return dg.MetadataValue.table(
        records=[dg.TableRecord({name: cell(row.get(name)) for name in columns}) for row in rows[:MAX_ROWS]]
    )
