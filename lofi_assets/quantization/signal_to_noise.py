"""How far a tier's components are from the FP32 ones, each fed the FP32 inputs: signal to noise in dB.

Teacher-forced on purpose. Over a sampling run small differences grow until even two correct implementations disagree,
so a comparison of finished songs cannot tell tiers apart; FAD judges those. Runs without torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lofi_assets.backbones.export import ExportLayout, Probe, Runtime
from lofi_assets.quantization.tier_manifest import TierName

EQUAL, HALF, EIGHT, FOUR = 100.0, 40.0, 25.0, 15.0
"""Least dB of a component: of FP32 against itself, and in 16, 8 and 4 bits. The honest tiers of
the demo lie above (decision 023 has their values); how far below altered models lie was not measured."""


def compare(tier: Runtime, probes: Sequence[Probe]) -> dict[str, float]:
    """Component -> signal to noise in dB over all of its probes; 200 stands for equal, -200 for a value not finite."""
    signal = dict.fromkeys((probe.component for probe in probes), 0.0)
    noise = dict(signal)
    for probe in probes:
        output = tier.session(probe.component).run(None, probe.inputs)[0]
        expected = probe.expected.astype(np.float64)
        signal[probe.component] += float(np.sum(expected**2))
        noise[probe.component] += float(np.sum((output - expected) ** 2))
    return {component: decibel(signal[component], noise[component]) for component in signal}


def below_floor(found: Mapping[str, float], tier: TierName, layout: ExportLayout) -> list[str]:
    """Components, or their CPU profiles, that are farther from FP32 than a tier may be, with their dB."""
    floors = {name: _floor(name.partition(".")[0], tier, layout) for name in found}
    return [
        f"{name}: {decibel:.1f} dB against FP32, at least {floors[name]:.0f} are required"
        for name, decibel in found.items()
        if not decibel >= floors[name]
    ]


def _floor(component: str, tier: TierName, layout: ExportLayout) -> float:
    if tier == "fp32":
        return EQUAL
    if tier == "fp16" or component in layout.audio:
        return HALF
    return FOUR if tier == "int4" and component == layout.denoiser else EIGHT


def decibel(signal: float, noise: float) -> float:
    """Signal over noise; 200 stands for no noise, -200 for none that is a number, or no signal."""
    if not np.isfinite(noise) or signal <= 0:
        return -200.0
    return min(200.0, float(10 * np.log10(signal / noise))) if noise > 0 else 200.0
