"""The filters of the synthesised tape."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lofi_assets.audio.synth import song

RATE = 44_100
HEAD = song._worn_head(7_000.0)


def transformed_at_once(samples: NDArray[Any], magnitude: Callable[[NDArray[Any]], NDArray[Any]]) -> NDArray[Any]:
    """The filter by one transform in double precision, with zeros enough behind that nothing comes round."""
    size = samples.shape[1] + 4 * RATE
    spectrum = np.fft.rfft(samples.astype(np.float64), size) * magnitude(np.fft.rfftfreq(size, 1.0 / RATE))
    return np.fft.irfft(spectrum, size)[:, : samples.shape[1]]


@pytest.mark.parametrize("frames", [1, 1_000, song.BLOCK, 3 * song.BLOCK + 17])
def test_a_filter_in_blocks_is_one_transform(frames: int) -> None:
    samples = np.random.default_rng(0).standard_normal((2, frames), dtype=np.float32)
    found = song._filtered(samples, RATE, HEAD)
    assert found.shape == samples.shape and found.dtype == np.float32
    np.testing.assert_allclose(found, transformed_at_once(samples, HEAD), atol=1e-5)


def test_a_worn_head_loses_treble_and_rumble_and_moves_nothing() -> None:
    time = np.arange(2 * RATE) / RATE
    tones = np.stack([np.sin(2 * np.pi * hertz * time) for hertz in (20.0, 1_000.0, 14_000.0)]).astype(np.float32)
    middle = slice(RATE // 2, 3 * RATE // 2)
    heard = song._filtered(tones, RATE, HEAD)[:, middle]
    expected = HEAD(np.array([20.0, 1_000.0, 14_000.0]))[:, None] * tones[:, middle]
    np.testing.assert_allclose(heard, expected, atol=1e-5)
    assert expected.max(axis=1) == pytest.approx([0.31, 1.0, 0.24], abs=0.02)
