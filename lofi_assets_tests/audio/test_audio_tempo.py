"""Tempo: right where there is a beat, silent where there is none."""

import numpy as np
import pytest

from lofi_assets.audio.synth.song import Song, render
from lofi_assets.audio.tempo import estimate_tempo

RATE = 32_000
SONGS = [
    Song(1, 62, 6, "minor", 40, RATE, drums="half_time"),
    Song(2, 74, 0, "minor", 40, RATE),
    Song(3, 82, 5, "major", 40, RATE, chords="guitar", lead="flute", drums="half_time"),
    Song(4, 88, 7, "dorian", 40, RATE, chords="piano", lead="kalimba", drums="brushes", swing=0.66),
    Song(5, 96, 2, "major", 40, RATE, drums="four_floor"),
]


@pytest.mark.parametrize("song", SONGS, ids=lambda song: f"{song.bpm:g}")
def test_the_tempo_of_a_song_with_a_beat_is_right_within_one_percent(song: Song) -> None:
    estimate = estimate_tempo(render(song), sample_rate=RATE)
    assert estimate is not None
    assert estimate.bpm == pytest.approx(song.bpm, rel=0.01)
    assert 0.3 < estimate.confidence <= 1.0


def test_a_double_time_reading_is_folded_into_the_range() -> None:
    song = SONGS[1]
    slow = estimate_tempo(render(song), sample_rate=RATE, tempo_range=(60, 100))
    fast = estimate_tempo(render(song), sample_rate=RATE, tempo_range=(120, 180))
    assert slow is not None and slow.bpm == pytest.approx(74, rel=0.01)
    assert fast is None or fast.bpm == pytest.approx(148, rel=0.01)


def test_a_drone_and_silence_have_no_tempo() -> None:
    pad = Song(6, 66, 9, "dorian", 40, RATE, chords="pad", lead=None, drums="none", rain_dbfs=-40)
    assert estimate_tempo(render(pad), sample_rate=RATE) is None
    assert estimate_tempo(np.zeros((2, 40 * RATE), np.float32), sample_rate=RATE) is None
    assert estimate_tempo(np.zeros((2, RATE), np.float32), sample_rate=RATE) is None
