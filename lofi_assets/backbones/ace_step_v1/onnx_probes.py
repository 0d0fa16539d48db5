"""One short sampling run of the FP32 tier, call by call: what every component is asked, and what it answers.

Runs without torch.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lofi_assets.backbones.export import Probe
from lofi_assets.lofi_onnx.flow import euler_step, schedule, seeded_noise
from lofi_assets.lofi_onnx.pipeline import Conditions, OnnxPipeline

PROMPTS = ("lofi hip hop, mellow, piano, vinyl crackle, 75 bpm", "chill, rainy night, rhodes")
LYRIC_TOKENS = 12
STEPS = 8
GUIDANCE = 15.0


def record(baseline: OnnxPipeline, *, frames: int = 64) -> list[Probe]:
    """Every component's inputs and FP32 outputs along one short sampling run, the transformer's at eight noise
    levels."""
    ids, mask = baseline.tokenize(PROMPTS)
    probes = [_ask(baseline, "text_encoder", input_ids=ids, attention_mask=mask)]
    conditions = _conditions(baseline, probes[0].expected, mask)
    probes.append(_ask(baseline, "condition_encoder", **vars(conditions)))
    context_mask = baseline.session("condition_encoder").run(["encoder_hidden_mask"], vars(conditions))[0]
    sample = seeded_noise(range(len(PROMPTS)), frames=frames)
    sigmas = schedule(STEPS)
    for now, later in pairwise(sigmas):
        step = _ask(
            baseline,
            "transformer",
            hidden_states=sample,
            encoder_hidden_states=probes[1].expected,
            encoder_hidden_mask=context_mask,
            timestep=np.full(len(sample), now * 1000, np.float32),
        )
        probes.append(step)
        sample = euler_step(sample, step.expected, sigma=float(now), sigma_next=float(later))
    probes.append(_ask(baseline, "dcae_decoder", latents=sample[:1]))
    probes.append(_ask(baseline, "vocoder", mel=probes[-1].expected[0]))
    return probes


def stressed(baseline: OnnxPipeline, *, frames: int = 64) -> list[Probe]:
    """Every component at latents twice as large as the largest of a sampling run with full guidance, which drives them
    farthest; the vocoder at the mel that the decoder makes of them."""
    recorded = record(baseline, frames=frames)
    text, conditions, steps = recorded[0], recorded[1], [p for p in recorded if p.component == "transformer"]
    guided = baseline.sample_latents(
        Conditions(**conditions.inputs),
        noise=seeded_noise(range(len(PROMPTS)), frames=frames),
        steps=STEPS,
        guidance_scale=GUIDANCE,
        guidance_interval=1.0,
    )
    sampled = next(probe.inputs["latents"] for probe in recorded if probe.component == "dcae_decoder")
    largest = max(guided, sampled, key=lambda latents: float(np.abs(latents).max()))
    asked = [
        _ask(baseline, "transformer", **{**step.inputs, "hidden_states": 2 * step.inputs["hidden_states"]})
        for step in (steps[0], steps[-1])
    ]
    decoded = [_ask(baseline, "dcae_decoder", latents=2 * item[None]) for item in largest]
    return [text, conditions, *asked, *decoded, _ask(baseline, "vocoder", mel=decoded[0].expected[0])]


def _conditions(baseline: OnnxPipeline, text: NDArray[Any], mask: NDArray[Any]) -> Conditions:
    """Random speakers and lyric ids, so that the vocal parts have something to get wrong."""
    random = np.random.default_rng(0)
    speaker_width = baseline.session("condition_encoder").get_inputs()[2].shape[1]
    speakers = random.standard_normal((len(text), speaker_width)).astype(np.float32)
    lyrics = random.integers(1, 60, (len(text), LYRIC_TOKENS))
    return Conditions(text, mask, speakers, lyrics, np.ones_like(lyrics))


def _ask(baseline: OnnxPipeline, component: str, **inputs: NDArray[Any]) -> Probe:
    return Probe(component, inputs, baseline.session(component).run(None, inputs)[0])
