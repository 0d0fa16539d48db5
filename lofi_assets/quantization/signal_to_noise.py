"""How far a tier's components are from the FP32 ones, each fed the FP32 inputs: signal to noise in dB.

Teacher-forced on purpose. Over a sampling run small differences grow until even two correct implementations disagree,
so a comparison of finished songs cannot tell tiers apart; FAD judges those. Runs without torch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lofi_assets.backbones.export import Probe, Runtime


def compare(tier: Runtime, probes: Sequence[Probe]) -> dict[str, float]:
    """Component -> signal to noise in dB over all of its probes; 200 stands for equal, -200 for a value not finite."""
    signal = dict.fromkeys((probe.component for probe in probes), 0.0)
    noise = dict(signal)
    for probe in probes:
        output = tier.session(probe.component).run(None, probe.inputs)[0]
        expected = probe.expected.astype(np.float64)
        signal[probe.component] += float(np.sum(expected**2))
        noise[probe.component] += float(np.sum((output - expected) ** 2))
    return {component: _decibel(signal[component], noise[component]) for component in signal}


def _decibel(signal: float, noise: float) -> float:
    if not np.isfinite(noise) or signal <= 0:
        return -200.0
    return min(200.0, float(10 * np.log10(signal / noise))) if noise > 0 else 200.0
