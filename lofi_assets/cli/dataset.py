"""`lofi dataset`: the versions of the training set."""

import json
import sys
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lofi_assets.store import Store, data_root

if TYPE_CHECKING:
    from lofi_assets.dataset.difference import Difference
    from lofi_assets.records import Split

REBUILD = "move it away and materialise dataset_manifest, which writes it again"
EARLIER = "restore it from a backup; as an earlier version it is needed only to judge what was trained on it"
EXAMPLES = 10
"""Tracks of each kind that a difference names; `--json` names them all."""


@click.group()
def dataset() -> None:
    """Versions of the training set: list, compare, verify, export."""


@dataset.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON array.")
def list_versions(as_json: bool) -> None:
    """Every version that was built, oldest first; * is the current one."""
    from lofi_assets.dataset.versions import recorded_dataset, version_record, versions
    from lofi_assets.records import dump

    store = Store(data_root())
    current = recorded_dataset(store)
    found = [(record, folder) for folder in versions(store) if (record := version_record(folder))]
    found.sort(key=lambda version: (version[0].created, version[0].dataset_id))
    marked = [(record, folder, bool(current and record.dataset_id == current.dataset_id)) for record, folder in found]
    if as_json:
        rows = [dump(record) | {"folder": str(folder), "current": mark} for record, folder, mark in marked]
        click.echo(json.dumps(rows, indent=2))
        return
    for record, _, mark in marked:
        click.echo(
            f"{'*' if mark else ' '} {record.dataset_id}  {record.created:%Y-%m-%dT%H:%M:%S}  "
            f"{record.track_count} tracks ({record.train_count} train, {record.validation_count} validation), "
            f"{record.total_duration:.2f} h"
        )
    if not found:
        click.echo(f"{store.datasets}: no version yet; materialise dataset_manifest")


@dataset.command()
@click.argument("before")
@click.argument("after", default="")
@click.option("--json", "as_json", is_flag=True, help="Everything, as one JSON object.")
def diff(before: str, after: str, as_json: bool) -> None:
    """What changed from version BEFORE to AFTER (default: the current one); ids may be shortened."""
    from lofi_assets.dataset.difference import difference
    from lofi_assets.dataset.versions import find_version

    store = Store(data_root())
    found = difference(find_version(store, before), find_version(store, after))
    click.echo(json.dumps(asdict(found), indent=2, ensure_ascii=False) if as_json else difference_text(found))


def difference_text(found: "Difference") -> str:
    """A difference for people: totals, then up to ten tracks of each kind."""
    lines = [" -> ".join(found.versions)]
    steps: list[tuple[str, tuple[float, float]]] = [("tracks", found.tracks), ("hours", found.hours)]
    steps += found.splits.items()
    steps += [(name, counts) for name, counts in found.styles.items() if counts[0] != counts[1]]
    lines += [f"  {name}: {_step(*counts)}" for name, counts in steps]
    for kind, track_ids in (("added", found.added), ("removed", found.removed)):
        lines += _named(kind, [f"  {track_id}" for track_id in track_ids])
    for field, tracks in found.changed.items():
        told = [f"  {key}: {_short(first)} -> {_short(second)}" for key, (first, second) in tracks.items()]
        lines += _named(f"{field} changed", told)
    same = not (found.added or found.removed or any(found.changed.values()))
    return "\n".join([*lines, *(["no track differs"] if same else [])])


def _step(first: float, second: float) -> str:
    return f"{first:g} -> {second:g} ({second - first:+g})" if first != second else f"{first:g}"


def _named(kind: str, lines: list[str]) -> list[str]:
    rest = [f"  ... and {len(lines) - EXAMPLES} more (--json names them)"] if len(lines) > EXAMPLES else []
    return [f"{kind}: {len(lines)}", *lines[:EXAMPLES], *rest] if lines else []


def _short(value: object) -> str:
    text = ", ".join(value) if isinstance(value, list) else str(value)
    text = " / ".join(text.splitlines())
    return text if len(text) <= 60 else f"{text[:57]}..."


@dataset.command()
@click.argument("version", default="")
@click.option("--all", "every", is_flag=True, help="Every version, not only one.")
def verify(version: str, every: bool) -> None:
    """Read every file of VERSION (default: the current one) again; non-zero if anything is not as recorded."""
    from lofi_assets.dataset.build import verify_dataset
    from lofi_assets.dataset.verification import dataset_faults
    from lofi_assets.dataset.versions import current_version, find_version, versions
    from lofi_assets.files.hashing import sha256_file

    store = Store(data_root())
    current = current_version(store)
    folders = versions(store) if every else [find_version(store, version)]
    broken = False
    for folder in folders:
        sha256 = cache(sha256_file)
        faults = dataset_faults(folder, sha256=sha256)
        intact = not faults and verify_dataset(folder, sha256=sha256)
        broken = broken or not intact
        if not intact and not faults:
            faults = [f"{folder}: the content no longer has the recorded hash: split, styles or sources were changed"]
        for fault in faults:
            click.echo(fault, err=True)
        remedy = REBUILD if folder == current else EARLIER
        click.echo(f"{folder.name}: {'intact' if intact else f'BROKEN: {remedy}'}")
    sys.exit(1 if broken else 0)


@dataset.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--version", default="", help="Which version; the current one if left out.")
@click.option("--split", type=click.Choice(["train", "validation"]), default="train", show_default=True)
@click.option(
    "--for",
    "reader",
    type=click.Choice(["ace-step", "simpletuner"]),
    default="ace-step",
    show_default=True,
    help="Whose trainer.",
)
@click.option("--repeat-count", type=click.IntRange(1), default=1, show_default=True, help="Longer epochs, no space.")
@click.option("--absolute", is_flag=True, help="Absolute audio paths, for a trainer started from anywhere.")
def export(directory: Path, version: str, split: "Split", reader: str, repeat_count: int, absolute: bool) -> None:
    """Write DIRECTORY for a public trainer: its dataset, and copies of the audio.

    For SimpleTuner: .txt and .lyrics beside each MP3, and columns for datasets.load_dataset(DIRECTORY).
    """
    from lofi_assets.dataset.trainer_format import export_dataset
    from lofi_assets.dataset.versions import find_version

    folder = find_version(Store(data_root()), version)
    if reader == "simpletuner":
        if repeat_count > 1 or absolute:
            raise click.UsageError("SimpleTuner takes repeats and paths from its own backend's configuration")
        _export_for_simpletuner(folder, directory, split)
        return
    tracks = export_dataset(folder, directory, split=split, repeat_count=repeat_count, absolute=absolute)
    click.echo(f"{directory}: {tracks} tracks of {folder.name} ({split}), {tracks * repeat_count} rows")
    start = "anywhere" if absolute else str(directory)
    click.echo(f"start the trainer from {start} with --dataset_path {directory.resolve() / 'dataset'}")


def _export_for_simpletuner(folder: Path, directory: Path, split: "Split") -> None:
    from lofi_assets.dataset.simpletuner_format import export_for_simpletuner

    tracks = export_for_simpletuner(folder, directory, split=split)
    click.echo(f"{directory}: {tracks} tracks of {folder.name} ({split})")
    audio = directory.resolve() / split
    click.echo(f"in its backend: type local, dataset_type audio, caption_strategy textfile, instance_data_dir {audio}")
    click.echo(
        f"or type huggingface, dataset_type audio, caption_strategy huggingface, dataset_name {directory.resolve()}"
    )
