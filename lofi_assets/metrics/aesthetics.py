"""Audiobox Aesthetics: four scores that a model predicts people would give to a clip. Advisory, and never a gate.

Tjandra et al., Meta Audiobox Aesthetics: Unified Automatic Quality Assessment for Speech, Music, and Sound (2025,
arXiv:2502.05139). WavLM hears 10 s windows of 16 kHz mono, side by side and at their own level, as the package's own
`infer.py` gives them to it; a clip's score is the mean over its windows, each weighed by its seconds.

The package `audiobox_aesthetics` is an extra (`lofi_assets[aesthetics]`), and only its network is used: no file is
fetched, and no pickle is read. docs/decisions/022 says why no gate asks it.
"""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lofi_assets.metrics.embedding import Samples, embed_files, file_sha256, levelled, preparation
from lofi_assets.metrics.errors import MetricError, attempt
from lofi_assets.metrics.probes import PROBES
from lofi_assets.metrics.proof import proven, published_weights
from lofi_assets.metrics.results import Aesthetics, EncoderProof, ProofCheck

SAMPLE_RATE = 16_000
WINDOW_S = 10.0
BATCH = 4
AXES = ("CE", "CU", "PC", "PQ")
"""Content enjoyment, content usefulness, production complexity, production quality; people gave 1 to 10."""
LOWEST, HIGHEST = 0.0, 11.0
"""Scores beyond these are none that people could give, with a point for a regression's error."""
LEAST_GAP = 0.01
"""Points by which the probes, which are nothing alike, must differ on some axis."""
PROBE_S = 2.0

PUBLISHED: dict[str, str] = {}
"""sha256 of `model.safetensors` -> what it is of. None is known here: the weights could not be fetched where this was
written, so that no folder proves itself until somebody who has them adds the line."""

WHERE_FROM = (
    "Download config.json and model.safetensors of https://huggingface.co/facebook/audiobox-aesthetics (CC BY 4.0) "
    "into a folder, and name it in the profile as evaluation.aesthetics."
)
INSTALL = "the package audiobox_aesthetics is not installed: pip install 'lofi_assets[aesthetics]'"


class AestheticsScorer:
    """One row of four scores a clip, by the interface of `Embedder`; a distance over them means nothing.

    Args:
        network: takes {"wav": (B, 1, frames), "mask": the same, true where it sounds}, gives axis -> (B,).
        scales: axis -> (mean, standard deviation) by which outputs become points.
    """

    name = "audiobox_aesthetics"
    version = f"0.0.4-10s-{preparation(None)}"
    sample_rate = SAMPLE_RATE
    window_s = WINDOW_S
    hop_s = WINDOW_S
    dim = len(AXES)
    normalized = False

    def __init__(
        self, network: Any, *, scales: Mapping[str, tuple[float, float]], weights_sha256: str, device: str = "cpu"
    ) -> None:
        self._network, self._scales, self._device = network.eval().to(device), dict(scales), device
        self.weights_sha256 = weights_sha256
        self.proof = self._proof()

    @classmethod
    def load(cls, folder: Path, *, device: str = "cpu") -> "AestheticsScorer":
        """From a folder in the Hub's layout; the network is never asked.

        Raises:
            MetricError: the package or the folder's files are absent, or they are not such a model.
        """
        config, weights = folder / "config.json", folder / "model.safetensors"
        if not config.is_file() or not weights.is_file():
            raise MetricError(f"{folder}: holds no config.json with model.safetensors. {WHERE_FROM}")
        settings, scales = _settings(config)
        network = _network(settings, weights)
        return cls(network, scales=scales, weights_sha256=file_sha256(weights), device=device)

    @property
    def trained(self) -> bool:
        """What the proof came to."""
        return self.proof.trained

    def embed(self, audio: Samples) -> Samples:
        """(1, 4) scores of a clip in the order of `AXES`; MetricError for audio that is empty or not finite."""
        mono = levelled(audio, sample_rate=SAMPLE_RATE, min_seconds=1.0, lufs=None)
        length = round(WINDOW_S * SAMPLE_RATE)
        starts = range(0, len(mono), length)
        windows = np.zeros((len(starts), 1, length), dtype=np.float32)
        sounding = np.zeros(windows.shape, dtype=bool)
        for row, start in enumerate(starts):
            part = mono[start : start + length]
            windows[row, 0, : len(part)], sounding[row, 0, : len(part)] = part, True
        scores = self._forward(windows, sounding)
        return np.average(scores, axis=0, weights=sounding.sum(axis=(1, 2)))[None].astype(np.float32)

    def _forward(self, windows: Samples, sounding: np.ndarray) -> np.ndarray:
        """(windows, 4) points."""
        import torch

        rows = []
        with torch.inference_mode():
            for start in range(0, len(windows), BATCH):
                heard = {
                    "wav": torch.from_numpy(windows[start : start + BATCH]).to(self._device),
                    "mask": torch.from_numpy(sounding[start : start + BATCH]).to(self._device),
                }
                found = self._network(heard)
                rows.append(np.stack([self._points(axis, found[axis]) for axis in AXES], axis=1))
        return np.concatenate(rows)

    def _points(self, axis: str, found: Any) -> np.ndarray:
        mean, deviation = self._scales[axis]
        points: np.ndarray = found.float().cpu().numpy() * deviation + mean
        return points

    def _proof(self) -> EncoderProof:
        scores = np.concatenate([self.embed(clip(PROBE_S, SAMPLE_RATE)) for clip in PROBES.values()])
        return proven([published_weights(self.weights_sha256, PUBLISHED, decides=True), _plausible(scores)])


def _plausible(scores: np.ndarray) -> ProofCheck:
    """Whether scores are such as people could give, and differ between clips that are nothing alike."""
    low, high, gap = float(scores.min()), float(scores.max()), float(np.ptp(scores, axis=0).max())
    passed = bool(low >= LOWEST and high <= HIGHEST and gap >= LEAST_GAP)
    told = f"probes have {low:.3g} to {high:.3g} points, {gap:.2g} apart on the axis that tells most"
    return ProofCheck(name="scores of probes", value=gap, passed=passed, told=f"{told} (at least {LEAST_GAP:g})")


def score_clips(paths: Sequence[Path], scorer: AestheticsScorer, cache_dir: Path) -> Aesthetics:
    """Scores of every clip, kept in `cache_dir` by content; one that cannot be scored has None, with a note."""
    clips: dict[str, dict[str, float | None]] = {}
    notes: list[str] = []
    for path in paths:
        row, failure = attempt(partial(_scores_of, path, scorer, cache_dir))
        if row is None:
            notes.append(failure.replace(str(path), path.name))
        clips[path.name] = {axis: None if row is None else float(row[i]) for i, axis in enumerate(AXES)}
    return Aesthetics(
        scorer=scorer.name,
        version=scorer.version,
        weights_sha256=scorer.weights_sha256,
        trained=scorer.trained,
        proof=scorer.proof,
        clips=clips,
        means={axis: _mean([scores[axis] for scores in clips.values()]) for axis in AXES},
        note="; ".join(notes),
    )


def _scores_of(path: Path, scorer: AestheticsScorer, cache_dir: Path) -> Samples:
    """(4,)"""
    scores: Samples = embed_files([path], scorer, cache_dir, progress=False)[path][0]
    return scores


def _mean(scores: Sequence[float | None]) -> float | None:
    """None where one is missing: a mean of what could be scored would flatter."""
    known = [score for score in scores if score is not None]
    return sum(known) / len(known) if known and len(known) == len(scores) else None


def _settings(config: Path) -> tuple[dict[str, Any], dict[str, tuple[float, float]]]:
    """Arguments of the network, and the scales of its outputs."""
    try:
        settings = json.loads(config.read_text(encoding="utf-8"))
        targets = settings["target_transform"]
        scales = {axis: (float(targets[axis]["mean"]), float(targets[axis]["std"])) for axis in AXES}
    except (ValueError, KeyError, TypeError) as error:
        told = f"{type(error).__name__}: {error}"
        raise MetricError(f"{config}: not the settings of Audiobox Aesthetics ({told}). {WHERE_FROM}") from error
    # Half precision is for GPUs; scores of one clip must not depend on the device.
    return {**settings, "precision": "32"}, scales


def _network(settings: Mapping[str, Any], weights: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        from audiobox_aesthetics.model.aes import AesMultiOutput
    except ImportError as error:
        raise MetricError(f"{INSTALL} ({error})") from error
    try:
        network = AesMultiOutput(**settings)
        network.load_state_dict(load_file(weights))
    except (TypeError, KeyError, ValueError, RuntimeError, SafetensorError) as error:
        raise MetricError(f"{weights}: not the weights of Audiobox Aesthetics: {error}. {WHERE_FROM}") from error
    return network
