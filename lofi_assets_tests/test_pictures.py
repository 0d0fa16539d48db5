"""Pictures in the event log: drawn from what was measured, small, and never the reason that a stage fails."""

import math

import numpy as np
import pytest

from lofi_assets.audio import tempo
from lofi_assets.pictures import (
    curves_by_step,
    loss_curve,
    mel_levels,
    score_by_step,
    spectrogram,
    spectrogram_grid,
    waveforms,
)

LIMIT = 50_000
"""Bytes: pictures stay in Dagster's event log (lofi_assets/pictures.py)."""
RATE = 48_000


def is_png(data: bytes) -> bool:
    return data.startswith(b"\x89PNG\r\n") and len(data) > 200


def six_envelopes() -> dict[str, list[tuple[float, float]]]:
    """Six tracks of a steady level with a moving edge, as mastered music has."""
    peaks = np.clip(0.6 + 0.1 * np.random.default_rng(0).standard_normal((6, 400)), 0.0, 1.0)
    return {f"track_{number}": [(-value, value) for value in row] for number, row in enumerate(peaks)}


def chords() -> np.ndarray:
    """Eight seconds of decaying chords over faint crackle, (2, frames)."""
    t = np.arange(8 * RATE) / RATE
    tones = sum(0.1 * np.sin(2 * np.pi * hertz * t) for hertz in (220.0, 277.2, 329.6, 440.0))
    mono = tones * np.exp(-3 * (t % 0.8)) + 0.002 * np.random.default_rng(0).standard_normal(len(t))
    return np.stack([mono, mono]).astype(np.float32)


def test_waveforms_of_one_or_six_tracks_are_one_picture() -> None:
    assert is_png(waveforms(six_envelopes()))
    assert is_png(waveforms({"track_001": [(-0.5, 0.5)] * 400}))


def test_six_waveforms_fit_the_event_log() -> None:
    assert len(waveforms(six_envelopes())) <= LIMIT


def test_stereo_and_mono_have_a_spectrogram() -> None:
    assert is_png(spectrogram(chords(), sample_rate=RATE, title="lofi, chill"))
    assert is_png(spectrogram(chords()[0], sample_rate=RATE, title="lofi, chill"))


@pytest.mark.parametrize(("rate", "hop"), [(48_000, 960), (32_000, 3_000)])
def test_a_spectrogram_shows_what_librosa_shows(rate: int, hop: int) -> None:
    tempo._prepare_kernels()
    librosa = pytest.importorskip("librosa")
    mono = chords()[0]
    mel = librosa.feature.melspectrogram(y=mono, sr=rate, n_fft=2048, hop_length=hop, n_mels=80, fmax=16_000)
    shown = librosa.power_to_db(mel, ref=np.max, top_db=80)
    np.testing.assert_allclose(mel_levels(mono, sample_rate=rate, hop=hop), shown, atol=0.01)


def test_a_spectrogram_fits_the_event_log() -> None:
    assert len(spectrogram(chords(), sample_rate=RATE, title="lofi, chill")) <= LIMIT


def test_previews_beside_their_originals_fit_the_event_log() -> None:
    noise = np.random.default_rng(1).standard_normal((2, 10 * RATE)).astype(np.float32)
    data = spectrogram_grid(
        {"track_001": [chords(), noise], "track_002": [noise, noise]}, heads=("original", "step=5000"), sample_rate=RATE
    )
    assert is_png(data) and len(data) <= LIMIT


def test_measures_by_timestep_are_one_small_picture() -> None:
    curves = {name: [(step, 1 / (step + 1)) for step in range(21)] for name in ("t=125", "t=375", "t=625", "mean")}
    data = curves_by_step(curves, label="validation loss")
    assert is_png(data) and len(data) <= LIMIT


def test_silence_has_a_spectrogram() -> None:
    data = spectrogram(np.zeros(RATE, dtype=np.float32), sample_rate=RATE, title="silence")
    assert is_png(data) and len(data) <= LIMIT


@pytest.mark.parametrize("steps", [1, 2, 2_000])
def test_losses_of_any_number_of_steps_are_a_small_picture(steps: int) -> None:
    noise = np.random.default_rng(0).normal(1.0, 0.2, steps)
    data = loss_curve([(step, float(loss)) for step, loss in enumerate(noise, start=1)])
    assert is_png(data) and len(data) <= LIMIT


def test_a_loss_that_diverged_is_still_drawn() -> None:
    assert is_png(loss_curve([(1, 1.0), (2, math.inf), (3, math.nan)]))


def test_scores_are_drawn_with_their_marks() -> None:
    data = score_by_step({5000: 4.2, 10_000: 3.1}, label="FAD (vggish)", marks={"limit": 5.0})
    assert is_png(data) and len(data) <= LIMIT
    assert is_png(score_by_step({5000: 4.2}, label="FAD (musicnn)", marks={}))
