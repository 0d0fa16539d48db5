"""Encoders and their cache: one loudness, one window grid, nothing stale, nothing untrained taken for trained."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from lofi_assets.metrics.clap import ClapEmbedder, ten_second_windows, unit_rows
from lofi_assets.metrics.embedding import Embedder, embed_files, levelled
from lofi_assets.metrics.encoders import load_embedder
from lofi_assets.metrics.errors import MetricError
from lofi_assets.metrics.musicnn import MusicnnEmbedder, MusicnnTagger
from lofi_assets.metrics.vggish import VggishEmbedder, log_mel_patches, mel_weights, vggish_network


def chord(seconds: float, rate: int, *, gain: float = 0.2) -> np.ndarray:
    t = np.arange(round(seconds * rate)) / rate
    partials = (220.0, 277.2, 329.6, 440.0)
    swing = 1.0 + 0.3 * np.sin(2 * np.pi * 2.0 * t)
    return (gain * swing * sum(np.sin(2 * np.pi * f * t) for f in partials) / len(partials)).astype(np.float32)


class CountingEmbedder:
    """Two moments per second of audio; counts how often it is asked."""

    name, version, sample_rate, window_s, hop_s, dim = "counting", "1", 8000, 1.0, 1.0, 2
    normalized, trained, weights_sha256 = False, True, "0" * 64

    def __init__(self) -> None:
        self.calls = 0

    def embed(self, audio: np.ndarray) -> np.ndarray:
        self.calls += 1
        seconds = audio[0][: len(audio[0]) // 8000 * 8000].reshape(-1, 8000)
        return np.stack([seconds.mean(axis=1), seconds.std(axis=1)], axis=1)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.wav"
    soundfile.write(path, chord(4, 44100), 44100)
    return path


def test_an_embedding_is_computed_once_per_content_not_per_path(clip: Path, tmp_path: Path) -> None:
    embedder = CountingEmbedder()
    copy = tmp_path / "copy.wav"
    copy.write_bytes(clip.read_bytes())
    first = embed_files([clip, copy], embedder, tmp_path / "cache", progress=False)
    again = embed_files([clip], embedder, tmp_path / "cache", progress=False)
    assert embedder.calls == 1
    assert first[clip].shape == (4, 2) and np.array_equal(first[copy], again[clip])
    assert [p.suffix for p in (tmp_path / "cache").rglob("*") if p.is_file()] == [".npy"]


def test_other_weights_another_version_or_a_damaged_cache_are_computed_again(clip: Path, tmp_path: Path) -> None:
    embedder = CountingEmbedder()
    embed_files([clip], embedder, tmp_path / "cache", progress=False)
    embedder.weights_sha256 = "1" * 64
    embed_files([clip], embedder, tmp_path / "cache", progress=False)
    embedder.version = "2"
    embed_files([clip], embedder, tmp_path / "cache", progress=False)
    assert embedder.calls == 3
    for cached in (tmp_path / "cache").rglob("*.npy"):
        cached.write_bytes(cached.read_bytes()[:100])
    embed_files([clip], embedder, tmp_path / "cache", progress=False)
    assert embedder.calls == 4


def test_a_file_that_cannot_be_embedded_is_named(clip: Path, tmp_path: Path) -> None:
    class Failing(CountingEmbedder):
        def embed(self, audio: np.ndarray) -> np.ndarray:
            raise RuntimeError("out of memory")

    class Nan(CountingEmbedder):
        def embed(self, audio: np.ndarray) -> np.ndarray:
            return np.full((1, 2), np.nan)

    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF")
    for path, embedder, reason in (
        (clip, Failing(), "out of memory"),
        (clip, Nan(), "NaN"),
        (broken, CountingEmbedder(), "decoded"),
        (tmp_path / "absent.wav", CountingEmbedder(), "no such file"),
    ):
        with pytest.raises(MetricError, match=reason) as failure:
            embed_files([path], embedder, tmp_path / "cache", progress=False)
        assert path.name in str(failure.value)
    assert not list((tmp_path / "cache").rglob("*.npy"))


def test_level_does_not_reach_the_encoder() -> None:
    quiet, loud = (levelled(chord(3, 16000, gain=g), sample_rate=16000, min_seconds=3) for g in (0.01, 0.5))
    assert np.allclose(quiet, loud, rtol=1e-3, atol=1e-5)
    silence = np.zeros((2, 48000), dtype=np.float32)
    assert not levelled(silence, sample_rate=16000, min_seconds=3).any()


def test_short_or_broken_audio_is_refused() -> None:
    with pytest.raises(MetricError, match="window is 3 s"):
        levelled(np.zeros(16000, dtype=np.float32), sample_rate=16000, min_seconds=3)
    with pytest.raises(MetricError, match="NaN"):
        levelled(np.full(64000, np.nan, dtype=np.float32), sample_rate=16000, min_seconds=3)


def test_musicnn_gives_one_trained_window_a_second_and_tags_of_the_same_windows() -> None:
    audio = np.stack([chord(6, 16000)] * 2)
    embedder, tagger = MusicnnEmbedder(), MusicnnTagger()
    windows, tags = embedder.embed(audio), tagger.embed(audio)
    assert isinstance(embedder, Embedder) and isinstance(tagger, Embedder) and embedder.trained
    assert windows.shape == (4, 200) and tags.shape == (2, 100)
    assert tags.min() >= 0 and tags.max() <= 1
    assert len(tagger.labels) == 100 and "msd:chillout" in tagger.labels and "mtt:piano" in tagger.labels
    assert len(embedder.weights_sha256) == 64 and "lufs-23" in embedder.version


def test_a_sine_is_tagged_as_a_flute() -> None:
    t = np.arange(4 * 16000) / 16000
    tagger = MusicnnTagger()
    tags = tagger.embed((0.2 * np.sin(2 * np.pi * 440 * t)).astype(np.float32)).mean(axis=0)
    mtt = {label: p for label, p in zip(tagger.labels, tags, strict=True) if label.startswith("mtt:")}
    assert max(mtt, key=mtt.__getitem__) == "mtt:flute"


def test_an_encoder_without_weights_says_where_they_come_from(tmp_path: Path) -> None:
    with pytest.raises(MetricError, match="torchvggish"):
        load_embedder("vggish", weights=None)
    with pytest.raises(MetricError, match="pickle"):
        (tmp_path / "vggish.pth").write_bytes(b"")
        load_embedder("vggish", weights=tmp_path / "vggish.pth")
    with pytest.raises(MetricError, match="convert-clap"):
        load_embedder("laion_clap", weights=tmp_path / "nowhere")
    with pytest.raises(MetricError, match="no encoder is called"):
        load_embedder("random")


def test_vggish_has_the_published_names_and_shapes_and_windows() -> None:
    network = vggish_network()
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert {name: shapes[name] for name in shapes if name.endswith("weight")} == {
        "features.0.weight": (64, 1, 3, 3),
        "features.3.weight": (128, 64, 3, 3),
        "features.6.weight": (256, 128, 3, 3),
        "features.8.weight": (256, 256, 3, 3),
        "features.11.weight": (512, 256, 3, 3),
        "features.13.weight": (512, 512, 3, 3),
        "embeddings.0.weight": (4096, 12288),
        "embeddings.2.weight": (4096, 4096),
        "embeddings.4.weight": (128, 4096),
    }
    embedder = VggishEmbedder(network, weights_sha256="0" * 64)
    windows = embedder.embed(chord(3, 16000))
    assert windows.shape == (3, 128) and not embedder.trained
    assert (windows < 0).any(), "the last ReLU is left out"


def test_vggish_refuses_other_tensors(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"features.0.weight": torch.zeros(1)}, tmp_path / "vggish.safetensors")
    with pytest.raises(MetricError, match="not VGGish's tensors"):
        load_embedder("vggish", weights=tmp_path / "vggish.safetensors")


def test_vggish_front_end_puts_a_tone_into_its_mel_band() -> None:
    weights = mel_weights()
    assert weights.shape == (257, 64) and not weights[0].any() and weights.max() <= 1.0
    t = np.arange(16000) / 16000
    patch = log_mel_patches(np.sin(2 * np.pi * 1000 * t).astype(np.float32))
    assert patch.shape == (1, 96, 64)
    assert (patch[0].argmax(axis=1) == weights[round(1000 / 31.25)].argmax()).all()
    assert log_mel_patches(np.zeros(16000, dtype=np.float32)) == pytest.approx(np.log(0.01), rel=1e-6)


def test_clap_from_a_local_directory_is_deterministic_and_tells_texts_apart(clap_directory: Path) -> None:
    clap = ClapEmbedder.load(clap_directory)
    audio = chord(23, 48000)
    windows = clap.embed(audio)
    assert windows.shape == (2, 24) and clap.dim == 24 and not clap.trained
    assert np.array_equal(windows, clap.embed(audio)), "longer than 10 s, and still the same twice"
    texts = clap.embed_text(["piano", "loud techno drums"])
    assert np.linalg.norm(texts, axis=1) == pytest.approx(1.0)
    assert not np.allclose(*texts)
    assert clap.embed_text(["piano"])[0] == pytest.approx(texts[0], abs=1e-5), "padding changes nothing"


def test_clap_vectors_are_those_of_transformers_before_it_normalises(clap_directory: Path) -> None:
    import torch
    from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel

    model = ClapModel.from_pretrained(clap_directory).eval()
    audio = levelled(chord(10, 48000), sample_rate=48000, min_seconds=1)
    features = ClapFeatureExtractor.from_pretrained(clap_directory)(
        audio, sampling_rate=48000, return_tensors="pt", truncation="rand_trunc"
    )
    tokens = AutoTokenizer.from_pretrained(clap_directory)(["slow piano"], return_tensors="pt")
    with torch.inference_mode():
        theirs = [
            model.get_audio_features(**features).pooler_output.numpy(),
            model.get_text_features(**tokens).pooler_output.numpy(),
        ]
    clap = ClapEmbedder.load(clap_directory)
    ours = unit_rows(clap.embed(audio)), clap.embed_text(["slow piano"])
    for own, expected in zip(ours, theirs, strict=True):
        assert own == pytest.approx(expected, abs=1e-5)


def test_a_tokenizer_that_reads_every_text_alike_is_caught(clap_directory: Path, tmp_path: Path) -> None:
    import shutil

    from transformers import RobertaTokenizerFast

    directory = tmp_path / "clap"
    shutil.copytree(clap_directory, directory)
    for file in directory.glob("*token*"):
        file.unlink()
    special = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": 4}
    RobertaTokenizerFast(vocab=special, merges=[]).save_pretrained(directory)
    with pytest.raises(MetricError, match="two different texts alike"):
        ClapEmbedder.load(directory)


@pytest.mark.parametrize(("seconds", "windows"), [(3, 1), (10, 1), (14, 1), (15, 2), (20, 2), (26, 3)])
def test_ten_second_windows_keep_a_rest_of_half_a_window(seconds: int, windows: int) -> None:
    assert len(ten_second_windows(np.zeros(seconds * 48000, dtype=np.float32))) == windows
