"""`lofi release` and `lofi approve-card`: what a release would be, publishing it, a person's word on the model card."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from lofi_assets.cli.console import console
from lofi_assets.profiles import load_profile
from lofi_assets.store import Store, data_root
from lofi_assets.wording import named

if TYPE_CHECKING:
    from lofi_assets.constitution.gates import Verdict
    from lofi_assets.release.hub_release import Preview


@click.command()
@click.option("--publish", "publishing", is_flag=True, help="Publish it; without, nothing is sent or changed.")
@click.option("--public", is_flag=True, help="With --publish: also to a repository that everybody can read.")
def release(publishing: bool, public: bool) -> None:
    """What a release would be: each file with size and hash, where it goes, what changes there, which gates hold it.

    --publish materialises hub_release, as the UI would: the same guard asks every gate. Exits with 1 if a gate holds
    the release, or it could not be published.
    """
    if public and not publishing:
        raise click.UsageError("--public goes with --publish: without it nothing is published")
    from lofi_assets.defs.dagster_home import dagster_home
    from lofi_assets.defs.gates import held_back
    from lofi_assets.demo.run import RELEASE, instance_of_home

    dagster_home()
    if publishing:
        sys.exit(_publish(public=public))
    from lofi_assets.release.hub_release import preview

    store = Store(data_root())
    with instance_of_home() as instance:
        held = held_back(instance, store, RELEASE)
    _print_held(held)
    _print_preview(preview(store, load_profile()))
    sys.exit(1 if held else 0)


def _publish(*, public: bool) -> int:
    from lofi_assets.definitions import build_defs
    from lofi_assets.defs.readiness import HUB_RELEASE
    from lofi_assets.demo.run import RELEASE, instance_of_home, quiet_console, run_assets

    with instance_of_home() as instance:
        definitions = build_defs(loggers={"console": quiet_console})
        failures = run_assets(definitions, instance, [HUB_RELEASE], config={RELEASE: {"public": public}})
    for reason in [failures[RELEASE]] if RELEASE in failures else failures.values():
        click.echo(reason, err=True)
    if not failures:
        click.echo("published; release/published under the data root holds what went")
    return 1 if failures else 0


def _print_held(held: "Sequence[Verdict]") -> None:
    from lofi_assets.constitution.verdict_text import for_one_reason

    if not held:
        click.echo("No gate holds the release.")
    for together in for_one_reason(held):
        first, gates = together[0], named([found.gate.id for found in together], most=6)
        click.echo(f"held by {gates}: {first.status}, {first.text if len(together) == 1 else first.note}")


def _print_preview(found: "Preview") -> None:
    from rich.table import Table

    table = Table("file", "bytes", "sha256", "there")
    for row in found.rows:
        links = f", {row['links']} names" if row["links"] > 1 else ""
        table.add_row(row["path"], f"{row['bytes']:,}", row["sha256"][:12], f"{row['state']}{links}")
    console.print(table)
    for name in found.removed:
        click.echo(f"would be removed there: {name}")
    for note in found.notes:
        click.echo(note)
    total = sum(row["bytes"] for row in found.rows)
    click.echo(
        f"release {found.name[:12]}: {len(found.rows)} files, {total:,} bytes. Nothing was sent; --publish does it."
    )


@click.command("approve-card")
@click.argument("card_sha256")
@click.option("--by", "approved_by", required=True, help="Your name; it goes on record.")
def approve_card(card_sha256: str, approved_by: str) -> None:
    """Approve release/README.md as you read it, by the first digits of its sha256; then materialise model_card."""
    from lofi_assets.release.model_card import approve

    digest = approve(Store(data_root()), card=card_sha256, by=approved_by)
    click.echo(f"approved {digest[:12]} by {approved_by}; materialise model_card to record it")
