"""What the layers of a denoiser cost, for people: a picture, and the names of the dearest. Read without onnx."""

import statistics
from collections.abc import Sequence

from lofi_assets import pictures
from lofi_assets.quantization.tier_manifest import LayerLoss

NAMED = 8
"""Layers that a picture and a list name."""


def sensitivity_picture(layers: Sequence[LayerLoss]) -> bytes:
    """A point for each layer in the order of the graph: its error in 4 bits as a share of the answer's power."""
    values = {_short(loss): error_share(loss.snr_db_4) for loss in layers}
    dearest = [_short(loss) for loss in by_cost(layers)[:NAMED]]
    usual = statistics.median(values.values())
    return pictures.ranked(values, label="error, share of power", marked=dearest, at=usual, of="layers")


def most_sensitive(layers: Sequence[LayerLoss]) -> list[str]:
    """The dearest layers, each with the dB that is left when it alone has 4 bits."""
    return [f"{_short(loss)} {loss.snr_db_4:.1f} dB" for loss in by_cost(layers)[:NAMED]]


def by_cost(layers: Sequence[LayerLoss]) -> list[LayerLoss]:
    """The layers, those that cost most in 4 bits first."""
    return sorted(layers, key=lambda loss: (loss.snr_db_4, loss.layer))


def error_share(decibel: float) -> float:
    """The power of an error as a share of the answer's; 1e-20 stands for none."""
    return float(10 ** (-decibel / 10))


def _short(loss: LayerLoss) -> str:
    """`transformer_blocks.3.attn.to_v` -> `3.attn.to_v`."""
    return loss.layer.partition(".")[2] or loss.layer
