"""Near-duplicates are found whatever was done to them, and songs of one band are not taken for each other."""

import io
from collections.abc import Callable

import numpy as np
import pytest
import soundfile
import soxr

from lofi_assets.audio import fingerprint as fingerprints
from lofi_assets.audio.fingerprint import DuplicatePair, compare, find_duplicates, fingerprint
from lofi_assets.audio.synth.song import Song, render

RATE = 44_100


@pytest.fixture(scope="module")
def songs() -> dict[str, np.ndarray]:
    """Four songs of one band in one tempo and one key: only the notes differ."""
    return {f"song_{seed}": render(Song(seed, 76, 2, "minor", 40, RATE)) for seed in range(4)}


def _print(samples: np.ndarray) -> np.ndarray:
    return fingerprint(samples, sample_rate=RATE)


def _mp3_128(samples: np.ndarray) -> np.ndarray:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples.T, RATE, format="MP3", bitrate_mode="CONSTANT", compression_level=0.65)
    buffer.seek(0)
    return soundfile.read(buffer, dtype="float32")[0].T


def _low_pass(samples: np.ndarray) -> np.ndarray:
    spectrum = np.fft.rfft(samples, axis=1)
    hertz = np.fft.rfftfreq(samples.shape[1], 1 / RATE)
    return np.fft.irfft(spectrum / (1 + (hertz / 3_000) ** 4), samples.shape[1], axis=1).astype(np.float32)


DISGUISES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "re-encoded": _mp3_128,
    "quieter": lambda x: x * np.float32(0.5),
    "muffled": _low_pass,
    "trimmed": lambda x: x[:, round(7.03 * RATE) :],
    "delayed": lambda x: np.pad(x, ((0, 0), (round(3.37 * RATE), 0))),
    "mono": lambda x: x.mean(axis=0, keepdims=True),
    "resampled": lambda x: soxr.resample(soxr.resample(x.T, RATE, 32_000), 32_000, RATE).T[:, : x.shape[1]],
}


@pytest.mark.parametrize("disguise", DISGUISES)
def test_a_disguised_copy_is_found(songs: dict[str, np.ndarray], disguise: str) -> None:
    copy = DISGUISES[disguise](songs["song_1"])
    prints = {name: _print(samples) for name, samples in songs.items()} | {"copy": _print(copy)}
    best = find_duplicates(prints)[0]
    assert (best.a, best.b, best.verdict) == ("copy", "song_1", "duplicate")
    assert all(pair.verdict == "review" for pair in find_duplicates(prints)[1:] if "copy" not in (pair.a, pair.b))


def test_the_offset_of_a_copy_is_told(songs: dict[str, np.ndarray]) -> None:
    trimmed = songs["song_2"][:, 7 * RATE :] * np.float32(0.5)
    pair = find_duplicates({"a": _print(songs["song_2"]), "b": _print(_mp3_128(trimmed))})[0]
    assert pair.verdict == "duplicate"
    assert pair.offset == pytest.approx(7.0, abs=0.1)


def test_songs_of_one_band_are_not_taken_for_copies(songs: dict[str, np.ndarray]) -> None:
    prints = {name: _print(samples) for name, samples in songs.items()}
    prints |= {f"other_{seed}": _print(render(Song(seed, 76 + seed, seed, "major", 40, RATE))) for seed in range(3)}
    assert [pair for pair in find_duplicates(prints) if pair.verdict == "duplicate"] == []
    # Not only is no pair reported: every pair is far from the limit.
    names = sorted(prints)
    similarities = [compare(prints[a], prints[b])[0] for i, a in enumerate(names) for b in names[i + 1 :]]
    assert max(similarities) < 0.70


def test_silence_is_no_duplicate_of_silence() -> None:
    silence = np.zeros((2, 40 * RATE), np.float32)
    assert find_duplicates({"a": _print(silence), "b": _print(silence)}) == []
    assert compare(_print(silence), _print(silence)) == (0.0, 0.0)
    assert _print(silence[:, :100]).size == 0


def test_two_thousand_tracks_are_searched_without_comparing_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    prints = {f"t{index:04d}": rng.integers(1, 1 << 32, 1_000, dtype=np.uint32) for index in range(2_000)}
    noisy = prints["t0100"].copy()
    flips = rng.random((len(noisy), 32)) < 0.10
    noisy ^= np.packbits(flips, axis=1).view(">u4")[:, 0].astype(np.uint32)
    prints["copy"] = noisy[80:]
    compared = []

    def counted(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
        compared.append(1)
        return compare(a, b)

    monkeypatch.setattr(fingerprints, "compare", counted)
    pairs = find_duplicates(prints)
    assert [(pair.a, pair.b) for pair in pairs] == [("copy", "t0100")]
    assert pairs[0].similarity == pytest.approx(0.9, abs=0.01)
    assert len(compared) < 2_000  # of two million


def test_the_result_does_not_depend_on_the_order_of_the_tracks(songs: dict[str, np.ndarray]) -> None:
    prints = {name: _print(samples) for name, samples in songs.items()} | {"copy": _print(songs["song_0"])}
    backwards = dict(reversed(prints.items()))
    assert find_duplicates(prints) == find_duplicates(backwards)
    assert find_duplicates(prints)[0] == DuplicatePair("copy", "song_0", 1.0, 0.0)
