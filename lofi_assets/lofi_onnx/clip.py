"""One clip from a bundle's folder into a file: what `generate.py` and `lofi generate` do."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np

from lofi_assets.lofi_onnx.description import defaults_of
from lofi_assets.lofi_onnx.flow import Array
from lofi_assets.lofi_onnx.pipeline import OUTPUT_RATE, OnnxPipeline

TIERS = ("fp16", "int8", "int4")


class ClipError(ValueError):
    """A clip that cannot be made as it is asked for, or whose audio nobody can listen to."""


def write_clip(
    bundle: Path,
    prompt: str,
    *,
    output: Path,
    tier: str = "fp16",
    lyrics: str = "",
    language: str | None = None,
    seconds: float = 30.0,
    seed: int = 0,
    steps: int | None = None,
    guidance_scale: float | None = None,
    latents: Path | None = None,
    threads: int | None = None,
    cpu_graph: bool = True,
) -> str:
    """Generate one clip and write it; returns a line that says what was made.

    Args:
        output: .wav for 16 bits, .npy for (2, n) float32 as it came out.
        steps, guidance_scale: None takes what the bundle was measured with.
        latents: also write the latents (8, 16, frames) here, as .npy.
        cpu_graph: take a tier's own graph for CPUs where it has one.
    Raises:
        ClipError: the audio is not finite, or the arguments ask for no clip.
        DescriptionError, RuntimeFolderError: no bundle, or not one of this runtime.
        LyricError: the lyrics cannot be sung.
    """
    if output.suffix not in (".wav", ".npy"):
        raise ClipError(f"{output}: name a file that ends in .wav or .npy")
    for path in (output, *([latents] if latents else [])):
        if not path.absolute().parent.is_dir():
            raise ClipError(f"{path.parent}: there is no such folder to write to")
    if not seconds > 0 or (steps is not None and steps < 1):
        raise ClipError(f"a clip needs more than 0 seconds and at least 1 step, not {seconds:g} and {steps}")
    defaults = defaults_of(bundle)
    kept: list[Array] = []
    audio = OnnxPipeline(bundle / tier, threads=threads, cpu_profile=cpu_graph).generate(
        [prompt],
        lyrics=[lyrics],
        language=language,
        seconds=seconds,
        seeds=[seed],
        steps=defaults.steps if steps is None else steps,
        guidance_scale=defaults.guidance_scale if guidance_scale is None else guidance_scale,
        on_latents=kept.append,
    )[0]
    if not np.isfinite(audio).all():
        raise ClipError(f"{tier}: the audio holds NaN, so nothing was written; try another tier and report it")
    if latents is not None:
        np.save(latents, kept[0][0])
    if output.suffix == ".npy":
        np.save(output, audio)
    else:
        _write_wav(output, audio)
    return f"{output}: {seconds:g} s, {tier}, seed {seed}"


def _write_wav(path: Path, audio: Array) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(audio.shape[0])
        file.setsampwidth(2)
        file.setframerate(OUTPUT_RATE)
        file.writeframes(np.round(audio.T * 32767).astype("<i2").tobytes())
