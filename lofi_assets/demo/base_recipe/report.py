"""What a base is worth: round trip, distance to lofi and to clean music, prompts, tempo, and that nothing is copied.

What belongs here: the measurement and its numbers (`report.json`). What does not: the card that tells people (`card`).
Distances are MusiCNN-FAD on level-normalised windows, one a second; they stand beside the floor that as many clips of
the same music have, and beside noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lofi_assets.audio.arrays import FloatArray
from lofi_assets.audio.fingerprint import DUPLICATE_BER, compare
from lofi_assets.audio.tempo import estimate_tempo
from lofi_assets.backbones.ace_step_v1.frame_rates import MEL_RATE, latent_frames
from lofi_assets.backbones.ace_step_v1.loading import Base, load_base
from lofi_assets.demo.base_recipe import listening
from lofi_assets.demo.base_recipe.corpus import held_out
from lofi_assets.demo.base_recipe.listening import Heard, Sound
from lofi_assets.demo.base_recipe.music import latent_statistics
from lofi_assets.demo.base_recipe.recipe import RecipeRun
from lofi_assets.evaluation.samples import write_clip
from lofi_assets.files.documents import read_json, write_json
from lofi_assets.metrics.alignment import clip_aucs, standardised_tags
from lofi_assets.metrics.errors import attempt
from lofi_assets.metrics.frechet import WindowsByClip, frechet_distance
from lofi_assets.metrics.reference_floor import frechet_floor
from lofi_assets.progress import over
from lofi_assets.wording import rounded

REPORT = "report.json"
TEMPO_PROMPT = "electronic, drum machine, synth bass, synth pad, {bpm} bpm, polished, instrumental"
TEMPI = {"slow": 92, "fast": 129}
"""Of `STEADY_BPM`, less than an octave apart, so that a reading of one is never a reading of the other."""
TEMPO_RANGE = (80.0, 150.0)
RESAMPLES = 2000
LEAST_CLIPS = 2
"""Of a set that a covariance is taken of."""


def measure(recipe_run: RecipeRun) -> tuple[dict[str, Any], dict[str, Sound]]:
    """Write `report.json` beside the weights and a few clips to `samples/`; returns the numbers, and sounds to draw."""
    recipe, settings = recipe_run.recipe, recipe_run.recipe.report
    base = load_base(recipe_run.base)
    assert base.music_dcae is not None
    peak = recipe.corpus.peak
    lofi = listening.lofi_references(settings.references, settings, peak=peak)
    pieces = held_out(settings.samples, seconds=settings.seconds, seed=recipe.seed, taxonomy=recipe_run.taxonomy)
    clean = listening.clean_references(pieces, peak=peak)
    passed = {
        "lofi": listening.round_trip(base.music_dcae, lofi),
        "clean": listening.round_trip(base.music_dcae, clean),
    }
    prompts = {
        "lofi": {f"lofi_{i:02d}": lofi[i % len(lofi)].prompt for i in range(settings.samples)},
        "clean": {sound.name: sound.prompt for sound in clean},
    }
    made = {kind: listening.generate(base, named, settings, seed=settings.seed) for kind, named in prompts.items()}
    report = {
        "preset": recipe.preset,
        "recipe": recipe.recipe_hash,
        "training": _training(recipe_run),
        "latents": latent_statistics(recipe_run.latents(recipe_run.heard)),
        "mel_error_nats": {
            kind: listening.mel_error(base.music_dcae, truth, passed[kind])
            for kind, truth in (("lofi", lofi), ("clean", clean))
        },
        "fad": _distances(base, lofi, clean, passed, made, recipe_run),
        "adherence": _adherence(made["lofi"], made["clean"]) | {"true music": _adherence(lofi, clean)},
        "tempo": _tempi(base, recipe_run),
        "nearest": _nearest(recipe_run, [*made["lofi"], *made["clean"]], clean),
        "samples": {
            "count": settings.samples,
            "seconds": settings.seconds,
            "steps": settings.steps,
            "guidance_scale": settings.guidance_scale,
            "seed": settings.seed,
        },
    }
    write_json(recipe_run.base / REPORT, report)
    pictured = {
        "lofi reference": lofi[0],
        "its round trip": passed["lofi"][0],
        "generated, lofi prompt": made["lofi"][0],
        "generated, clean prompt": made["clean"][0],
    }
    _write_samples(recipe_run.folder / "samples", pictured)
    return report, pictured


def _training(recipe_run: RecipeRun) -> dict[str, Any]:
    """Steps and hours of every stage, those of the base that it went on from too."""
    stages = {name: recipe_run.stage(name) for name in recipe_run.stages}
    earlier: dict[str, Any] = read_json(recipe_run.start / REPORT, default={}) if recipe_run.start else {}
    before: dict[str, Any] = earlier.get("training", {})
    return before | {
        name: {"steps": stage.training.steps, "hours": round(stage.seconds / 3600, 3)} for name, stage in stages.items()
    }


def _distances(
    base: Base,
    lofi: Sequence[Sound],
    clean: Sequence[Sound],
    passed: Mapping[str, Sequence[Sound]],
    made: Mapping[str, Sequence[Sound]],
    recipe_run: RecipeRun,
) -> dict[str, Any]:
    """FAD of everything to lofi, and of what should be clean to clean music."""
    assert base.music_dcae is not None
    settings = recipe_run.recipe.report
    frames = latent_frames(round(settings.seconds * MEL_RATE), sample_rate=MEL_RATE)
    marks = max(LEAST_CLIPS, settings.samples // 4)
    heard = {
        "lofi": listening.windows(lofi),
        "clean": listening.windows(clean),
        "round trip of lofi": listening.windows(passed["lofi"]),
        "round trip of clean": listening.windows(passed["clean"]),
        "generated, lofi prompts": listening.windows(made["lofi"]),
        "generated, clean prompts": listening.windows(made["clean"]),
        "random latents": listening.windows(
            listening.random_latents(base.music_dcae, marks, frames=frames, seed=settings.seed)
        ),
        "white noise": listening.windows(listening.noise(marks, seconds=settings.seconds, seed=settings.seed)),
    }
    joined = {name: np.concatenate(list(clips.values())) for name, clips in heard.items()}
    result: dict[str, Any] = {}
    for reference in ("lofi", "clean"):
        result[f"to {reference}"] = {
            "floor": _floor(heard[reference], n_clips=settings.samples, seed=settings.seed),
            **{
                name: round(frechet_distance(joined[reference], other), 3)
                for name, other in joined.items()
                if name != reference
            },
        }
    return result


def _floor(by_clip: WindowsByClip, *, n_clips: int, seed: int) -> float | None:
    """FAD that as many clips of the same music have; None where there are too few to tell."""
    longest = max(map(len, by_clip.values()))
    found, _ = attempt(lambda: frechet_floor(by_clip, n_clips=n_clips, windows_per_clip=longest, seed=seed))
    return rounded(found, 3)


def _adherence(lofi: Sequence[Sound], clean: Sequence[Sound]) -> dict[str, Any]:
    """By how much clips fit their own prompts better than the other kind's, in AUC, with a 95 % bootstrap interval.

    Tags in standard deviations from the mean of these very clips: what a model does whatever it is asked for tells
    nothing about how it listens.
    """
    count = min(len(lofi), len(clean))
    sounds = [*lofi[:count], *clean[:count]]
    tags, labels = listening.mean_tags(sounds)
    standard = standardised_tags(tags, tags)
    prompts = [sound.prompt for sound in sounds]
    swapped = clip_aucs(standard, prompts[count:] + prompts[:count], labels)
    gains = [own - other for own, other in zip(clip_aucs(standard, prompts, labels), swapped, strict=True)]
    drawn = np.random.default_rng(0).choice(gains, size=(RESAMPLES, len(gains))).mean(axis=1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return {
        "auc_gain": round(float(np.mean(gains)), 4),
        "interval": [round(float(low), 4), round(float(high), 4)],
        "clips": len(gains),
    }


def _tempi(base: Base, recipe_run: RecipeRun) -> dict[str, Any]:
    """Measured BPM of clips that differ in the tempo asked for only; None where none can be told."""
    settings = recipe_run.recipe.report
    result: dict[str, Any] = {}
    for name, bpm in TEMPI.items():
        prompts = {f"{name}_{index}": TEMPO_PROMPT.format(bpm=bpm) for index in range(settings.tempo_pairs)}
        sounds = listening.generate(base, prompts, settings, seed=settings.seed + 1000)
        found = [estimate_tempo(s.samples, sample_rate=MEL_RATE, tempo_range=TEMPO_RANGE) for s in sounds]
        known = [estimate.bpm for estimate in found if estimate is not None]
        result[name] = {
            "asked": bpm,
            "measured": [None if estimate is None else estimate.bpm for estimate in found],
            "median": round(float(np.median(known)), 2) if known else None,
        }
    return result


def _nearest(recipe_run: RecipeRun, sounds: Sequence[Sound], clean: Sequence[Sound]) -> dict[str, Any]:
    """The nearest training clip of every sample; pieces that no base heard show how near music comes by chance."""
    corpus = listening.hear_corpus(recipe_run.heard, folder=recipe_run.folder / "heard")
    rows = [
        _nearest_to(listening.hear(sound.samples), corpus)
        for sound in over([*sounds, *clean], "nearest training clips", unit="clip")
    ]
    found = {sound.name: row for sound, row in zip(sounds, rows, strict=False)}
    chance = [row["similarity"] for row in rows[len(sounds) :]]
    return {
        "clips": found,
        "most_similar": max(row["similarity"] for row in found.values()),
        "held_out_most_similar": max(chance),
        "copies": sum(row["similarity"] > 1 - DUPLICATE_BER for row in found.values()),
    }


def _nearest_to(heard: Heard, corpus: Mapping[str, Heard]) -> dict[str, Any]:
    by_print = {name: compare(heard.words, other.words)[0] for name, other in corpus.items()}
    by_ear = {name: _cosine(heard.embedding, other.embedding) for name, other in corpus.items()}
    copy, kin = max(by_print, key=lambda n: by_print[n]), max(by_ear, key=lambda n: by_ear[n])
    return {
        "fingerprint": copy,
        "similarity": round(by_print[copy], 4),
        "embedding": kin,
        "cosine": round(by_ear[kin], 4),
    }


def _cosine(a: FloatArray, b: FloatArray) -> float:
    return float(a @ b / max(1e-12, float(np.linalg.norm(a) * np.linalg.norm(b))))


def _write_samples(folder: Path, sounds: Mapping[str, Sound]) -> None:
    import soxr

    folder.mkdir(parents=True, exist_ok=True)
    for index, sound in enumerate(sounds.values()):
        write_clip(folder / f"{index}_{sound.name}.mp3", soxr.resample(sound.samples.T, MEL_RATE, 48_000).T)
