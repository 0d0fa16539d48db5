"""Excerpts tell nothing but what is in the music: not by their bytes, size, tags, level, length, rate or spectrum."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy.signal import welch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict

from lofi_assets.audio.encode import encode_mp3
from lofi_assets.files.hashing import sha256_file
from lofi_assets.listening import excerpts
from lofi_assets.listening.errors import ListeningError
from lofi_assets.listening.headphones import TONE_S, tones
from lofi_assets.listening.items import TestKey, audio_path, random_id
from lofi_assets.listening.opening import Clip, Judged, open_test
from lofi_assets.metrics.embedding import resampled
from lofi_assets.store import Store
from lofi_assets_tests.listening.stand_in_listeners import START


def music(seed: int, seconds: float, rate: int = 48_000) -> np.ndarray:
    """(2, frames) of a few decaying tones over noise that falls with frequency."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate)) / rate
    noise = np.cumsum(rng.standard_normal((2, len(t))), axis=1)
    noise -= noise.mean(axis=1, keepdims=True)
    tone = sum(np.sin(2 * np.pi * f * t) * np.exp(-3 * (t % 0.5)) for f in rng.uniform(100, 4000, 4))
    hiss = 0.02 * rng.standard_normal((2, len(t)))
    mixed = 0.2 * tone + 0.1 * noise / np.abs(noise).max() + hiss
    return (0.5 * mixed / np.abs(mixed).max()).astype(np.float32)


def written(path: Path, samples: np.ndarray, carrier: str) -> Path:
    """The same samples in another carrier: rate, codec, bits, level."""
    import soxr

    if carrier == "mp3":
        path.write_bytes(encode_mp3(samples))
    elif carrier == "flac at 44.1 kHz, quiet":
        soundfile.write(path, 0.1 * soxr.resample(samples.T, 48_000, 44_100), 44_100, format="FLAC", subtype="PCM_16")
    else:
        soundfile.write(path, samples.T, 48_000, format="WAV", subtype="PCM_24")
    return path


def features(samples: np.ndarray) -> np.ndarray:
    """Mean level in dB of 32 bands up to half the rate."""
    _, power = welch(samples.mean(axis=0), fs=excerpts.PLAYED_RATE, nperseg=2048)
    bands = np.array_split(power[1:], 32)
    return np.array([10 * np.log10(band.mean() + 1e-16) for band in bands])


def auc(made: list[np.ndarray], labels: np.ndarray, contents: np.ndarray) -> float:
    """Of a linear classifier of the spectra, on contents that it has not seen."""
    found = np.stack([features(samples) for samples in made])
    classifier = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    judged = cross_val_predict(classifier, found, labels, groups=contents, cv=GroupKFold(8), method="decision_function")
    return float(roc_auc_score(labels, judged))


@pytest.mark.parametrize("carrier", [pytest.param("mp3", marks=pytest.mark.slow), "flac at 44.1 kHz, quiet"])
def test_the_spectrum_does_not_tell_how_a_recording_came(tmp_path: Path, carrier: str) -> None:
    """The same music on both sides, as 24-bit WAV on one of them: AUC within .4 to .6."""
    n, cut = 16, []
    for number in range(2 * n):
        path = written(tmp_path / f"{number}.audio", music(number % n, 1.3), carrier if number >= n else "wav")
        cut += excerpts.cuts(path, 1.2)
    labels, contents = np.arange(2 * n) >= n, np.arange(2 * n) % n
    assert 0.4 <= auc(excerpts.alike(cut), labels, contents) <= 0.6
    if "flac" in carrier:  # which the features would see without the chain
        untreated = [resampled(samples, source=48_000, target=32_000) for samples in cut]
        assert auc(untreated, labels, contents) > 0.9


@pytest.mark.slow
def test_the_spectrum_does_not_tell_a_label_that_is_all_the_difference(tmp_path: Path) -> None:
    """Two sides of the same kind of music: AUC within .4 to .6."""
    n, cut = 60, []
    for number in range(2 * n):
        cut += excerpts.cuts(written(tmp_path / f"{number}.wav", music(number, 0.9), "wav"), 0.8)
    assert 0.4 <= auc(excerpts.alike(cut), np.arange(2 * n) >= n, np.arange(2 * n)) <= 0.6


def test_nothing_is_above_the_band_and_all_are_alike(tmp_path: Path) -> None:
    import pyloudnorm

    rng = np.random.default_rng(0)
    loud = [rng.uniform(-0.9, 0.9, (2, 96_000)).astype(np.float32), music(3, 2.0), 0.01 * music(4, 2.0)]
    made = excerpts.alike(loud)
    assert {samples.shape for samples in made} == {(2, 64_000)}
    levels = [pyloudnorm.Meter(32_000).integrated_loudness(samples.T) for samples in made]
    assert max(levels) - min(levels) < 0.5
    assert all(np.abs(samples).max() <= 10 ** (-1 / 20) + 1e-3 for samples in made)
    assert all(np.abs(samples[:, [0, -1]]).max() < 1e-3 for samples in made)


def test_an_excerpt_is_never_delivered_twice_with_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    path.write_bytes(excerpts.wav(excerpts.steps(music(0, 1.0)), 48_000))
    one, other = excerpts.played(path), excerpts.played(path)
    assert one != other and len(one) == len(other) == path.stat().st_size
    first, second = (np.frombuffer(data[44:], dtype=np.int16).astype(int) for data in (one, other))
    assert np.abs(first - second).max() <= 2


def test_an_obvious_control_is_plainly_another_sound() -> None:
    samples = music(1, 2.0)
    broken = excerpts.made_obvious(samples)
    assert broken.shape == samples.shape and np.isfinite(broken).all()
    one, other = (features(resampled(x, source=48_000, target=32_000)) for x in (samples, broken))
    assert np.abs(one - other).mean() > 6.0


@pytest.mark.parametrize("cutoff", [3500.0, 7000.0])
def test_anchors_are_those_of_the_recommendation(cutoff: float) -> None:
    """BS.1534-3, 5.1: flat within .1 dB below the edge, 25 dB down at 8/7 of it, 50 dB at 9/7."""
    impulse = np.zeros((2, 48_000), dtype=np.float32)
    impulse[:, 24_000] = 1.0
    response = 20 * np.log10(np.abs(np.fft.rfft(excerpts.low_passed(impulse, cutoff)[0])) + 1e-12)
    assert np.abs(response[: round(cutoff)]).max() < 0.1
    assert response[round(cutoff * 8 / 7) :].max() < -25 and response[round(cutoff * 9 / 7) :].max() < -50


def test_the_tones_of_the_headphone_check_are_as_they_were_drawn() -> None:
    for quietest in range(3):
        samples = np.frombuffer(tones(quietest)[44:], dtype=np.int16).reshape(-1, 2).astype(float)
        step, length = round((TONE_S + 0.5) * 32_000), round(TONE_S * 32_000)
        parts = [samples[n * step : n * step + length] for n in range(3)]
        left = [float(np.sqrt((part[:, 0] ** 2).mean())) for part in parts]
        assert int(np.argmin(left)) == quietest and min(left) == pytest.approx(max(left) / 2, rel=0.02)
        sums = [float(np.abs(part.sum(axis=1)).max()) for part in parts]
        assert int(np.argmin(sums)) != quietest and min(sums) <= 1.0


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Clip]]:
    """Six of each side, with room for two excerpts of 4 s."""
    folder = tmp_path_factory.mktemp("recordings")
    found: dict[str, list[Clip]] = {"ai": [], "real": []}
    for number in range(12):
        side = ("ai", "real")[number % 2]
        path = written(folder / f"{side}-{number}.mp3", music(number, 8.5), "mp3")
        found[side].append(Clip(path=path, style_id=("CORE-01", "CORE-02")[number // 2 % 2]))
    return found


@pytest.fixture
def judged(recordings: dict[str, list[Clip]]) -> Judged:
    return Judged(about="a" * 64, checkpoint_id="step 80", generated=recordings["ai"], real=recordings["real"])


def opened(store: Store, judged: Judged, **options: object) -> object:
    asked = {"form": "pair", "trials": 8, "listeners": 60, "seconds": 4.0, "spending": "pocock", "now": START}
    return open_test(store, judged, **(asked | options))  # type: ignore[arg-type]


def test_a_test_is_made_of_files_that_tell_nothing_and_the_next_waits_for_its_end(store: Store, judged: Judged) -> None:
    plan = opened(store, judged)
    with pytest.raises(ListeningError, match="is still open; let it end, or close it"):
        opened(store, judged)
    folder = store.listening / plan.test  # type: ignore[attr-defined]
    files = sorted((folder / "audio").iterdir())
    key = TestKey.read(store, folder.name)
    assert {path.stem for path in files} == set(key.items) and len(files) == 12 + 12 + 7
    assert all(re.fullmatch(r"[0-9a-f]{16}\.wav", path.name) for path in files)
    assert len({path.stat().st_size for path in files}) == 1
    assert (folder / "key.json").stat().st_mode & 0o077 == 0
    assert all(sha256_file(path) == key.items[path.stem].sha256 for path in files)
    again = random_id(), random_id()
    assert again[0] != again[1] and not set(again) & set(key.items)
    order = sorted(key.items, key=lambda item: audio_path(folder, item).stat().st_mtime_ns)
    sides = [key.items[item].truth for item in order]
    assert sides != sorted(sides) and sides != sorted(sides, reverse=True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"trials": 16}, "too few excerpts"),
        ({"trials": 7}, "multiple of 4"),
        ({"listeners": 4}, "no panel"),
        ({"listeners": 8}, "plan for more listeners or trials"),
        ({"seconds": 20.0}, "0 generated excerpts of 20 s"),
    ],
)
def test_a_plan_that_could_show_nothing_is_refused(
    store: Store, judged: Judged, options: dict[str, object], said: str
) -> None:
    with pytest.raises(ListeningError, match=said):
        opened(store, judged, **options)


def test_silent_clips_and_styles_without_a_partner_make_no_test(store: Store, judged: Judged, tmp_path: Path) -> None:
    silent = Clip(path=written(tmp_path / "silent.mp3", np.zeros((2, 8 * 48_000 + 9)), "mp3"), style_id="CORE-01")
    with pytest.raises(ListeningError, match="silent"):
        opened(store, replace(judged, generated=[*judged.generated, silent]))
    other = [Clip(path=clip.path, style_id="THEME-09") for clip in judged.real]
    with pytest.raises(ListeningError, match="no style has both"):
        opened(store, replace(judged, real=other))
