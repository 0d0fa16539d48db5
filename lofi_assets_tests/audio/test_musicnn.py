"""The MusiCNN port against TensorFlow's outputs, and what a caller may rely on."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from lofi_assets.audio import musicnn
from lofi_assets.audio.musicnn import LABELS, PATCH_S, ModelName, MusicNN, log_mel, window_frames

MODELS: tuple[ModelName, ...] = ("msd", "mtt")
TWELVE_SECONDS = 12 * musicnn.SAMPLE_RATE


def _noise(frames: int, *, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(frames) * 0.1).astype(np.float32)


@pytest.mark.parametrize("model", MODELS)
def test_tags_and_embeddings_match_the_published_network(reference_dir: Path, model: ModelName) -> None:
    golden = load_file(reference_dir / "musicnn" / f"{model}_golden.safetensors")
    network = MusicNN(model)
    audio = golden["input.audio_16k"]
    assert np.abs(network.tags(audio) - golden["output.tags"]).max() < 1e-5
    assert np.abs(network.embed(audio, hop_s=PATCH_S) - golden["output.penultimate"]).max() < 1e-3


def test_log_mel_patches_match_the_published_front_end(reference_dir: Path) -> None:
    golden = load_file(reference_dir / "musicnn" / "msd_golden.safetensors")
    # The reference file stores the patches mel-major under a time-major shape.
    expected = golden["input.log_mel_patches"].reshape(-1, 96, 187).transpose(0, 2, 1)
    # Powers on the edge between two float16 values may round either way: one unit in the last place.
    mel = log_mel(golden["input.audio_16k"])
    assert np.abs(mel[window_frames(len(mel), PATCH_S)] - expected).max() < 1e-3


def test_mel_filters_are_librosas() -> None:
    librosa_filters = pytest.importorskip("librosa.filters")
    expected = librosa_filters.mel(sr=16_000, n_fft=512, n_mels=96).T
    np.testing.assert_allclose(musicnn.mel_filters(), expected, atol=1e-7)


def test_loud_audio_does_not_overflow_the_float16_rounding() -> None:
    loud = np.sin(np.arange(TWELVE_SECONDS) * 0.3).astype(np.float32) * 8
    assert np.isfinite(log_mel(loud)).all()


@pytest.mark.parametrize("model", MODELS)
def test_every_tag_has_a_label(model: ModelName) -> None:
    tags = MusicNN(model).tags(_noise(TWELVE_SECONDS))
    assert tags.shape == (4, len(LABELS[model])) == (4, 50)
    assert ((tags >= 0) & (tags <= 1)).all()


def test_embedding_windows_start_every_second_and_do_not_depend_on_their_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    audio, network = _noise(TWELVE_SECONDS), MusicNN("msd")
    windows = network.embed(audio)
    assert windows.shape == (10, 200)
    monkeypatch.setattr(musicnn, "BATCH", 3)
    monkeypatch.setattr(musicnn, "FRAMES", 50)
    np.testing.assert_allclose(network.embed(audio), windows, atol=1e-4)


@pytest.mark.parametrize("model", MODELS)
def test_windows_that_overlap_hear_what_they_hear_alone(model: ModelName) -> None:
    audio, network = _noise(TWELVE_SECONDS), MusicNN(model)
    overlapping = network.embed(audio, hop_s=PATCH_S / 11)
    assert overlapping.shape == (34, 200)
    np.testing.assert_allclose(overlapping[::11], network.embed(audio, hop_s=PATCH_S), atol=1e-4)


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (np.zeros((2, TWELVE_SECONDS), np.float32), "mono"),
        (np.full(TWELVE_SECONDS, np.nan, np.float32), "NaN"),
        (np.zeros(16_000, np.float32), "at least 2.99 s"),
    ],
)
def test_what_it_cannot_hear_is_refused_by_name(audio: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MusicNN("mtt").tags(audio)
