"""MusiCNN as an encoder of distances and as a tagger of samples."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lofi_assets.metrics.embedding import LOUDNESS_LUFS, Samples, file_sha256, levelled, preparation
from lofi_assets.metrics.probes import PROBES, arpeggio
from lofi_assets.metrics.proof import answers, audio_spread, known_answer, published_weights
from lofi_assets.metrics.results import EncoderProof

if TYPE_CHECKING:
    from lofi_assets.audio.musicnn import MusicNN

PUBLISHED = {
    "59cfaabfdd5b90e37823658a5a8e562112400c84568aec765ad2c40914a48c10": "MusiCNN (MSD) of PyPI's musicnn 0.1.0",
    "14e214755b5f400bcab9e9cfab378c5c5b4aa057aa1461defee32818928a1ec8": "MusiCNN (MTT) of PyPI's musicnn 0.1.0",
}
"""The files beside `audio/musicnn.py`, as they were converted from the package's TensorFlow checkpoints."""

SAMPLE_RATE = 16_000
PROBE_S = 4.0
ANSWERED_BY = "this port, which agrees with TensorFlow 2.15.1 to 1e-5"


class MusicnnEmbedder:
    """MusiCNN's 200 penultimate activations of 3 s windows, one every second. Shipped with the project.

    Args:
        lufs: loudness that clips are brought to; None leaves them at their own.
    """

    name = "musicnn"
    sample_rate = SAMPLE_RATE
    window_s = 3.0
    hop_s = 1.0
    dim = 200
    normalized = False

    def __init__(self, *, lufs: float | None = LOUDNESS_LUFS) -> None:
        from lofi_assets.audio.musicnn import WEIGHTS, MusicNN

        self._lufs = lufs
        self._network = MusicNN(model="msd")
        self.version = f"msd-penultimate-hop1s-{preparation(lufs)}"
        self.weights_sha256 = file_sha256(WEIGHTS / "msd_musicnn.safetensors")
        self.proof = _asked_once(self.name, (self.weights_sha256,), (self._network,), self._prove)

    def _prove(self) -> EncoderProof:
        return EncoderProof(
            checks=(
                published_weights(self.weights_sha256, PUBLISHED, decides=True),
                known_answer(
                    self._network.embed(arpeggio(PROBE_S, SAMPLE_RATE)).mean(axis=0),
                    answers()["musicnn"]["embedding"],
                    source=ANSWERED_BY,
                ),
                audio_spread(
                    [self._network.embed(clip(PROBE_S, SAMPLE_RATE)).mean(axis=0) for clip in PROBES.values()]
                ),
            )
        )

    @property
    def trained(self) -> bool:
        """What the proof came to."""
        return self.proof.trained

    def embed(self, audio: Samples) -> Samples:
        """(windows, 200); MetricError for audio shorter than 3 s or not finite."""
        mono = levelled(audio, sample_rate=self.sample_rate, min_seconds=self.window_s, lufs=self._lufs)
        return self._network.embed(mono, hop_s=self.hop_s)


class MusicnnTagger:
    """MusiCNN's 50 MSD and 50 MTT tag probabilities of 3 s windows side by side, as an embedding of 100."""

    name = "musicnn_tags"
    version = f"msd+mtt-tags-hop3s-{preparation(LOUDNESS_LUFS)}"
    sample_rate = SAMPLE_RATE
    window_s = 3.0
    hop_s = 3.0
    dim = 100
    normalized = False

    def __init__(self) -> None:
        from lofi_assets.audio.musicnn import LABELS, WEIGHTS, MusicNN

        self._networks = MusicNN(model="msd"), MusicNN(model="mtt")
        self.labels = (*(f"msd:{tag}" for tag in LABELS["msd"]), *(f"mtt:{tag}" for tag in LABELS["mtt"]))
        hashes = tuple(file_sha256(WEIGHTS / f"{model}_musicnn.safetensors") for model in ("msd", "mtt"))
        self.weights_sha256 = hashlib.sha256("".join(hashes).encode()).hexdigest()
        self.proof = _asked_once(self.name, hashes, self._networks, lambda: self._prove(hashes))

    def _prove(self, hashes: Sequence[str]) -> EncoderProof:
        return EncoderProof(
            checks=(
                *(published_weights(digest, PUBLISHED, decides=True) for digest in hashes),
                known_answer(
                    self._tags(arpeggio(PROBE_S, SAMPLE_RATE)).mean(axis=0),
                    answers()["musicnn_tags"]["embedding"],
                    source=ANSWERED_BY,
                ),
            )
        )

    @property
    def trained(self) -> bool:
        """What the proof came to."""
        return self.proof.trained

    def embed(self, audio: Samples) -> Samples:
        """(windows, 100) in [0, 1], columns as `labels`; MetricError for audio shorter than 3 s or not finite."""
        return self._tags(levelled(audio, sample_rate=self.sample_rate, min_seconds=self.window_s))

    def _tags(self, mono: Samples) -> Samples:
        return np.concatenate([network.tags(mono, hop_s=self.hop_s) for network in self._networks], axis=1)


@dataclass(frozen=True)
class _Asked:
    """What an encoder answered, and what of."""

    hashes: tuple[str, ...]
    weights: tuple[object, ...]
    proof: EncoderProof


_ASKED: dict[str, _Asked] = {}


def _asked_once(
    name: str, hashes: tuple[str, ...], networks: Sequence["MusicNN"], prove: Callable[[], EncoderProof]
) -> EncoderProof:
    """The proof of networks, which are asked once in a process: an evaluation makes an encoder for each checkpoint.

    Another file, or other weights than those in memory that answered, are asked anew.
    """
    weights = tuple(network.weights for network in networks)
    known = _ASKED.get(name)
    if (
        known is None
        or known.hashes != hashes
        or any(one is not other for one, other in zip(known.weights, weights, strict=True))
    ):
        known = _ASKED[name] = _Asked(hashes, weights, prove())
    return known.proof
