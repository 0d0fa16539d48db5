"""MusiCNN as an encoder of distances and as a tagger of samples."""

import hashlib

import numpy as np

from lofi_assets.metrics.embedding import PREPARATION, Samples, file_sha256, levelled


class MusicnnEmbedder:
    """MusiCNN's 200 penultimate activations of 3 s windows, one every second. Trained, shipped with the project."""

    name = "musicnn"
    version = f"msd-penultimate-hop1s-{PREPARATION}"
    sample_rate = 16_000
    window_s = 3.0
    hop_s = 1.0
    dim = 200
    normalized = False
    trained = True

    def __init__(self) -> None:
        from lofi_assets.audio.musicnn import WEIGHTS, MusicNN

        self._network = MusicNN(model="msd")
        self.weights_sha256 = file_sha256(WEIGHTS / "msd_musicnn.safetensors")

    def embed(self, audio: Samples) -> Samples:
        """(windows, 200); MetricError for audio shorter than 3 s or not finite."""
        mono = levelled(audio, sample_rate=self.sample_rate, min_seconds=self.window_s)
        return self._network.embed(mono, hop_s=self.hop_s)


class MusicnnTagger:
    """MusiCNN's 50 MSD and 50 MTT tag probabilities of 3 s windows side by side, as an embedding of 100."""

    name = "musicnn_tags"
    version = f"msd+mtt-tags-hop3s-{PREPARATION}"
    sample_rate = 16_000
    window_s = 3.0
    hop_s = 3.0
    dim = 100
    normalized = False
    trained = True

    def __init__(self) -> None:
        from lofi_assets.audio.musicnn import LABELS, WEIGHTS, MusicNN

        self._networks = MusicNN(model="msd"), MusicNN(model="mtt")
        self.labels = (*(f"msd:{tag}" for tag in LABELS["msd"]), *(f"mtt:{tag}" for tag in LABELS["mtt"]))
        hashes = (file_sha256(WEIGHTS / f"{model}_musicnn.safetensors") for model in ("msd", "mtt"))
        self.weights_sha256 = hashlib.sha256("".join(hashes).encode()).hexdigest()

    def embed(self, audio: Samples) -> Samples:
        """(windows, 100) in [0, 1], columns as `labels`; MetricError for audio shorter than 3 s or not finite."""
        mono = levelled(audio, sample_rate=self.sample_rate, min_seconds=self.window_s)
        return np.concatenate([network.tags(mono, hop_s=self.hop_s) for network in self._networks], axis=1)
