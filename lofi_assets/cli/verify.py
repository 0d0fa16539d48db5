"""`lofi verify`: whether a downloaded release is what was let go."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lofi_assets.cli.console import console
from lofi_assets.errors import LofiError

if TYPE_CHECKING:
    from lofi_assets.release.verification import Report


class DownloadError(LofiError, RuntimeError):
    """A repository cannot be downloaded; the message says which and why."""


@click.command()
@click.argument("place")
@click.option("--revision", help="Commit, branch or tag of a repository on the Hub.")
@click.option(
    "--key", "key_file", type=click.Path(path_type=Path, dir_okay=False), help="The signer's public key (PEM)."
)
def verify(place: str, revision: str | None, key_file: Path | None) -> None:
    """Check a release: a folder, or a repository on the Hub (TEAM/NAME).

    Files, signature, the chain of evidence and every gate, judged again under the constitution that the release names.
    Needs nothing of the machine that made it. Exits non-zero if anything does not hold.
    """
    from lofi_assets.release.signing import public_key
    from lofi_assets.release.verification import verify as check

    key = public_key(key_file) if key_file else None
    with _folders(place, revision) as folders:
        reports = {folder: check(folder, key=key) for folder in folders}
        for folder, report in reports.items():
            _show(folder, report)
    if not all(report.holds for report in reports.values()):
        raise SystemExit(1)


@contextmanager
def _folders(place: str, revision: str | None) -> Iterator[list[Path]]:
    """Every repository of the release that lies there, downloaded first if it is on the Hub."""
    from lofi_assets.release.files import RELEASE

    folder = Path(place)
    if folder.is_dir():
        parts = sorted(path.parent for path in folder.glob(f"*/{RELEASE}"))
        yield [folder] if (folder / RELEASE).exists() or not parts else parts
        return
    with tempfile.TemporaryDirectory() as scratch:
        yield [_downloaded(place, revision, Path(scratch))]


def _downloaded(repo: str, revision: str | None, folder: Path) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo, revision=revision, local_dir=folder))
    except Exception as error:  # httpx, OSError, ValueError: the client has no common base
        reason = " ".join(str(error).split())[:300]
    raise DownloadError(f"{repo}: no folder here, and not to be had from the Hub ({reason})")


def _show(folder: Path, report: "Report") -> None:
    from rich.markup import escape
    from rich.table import Table

    record = report.record
    said = "[green]holds[/]" if report.holds else "[red]does not hold[/]"
    console.print(f"{escape(str(folder))}: {said}: {record.checkpoint}, constitution {record.constitution}")
    passed = sum(found.passed for found in report.verdicts)
    signed = f"signed by {report.signed_by[:12]}" if report.signed_by else "not signed by a key that was checked"
    evidence = f"{len(record.evidence)} documents of evidence, {passed} of {len(report.verdicts)} gates pass"
    console.print(
        f"{len(record.files)} files, {evidence}, {signed}; approved by {escape(record.approval.approved_by)}."
    )
    table = Table(title="", show_header=True)
    for column in ("", "what", "finding"):
        table.add_column(column, overflow="fold")
    for found in report.findings:
        table.add_row("[red]fault[/]" if found.level == "fault" else "note", escape(found.about), escape(found.text))
    if report.findings:
        console.print(table)
