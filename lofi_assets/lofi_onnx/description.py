"""`pipeline.json`: everything that turns a bundle's graphs into music, for whoever writes a runtime of their own.

The numbers are those that this runtime computes with, so a bundle whose `pipeline.json` says otherwise is refused
(`defaults_of`) instead of sounding wrong. Names, types and shapes of the graphs are added where a bundle is built.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lofi_assets.lofi_onnx import flow
from lofi_assets.lofi_onnx.pipeline import (
    CPU_PROFILE,
    CUDA_OPTIONS,
    LYRIC_VOCABULARY,
    MAX_TEXT_TOKENS,
    OUTPUT_RATE,
    SAMPLES_PER_FRAME,
    SESSION_CONFIG,
    TOKENIZER,
    VOCODER_RATE,
)
from lofi_assets.lyrics.tokenizer import MAX_IDS, NO_LYRICS

DESCRIPTION = "pipeline.json"
FORMAT = 1
"""Raised when a field changes its meaning."""
RUNTIME = {"session_config": SESSION_CONFIG, "cuda_options": CUDA_OPTIONS}
"""What ONNX Runtime is asked for. Bundles from before it was described lack it, and were measured with the same."""


class DescriptionError(ValueError):
    """A bundle that this runtime does not play as it is described; the message says what differs."""


@dataclass(frozen=True)
class Defaults:
    """What a clip is made with where nobody says otherwise: the settings that the tiers were measured at."""

    steps: int
    guidance_scale: float


def computed() -> dict[str, Any]:
    """What this runtime does, section by section; the same for every bundle of the family."""
    return {
        "format": FORMAT,
        "architecture": "ace_step_v1",
        "wiring": {
            "text_encoder": {
                "input_ids": "ids of the prompt by text.tokenizer, padded with text.padding_id",
                "attention_mask": "1 for a token, 0 for padding",
            },
            "condition_encoder": {
                "text_hidden_states": "text_encoder.last_hidden_state",
                "text_attention_mask": "text_encoder's input attention_mask",
                "speaker_embeds": "zeros",
                "lyric_token_ids": "ids of the lyrics, padded with 0",
                "lyric_mask": "1 for an id, 0 for padding",
            },
            "transformer": {
                "hidden_states": "the sample: at first the noise, then what the Euler step gives",
                "encoder_hidden_states": "condition_encoder.encoder_hidden_states",
                "encoder_hidden_mask": "condition_encoder.encoder_hidden_mask",
                "timestep": "schedule.timestep_per_sigma times the sigma of the step, for every item",
            },
            "dcae_decoder": {"latents": "the sample after the last step"},
            "vocoder": {"mel": "dcae_decoder.mel of one item: its two channels as a batch of two"},
        },
        "text": {"tokenizer": TOKENIZER, "max_tokens": MAX_TEXT_TOKENS, "padding_id": 0},
        "lyrics": {"vocabulary": LYRIC_VOCABULARY, "max_ids": MAX_IDS, "ids_without_lyrics": NO_LYRICS},
        "latents": {
            "shape": ["batch", *flow.LATENT_SHAPE, "frames"],
            "frames_per_second": VOCODER_RATE / SAMPLES_PER_FRAME,
            "frames": f"ceil(seconds * {VOCODER_RATE} / {SAMPLES_PER_FRAME})",
        },
        "noise": {
            "words": "MT19937 (init_genrand with seed modulo 2^32), 32 bits each, 128 * frames of them an item",
            "uniform": "u = (word & 0xffffff) / 2^24, in double precision",
            "normal": "for every 16 u: r = sqrt(-2 ln(1 - u[0:8])), a = 2 pi u[8:16]; first r cos a, then r sin a",
            "order": "as float32, in C order into [8, 16, frames]",
        },
        "schedule": {
            "shift": flow.SHIFT,
            "lowest": 1 / flow.TRAIN_TIMESTEPS,
            "timestep_per_sigma": flow.TRAIN_TIMESTEPS,
            "sigmas": "S(x) = shift x / (1 + (shift - 1) x); S of steps values evenly from 1 to S(lowest); then 0",
        },
        "euler": {
            "omega": flow.OMEGA,
            "step": "d = (sigma_next - sigma) v; m = the item's mean of d; sample + (d - m) w + m",
            "w": "0.9 + 0.2 / (1 + exp(-0.1 omega))",
        },
        "guidance": {
            "kind": "adaptive projected guidance (arXiv 2410.02416)",
            "momentum": flow.MOMENTUM,
            "norm_threshold": flow.NORM_THRESHOLD,
            "axes": list(flow.FRAMES),
            "interval": flow.GUIDED_SHARE,
            "guided_steps": "int(steps (1 - interval) / 2) <= step < int(steps (interval / 2 + 0.5))",
            "no_guidance": "a scale of 1 or less: every step takes the conditional velocity",
        },
        "null_condition": {
            "zeros": ["text_hidden_states", "speaker_embeds", "lyric_token_ids", "lyric_mask"],
            "kept": ["text_attention_mask"],
        },
        "audio": {
            "vocoder_rate": VOCODER_RATE,
            "rate": OUTPUT_RATE,
            "channels": 2,
            "resampling": f"Hann-windowed sinc, {flow.SINC_ZEROS} zero crossings, rolloff {flow.ROLLOFF}",
            "range": "clipped to [-1, 1], cut to round(seconds * rate) samples",
        },
        "cpu_graph": CPU_PROFILE,
        **RUNTIME,
    }


def described(steps: int, guidance_scale: float, graphs: Mapping[str, Any], tiers: Mapping[str, Any]) -> dict[str, Any]:
    """The whole of `pipeline.json`.

    Args:
        steps, guidance_scale: what the tiers were measured with.
        graphs: component -> its file, inputs and outputs with type and shape.
        tiers: tier -> its folder, opset and precision.
    """
    return {**computed(), "defaults": vars(Defaults(steps, guidance_scale)), "tiers": tiers, "graphs": graphs}


def defaults_of(bundle: Path) -> Defaults:
    """What a bundle asks to be played with, if this runtime plays what it describes.

    Raises:
        DescriptionError: there is no `pipeline.json`, or it describes something else.
    """
    path = bundle / DESCRIPTION
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        defaults = Defaults(int(described["defaults"]["steps"]), float(described["defaults"]["guidance_scale"]))
    except (OSError, ValueError, KeyError, TypeError, ArithmeticError, RecursionError) as error:
        raise DescriptionError(
            f"{path}: no description of a bundle ({type(error).__name__}); name the folder that holds it"
        ) from error
    known = json.loads(json.dumps(computed()))
    other = [name for name, value in known.items() if described.get(name, RUNTIME.get(name)) != value]
    if other:
        raise DescriptionError(
            f"{path}: {', '.join(other)} {'is' if len(other) == 1 else 'are'} not what this runtime computes; use the "
            "generate.py that lies beside it, or a version of lofi_assets that built it"
        )
    return defaults
