"""Advisory scores: windows as the package makes them, and no word of trust without published weights."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from lofi_assets.constitution.gates import load_gates
from lofi_assets.metrics import aesthetics
from lofi_assets.metrics.aesthetics import AXES, INSTALL, SAMPLE_RATE, AestheticsScorer, score_clips
from lofi_assets.metrics.embedding import Embedder
from lofi_assets.metrics.errors import MetricError

SCALES = {axis: (5.0, 2.0) for axis in AXES}


class Loudness(torch.nn.Module):
    """In place of the network: the mean square of what sounds, once per axis; it notes what it was given."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor
        self.seen: list[tuple[tuple[int, ...], list[int]]] = []

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        wav, mask = batch["wav"], batch["mask"]
        self.seen.append((tuple(wav.shape), mask.sum(dim=(1, 2)).tolist()))
        power = (wav**2).sum(dim=(1, 2)) / mask.sum(dim=(1, 2))
        return {axis: self.factor * power * (i + 1) for i, axis in enumerate(AXES)}


def scorer(network: torch.nn.Module | None = None, sha256: str = "0" * 64) -> AestheticsScorer:
    return AestheticsScorer(network or Loudness(), scales=SCALES, weights_sha256=sha256)


def test_a_clip_is_scored_by_windows_of_ten_seconds_each_weighed_by_its_seconds() -> None:
    network = Loudness()
    made = scorer(network)
    network.seen.clear()
    audio = np.concatenate([np.full(10 * SAMPLE_RATE, 0.5), np.full(5 * SAMPLE_RATE, 0.25)]).astype(np.float32)
    scores = made.embed(np.stack([audio, audio]))
    assert network.seen == [((2, 1, 10 * SAMPLE_RATE), [10 * SAMPLE_RATE, 5 * SAMPLE_RATE])]
    expected = [(10 * (5 + 2 * 0.25 * i) + 5 * (5 + 2 * 0.0625 * i)) / 15 for i in (1, 2, 3, 4)]
    assert scores.shape == (1, 4) and scores[0] == pytest.approx(expected, abs=1e-4)
    assert isinstance(made, Embedder)


@pytest.mark.parametrize(
    ("network", "known", "trained"),
    [
        (Loudness(), False, False),
        (Loudness(), True, True),
        (Loudness(factor=0.0), True, False),
        (Loudness(factor=1e3), True, False),
    ],
)
def test_only_published_weights_with_plausible_scores_prove_themselves(
    network: torch.nn.Module, known: bool, trained: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aesthetics, "PUBLISHED", {"1" * 64: "a file"} if known else {})
    found = scorer(network, sha256="1" * 64)
    assert found.trained is trained
    assert {check.name for check in found.proof.checks} == {"weights", "scores of probes"}


def test_no_gate_reads_the_scores() -> None:
    assert not [gate.id for gate in load_gates() if "aesthetic" in f"{gate.measure} {gate.encoder}"]


def test_clips_are_scored_once_and_a_broken_one_leaves_no_mean(tmp_path: Path) -> None:
    good, broken = tmp_path / "a.wav", tmp_path / "b.wav"
    soundfile.write(good, np.full(3 * SAMPLE_RATE, 0.1), SAMPLE_RATE)
    network = Loudness()
    made = scorer(network)
    alone = score_clips([good], made, tmp_path / "cache")
    asked = len(network.seen)
    assert alone.means["CE"] == pytest.approx(5.02, abs=1e-3) and alone.trained is False and alone.note == ""
    broken.write_bytes(b"no audio")
    both = score_clips([good, broken], made, tmp_path / "cache")
    assert len(network.seen) == asked, "kept by content"
    assert both.clips["b.wav"] == dict.fromkeys(AXES) and both.means == dict.fromkeys(AXES) and "b.wav" in both.note


def test_a_folder_without_weights_or_with_other_settings_is_named(tmp_path: Path) -> None:
    with pytest.raises(MetricError, match=r"holds no config.json with model.safetensors. Download"):
        AestheticsScorer.load(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(MetricError, match="not the settings of Audiobox Aesthetics"):
        AestheticsScorer.load(tmp_path)


def write_settings(folder: Path, **changes: Any) -> None:
    transform = {axis: {"mean": 5.0, "std": 2.0} for axis in AXES}
    (folder / "config.json").write_text(json.dumps({"target_transform": transform, "nth_layer": 3, **changes}))


def test_without_the_package_it_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "audiobox_aesthetics.model.aes", None)
    write_settings(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(MetricError) as refused:
        AestheticsScorer.load(tmp_path)
    assert INSTALL in str(refused.value)


@pytest.mark.filterwarnings("ignore")  # what the package says of its own use of torch
def test_the_packages_own_network_loads_and_scores_as_its_own_inference_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tiny and random; with the package installed only (`lofi_assets[aesthetics]`)."""
    aes = pytest.importorskip("audiobox_aesthetics.model.aes")
    save_file = pytest.importorskip("safetensors.torch").save_file
    small = {"encoder_layers": 2, "encoder_embed_dim": 16, "encoder_ffn_embed_dim": 32, "encoder_attention_heads": 2}
    convolutions = {"conv_feature_layers": "[(8,10,5)] + [(8,3,2)] * 4 + [(8,2,2)] * 2", "conv_pos_groups": 2}
    tiny = type(aes.DEFAULT_AUDIO_CFG)({**vars(aes.DEFAULT_AUDIO_CFG), **small, **convolutions, "conv_pos": 16})
    monkeypatch.setattr(aes, "DEFAULT_AUDIO_CFG", tiny)
    write_settings(tmp_path, precision="bf16")
    torch.manual_seed(0)
    settings = json.loads((tmp_path / "config.json").read_text())
    network = aes.AesMultiOutput(**{**settings, "precision": "32"}).eval()
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    made = AestheticsScorer.load(tmp_path)
    assert made.trained is False and "no published file" in made.proof.text

    audio = np.random.RandomState(0).randn(13 * SAMPLE_RATE).astype(np.float32) * 0.1
    infer = pytest.importorskip("audiobox_aesthetics.infer")
    windows, masks, weights, _ = infer.make_inference_batch([torch.from_numpy(audio)[None]], 10, 10, SAMPLE_RATE)
    with torch.inference_mode():
        found = network({"wav": torch.stack(windows), "mask": torch.stack(masks)})
    expected = [np.average(found[axis].numpy() * 2.0 + 5.0, weights=weights) for axis in AXES]
    assert made.embed(audio)[0] == pytest.approx(expected, abs=1e-4)
