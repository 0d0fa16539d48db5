"""`lofi sources`: the licence ledger from the command line."""

import shlex
import sys
import unicodedata
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lofi_assets.store import Store, data_root
from lofi_assets.wording import counted

if TYPE_CHECKING:
    from lofi_assets.sources.ledger_page import Survey
    from lofi_assets.sources.licences import LicenceTable

SOURCE_TYPES = ("commissioned", "royalty_free", "creative_commons", "partnership")

evidence_option = click.option("--evidence", help="Address, or file under the data root, that proves the rights.")
evidence_file_option = click.option(
    "--evidence-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A file to copy to metadata/evidence/; its hash goes on record.",
)


@click.group()
def sources() -> None:
    """Licence records: who may train on what, by which evidence, and what was withdrawn."""


@sources.command()
@click.argument("source_id")
@click.option("--track", "tracks", multiple=True, help="Track id, or a file's name without suffix; repeat it for more.")
@click.option("--tracks-in", "folder", help="Every audio file of this folder of raw/, such as partnerships/label-7.")
@click.option("--type", "source_type", type=click.Choice(SOURCE_TYPES), required=True)
@click.option("--provider", required=True, help="Platform or artist.")
@click.option("--licence", "license_type", required=True, help="Id or alias of config/licenses.yaml.")
@click.option("--acquired", "date_acquired", required=True, help="YYYY-MM-DD.")
@click.option("--cost", type=float, help="US dollars; commissioned work must have it.")
@click.option("--attribution", help="Text that the model card has to carry.")
@click.option("--notes", help="Anything else about the licence.")
@click.option("--verified-by", help="Who confirmed the rights.")
@click.option("--ai-training-rights", is_flag=True, help="The rights holder explicitly permits AI training.")
@evidence_option
@evidence_file_option
def add(tracks: tuple[str, ...], folder: str | None, evidence_file: Path | None, **stated: Any) -> None:
    """Add a record that claims tracks; a bad one is refused with the field and what it should be."""
    from lofi_assets.sources import ledger

    store = Store(data_root())
    track_ids = [*_ids(store, tracks), *(_tracks_in(store, folder) if folder else ())]
    record = ledger.add(
        store,
        {**stated, "track_ids": track_ids},
        evidence_file=evidence_file,
        licences=_licences(),
        today=_today(),
        latest=_latest_day(),
    )
    click.echo(f"source {record.source_id}: {counted(len(record.track_ids), 'track')} added")
    _say_what_holds(store, record.source_id)


@sources.command()
@click.argument("source_id")
@click.option("--by", required=True, help="Your name; it goes on record.")
@evidence_option
@evidence_file_option
def verify(source_id: str, by: str, evidence: str | None, evidence_file: Path | None) -> None:
    """Confirm the AI training rights of a source, by the recorded evidence or a better one."""
    from lofi_assets.sources import ledger

    store = Store(data_root())
    proof: dict[str, Any] = {"evidence": evidence, "evidence_file": evidence_file}
    record = ledger.verify(store, source_id, by=by, **proof, licences=_licences(), today=_today())
    click.echo(f"source {source_id}: AI training rights confirmed by {by} on {record.verified_on}, {record.evidence}")
    _say_what_holds(store, source_id)


@sources.command()
@click.argument("source_id")
@click.option("--track", help="Only this track of the source: its id, or its file's name without suffix.")
@click.option("--reason", required=True, help="Why the rights ended; it goes on record.")
@click.option("--by", required=True, help="Your name; it goes on record.")
def revoke(source_id: str, track: str | None, reason: str, by: str) -> None:
    """Withdraw a licence: its tracks leave the dataset, and what was trained on them cannot be released."""
    from lofi_assets.sources import ledger
    from lofi_assets.sources.ledger_page import used_in
    from lofi_assets.training.made_from import uses

    store = Store(data_root())
    named = _ids(store, [track])[0] if track else None
    tracks = ledger.revoke(store, source_id, track=named, reason=reason, by=by, today=_today())
    concerned = used_in(uses(store), tracks)
    click.echo(f"revoked: {', '.join(tracks) or source_id}")
    for use in concerned:
        click.echo(f"made from them, not to be published: {use.kind} {use.name}")
    click.echo("now materialise licensed_sources and what follows it; with `make dev` running that happens by itself")


@sources.command("list")
@click.option("--strict", is_flag=True, help="Exit non-zero: a record is invalid, or a file lacks exactly one claim.")
def list_sources(strict: bool) -> None:
    """Every record with its tracks and whether it holds today; every file without exactly one claim."""
    from rich.console import Console

    store = Store(data_root())
    found = _survey(store)
    Console(width=None if sys.stdout.isatty() else 160).print(*_tables(found))
    for problem in found.problems:
        click.echo(f"not used: {problem}", err=True)
    for text in found.unread:
        click.echo(text, err=True)
    if strict and not found.clean:
        raise click.exceptions.Exit(1)


@sources.command()
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="File to write; default: print it.")
def report(output: Path | None) -> None:
    """The ledger as a lawyer could read it, in Markdown."""
    from lofi_assets.files.documents import write_text
    from lofi_assets.sources.ledger_page import ledger_page
    from lofi_assets.training.made_from import uses

    store = Store(data_root())
    page = ledger_page(store, _survey(store), made=uses(store), today=_today())
    if output is None:
        click.echo(page, nl=False)
    else:
        click.echo(f"{output}: {'written' if write_text(output, page) else 'current'}")


def _ids(store: Store, names: Sequence[str]) -> list[str]:
    """Track ids, also of files that are given by their own name: an id in ASCII does not always say it."""
    from lofi_assets.sources.raw_files import track_id_of, tree_of

    ids = {unicodedata.normalize("NFC", path.stem): track_id_of(path) for path in tree_of(store.raw).audio}
    known = set(ids.values())
    return [name if name in known else ids.get(unicodedata.normalize("NFC", name), name) for name in names]


def _tracks_in(store: Store, folder: str) -> list[str]:
    from lofi_assets.sources.raw_files import list_raw, tree_of

    wanted = store.raw / folder
    files = [file for file in list_raw(store, tree_of(store.raw)) if not file.fault]
    found = sorted({file.track_id for file in files if wanted in (store.root / file.path).parents})
    if not found:
        raise click.ClickException(f"--tracks-in {folder}: no audio file under {wanted}")
    return found


def _say_what_holds(store: Store, source_id: str) -> None:
    (state,) = (state for state in _survey(store).states if state.record.source_id == source_id)
    if state.rule:
        click.echo(f"not usable yet, {state.rule}: {state.reason}")
    if state.rule == "licence.ai_training_rights":
        click.echo(
            f"once a person has confirmed the rights: lofi sources verify {shlex.quote(source_id)} --by NAME "
            "[--evidence ADDRESS | --evidence-file FILE]"
        )
    missing = len(set(state.record.track_ids)) - len(state.files)
    if missing:
        click.echo(f"{missing} of its tracks have no file of their own under raw/")


def _survey(store: Store) -> "Survey":
    from lofi_assets.constitution.gates import load_gates
    from lofi_assets.sources.ledger_page import survey

    return survey(store, licences=_licences(), gates=load_gates(), today=_latest_day())


def _licences() -> "LicenceTable":
    from lofi_assets.sources.licences import load_licences
    from lofi_assets.store import CONFIG_DIR

    return load_licences(CONFIG_DIR)


def _latest_day() -> date:
    from lofi_assets.sources.rights import latest_day

    return latest_day(datetime.now(UTC))


def _today() -> date:
    return datetime.now(UTC).date()


def _tables(found: "Survey") -> list[Any]:
    from rich.markup import escape
    from rich.table import Table

    records = Table(title="Sources", title_justify="left")
    for column in ("source", "type", "provider", "licence", "tracks", "files", "usable", "today"):
        records.add_column(column, overflow="fold")
    for state in found.states:
        record = state.record
        licence = f"{record.license_type} ({state.licence.status})"
        today = f"[red]{state.rule}[/] {escape(state.reason)}" if state.rule else "[green]holds[/]"
        if state.withdrawn and not state.rule:
            today += f", {counted(len(state.withdrawn), 'track')} revoked"
        counts = (len(set(record.track_ids)), len(state.files), state.usable)
        texts = (record.source_id, record.source_type, record.provider, licence)
        records.add_row(*map(escape, texts), *map(str, counts), today)
    stray = Table(title="Files without exactly one claim: not used", title_justify="left")
    for column in ("file", "track id", "rule", "why"):
        stray.add_column(column, overflow="fold")
    for row in found.stray:
        stray.add_row(escape(row.file.path), row.file.track_id, row.rule, escape(row.reason))
    return [records, stray] if found.stray else [records]
