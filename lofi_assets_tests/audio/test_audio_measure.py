"""Measurements and the score, on signals whose answers are known."""

import numpy as np
import pytest
import soxr

from lofi_assets.audio import encode, measure, score
from lofi_assets.audio.decode import AudioError

RATE = 48_000
GATE = 0.001


def _music(seconds: float = 10.0, *, seed: int = 0) -> np.ndarray:
    """A chord with a beat and a little hiss, peaking at 0.7."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    chord = sum(np.sin(2 * np.pi * hertz * time) / n for n, hertz in enumerate((110, 261.6, 329.6, 392.0, 880.3), 1))
    chord = chord * (0.3 + np.exp(-4 * (time % 0.5)))
    stereo = np.stack([chord, np.roll(chord, 40)]) + rng.normal(0, 0.003, (2, len(time)))
    return (stereo * 0.7 / np.abs(stereo).max()).astype(np.float32)


def _clipped(gain: float) -> np.ndarray:
    return np.clip(_music() * gain, -1.0, 1.0).astype(np.float32)


def test_a_clean_master_does_not_clip() -> None:
    assert measure.clipped_share(_music()) == 0.0
    assert measure.clipped_share(np.zeros((2, RATE), np.float32)) == 0.0


def test_a_clipped_master_turned_down_is_still_clipped() -> None:
    clipped = _clipped(4.0)
    assert measure.clipped_share(clipped) > GATE
    assert measure.clipped_share(clipped * np.float32(0.7)) > GATE
    sixteen_bits = np.rint(clipped * 0.7 * 32768) / 32768
    assert measure.clipped_share(sixteen_bits.astype(np.float32)) > GATE


def test_clipping_hides_after_mastering_which_is_why_the_source_is_measured() -> None:
    source = _clipped(2.0)
    resampled = soxr.resample(source.T, RATE, 44_100, quality="VHQ").T
    mastered = encode.master(resampled, sample_rate=44_100)
    assert measure.clipped_share(source) > 5 * measure.clipped_share(mastered)


def test_limiting_is_not_clipping() -> None:
    assert measure.clipped_share(np.tanh(_music() * 3).astype(np.float32)) < GATE


@pytest.mark.parametrize("samples", [np.full((2, 100), np.nan, np.float32), np.zeros((2, 0), np.float32)])
def test_nothing_is_measured_on_nothing(samples: np.ndarray) -> None:
    for measured in (measure.clipped_share, lambda x: measure.silent_share(x, sample_rate=RATE)):
        with pytest.raises(AudioError):
            measured(samples)


def test_silence_is_digital_silence_and_not_hiss() -> None:
    track = _music()
    track[:, 3 * RATE :] = 0.0
    assert measure.silent_share(track, sample_rate=RATE) == pytest.approx(0.7, abs=0.01)
    hiss = np.random.default_rng(1).normal(0, 10 ** (-50 / 20), track.shape).astype(np.float32)
    assert measure.silent_share(track + hiss, sample_rate=RATE) == 0.0
    assert measure.longest_gap_s(track, sample_rate=RATE) == pytest.approx(7.0, abs=0.1)


def test_levels_are_those_of_the_standards() -> None:
    sine = np.sin(2 * np.pi * 997 * np.arange(20 * RATE) / RATE).astype(np.float32)
    left_only = np.stack([sine, np.zeros_like(sine)])
    # ITU-R BS.1770-4: a full-scale 997 Hz sine in one channel reads -3.01 LKFS.
    assert measure.loudness_lufs(left_only) == pytest.approx(-3.01, abs=0.02)
    assert measure.loudness_lufs(np.zeros((2, RATE), np.float32)) == -70.0
    assert measure.peak_dbfs(left_only * np.float32(0.5)) == pytest.approx(-6.02, abs=0.01)


def test_loudness_agrees_with_pyloudnorm() -> None:
    pyloudnorm = pytest.importorskip("pyloudnorm")
    track = _music()
    expected = pyloudnorm.Meter(RATE).integrated_loudness(track.T)
    assert measure.loudness_lufs(track) == pytest.approx(expected, abs=0.06)


def test_the_true_peak_lies_between_the_samples() -> None:
    # A quarter of the sample rate at 45 degrees: every sample is 3.01 dB below the peak of the wave.
    frames = np.arange(RATE)
    fade = np.minimum(1.0, np.minimum(frames, frames[::-1]) / 4_800)
    wave = (np.sin(np.pi / 2 * frames + np.pi / 4) * fade).astype(np.float32)[None]
    assert measure.peak_dbfs(wave) == pytest.approx(-3.01, abs=0.01)
    assert measure.true_peak_dbtp(wave) == pytest.approx(0.0, abs=0.05)
    assert measure.true_peak_dbtp(_music()) == pytest.approx(measure.peak_dbfs(_music()), abs=0.1)


def test_the_stereo_image_is_told() -> None:
    left = _music()[0]
    mono, opposed = measure.stereo_image(np.stack([left, left])), measure.stereo_image(np.stack([left, -left]))
    dead = measure.stereo_image(np.stack([left, np.zeros_like(left)]))
    assert mono.dual_mono and mono.correlation == pytest.approx(1.0)
    assert opposed.correlation == pytest.approx(-1.0) and not opposed.dual_mono
    assert dead.dead_channel and not mono.dead_channel
    assert measure.stereo_image(left[None]).dual_mono


def test_a_brick_wall_is_seen_and_a_soft_low_pass_is_not() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, (1, 10 * RATE)).astype(np.float32)
    upsampled = soxr.resample(soxr.resample(noise[0], RATE, 22_050), 22_050, RATE, quality="VHQ")[None]
    wall = measure.spectrum(upsampled, sample_rate=RATE)
    assert wall.edge_drop_db > 25 and 9_500 < wall.edge_hz < 11_500
    spectrum = np.fft.rfft(noise[0])
    hertz = np.fft.rfftfreq(noise.shape[1], 1 / RATE)
    soft = np.fft.irfft(spectrum / np.sqrt(1 + (hertz / 5_000) ** 4)).astype(np.float32)[None]
    assert measure.spectrum(soft, sample_rate=RATE).edge_drop_db < 20
    assert (
        measure.spectrum(noise, sample_rate=RATE).flatness
        > 0.45
        > measure.spectrum(_music(), sample_rate=RATE).flatness
    )


def test_an_envelope_is_small_and_covers_the_track() -> None:
    picture = measure.envelope(_music())
    assert picture.shape == (400, 2)
    assert picture[:, 1].max() == pytest.approx(0.7, abs=0.01) and (picture[:, 0] <= picture[:, 1]).all()


FINE = {
    "clipped_share": 0.0,
    "silent_share": 0.0,
    "flatness": 0.02,
    "dead_channel": False,
    "edge_hz": 20_000.0,
    "edge_drop_db": 40.0,
    "dc_offset": 0.0,
    "correlation": 0.6,
    "noise_floor_db": 15.0,
    "source_peak_dbfs": -1.0,
    "duration_s": 90.0,
}


def test_a_faultless_track_scores_a_hundred() -> None:
    assert score.total_score(score.score_parts(FINE)) == 100


@pytest.mark.parametrize(
    ("fault", "most"),
    [
        ({"clipped_share": 0.006}, 25),
        ({"silent_share": 0.69}, 15),
        ({"flatness": 0.6, "noise_floor_db": 0.5}, 15),
        ({"edge_hz": 10_700.0, "edge_drop_db": 97.0}, 60),
        ({"dc_offset": 0.3}, 50),
        ({"correlation": -1.0}, 50),
        ({"dead_channel": True}, 15),
        ({"source_peak_dbfs": -50.0}, 60),
    ],
)
def test_one_fault_is_enough_to_sink_the_score(fault: dict[str, float], most: int) -> None:
    assert 0 <= score.total_score(score.score_parts(FINE | fault)) <= most


def test_a_lofi_low_pass_costs_no_points() -> None:
    assert score.score_parts(FINE | {"edge_hz": 5_000.0, "edge_drop_db": 15.0})["bandwidth"] == 1.0


def test_sixty_to_a_hundred_and_twenty_seconds_score_best() -> None:
    scores = [score.score_parts(FINE | {"duration_s": seconds})["duration"] for seconds in (30, 60, 90, 120, 180)]
    assert scores == [0.5, 1.0, 1.0, 1.0, 0.5]
