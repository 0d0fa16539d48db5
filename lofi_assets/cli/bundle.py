"""`lofi generate` and `lofi tiers`: music from a bundle, and what its tiers are."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lofi_assets.store import Store, data_root

if TYPE_CHECKING:
    from lofi_assets.release.tier_report import TierReport

TIERS = ("fp16", "int8", "int4")


@click.command()
@click.argument("prompt")
@click.option(
    "--bundle", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Default: export/ of the data root."
)
@click.option("--lyrics", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Text file.")
@click.option("--language", help="Of the lyrics, as de. Default: found out.")
@click.option("--tier", type=click.Choice(TIERS), default="fp16", show_default=True)
@click.option("--seconds", type=float, default=30.0, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--steps", type=int, help="Default: as many as the tiers were measured with.")
@click.option("--guidance-scale", type=float, help="Default: the one that the tiers were measured with.")
@click.option("--threads", type=int, help="Default: ONNX Runtime's choice.")
@click.option("--no-cpu-graph", is_flag=True, help="Take the graph that every provider runs.")
@click.option("--latents", type=click.Path(path_type=Path), help="Write the latents here too, as .npy.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=Path("out.wav"), show_default=True,
    help="A .wav, or a .npy for float32.",
)  # fmt: skip
def generate(
    prompt: str,
    bundle: Path | None,
    lyrics: Path | None,
    language: str | None,
    tier: str,
    seconds: float,
    seed: int,
    steps: int | None,
    guidance_scale: float | None,
    threads: int | None,
    no_cpu_graph: bool,
    latents: Path | None,
    output: Path,
) -> None:
    """Music for PROMPT (comma-separated tags) from a bundle, with this package's own runtime."""
    from lofi_assets.lofi_onnx.clip import ClipError, write_clip
    from lofi_assets.lofi_onnx.description import DescriptionError
    from lofi_assets.lofi_onnx.pipeline import RuntimeFolderError
    from lofi_assets.lyrics.spelling import LyricError

    try:
        told = write_clip(
            bundle or Store(data_root()).export,
            prompt,
            output=output,
            tier=tier,
            lyrics=lyrics.read_text(encoding="utf-8") if lyrics else "",
            language=language,
            seconds=seconds,
            seed=seed,
            steps=steps,
            guidance_scale=guidance_scale,
            latents=latents,
            threads=threads,
            cpu_graph=not no_cpu_graph,
        )
    except (ClipError, DescriptionError, RuntimeFolderError, LyricError, UnicodeDecodeError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(told)


@click.command()
@click.argument("directory", required=False, type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--runs", type=click.IntRange(0), default=5, show_default=True, help="Calls timed; 0: no speed.")
@click.option("--threads", type=int, help="Default: ONNX Runtime's choice.")
@click.option("--layers", "by_layer", is_flag=True, help="What each layer costs in 4 and in 8 bits, the dearest first.")
@click.option("--json", "as_json", is_flag=True)
def tiers(directory: Path | None, runs: int, threads: int | None, by_layer: bool, as_json: bool) -> None:
    """What the tiers of DIRECTORY are (a bundle; default: quantized/ of the data root), and how fast here.

    Opset, operator domains, bits, size and SNR against FP32 of every file; then size, speed against FP32 (where it is
    beside them) and FAD against FP32 with its 95 % bound.

    A tier outside its tolerance: --layers says which layers of the denoiser it loses most by.
    """
    from lofi_assets.release.tier_report import tier_report

    store = Store(data_root())
    root = directory or store.quantized
    own = store if root.resolve() == store.quantized.resolve() else None
    found = tier_report(root, store=own, runs=0 if by_layer else runs, threads=threads)
    if as_json:
        click.echo(json.dumps(asdict(found), allow_nan=False))
        return
    from rich.table import Table

    from lofi_assets.cli.console import console

    if by_layer:
        _print_layers(found, root)
        return
    parts = Table("tier", "component", "opset", "domains", "bits", "MB", "of FP32", "SNR dB")
    for part in found.parts:
        bits = " ".join(f"{bits}:{100 * share:.1f}%" for bits, share in part.bits.items())
        parts.add_row(
            *(part.tier, part.component, str(part.opset), ", ".join(part.domains), bits, f"{part.megabytes:.2f}"),
            *(_shown(part.of_fp32), _shown(part.snr_db, ".1f")),
        )
    whole = Table("tier", "MB", "of FP32", "ms a call", "times FP32", "FAD over FP32", "95 %: at most", "note")
    for row in found.variants:
        whole.add_row(
            *(row.variant, f"{row.megabytes:.2f}", _shown(row.of_fp32), _shown(row.milliseconds, ".1f")),
            *(_shown(row.times_fp32, ".2f"), _shown(row.fad_increase, "+.1%"), _shown(row.fad_upper, "+.1%")),
            row.fad_note,
        )
    console.print(parts)
    console.print(whole)


def _print_layers(found: "TierReport", root: Path) -> None:
    from rich.table import Table

    from lofi_assets.cli.console import console

    if not found.layers:
        raise click.ClickException(
            f"{root}: INT4 has no record of its layers; materialise quantized_tiers, which measures"
        )
    table = Table("layer", "weights", "dB, alone in 4 bits", "dB, alone in 8 bits", "stored in")
    for row in found.layers:
        table.add_row(row.layer, f"{row.elements:,}", f"{row.snr_db_4:.1f}", f"{row.snr_db_8:.1f}", f"{row.bits} bits")
    console.print(table)


def _shown(value: float | None, form: str = ".3f") -> str:
    return "-" if value is None else format(value, form)
