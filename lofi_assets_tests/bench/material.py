"""Audio to measure on: songs of the demo band, made once per run of the bench."""

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lofi_assets.audio.synth.song import Song, render

SAMPLE_RATE = 44_100


@cache
def _rendered(seconds: float) -> NDArray[np.float32]:
    return render(Song(seed=11, bpm=82.0, key=9, mode="minor", seconds=seconds, sample_rate=SAMPLE_RATE))


def write_song(path: Path, *, seconds: float) -> Path:
    """A stereo 24-bit WAV at 44.1 kHz, what artists deliver; returns `path`."""
    import soundfile

    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, _rendered(seconds).T, SAMPLE_RATE, subtype="PCM_24")
    return path
