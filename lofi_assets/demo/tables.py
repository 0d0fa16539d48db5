"""What the demo prints at its end: assets with their counts, rejects with their rules."""

from collections.abc import Sequence

from rich.table import Table

from lofi_assets.constitution.verdicts import recorded
from lofi_assets.sources.inventory import read_inventory
from lofi_assets.store import Store
from lofi_assets.tracks.track_table import track_verdicts


def assets_table(store: Store, assets: Sequence[str]) -> Table:
    """One row per asset: its counts, and whether anything was recomputed."""
    table = Table(title="Assets", title_justify="left")
    for column in ("asset", "counts", "recomputed"):
        table.add_column(column)
    for asset in assets:
        measures = recorded(store, asset)
        counts = dict(measures.counts) if measures else {}
        again = counts.pop("recomputed", None)
        shown = ", ".join(f"{name} {count}" for name, count in counts.items()) or "not materialised"
        table.add_row(asset, shown, "" if again is None else "nothing" if again == 0 else str(again))
    return table


def rejects_table(store: Store) -> Table:
    """One row per rejected raw file: the rule that caught it, and why."""
    table = Table(title="Rejected", title_justify="left")
    for column in ("track", "rule", "reason"):
        table.add_column(column, overflow="fold")
    for file in read_inventory(store):
        if file.status == "rejected":
            table.add_row(file.track_id, file.rule, file.reason)
    for track in track_verdicts(store):
        if track.status == "rejected":
            table.add_row(track.track_id, track.rule, track.reason)
    return table
