"""One number for how fit a track is to learn from, and the parts it is made of.

The measures become parts in [0, 1], and the parts a score. A track may pass every gate and still score low; the score
never lets a track through that a gate stops.

A weighted sum forgives too much: a track that is 69 % silence still reached 80 on real music. The parts are therefore
multiplied, each with a floor, so that one bad part is enough for a low score.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FLOOR = 0.05
"""The least a part can be: a zero would hide what else is wrong."""
WEIGHTS: dict[str, float] = {
    "clipping": 0.75,
    "silence": 0.75,
    "tonality": 0.75,
    "channels": 0.75,
    "bandwidth": 0.5,
    "dc": 0.25,
    "stereo": 0.25,
    "noise": 0.175,
    "level": 0.175,
    "duration": 0.0375,
}
"""Exponents, set on 28 real tracks so that these score 75-100 and damaged ones under 50."""


def score_parts(measures: Mapping[str, Any]) -> dict[str, float]:
    """Parts in [0.05, 1] by name, 1 being unobjectionable.

    Args:
        measures: `clipped_share silent_share flatness dead_channel edge_hz edge_drop_db dc_offset correlation
            noise_floor_db source_peak_dbfs duration_s` as `tracks.process_track` records them.
    """
    upsampled = measures["edge_drop_db"] > 25.0
    parts = {
        "clipping": 1.0 / (1.0 + measures["clipped_share"] / 5e-4),
        "silence": _fade(measures["silent_share"], best=0.05, worst=0.5),
        "tonality": _fade(measures["flatness"], best=0.15, worst=0.45),
        "channels": FLOOR if measures["dead_channel"] else 1.0,
        # 16 kHz is a 128 kbit/s encoder; a soft lofi low-pass has no such edge and is left alone.
        "bandwidth": _fade(measures["edge_hz"], best=16_000.0, worst=8_000.0) if upsampled else 1.0,
        "dc": _fade(measures["dc_offset"], best=1e-3, worst=0.1),
        "stereo": _fade(measures["correlation"], best=-0.1, worst=-0.7),
        # The distance of loud from quiet windows: under 3 dB the track is one steady noise or drone.
        "noise": _fade(measures["noise_floor_db"], best=6.0, worst=1.0),
        "level": _fade(measures["source_peak_dbfs"], best=-20.0, worst=-45.0),
        "duration": _duration(measures["duration_s"]),
    }
    return {name: round(max(FLOOR, part), 4) for name, part in parts.items()}


def total_score(parts: Mapping[str, float]) -> int:
    """Weighted geometric score, 0 to 100 (data model, quality_score)."""
    product = 100.0
    for name, weight in WEIGHTS.items():
        product *= parts[name] ** weight
    return round(product)


def _fade(value: float, *, best: float, worst: float) -> float:
    """1 at `best` and beyond, 0 at `worst` and beyond, straight between."""
    return min(1.0, max(0.0, (value - worst) / (best - worst)))


def _duration(seconds: float) -> float:
    """60-120 s is optimal (constitution, Duration)."""
    if seconds < 60.0:
        return 0.5 + 0.5 * _fade(seconds, best=60.0, worst=30.0)
    return 0.5 + 0.5 * _fade(seconds, best=120.0, worst=180.0)
