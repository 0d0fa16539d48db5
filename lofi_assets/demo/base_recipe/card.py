"""The card and the pictures that lie beside the weights, from `report.json`, the plan and the logs.

Nothing is measured here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lofi_assets import pictures
from lofi_assets.backbones.ace_step_v1.frame_rates import MEL_RATE
from lofi_assets.demo.base_recipe import beats
from lofi_assets.demo.base_recipe.genres import GENRES, STEADY_BPM, STEADY_GENRES
from lofi_assets.demo.base_recipe.listening import Sound
from lofi_assets.demo.base_recipe.recipe import RecipeRun
from lofi_assets.demo.base_recipe.settings import IN_TIME_STAGES
from lofi_assets.demo.base_recipe.stage import losses_of
from lofi_assets.files.documents import write_text

POINTS = 2000
"""Most points of a loss curve: more are not seen."""
LABELS = {
    "dcae": "log-mel error, nats",
    "clock": "log-mel error with marks, nats",
    "vocoder": "spectral loss",
    "edges": "log-mel error to sharper images, nats",
    "steady": "velocity error",
    "transformer": "velocity error",
    "bars": "velocity error",
    "beats": "velocity error",
}


def write_card(recipe_run: RecipeRun, report: Mapping[str, Any], sounds: Mapping[str, Sound]) -> None:
    """Write README.md, the loss curves and the spectrograms into the base's folder."""
    folder = recipe_run.base
    write_text(folder / "README.md", card_text(recipe_run, report))
    for name in recipe_run.stages:
        curve = list(losses_of(recipe_run.stage(name)))
        thinned = curve[:: max(1, len(curve) // POINTS)]
        _write(folder / f"loss_{name}.png", pictures.loss_curve(thinned, label=LABELS[name]))
    clips = [sound.samples for sound in sounds.values()]
    picture = pictures.spectrogram_grid({"mel": clips}, heads=list(sounds), sample_rate=MEL_RATE)
    _write(folder / "spectrograms.png", picture)


def card_text(recipe_run: RecipeRun, report: Mapping[str, Any]) -> str:
    """The card in Markdown."""
    recipe = recipe_run.recipe
    hours = sum(stage["hours"] for stage in report["training"].values())
    size = sum(path.stat().st_size for path in recipe_run.base.rglob("*.safetensors")) / 1e6
    fad, error, adherence = report["fad"], report["mel_error_nats"], report["adherence"]
    lines = [
        "---",
        "license: apache-2.0",
        "---",
        "# A small ACE-Step v1 base, trained on synthesised music",
        "",
        f"Made by `lofi train-base --preset {recipe.preset}` of lofi_assets, seed {recipe.seed}, on a CPU,",
        f"in {hours:.2f} hours;",
        f"{size:.1f} MB of float16 in the folder layout of ACE-Step/ACE-Step-v1-3.5B, read by the same loader.",
        "All music that it heard is synthesised by the recipe itself; no recording of anybody is in it.",
        f"Its transformer first heard {recipe.steady.clips} clips of {recipe.corpus.seconds:g} s that keep time:",
        f"{', '.join(STEADY_GENRES)}, at {', '.join(f'{bpm:.0f}' for bpm in sorted(STEADY_BPM))} BPM;",
        f"then these and {recipe.corpus.clips} of {len(GENRES)} genres at any tempo and in any key.",
        *_heard_last(recipe_run),
        "It has not heard lofi: that is what a LoRA teaches it.",
        f"Its DCAE and vocoder heard the latter, and {recipe.corpus.worn} more on worn tape.",
        "Weights and code: Apache-2.0.",
        "",
        "| stage | steps | hours |",
        "|---|---|---|",
        *(f"| {name} | {row['steps']} | {row['hours']} |" for name, row in report["training"].items()),
        "",
        "## Figures",
        "",
        "MusiCNN-FAD on level-normalised windows, one a second; compare only with the marks beside it.",
        "",
        "| of | to lofi | to clean music |",
        "|---|---|---|",
        *(_fad_row(name, fad) for name in dict.fromkeys([*fad["to lofi"], *fad["to clean"]])),
        "",
        f"- Log-mel error of the round trip: {error['lofi']:.2f} nats on lofi, {error['clean']:.2f} on clean music.",
        f"- Latents: mean {report['latents']['mean']:.2f}, standard deviation {report['latents']['std']:.2f}.",
        f"- Prompts: clips fit their own prompts better than the other kind's by {adherence['auc_gain']:+.3f} AUC,",
        f"  95 % interval {adherence['interval']}, {adherence['clips']} clips (tags, not CLAP);"
        f" true music by {adherence['true music']['auc_gain']:+.3f}, {adherence['true music']['interval']}.",
        *(tempo_row(row) for row in report["tempo"].values()),
        f"- Nearest training clip: fingerprint similarity at most {report['nearest']['most_similar']:.2f}",
        f"  (pieces it never heard: {report['nearest']['held_out_most_similar']:.2f}; a copy is above 0.85);"
        f" copies: {report['nearest']['copies']}.",
        "",
        "![Spectrograms](spectrograms.png)",
        *(f"![Loss of the {name}](loss_{name}.png)" for name in report["training"]),
        "",
        "## Limits",
        "",
        "It is small, and it shows a platform at work: it is no instrument for making music. It sings no lyrics.",
    ]
    return "\n".join(lines) + "\n"


def _heard_last(recipe_run: RecipeRun) -> list[str]:
    settings, genres = recipe_run.recipe.beats, ", ".join(genre.tag for genre in beats.GENRES)
    lines = [
        f"and last {settings.clips} of clean {genres} from 62 to 100 BPM,",
        f"beside {settings.steady + settings.others} of the others, under prompts with a mark that says the tempo.",
    ]
    if recipe_run.start:
        lines.append(f"The stages {' and '.join(IN_TIME_STAGES)} went on from its own weights in float16 (`--from`).")
    return lines


def tempo_row(row: Mapping[str, Any]) -> str:
    """What was asked and what was measured, of clips in which a beat was found."""
    found = "no beat found" if row["median"] is None else f"median measured {row['median']}"
    return f"- Tempo asked {row['asked']} BPM: {found}."


def _fad_row(name: str, fad: Mapping[str, Mapping[str, float]]) -> str:
    return f"| {name} | {fad['to lofi'].get(name, '-')} | {fad['to clean'].get(name, '-')} |"


def _write(path: Path, picture: bytes) -> None:
    path.write_bytes(picture)
