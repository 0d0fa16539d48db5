"""`lofi`: the platform from the command line. Every command says what it did and exits non-zero when it failed."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from lofi_assets.cli.alerts import alerts
from lofi_assets.cli.base_models import verify_weights
from lofi_assets.cli.dataset import dataset
from lofi_assets.cli.dev import dev
from lofi_assets.cli.features import features
from lofi_assets.cli.inspect import inspect
from lofi_assets.cli.pages import pages
from lofi_assets.cli.reproduce import reproduce
from lofi_assets.cli.review import review
from lofi_assets.cli.sources import sources
from lofi_assets.cli.train import train
from lofi_assets.cli.train_base import train_base
from lofi_assets.errors import explanation
from lofi_assets.store import CONFIG_DIR, Store, data_root, require_config

console = Console(width=160 if not sys.stdout.isatty() else None)


class Explaining(click.Group):
    """Commands whose errors are explained (`errors.explanation`) end in one sentence and exit status 1."""

    def invoke(self, context: click.Context) -> Any:
        """Run the command; a defect keeps its traceback."""
        try:
            with _progress_on_stderr():
                return super().invoke(context)
        except Exception as error:
            sentence = explanation(error)
            if sentence is None:
                raise
            raise click.ClickException(sentence) from error


@contextmanager
def _progress_on_stderr() -> Iterator[None]:
    """Without a terminal there is no bar, so what the package logs goes to standard error."""
    if sys.stderr.isatty():
        yield
        return
    log, handler = logging.getLogger("lofi_assets"), logging.StreamHandler(sys.stderr)
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(logging.NOTSET)


@click.group(cls=Explaining)
def main() -> None:
    """Licensed lofi tracks to a released, gated ACE-Step LoRA."""
    require_config()
    data_root()


for command in (sources, inspect, review, dataset, features, train, reproduce, train_base, verify_weights, alerts):
    main.add_command(command)
main.add_command(dev)
main.add_command(pages)


@main.command()
def demo() -> None:
    """The whole lineage on the demo corpus, in this process; then every gate's verdict."""
    from lofi_assets.demo.run import run_demo

    sys.exit(run_demo(console))


@main.command("demo-corpus")
@click.option("--seed", default=0, show_default=True, help="Another seed, other music.")
def demo_corpus(seed: int) -> None:
    """Write synthesised lofi tracks, their licence records, and rejects that must be caught."""
    from lofi_assets.demo.corpus.files import write_demo_corpus

    console.print(write_demo_corpus(data_root(), seed=seed))


@main.command("tiny-base")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--seed", default=0, show_default=True)
def tiny_base(directory: Path, seed: int) -> None:
    """Write a tiny ACE-Step v1 with random weights in the Hub's folder layout."""
    from lofi_assets.backbones.ace_step_v1.tiny import write_tiny_base

    write_tiny_base(directory, seed=seed)
    console.print(f"{directory}: tiny base, seed {seed}")


@main.command("verify-reference")
@click.argument("directory", type=click.Path(path_type=Path, exists=True, file_okay=False))
def verify_reference(directory: Path) -> None:
    """Compare the backbone with tensors of the public code; non-zero past a tolerance."""
    from lofi_assets.backbones.ace_step_v1.verification.reference import format_comparisons, verify_reference

    comparisons = verify_reference(directory)
    click.echo(format_comparisons(comparisons))
    if not comparisons or not all(comparison.passed for comparison in comparisons):
        sys.exit(1)


@main.command()
@click.option("--audit-only", is_flag=True, help="Only the repository, not the verdicts over the data.")
def constitution(audit_only: bool) -> None:
    """Every gate with its latest verdict, and the audit of this repository; violations are CRITICAL."""
    from lofi_assets.constitution.audit import audit
    from lofi_assets.constitution.gates import load_gates
    from lofi_assets.constitution.verdicts import verdicts
    from lofi_assets.demo.tables import gates_table

    if not audit_only:
        console.print(gates_table(verdicts(Store(data_root()), load_gates())))
    audited = audit()
    console.print(gates_table(audited))
    violations = [found for found in audited if not found.passed]
    for found in violations:
        click.echo(f"CRITICAL {found.gate.id}: {found.text}. {found.gate.why}", err=True)
    sys.exit(1 if violations else 0)


@main.command()
def schemas() -> None:
    """Write config/schemas/*.json from the records."""
    from lofi_assets.records import write_schemas

    changed = write_schemas(CONFIG_DIR / "schemas")
    click.echo("\n".join(str(path) for path in changed) or "schemas are current")


@main.command()
def docs() -> None:
    """Write docs/gates.md from the constitution's table."""
    from lofi_assets.constitution.gates import gates_page
    from lofi_assets.files.documents import write_text

    page = CONFIG_DIR.parent / "docs" / "gates.md"
    click.echo(f"{page}: {'written' if write_text(page, gates_page()) else 'current'}")


@main.command("approve-card")
@click.argument("card_sha256")
@click.option("--by", "approved_by", required=True, help="Your name; it goes on record.")
def approve_card(card_sha256: str, approved_by: str) -> None:
    """Approve release/README.md as you read it, by the first digits of its sha256; then materialise model_card."""
    from lofi_assets.release.model_card import approve

    digest = approve(Store(data_root()), card=card_sha256, by=approved_by)
    click.echo(f"approved {digest[:12]} by {approved_by}; materialise model_card to record it")


if __name__ == "__main__":
    main()
