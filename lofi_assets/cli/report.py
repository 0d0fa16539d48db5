"""`lofi report`: the pages of the evaluated checkpoints."""

from pathlib import Path

import click

from lofi_assets.store import Store, data_root
from lofi_assets.wording import amount


@click.command()
@click.argument("checkpoint", required=False)
@click.option("--open", "opened", is_flag=True, help="Open the page in the browser.")
@click.option(
    "--to",
    "target",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write this one page here with its audio inside, to be sent; else pages play files of the data root.",
)
def report(checkpoint: str | None, opened: bool, target: Path | None) -> None:
    """Write the pages of the measured checkpoints anew; CHECKPOINT is an id or a step, none is the comparing page.

    Nothing is measured: what has no number says so.
    """
    from lofi_assets.evaluation.reports.pages import page_for, page_to_send
    from lofi_assets.files.documents import write_text

    store = Store(data_root())
    if target is None:
        page = page_for(store, checkpoint)
    else:
        page = target.absolute()
        write_text(page, page_to_send(store, checkpoint))
    click.echo(f"{page} ({amount(page.stat().st_size)})")
    if opened and click.launch(page.as_uri()) != 0:
        raise click.ClickException(f"no browser could be started; open {page} by hand")
