"""`lofi pages`: the read-only page server."""

import contextlib

import click

from lofi_assets.cli.ports import require_free
from lofi_assets.store import Store, data_root


@click.command()
@click.option(
    "--port", type=click.IntRange(1, 65535), help="Default: the port of LOFI_PAGES_URL on this machine, else 3001."
)
def pages(port: int | None) -> None:
    """Serve the pages that people are meant to open (/ lists them), read-only, to this machine only."""
    from lofi_assets.pages.server import HOST, pages_port, serve_pages
    from lofi_assets.store import CONFIG_DIR

    chosen = port or pages_port()
    require_free(chosen, option="--port")
    click.echo(f"pages: http://{HOST}:{chosen} (Ctrl-C ends it)")
    with contextlib.suppress(KeyboardInterrupt):
        serve_pages(Store(data_root()), CONFIG_DIR.parent / "docs", port=chosen)
