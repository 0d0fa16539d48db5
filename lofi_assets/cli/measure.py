"""`lofi fad`, `kad`, `clap`, `copies`, `compare`, `convert-clap`: folders of audio measured, a checkpoint converted."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from lofi_assets.files.typed import Stored, plain

Command = TypeVar("Command", bound=Callable[..., Any])

FOLDER = click.Path(path_type=Path)
TOP = 12
"""Clips that a table shows; `--json` has all."""


class Level(click.ParamType[float | str]):
    """A loudness, or `own`."""

    name = "LUFS|own"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        """The number; "own" stays."""
        if value == "own":
            return "own"
        try:
            level = float(value)
        except ValueError:
            level = 1.0
        if not -70.0 <= level <= 0.0:
            self.fail(f"{value!r} is neither a loudness from -70 to 0 LUFS nor own", param, ctx)
        return level


def heard(command: Command) -> Command:
    """The options of every command that asks an encoder."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table."),
        click.option("--device", default="cpu", show_default=True, help="Torch device, for instance cuda."),
        click.option("--cache", "cache_dir", type=FOLDER, help="Folder that keeps embeddings for the next time."),
        click.option(
            "--level",
            type=Level(),
            default=-23.0,
            show_default=True,
            help="Loudness that clips are brought to before they are heard; own: none.",
        ),
    ):
        command = option(command)
    return command


def encoded(command: Command) -> Command:
    """The options of every command that may choose the encoder."""
    for option in (
        click.option("--seed", default=0, show_default=True, help="Of the draws behind interval and floor."),
        click.option("--weights", type=FOLDER, help="VGGish: the published .pth; CLAP: a folder of lofi convert-clap."),
        click.option(
            "--encoder",
            type=click.Choice(["musicnn", "vggish", "laion_clap"]),
            default="musicnn",
            show_default=True,
            help="What hears the clips.",
        ),
    ):
        command = option(command)
    return heard(command)


@click.command()
@click.argument("reference", type=FOLDER)
@click.argument("folder", type=FOLDER)
@encoded
def fad(reference: Path, folder: Path, level: float | str, as_json: bool, **options: Any) -> None:
    """Frechet audio distance of FOLDER from REFERENCE, with interval, floor, encoder and what that proved.

    Exits 1 without a number where there is none to trust: fewer than two clips, a file that cannot be read, an encoder
    that is not proven trained.
    """
    from lofi_assets.measure import fad as measure

    found = measure(reference, folder, lufs=_lufs(level), **options)
    _tell(found, as_json, [{"": name, "value": value} for name, value in _distances(found.result, "fad").items()])


@click.command()
@click.argument("reference", type=FOLDER)
@click.argument("folder", type=FOLDER)
@encoded
def kad(reference: Path, folder: Path, level: float | str, as_json: bool, **options: Any) -> None:
    """Kernel audio distance of FOLDER from REFERENCE; as fad."""
    from lofi_assets.measure import kad as measure

    found = measure(reference, folder, lufs=_lufs(level), **options)
    _tell(found, as_json, [{"": name, "value": value} for name, value in _distances(found.result, "kad").items()])


@click.command()
@click.argument("folder", type=FOLDER)
@click.option("--prompts", type=FOLDER, required=True, help="CSV (columns file, prompt) or JSON object of both.")
@click.option("--weights", type=FOLDER, required=True, help="Folder of a CLAP model: lofi convert-clap makes one.")
@heard
def clap(folder: Path, prompts: Path, weights: Path, level: float | str, as_json: bool, **options: Any) -> None:
    """Mean CLAP cosine of the clips of FOLDER with their prompts, beside that with each other's prompts."""
    from lofi_assets.measure import clap as measure

    found = measure(folder, prompts, weights=weights, lufs=_lufs(level), **options)
    told = {name: value for name, value in plain(found).items() if name not in ("folder", "encoder", "clips")}
    worst = [{"": f"clip {name}", "value": value} for name, value in list(found.clips.items())[:TOP]]
    _tell(found, as_json, [*({"": name, "value": value} for name, value in told.items()), *worst])


@click.command()
@click.argument("reference", type=FOLDER)
@click.argument("folder", type=FOLDER)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
def copies(reference: Path, folder: Path, as_json: bool) -> None:
    """For each clip of FOLDER the recording of REFERENCE that it agrees with most, by fingerprint.

    Exits 0 whatever was found; a copy is said in the table and in the JSON.
    """
    from lofi_assets.measure import copies as measure

    found = measure(reference, folder)
    rows = [{"clip": name, **plain(nearest)} for name, nearest in list(found.clips.items())[:TOP]]
    _tell(found, as_json, rows)
    if not as_json:
        click.echo(
            f"{found.copied} of {len(found.clips)} clips are copies; highest {found.highest:.3f}, "
            f"two recordings of the reference {found.floor:.3f}"
        )


@click.command()
@click.argument("reference", type=FOLDER)
@click.argument("folders", type=FOLDER, nargs=-1, required=True)
@encoded
def compare(reference: Path, folders: tuple[Path, ...], level: float | str, as_json: bool, **options: Any) -> None:
    """FAD, KAD and copies of every one of FOLDERS against REFERENCE, a row each."""
    from lofi_assets.measure import compare as measure

    found = measure(reference, *folders, lufs=_lufs(level), **options)
    rows = []
    for name, result in found.folders.items():
        near = found.copies[name]
        rows.append(
            {"folder": name, "FAD": result.value, "95 %": result.interval, "floor": result.floor, "KAD": result.kad}
            | {"clips": result.n_clips, "windows": result.n_windows, "reference clips": result.n_reference_clips}
            | {"nearest": near.highest, "copies": near.copied, "note": result.note}
        )
    _tell(found, as_json, rows)


@click.command("convert-clap")
@click.argument("checkpoint", type=FOLDER)
@click.argument("folder", type=FOLDER)
@click.option("--tokenizer", type=FOLDER, help="Folder of roberta-base's tokenizer; nothing is fetched.")
@click.option("--memory", "memory_gb", default=12.0, show_default=True, help="GB that reading may use.")
@click.option("--timeout", "timeout_s", default=900.0, show_default=True, help="Seconds that reading may take.")
def convert_clap(checkpoint: Path, folder: Path, tokenizer: Path | None, memory_gb: float, timeout_s: float) -> None:
    """Write laion-clap's CHECKPOINT, e.g. music_audioset_epoch_15_esc_90.14.pt, as the new FOLDER that CLAP loads from.

    Only tensors are read, in a process of its own; an unknown or missing one is an error. Then the model is asked what
    it can do: it exits 1 if that does not prove it trained, and leaves the folder there.
    """
    from lofi_assets.metrics.clap import ClapEmbedder
    from lofi_assets.metrics.clap_conversion import convert_clap as convert
    from lofi_assets.metrics.errors import MetricError
    from lofi_assets.metrics.proof import why_untrained

    made = convert(checkpoint, folder, tokenizer=tokenizer, memory_gb=memory_gb, timeout_s=timeout_s)
    click.echo(f"{folder}: from {made.source} (sha256 {made.source_sha256})")
    click.echo(f"{len(made.left_out)} tensors left out: training heads, classifier, fixed filters, counts")
    encoder = ClapEmbedder.load(folder)
    if not encoder.trained:
        raise MetricError(f"{folder}: converted, but {why_untrained(encoder)}")
    click.echo(f"trained: {encoder.proof.text}")


def _lufs(level: float | str) -> float | None:
    return None if level == "own" else float(level)


def _distances(result: Stored, measure: str) -> dict[str, Any]:
    """The fields that belong to one of the two distances, and those that belong to both."""
    both = {"n_clips", "n_windows", "n_reference_clips", "n_reference_windows", "enough_windows", "note"}
    of_kad = {name for name in plain(result) if name.startswith("kad")}
    return {
        "FAD" if name == "value" else name: value
        for name, value in plain(result).items()
        if (name in both or (name in of_kad) == (measure == "kad")) and not isinstance(value, Mapping)
    }


def _tell(found: Any, as_json: bool, rows: Iterable[Mapping[str, Any]]) -> None:
    """The whole result as JSON, or rows as a table under what heard them."""
    if as_json:
        click.echo(json.dumps(plain(found), ensure_ascii=False, allow_nan=False))
        return
    from rich.table import Table

    from lofi_assets.cli.console import console

    if used := getattr(found, "encoder", None):
        level = "own level" if used.lufs is None else f"{used.lufs:g} LUFS"
        click.echo(f"{used.name} {used.version}, weights {used.weights_sha256[:12]}, clips at {level}")
        click.echo(f"proof: {used.proof.text}")
    rows = list(rows)
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*map(_shown, row.values()))
    console.print(table)


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return " to ".join(map(_shown, value)) or "-"
    return str(value)
