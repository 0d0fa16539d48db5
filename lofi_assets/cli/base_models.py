"""`lofi verify-weights`, `tiny-base`, `verify-reference`: base models, checked or made."""

import resource
import sys
from pathlib import Path

import click


@click.command("verify-weights")
@click.argument("directory", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--device", default="cpu", show_default=True, help="Where its parts are run, for instance cuda.")
@click.option("--files-only", is_flag=True, help="Read the files and run nothing: little memory, about a minute.")
def verify_weights(directory: Path, device: str, files_only: bool) -> None:
    """Check a base model in the Hub's layout: files against config.json and the published sizes, then each part's work.

    Text encoder, codec and transformer are loaded one after the other (at most about 6 GB for the published model).
    Exits 1 if anything is wrong. Other sizes than the published ones are no fault, and are said.
    """
    from lofi_assets.backbones.ace_step_v1.verification.files import Finding
    from lofi_assets.backbones.ace_step_v1.verification.weights import verify_weights

    def say(finding: Finding) -> None:
        click.echo(f"{'ok  ' if finding.passed else 'FAIL'} {finding.component:<20} {finding.text}")

    verification = verify_weights(directory, device=device, files_only=files_only, say=say)
    failed = len(verification.failed)
    if failed:
        click.echo(f"{directory}: {failed} of {len(verification.findings)} checks failed")
        sys.exit(1)
    if verification.published:
        what, work = "the published ACE-Step v1", "and each part does its work"
    else:
        what, work = "a sound base, not of the published sizes", "and each part runs"
    done = "its files are whole" if files_only else f"its files are whole, {work}"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    click.echo(f"{directory}: {what}; {done} ({len(verification.findings)} checks, {peak:.1f} GB of memory at most)")


@click.command("tiny-base")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--seed", default=0, show_default=True)
def tiny_base(directory: Path, seed: int) -> None:
    """Write a tiny ACE-Step v1 with random weights in the Hub's folder layout."""
    from lofi_assets.backbones.ace_step_v1.tiny import write_tiny_base

    write_tiny_base(directory, seed=seed)
    click.echo(f"{directory}: tiny base, seed {seed}")


@click.command("verify-reference", hidden=True)
@click.argument("directory", type=click.Path(path_type=Path, exists=True, file_okay=False))
def verify_reference(directory: Path) -> None:
    """Compare the backbone with tensors of the public code; non-zero past a tolerance."""
    from lofi_assets.backbones.ace_step_v1.verification.reference import format_comparisons, verify_reference

    comparisons = verify_reference(directory)
    click.echo(format_comparisons(comparisons))
    if not comparisons or not all(comparison.passed for comparison in comparisons):
        sys.exit(1)
