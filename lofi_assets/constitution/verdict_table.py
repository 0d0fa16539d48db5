"""Gates with their verdicts as the command line prints them."""

from collections.abc import Sequence

from rich.table import Table

from lofi_assets.constitution.gates import Verdict

COLOURS = {"pass": "green", "fail": "red", "inconclusive": "yellow"}


def gates_table(verdicts: Sequence[Verdict]) -> Table:
    """One row per gate: verdict, number, limit, note."""
    table = Table(title="Gates", title_justify="left")
    for column in ("gate", "verdict", "value", "limit", "note"):
        table.add_column(column, overflow="fold")
    for found in verdicts:
        limit = "0 tracks" if found.counted else f"{found.gate.op} {found.gate.limit}"
        colour = COLOURS[found.status]
        table.add_row(found.gate.id, f"[{colour}]{found.status}[/]", _number(found.value), limit, found.note)
    return table


def _number(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
