"""Mastering and encoding: gapless, at -1 dBFS, the same bytes every time."""

from pathlib import Path

import numpy as np
import pytest

from lofi_assets.audio import encode, measure, mp3
from lofi_assets.audio.decode import AudioError, read_audio
from lofi_assets.constitution.gates import load_gates

RATE = 48_000


def _tone(frames: int, *, rate: int = RATE, channels: int = 2) -> np.ndarray:
    time = np.arange(frames) / rate
    chord = sum(np.sin(2 * np.pi * hertz * time + phase) for hertz, phase in ((220.0, 0), (331.0, 1), (440.7, 2)))
    return np.tile((chord * 0.2 * (1 + 0.3 * np.sin(2 * np.pi * 2 * time))).astype(np.float32), (channels, 1))


@pytest.mark.parametrize("frames", [48_000, 48_001, 1152 * 40, 1152 * 40 - 576, 1152 * 40 + 1151, 12_345])
def test_an_mp3_decodes_to_exactly_the_samples_that_went_in(tmp_path: Path, frames: int) -> None:
    mastered = encode.master(_tone(frames), sample_rate=RATE)
    encoded = encode.write_mp3(mastered, tmp_path / "a.mp3")
    decoded = read_audio(tmp_path / "a.mp3", root=tmp_path).samples
    assert (encoded.frames, encoded.frames_drift, encoded.sample_rate, encoded.channels) == (frames, 0, RATE, 2)
    assert encoded.bit_rate_kbps == 320
    # Not only as many, but in the same place: a shift by one sample is ten times worse.
    middle = slice(2_000, frames - 2_000)
    error = np.abs(decoded[:, middle] - mastered[:, middle]).mean()
    shifted = np.abs(np.roll(decoded, 1, axis=1)[:, middle] - mastered[:, middle]).mean()
    assert error < 0.1 * shifted


def test_the_info_frame_says_what_the_file_is() -> None:
    data = encode.encode_mp3(encode.master(_tone(50_000), sample_rate=RATE))
    found = mp3.scan(data)
    assert found is not None and found.damage == ""
    assert found.claimed_frames == found.frames and found.claimed_bytes == len(data)
    assert found.delay == 576 and found.padding is not None
    assert found.frames * 1152 - found.delay - found.padding == 50_000
    info = data[:960]
    assert int.from_bytes(info[190:192], "big") == mp3.crc16(info[:190])
    assert int.from_bytes(info[188:190], "big") == mp3.crc16(data[960:])


def test_the_same_samples_give_the_same_bytes() -> None:
    mastered = encode.master(_tone(60_000, rate=44_100), sample_rate=44_100)
    assert encode.encode_mp3(mastered) == encode.encode_mp3(mastered.copy())


@pytest.mark.parametrize("rate", [8_000, 32_000, 44_100, 48_000, 96_000])
def test_any_rate_becomes_48_khz_stereo_at_minus_one_dbfs(rate: int) -> None:
    mastered = encode.master(_tone(rate, rate=rate, channels=1) + np.float32(0.1), sample_rate=rate)
    assert mastered.shape == (2, RATE) and mastered.dtype == np.float32
    np.testing.assert_array_equal(mastered[0], mastered[1])
    assert abs(measure.peak_dbfs(mastered) - -1.0) < 0.005
    assert measure.dc_offset(mastered) < 0.01


def test_mono_becomes_stereo_and_peaks_where_it_should_after_decoding(tmp_path: Path) -> None:
    encoded = encode.write_mp3(encode.master(_tone(RATE, channels=1), sample_rate=RATE), tmp_path / "a.mp3")
    assert encoded.channels == 2 and -1.3 <= encoded.peak_dbfs <= -0.5


def clicks(seed: int, *, longest: int, rate: int = 44_100) -> np.ndarray:
    """A tone gated on and off, and bursts of noise of up to `longest` samples, as vinyl clicks are: (2, 3 s)."""
    rng = np.random.default_rng(seed)
    time = np.arange(3 * rate) / rate
    sound = 0.25 * np.sin(2 * np.pi * 220.0 * time) * (time * 2 % 1 < 0.5)
    for start in rng.integers(0, len(time) - longest, 12):
        length = int(rng.integers(1, longest + 1))
        sound[start : start + length] += rng.uniform(0.3, 0.9) * rng.uniform(-1, 1, length)
    return np.stack([sound, sound]).astype(np.float32)


def square() -> np.ndarray:
    wave = np.sign(np.sin(2 * np.pi * 110 * np.arange(RATE) / RATE)).astype(np.float32)
    return np.stack([wave, wave])


MOVED_BY_THE_CODEC = [
    # (what, source, its rate, peak in dBFS of the first encoding decoded again, may differ by)
    ("clicks, a little low", clicks(14, longest=1), 44_100, -1.34, 0.03),
    ("clicks, low", clicks(16, longest=1), 44_100, -1.36, 0.03),
    ("bursts, lower", clicks(16, longest=40), 44_100, -1.44, 0.1),
    ("bursts, lower by a decibel", clicks(19, longest=40), 44_100, -1.73, 0.3),
    ("clicks of one sample, mostly above what the codec keeps", clicks(8, longest=1, rate=RATE), RATE, -2.52, 0.3),
    ("bursts, over full scale", clicks(9, longest=40, rate=RATE), RATE, 1.52, 0.5),
    ("a square wave, over full scale", square(), RATE, 0.68, 0.1),
]


@pytest.mark.parametrize(
    ("source", "rate", "first", "tolerance"),
    [case[1:] for case in MOVED_BY_THE_CODEC],
    ids=[case[0] for case in MOVED_BY_THE_CODEC],
)
def test_a_peak_that_the_codec_moves_is_brought_back_and_rejects_no_track(
    tmp_path: Path, source: np.ndarray, rate: int, first: float, tolerance: float
) -> None:
    mastered = encode.master(source, sample_rate=rate)
    (tmp_path / "once.mp3").write_bytes(encode.encode_mp3(mastered))
    once = measure.peak_dbfs(read_audio(tmp_path / "once.mp3", root=tmp_path).samples)
    assert once == pytest.approx(first, abs=tolerance) and not -1.3 <= once <= -0.5
    before = mastered.copy()
    encoded = encode.write_mp3(mastered, tmp_path / "a.mp3")
    assert -1.3 <= encoded.peak_dbfs <= -0.5 and 2 <= encoded.attempts <= 3
    assert encoded.frames_drift == 0 and encoded.bit_rate_kbps == 320
    np.testing.assert_array_equal(mastered, before)
    again = encode.write_mp3(mastered, tmp_path / "b.mp3")
    assert (again.sha256, again.peak_dbfs) == (encoded.sha256, encoded.peak_dbfs)


def test_a_master_whose_peak_stays_in_place_is_encoded_once_as_it_is(tmp_path: Path) -> None:
    mastered = encode.master(_tone(RATE), sample_rate=RATE)
    encoded = encode.write_mp3(mastered, tmp_path / "a.mp3")
    assert encoded.attempts == 1 and (tmp_path / "a.mp3").read_bytes() == encode.encode_mp3(mastered)


def test_no_sample_is_clipped_to_bring_a_peak_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[float] = []
    plain = encode.encode_mp3
    monkeypatch.setattr(encode, "encode_mp3", lambda x: encoded.append(measure.peak_dbfs(x)) or plain(x))
    encode.write_mp3(encode.master(clicks(8, longest=1, rate=RATE), sample_rate=RATE), tmp_path / "a.mp3")
    assert len(encoded) > 1 and max(encoded) <= 0.0


@pytest.mark.parametrize("adds_db", [0.6, -0.4])
def test_an_encoder_that_never_lands_is_tried_a_bounded_number_of_times_and_then_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adds_db: float
) -> None:
    attempts: list[int] = []

    def missed(_: np.ndarray, path: Path, **given: int) -> encode.Encoded:
        attempts.append(given["attempts"])
        return encode.Encoded(path, "", RATE, 2, 320, encode.PEAK_DBFS + adds_db, RATE, 0, **given)

    monkeypatch.setattr(encode, "_write_and_verify", missed)
    found = encode.write_mp3(encode.master(_tone(RATE), sample_rate=RATE), tmp_path / "a.mp3")
    assert attempts == list(range(1, encode.MOST_ATTEMPTS + 1))
    assert found.attempts == encode.MOST_ATTEMPTS and not -1.3 <= found.peak_dbfs <= -0.5


def test_the_window_that_the_encoder_aims_at_is_the_gates() -> None:
    limits = {gate.id: gate.limit for gate in load_gates()}
    assert limits["audio.peak_min"] == encode.LOWEST_DECODED_PEAK_DBFS
    assert limits["audio.peak_max"] == encode.HIGHEST_DECODED_PEAK_DBFS


def test_samples_beyond_full_scale_are_clipped_and_do_not_wrap_around(tmp_path: Path) -> None:
    loud = _tone(RATE) * 3
    (tmp_path / "a.mp3").write_bytes(encode.encode_mp3(loud))
    decoded = read_audio(tmp_path / "a.mp3", root=tmp_path).samples
    assert np.corrcoef(decoded[0], np.clip(loud[0], -1, 1))[0, 1] > 0.999


def test_digital_silence_stays_silent() -> None:
    silence = encode.master(np.zeros((2, RATE), np.float32), sample_rate=RATE)
    assert not silence.any()


def test_surround_is_refused_and_not_folded_down() -> None:
    with pytest.raises(AudioError) as caught:
        encode.master(_tone(RATE, channels=6), sample_rate=RATE)
    assert caught.value.rule == "audio.channels"
