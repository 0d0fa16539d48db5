"""Small PNGs for asset metadata: waveforms, spectrograms, loss curves, FAD by step.

At most 50 kB each, since they stay in Dagster's event log. matplotlib is imported when something is drawn.
"""

import io
import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, ACCENT, SOFT = "#2b2d42", "#c8553d", "#8d99ae"
DPI = 80
LABEL = 9.5
"""Points of every label: 10.6 pixels at the size at which the UI and the pages show a picture."""
MEL_BANDS = 80
FAR_APART = 10.0
"""Ratio past which a score is drawn on a logarithmic scale."""
STRIP = (420, 64)
"""Columns and rows of a spectrogram without axes."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A score of every checkpoint by step; step 0 is what training began from."""

    label: str
    points: Mapping[int, float]
    intervals: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    """Step -> ends of the interval about its point."""
    marks: Mapping[str, float] = field(default_factory=dict)
    """Horizontal lines, such as what real clips have."""
    limits: tuple[float, float] | None = None
    """Of the scale; None: as the points are, from 0 on."""


def waveforms(envelopes: Mapping[str, Sequence[Sequence[float]]], *, marked: Collection[str] = ()) -> bytes:
    """One row per track: its envelope as (min, max) pairs in [-1, 1]; `marked` ones stand out."""
    figure = _figure(width=9, height=0.8 * len(envelopes) + 0.2)
    axes = figure.subplots(len(envelopes), 1, squeeze=False)[:, 0]
    for axis, (name, pairs) in zip(axes, envelopes.items(), strict=True):
        low, high = zip(*pairs, strict=True)
        colour = ACCENT if name in marked else INK
        axis.fill_between(range(len(pairs)), low, high, color=colour, linewidth=0)
        axis.set(xlim=(0, len(pairs)), ylim=(-1, 1))
        axis.set_axis_off()
        axis.set_title(name, loc="left", fontsize=LABEL, color=colour, pad=1)
    return _png(figure)


def spectrogram(samples: "np.ndarray", *, sample_rate: int, title: str) -> bytes:
    """Log-mel spectrogram of (channels, frames) or (frames,) audio."""
    figure = _figure(width=6.4, height=2.2)
    axis = figure.subplots()
    _draw_mel(axis, samples, sample_rate=sample_rate, columns=500)
    axis.set(xlabel="seconds", ylabel="mel band")
    axis.set_title(title, loc="left", fontsize=LABEL)
    return _png(figure)


def spectrogram_grid(rows: Mapping[str, Sequence["np.ndarray"]], *, heads: Sequence[str], sample_rate: int) -> bytes:
    """Log-mel spectrograms side by side: a row for each name, a column for each head."""
    figure = _figure(width=6.4, height=len(rows) + 0.5)
    grid = figure.subplots(len(rows), len(heads), squeeze=False)
    for axes, (name, clips) in zip(grid, rows.items(), strict=True):
        axes[0].set_ylabel(name[:16], fontsize=LABEL)
        for axis, samples in zip(axes, clips, strict=True):
            _draw_mel(axis, samples, sample_rate=sample_rate, columns=200)
            axis.set_yticks([])
            axis.tick_params(labelsize=LABEL)
    for axis, head in zip(grid[0], heads, strict=True):
        axis.set_title(head, loc="left", fontsize=LABEL)
    return _png(figure)


def loss_curve(losses: Sequence[tuple[int, float]], *, label: str = "flow-matching loss") -> bytes:
    """Training loss by step, with its running mean."""
    steps, values = zip(*losses, strict=True)
    figure = _figure(width=6.4, height=2.4)
    axis = figure.subplots()
    axis.plot(steps, values, color=SOFT, linewidth=0.8, label="loss")
    axis.plot(steps, _running_mean(values, window=max(1, len(values) // 20)), color=ACCENT, label="running mean")
    axis.set(xlabel="step", ylabel=label)
    axis.legend(frameon=False, fontsize=LABEL)
    return _png(figure)


def curves_by_step(curves: Mapping[str, Sequence[tuple[int, float]]], *, label: str) -> bytes:
    """Several measures of the same kind by step."""
    figure = _figure(width=6.4, height=2.4)
    axis = figure.subplots()
    for name, points in curves.items():
        steps, values = zip(*points, strict=True)
        axis.plot(steps, values, marker="." if len(steps) < 50 else "", linewidth=1, label=name)
    axis.set(xlabel="step", ylabel=label)
    if len(curves) > 1:
        axis.legend(frameon=False, fontsize=LABEL, ncols=3)
    return _png(figure)


def ranked(
    values: Mapping[str, float], *, label: str, marked: Collection[str] = (), at: float = 1.0, of: str = "tracks"
) -> bytes:
    """One point per name, in the order given, on a logarithmic scale; `marked` ones stand out and are named.

    Args:
        at: a horizontal line, where a value is as usual.
        of: what is named.
    """
    figure = _figure(width=6.4, height=2.4)
    axis = figure.subplots()
    axis.axhline(at, color=INK, linestyle=":", linewidth=1)
    for place, (name, value) in enumerate(values.items()):
        axis.plot([place], [value], ".", color=ACCENT if name in marked else SOFT)
        if name in marked:
            beside = (4.0, 0.0)
            axis.annotate(name[:24], (place, value), beside, textcoords="offset points", fontsize=LABEL, color=ACCENT)
    axis.set_yscale("log")
    axis.set_xticks([])
    axis.set(xlabel=f"{len(values)} {of}", ylabel=label)
    return _png(figure)


def score_by_step(
    points: Mapping[int, float],
    *,
    label: str,
    marks: Mapping[str, float],
    intervals: Mapping[int, tuple[float, float]] | None = None,
) -> bytes:
    """A score of every checkpoint by step, with horizontal marks such as the floor or a limit.

    The scale is logarithmic where marks and points are far apart.

    Args:
        intervals: step -> ends of the interval about its point.
    """
    figure = _figure(width=6.4, height=2.8)
    axis = figure.subplots()
    axis.plot(list(points), list(points.values()), "o-", color=ACCENT)
    for step, (low, high) in (intervals or {}).items():
        axis.plot([step, step], [low, high], color=ACCENT, linewidth=1, marker="_")
    for name, value in marks.items():
        axis.axhline(value, color=INK, linestyle=":", linewidth=1)
        axis.annotate(f"{name} {value:.3g}", (min(points), value), fontsize=LABEL, color=INK, va="bottom")
    values = [*points.values(), *marks.values(), *(end for span in (intervals or {}).values() for end in span)]
    if min(values) > 0 and max(values) > FAR_APART * min(values):
        axis.set_yscale("log")
    axis.set(xlabel="step", ylabel=label)
    return _png(figure)


def panels_by_step(panels: Sequence[Panel], *, chosen: int | None) -> bytes:
    """Scores that belong together, one under the other over the same steps.

    Args:
        chosen: step that is marked in all of them.
    """
    figure = _figure(width=9, height=1.9 * len(panels) + 0.3)
    column = figure.subplots(len(panels), 1, squeeze=False, sharex=True)[:, 0]
    steps = sorted({step for panel in panels for step in panel.points})
    for axis, panel in zip(column, panels, strict=True):
        shown = sorted(panel.points)
        axis.plot(shown, [panel.points[step] for step in shown], "o-", color=ACCENT, linewidth=1)
        for step, (low, high) in panel.intervals.items():
            axis.plot([step, step], [low, high], color=ACCENT, linewidth=1, marker="_")
        for name, value in panel.marks.items():
            axis.axhline(value, color=INK, linestyle=":", linewidth=1)
            axis.annotate(f"{name} {value:.3g}", (steps[0], value), fontsize=LABEL, color=INK, va="bottom")
        if chosen is not None:
            axis.axvline(chosen, color=SOFT, linewidth=6, alpha=0.3)
        axis.set_ylabel(panel.label, fontsize=LABEL)
        axis.set_ylim(*(panel.limits or (0, None)))
    column[-1].set_xticks(steps, ["base" if step == 0 else str(step) for step in steps])
    column[-1].set_xlabel("step", fontsize=LABEL)
    return _png(figure)


def spectrogram_strip(samples: "np.ndarray", *, sample_rate: int) -> bytes:
    """Log-mel spectrogram of (channels, frames) audio without axes, as wide as time: to be put above a player."""
    import numpy as np
    from matplotlib import colormaps
    from PIL import Image

    columns, rows = STRIP
    level = _mel_db(samples, sample_rate=sample_rate, columns=columns)
    grey = Image.fromarray(np.uint8(np.clip(255.0 * (1.0 + level[::-1] / 80.0), 0, 255)), mode="L")
    image = grey.resize((columns, rows), Image.Resampling.BILINEAR).quantize(48, dither=Image.Dither.NONE)
    greys = np.array(image.getpalette()).reshape(-1, 3)[:, 0]
    image.putpalette(np.uint8(255.0 * colormaps["magma"](greys)[:, :3]).tobytes())
    packed = io.BytesIO()
    image.save(packed, format="png", optimize=True)
    return packed.getvalue()


def columns_of(png: bytes, *, start: float, end: float) -> bytes:
    """The part of a picture from one share of its width to another, both in [0, 1]; at least a column."""
    from PIL import Image

    image, packed = Image.open(io.BytesIO(png)), io.BytesIO()
    left = min(round(start * image.width), image.width - 1)
    image.crop((left, 0, max(left + 1, min(round(end * image.width), image.width)), image.height)).save(packed, "png")
    return packed.getvalue()


def _draw_mel(axis: "Axes", samples: "np.ndarray", *, sample_rate: int, columns: int) -> None:
    """Draw the log-mel spectrogram of (channels, frames) or (frames,) audio in about `columns` columns."""
    level = _mel_db(samples, sample_rate=sample_rate, columns=columns)
    seconds = samples.shape[-1] / sample_rate
    axis.imshow(level, origin="lower", aspect="auto", cmap="magma", extent=(0, seconds, 0, MEL_BANDS))


def _mel_db(samples: "np.ndarray", *, sample_rate: int, columns: int) -> "np.ndarray":
    """(80, about `columns`) decibels under the loudest, -80 at least, of (channels, frames) or (frames,) audio."""
    mono = samples.mean(axis=0) if samples.ndim == 2 else samples
    return mel_levels(mono, sample_rate=sample_rate, hop=max(512, len(mono) // columns))


def mel_levels(mono: "np.ndarray", *, sample_rate: int, hop: int) -> "np.ndarray":
    """Mel bands up to 16 kHz in dB under the loudest, in [-80, 0]: (80, columns) of (frames,) audio.

    What librosa gives for n_fft=2048 with its own mel scale (Slaney 1998), without its kernels, which one process at a
    time has to compile (`audio/tempo.py`).
    """
    import numpy as np
    from scipy.signal import get_window

    size = 2048
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(mono, size // 2), size)[::hop]
    power = np.abs(np.fft.rfft(frames * get_window("hann", size))) ** 2
    top = 15.0 + 27.0 * np.log(16.0) / np.log(6.4)
    mels = np.linspace(0.0, top, MEL_BANDS + 2)
    edges = np.where(mels < 15.0, 200.0 / 3.0 * mels, 1000.0 * 6.4 ** ((mels - 15.0) / 27.0))
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    hertz = np.fft.rfftfreq(size, 1.0 / sample_rate)
    triangles = np.clip(np.minimum((hertz - low) / (centre - low), (high - hertz) / (high - centre)), 0.0, None)
    level = 10.0 * np.log10(np.maximum(2.0 / (high - low) * triangles @ power.T, 1e-10))
    shown: np.ndarray = np.maximum(level - level.max(), -80.0)
    return shown


def _running_mean(values: Sequence[float], *, window: int) -> list[float]:
    sums = [0.0, *itertools.accumulate(values)]
    starts = [max(0, end - window) for end in range(1, len(sums))]
    return [(sums[end] - sums[start]) / (end - start) for end, start in enumerate(starts, start=1)]


def _figure(*, width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def _png(figure: Any) -> bytes:
    """The figure in 32 colours: a third of the bytes of full colour, and nobody sees the difference at this size."""
    from PIL import Image

    drawn, packed = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png")
    image = Image.open(drawn).convert("RGB").quantize(32, dither=Image.Dither.NONE)
    image.save(packed, format="png", optimize=True)
    return packed.getvalue()
