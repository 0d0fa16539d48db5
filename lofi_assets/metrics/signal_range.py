"""Which clips do not sound like audio that anybody would publish: outside the range of real ones, or with an artefact.

The range is that of the real tracks, widened by a margin. Margins and limits were chosen so that every real track of
the demo's corpus lies within the range of the others (`lofi_assets_tests/evaluation/test_sample_attacks.py`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType

import numpy as np

from lofi_assets.metrics.signal_panel import SignalPanel

Range = tuple[float, float]

MARGINS: Mapping[str, tuple[float | None, float | None]] = MappingProxyType(
    {
        "loudness_lufs": (6.0, 6.0),
        "crest_db": (3.0, 3.0),
        "treble_db": (6.0, 6.0),
        "treble_step_db": (10.0, 10.0),
        "rolloff_hz": (1.0, 1.0),
        "correlation": (0.3, None),
        "imbalance_db": (None, 6.0),
        "loop": (None, 0.05),
        "noise": (None, 0.1),
        "gap_s": (None, 1.0),
    }
)
"""Number of `SignalPanel` -> how far below and above the real clips it may lie, in its own unit; `rolloff_hz` in
octaves. None: that side says nothing."""
WIDEST = (0.01, 0.99)
"""Quantiles of the real clips that are its range: one odd track in a hundred does not widen it."""
LEAST_REAL_CLIPS = 5

QUIET_LUFS = -40.0
"""25 LU below the quietest of the demo's real tracks."""
FLAT_CREST_DB = 6.0
"""Music hard-clipped by 12 dB has 4 to 5 dB, a sine 3; real tracks 10 and more."""
DEAD_CHANNEL_DB = 20.0
OPPOSITE = -0.5
"""Correlation of left and right under which a mono speaker plays next to nothing; real tracks have .97 and more."""
NOISE = 0.45
"""`SignalPanel.noise`: real tracks reach .27, with as much pink noise as music .41; noise of any colour .50 to .57."""
CLICK_RATIO, CLICK_HEIGHT = 60.0, 0.5
"""Real tracks with vinyl crackle stay below 50 and .5."""
CLICK_ALLOWANCE = 1.25
"""How far beyond the reference's own clicks one has to stand out: heavier crackle there allows more here."""
LONG_GAP_S = 2.0
"""Or a second more than the reference has."""
DC = 0.01


def range_of(panels: Sequence[SignalPanel]) -> dict[str, Range]:
    """Number -> its range over real clips, clicks included; nothing for fewer than five."""
    if len(panels) < LEAST_REAL_CLIPS:
        return {}
    rows = [asdict(panel) for panel in panels]
    names = (*MARGINS, "click_ratio", "click_height")
    columns = {name: [row[name] for row in rows] for name in names}
    return {name: (float(np.quantile(c, WIDEST[0])), float(np.quantile(c, WIDEST[1]))) for name, c in columns.items()}


def outside(panel: SignalPanel, ranges: Mapping[str, Range]) -> tuple[str, ...]:
    """Each number that lies beyond the range of the real clips and its margin, in words."""
    row, found = asdict(panel), []
    for name, (below, above) in MARGINS.items():
        low, high = (_scaled(name, edge) for edge in ranges[name])
        value = _scaled(name, row[name])
        if (below is not None and value < low - below) or (above is not None and value > high + above):
            found.append(f"{name} {row[name]:.4g}, real clips {ranges[name][0]:.4g} to {ranges[name][1]:.4g}")
    return tuple(found)


def artefacts(panel: SignalPanel, ranges: Mapping[str, Range]) -> tuple[str, ...]:
    """What nobody would publish, in words; clicks and gaps beyond what the reference has itself."""
    limits = _click_limits(ranges)
    longest = max(LONG_GAP_S, ranges.get("gap_s", (0.0, 0.0))[1] + 1.0)
    faults = (
        (panel.loudness_lufs < QUIET_LUFS, f"level of {panel.loudness_lufs:.1f} LUFS"),
        (panel.imbalance_db >= DEAD_CHANNEL_DB, f"a channel {panel.imbalance_db:.0f} dB below the other"),
        (panel.correlation < OPPOSITE, f"channels that cancel (correlation {panel.correlation:.2f})"),
        (panel.crest_db < FLAT_CREST_DB, f"clipped or a bare tone (crest {panel.crest_db:.1f} dB)"),
        (panel.noise >= NOISE, f"noise (spectral flatness {panel.noise:.2f} within bands)"),
        (
            panel.click_ratio > limits[0] and panel.click_height > limits[1],
            f"a click {panel.click_ratio:.0f} times as sharp as what is around it",
        ),
        (panel.gap_s > longest, f"a gap of {panel.gap_s:.1f} s"),
        (panel.dc >= DC, f"an offset of {panel.dc:.3f}"),
    )
    return tuple(words for fault, words in faults if fault)


def _click_limits(ranges: Mapping[str, Range]) -> tuple[float, float]:
    real = (ranges.get("click_ratio", (0.0, 0.0))[1], ranges.get("click_height", (0.0, 0.0))[1])
    return max(CLICK_RATIO, CLICK_ALLOWANCE * real[0]), max(CLICK_HEIGHT, CLICK_ALLOWANCE * real[1])


def _scaled(name: str, value: float) -> float:
    return math.log2(max(value, 1.0)) if name == "rolloff_hz" else value
