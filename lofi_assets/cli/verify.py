"""`lofi verify`: whether a downloaded release is what was let go."""

import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lofi_assets.cli.console import console
from lofi_assets.errors import LofiError

if TYPE_CHECKING:
    from lofi_assets.release.deep_verification import Deep, FadAgain
    from lofi_assets.release.verification import Report

INCOMPLETE = 3
"""Exit status where nothing is wrong, and something could not be measured again."""
COLOURS = {"same": "green", "differs": "red", "not measured": "yellow"}


class DownloadError(LofiError, RuntimeError):
    """A repository cannot be downloaded; the message says which and why."""


@click.command()
@click.argument("places", nargs=-1, required=True, metavar="PLACE...")
@click.option("--revision", help="Commit, branch or tag of a repository on the Hub.")
@click.option(
    "--key", "key_file", type=click.Path(path_type=Path, dir_okay=False), help="The signer's public key (PEM)."
)
@click.option("--deep", is_flag=True, help="Measure again what can be measured from the files.")
@click.option(
    "--base",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="With --deep: folder of the base model, for what merging takes.",
)
@click.option(
    "--fad-pairs", type=click.IntRange(16), help="With --base: the tiers' FAD over FP32's on so many pairs of clips."
)
@click.option(
    "--reference",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="With --fad-pairs: folder of music to compare with; FP32's clips of another prompt without.",
)
@click.option(
    "--encoder-weights",
    type=click.Path(path_type=Path, exists=True),
    help="With --fad-pairs: weights of the encoder that the release names, unless it is shipped.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of tables.")
def verify(
    places: Sequence[str],
    revision: str | None,
    key_file: Path | None,
    deep: bool,
    base: Path | None,
    fad_pairs: int | None,
    reference: Path | None,
    encoder_weights: Path | None,
    as_json: bool,
) -> None:
    """Check a release: folders, or repositories on the Hub (TEAM/NAME).

    Files, signature, the chain of evidence and every gate, judged again under the constitution that the release names.
    Needs nothing of the machine that made it. Name all repositories of a release, or the folder that holds them, to
    have them compared with each other, and for --deep, which counts what it was not given as not measured.

    Exit status: 0 all of it holds; 1 something does not hold, or differs where it was measured again; 3 nothing is
    wrong, but with --deep something could not be measured here.
    """
    if base and not deep:
        raise click.UsageError("--base goes with --deep")
    if fad_pairs and not base:
        raise click.UsageError("--fad-pairs goes with --base: FP32 is not released, and is made of base and adapter")
    if (reference or encoder_weights) and not fad_pairs:
        raise click.UsageError("--reference and --encoder-weights go with --fad-pairs")
    from lofi_assets.constitution.dsse import public_key
    from lofi_assets.release.deep_verification import FadAgain
    from lofi_assets.release.verification import belong_together
    from lofi_assets.release.verification import verify as check

    key = public_key(key_file) if key_file else None
    with tempfile.TemporaryDirectory() as scratch, _folders(places, revision, Path(scratch)) as folders:
        reports = {folder: check(folder, key=key) for folder in folders}
        odd = belong_together([report.record for report in reports.values()])
        sound = not odd and all(report.holds for report in reports.values())
        fad = FadAgain(fad_pairs, reference, encoder_weights) if fad_pairs else None
        again = _again(reports, base, Path(scratch), fad) if deep and sound else None
        if as_json:
            click.echo(json.dumps(_document(reports, odd, again, deep=deep), indent=2, ensure_ascii=False))
        else:
            _print(reports, odd, again, deep=deep)
    if not sound or (again and again.differs):
        raise SystemExit(1)
    if again and not again.complete:
        raise SystemExit(INCOMPLETE)


@contextmanager
def _folders(places: Sequence[str], revision: str | None, scratch: Path) -> Iterator[list[Path]]:
    """Every repository of the release that lies there, downloaded first if it is on the Hub."""
    found: list[Path] = []
    for number, place in enumerate(places):
        folder = Path(place)
        if folder.is_dir():
            found += _repositories(folder)
        else:
            found.append(_downloaded(place, revision, scratch / f"downloaded{number}"))
    yield found


def _repositories(folder: Path) -> list[Path]:
    from lofi_assets.release.files import RELEASE

    parts = sorted(path.parent for path in folder.glob(f"*/{RELEASE}"))
    return [folder] if (folder / RELEASE).exists() or not parts else parts


def _downloaded(repo: str, revision: str | None, folder: Path) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo, revision=revision, local_dir=folder))
    except Exception as error:  # httpx, OSError, ValueError: the client has no common base
        reason = " ".join(str(error).split())[:300]
    raise DownloadError(f"{repo}: no folder here, and not to be had from the Hub ({reason})")


def _again(reports: Mapping[Path, "Report"], base: Path | None, scratch: Path, fad: "FadAgain | None") -> "Deep":
    from lofi_assets.release.deep_verification import measure_again

    parts = {report.record.part or "adapter": folder for folder, report in reports.items()}
    records = {part: reports[folder].record for part, folder in parts.items()}
    return measure_again(parts, records, base=base, scratch=scratch, fad=fad)


def _document(
    reports: Mapping[Path, "Report"], odd: Sequence[str], again: "Deep | None", *, deep: bool
) -> dict[str, Any]:
    """The report as data."""
    from lofi_assets.release.deep_verification import NOT_CARRIED

    sound = not odd and all(report.holds for report in reports.values())
    told: dict[str, Any] = {
        "holds": sound and not (again and again.differs),
        "repositories": [
            {
                "folder": str(folder),
                "part": report.record.part,
                "release": report.record.release,
                "checkpoint": report.record.checkpoint,
                "constitution": report.record.constitution,
                "approved_by": report.record.approval.approved_by,
                "holds": report.holds,
                "files": len(report.record.files),
                "signed_by": report.signed_by,
                "findings": [asdict(found) for found in report.findings],
                "gates": [{"gate": v.gate.id, "verdict": v.status, "text": v.text} for v in report.verdicts],
            }
            for folder, report in reports.items()
        ],
        "together": list(odd),
    }
    if deep:
        told["measured_again"] = [asdict(found) for found in again.measured] if again else None
        told["complete"] = bool(again and again.complete)
        told["not_carried"] = list(NOT_CARRIED)
    return told


def _print(reports: Mapping[Path, "Report"], odd: Sequence[str], again: "Deep | None", *, deep: bool) -> None:
    from rich.markup import escape

    for folder, report in reports.items():
        _show(folder, report)
    for text in odd:
        console.print(f"[red]fault[/] {escape(text)}")
    if again:
        _show_again(again)
    elif deep:
        console.print("Nothing was measured again: what is wrong with the files comes first.")


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


def _show_again(again: "Deep") -> None:
    from rich.markup import escape
    from rich.table import Table

    from lofi_assets.release.deep_verification import NOT_CARRIED

    counts = Counter(found.status for found in again.measured)
    total = len(again.measured)
    said = ", ".join(f"{counts[status]} {status}" for status in ("same", "differs", "not measured") if counts[status])
    console.print(f"Measured again, {total} checks: {said}. What was not measured says nothing.")
    table = Table(title="", show_header=True)
    for column in ("", "what", "on record", "here", "how, or why not"):
        table.add_column(column, overflow="fold")
    for found in again.measured:
        colour = COLOURS[found.status]
        row = (found.about, found.recorded, found.measured, found.text)
        table.add_row(f"[{colour}]{found.status}[/]", *(escape(cell) for cell in row))
    console.print(table)
    for text in NOT_CARRIED:
        console.print(f"Not measured by anybody who has the release alone: {escape(text)}")
