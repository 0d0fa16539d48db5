"""`lofi lora`: LoRAs of any origin, looked at, written in another form, heard and measured."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from lofi_assets.profiles import load_profile
from lofi_assets.store import Store, data_root

if TYPE_CHECKING:
    from lofi_assets.training.adapter_forms.adapter import Adapter
    from lofi_assets.training.adapter_forms.inspection import Inspected

FILE = click.Path(path_type=Path, exists=True)
Command = TypeVar("Command", bound=Callable[..., Any])


def read_for(command: Command) -> Command:
    """The options that say for which base a file is read, and how strongly."""
    for option in (
        click.option("--strength", type=float, help="Factor on B A, in place of what the file says."),
        click.option(
            "--base", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Base model's folder."
        ),
        click.option(
            "--profile", "profile_name", help="Profile whose base it is for; default LOFI_PROFILE, else demo."
        ),
        click.argument("file", type=FILE),
    ):
        command = option(command)
    return command


@click.group()
def lora() -> None:
    """LoRAs of ACE-Step, PEFT, diffusers, SimpleTuner and ComfyUI, and checkpoints of this project."""


@lora.command()
@read_for
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def inspect(file: Path, as_json: bool, **asked: Any) -> None:
    """What FILE (or a folder) is: form, ranks, strength and where it stands, norms per block, what it says of itself.

    Every tensor is held against the base; a pickle, a LoRA for another model or one that says two strengths exits 1.
    """
    from lofi_assets.files.typed import plain
    from lofi_assets.training.adapter_forms.inspection import inspected

    found = inspected(_read(file, **asked), file)
    if as_json:
        click.echo(json.dumps(plain(found), ensure_ascii=False, allow_nan=False))
    else:
        _tell(found)


@lora.command()
@read_for
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--to", required=True, type=click.Choice(["peft", "diffusers", "comfyui"]), help="Whose form.")
def convert(file: Path, directory: Path, to: Any, **asked: Any) -> None:
    """Write FILE into the folder DIRECTORY in another form, at the same strength; ACE-Step's pipeline takes diffusers'.

    The strength goes into B, so that a reader that takes it from nowhere applies it too.
    """
    from lofi_assets.training.adapter_forms.writing import write_lora

    adapter = _read(file, **asked)
    for path in write_lora(adapter, directory, to=to):
        click.echo(f"{path} ({path.stat().st_size:,} bytes)")
    click.echo(f"from {file} ({adapter.form}), strength: {adapter.strength}")


@lora.command()
@click.argument("file", type=FILE)
@click.option("--profile", "profile_name", help="Whose sampling and evaluation; default LOFI_PROFILE, else demo.")
@click.option("--strength", type=float, help="Factor on B A, in place of what the file says.")
@click.option("--json", "as_json", is_flag=True, help="Everything measured, as one JSON object.")
def evaluate(file: Path, profile_name: str | None, strength: float | None, as_json: bool) -> None:
    """Sample FILE with the prompts and seeds of the checkpoints and measure it beside them and the base.

    It takes the base and the validation tracks of the data root. No gate sees it, and nothing is released.
    """
    from lofi_assets.evaluation.lora import evaluate_lora
    from lofi_assets.files.typed import plain
    from lofi_assets.training.adapter_forms.reading import layers_of, read_lora
    from lofi_assets.training.feature_cache import FeatureRecord

    store, profile = Store(data_root()), load_profile(profile_name)
    features = FeatureRecord.read(store)
    adapter = read_lora(file, layers_of(features.backbone, Path(features.base)), strength=strength)
    found = evaluate_lora(store, profile, adapter)
    if as_json:
        click.echo(json.dumps(plain(found), ensure_ascii=False, allow_nan=False))
        return
    from rich.table import Table

    from lofi_assets.cli.console import console

    table = Table(*found.rows[0])
    for row in found.rows:
        table.add_row(*("-" if value is None else str(value) for value in row.values()))
    console.print(table)
    click.echo(f"clips: {found.clips}; strength: {adapter.strength}")
    for note in found.notes:
        click.echo(note)


def _read(file: Path, *, profile_name: str | None, base: Path | None, strength: float | None) -> "Adapter":
    from lofi_assets.training.adapter_forms.adapter import AdapterError
    from lofi_assets.training.adapter_forms.reading import layers_of, read_lora
    from lofi_assets.training.base_model import backbone_for, base_on_disk

    profile = load_profile(profile_name)
    where = base or base_on_disk(Store(data_root()), profile.base_model)
    try:
        return read_lora(file, layers_of(backbone_for(profile.base_model), where), strength=strength)
    except AdapterError as error:
        named = str(base) if base else f"the base of the profile {profile.name}"
        raise AdapterError(f"{error} (read for {named}; --profile or --base names another)") from error


def _tell(found: "Inspected") -> None:
    from rich.table import Table

    from lofi_assets.cli.console import console

    rows = {
        "form": found.form,
        "files": ", ".join(found.files),
        "sha256": found.sha256,
        "rank": _counts(found.ranks),
        "strength": f"{_counts(found.strengths)} ({found.strength_from})",
        "parameters": f"{found.parameters:,}{', DoRA' if found.dora else ''}",
        "layers": ", ".join(f"{kind} {count}" for kind, count in found.layers.items()),
        "checkpoint": found.checkpoint,
        **{f"says {name}": value for name, value in found.said.items()},
    }
    for name, value in rows.items():
        if value:
            click.echo(f"{name:12} {value}")
    table = Table("block", "layers", "norm of the change")
    for name, block in found.blocks.items():
        table.add_row(name, str(block.layers), f"{block.norm:.4g}")
    console.print(table)
    for note in found.notes:
        click.echo(note)


def _counts(counts: dict[int, int] | dict[float, int]) -> str:
    """`16`; `16 (210 layers), 8 (1)`."""
    if len(counts) == 1:
        return f"{next(iter(counts)):g}"
    return ", ".join(f"{value:g} ({number} layers)" for value, number in counts.items())
