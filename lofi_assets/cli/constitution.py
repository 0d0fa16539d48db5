"""`lofi constitution`: gates with their verdicts, the audit, amendments; what is generated from gates and records."""

import sys
from datetime import date

import click

from lofi_assets.cli.console import console
from lofi_assets.store import CONFIG_DIR, Store, data_root


@click.command()
@click.option("--audit-only", is_flag=True, help="Only the repository, not the verdicts over the data.")
@click.option("--amend", "rationale", help="Log the version that text and table were raised to, with why.")
def constitution(audit_only: bool, rationale: str | None) -> None:
    """Every gate with its latest verdict, and the audit of this repository; violations are CRITICAL."""
    from lofi_assets.constitution.amendments import amend
    from lofi_assets.constitution.audit import audit
    from lofi_assets.constitution.gates import load_gates
    from lofi_assets.constitution.verdict_table import gates_table
    from lofi_assets.constitution.verdicts import verdicts

    if rationale is not None:
        row = amend(CONFIG_DIR.parent, rationale=rationale, today=date.today())
        click.echo(
            f"version {row['version']} is on record; commit: docs: amend constitution to v{row['version']} (...)"
        )
        return
    if not audit_only:
        console.print(gates_table(verdicts(Store(data_root()), load_gates())))
    audited = audit()
    console.print(gates_table(audited))
    violations = [found for found in audited if not found.passed]
    for found in violations:
        click.echo(f"CRITICAL {found.gate.id}: {found.text}. {found.gate.why}", err=True)
    sys.exit(1 if violations else 0)


@click.command()
def schemas() -> None:
    """Write config/schemas/*.json from the records."""
    from lofi_assets.records import write_schemas

    changed = write_schemas(CONFIG_DIR / "schemas")
    click.echo("\n".join(str(path) for path in changed) or "schemas are current")


@click.command()
def docs() -> None:
    """Write docs/gates.md from the constitution's table."""
    from lofi_assets.constitution.gates import gates_page
    from lofi_assets.files.documents import write_text

    page = CONFIG_DIR.parent / "docs" / "gates.md"
    click.echo(f"{page}: {'written' if write_text(page, gates_page()) else 'current'}")
