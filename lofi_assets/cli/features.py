"""`lofi features`: the cache of what training reads."""

import click

from lofi_assets.store import Store, data_root


@click.group()
def features() -> None:
    """Latents, text states and the like, computed once: what is there, and what nothing needs any more."""


@features.command()
@click.option("--dry-run", is_flag=True, help="Name the files and leave them.")
def prune(dry_run: bool) -> None:
    """Remove files that neither the current features nor any run, archived ones among them, need."""
    from lofi_assets.training.feature_cache import prune_features, unneeded_features

    store = Store(data_root())
    before = {path: path.stat().st_size for path in unneeded_features(store)}
    pruned = list(before) if dry_run else prune_features(store)
    for path in pruned:
        click.echo(store.relative(path))
    size = sum(before.get(path, 0) for path in pruned) / 1e6
    click.echo(f"{len(pruned)} files, {size:.1f} MB {'are not needed' if dry_run else 'removed'}")
