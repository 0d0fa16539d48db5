"""`lofi approve-card`: a person's word on the model card."""

import click

from lofi_assets.store import Store, data_root


@click.command("approve-card")
@click.argument("card_sha256")
@click.option("--by", "approved_by", required=True, help="Your name; it goes on record.")
def approve_card(card_sha256: str, approved_by: str) -> None:
    """Approve release/README.md as you read it, by the first digits of its sha256; then materialise model_card."""
    from lofi_assets.release.model_card import approve

    digest = approve(Store(data_root()), card=card_sha256, by=approved_by)
    click.echo(f"approved {digest[:12]} by {approved_by}; materialise model_card to record it")
