"""Previews let a run be heard while it trains, and change nothing about it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from lofi_assets.backbones.ace_step_v1.identity import base_fingerprint
from lofi_assets.backbones.features import FeatureJob
from lofi_assets.files.hashing import sha256_file
from lofi_assets.training.checkpoints.description import CheckpointDescription
from lofi_assets.training.checkpoints.manifest import read_manifest
from lofi_assets.training.config import TrackFeatures, TrainingRun, TrainingSettings
from lofi_assets.training.lora_settings import LoraSettings
from lofi_assets.training.trainer import preview
from lofi_assets.training.trainer.loop import train
from lofi_assets.training.trainer.preview import ORIGINAL, preview_folder, preview_steps
from lofi_assets_tests.feature_material import encoded

TARGETS = ("speaker_embedder", "linear_q", "linear_k", "linear_v", "to_q", "to_k", "to_v", "to_out.0")
RATE = 48_000


@pytest.fixture(scope="module")
def prepared(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """A tiny base and the cached features of two tracks."""
    folder = tmp_path_factory.mktemp("prepared")
    jobs = []
    for index, name in enumerate(("one", "held-out")):
        path = folder / f"{name}.wav"
        soundfile.write(path, np.random.default_rng(index).uniform(-0.5, 0.5, (2 * RATE, 2)), RATE)
        jobs.append(FeatureJob(name, path, sha256_file(path), f"lofi, {name}"))
    fingerprint = base_fingerprint(tiny_base)
    rows = encoded(jobs, tiny_base, folder / "features", base_fingerprint=fingerprint)
    keys = {row.track_id: row.key for row in rows}
    return {"base": tiny_base, "folder": folder, "fingerprint": fingerprint, "keys": keys}


@pytest.fixture
def make_run(prepared: dict, tmp_path: Path) -> Callable[..., TrainingRun]:
    def make(name: str, **training: Any) -> TrainingRun:
        keys, folder = prepared["keys"], prepared["folder"]
        settings = {"max_steps": 4, "checkpoint_interval": 2, "precision": "32", "preview_seconds": 1.0, **training}
        return TrainingRun(
            base=prepared["base"],
            base_fingerprint=prepared["fingerprint"],
            features_dir=folder / "features",
            tracks=(
                TrackFeatures(track_id="one", key=keys["one"]),
                TrackFeatures(track_id="held-out", key=keys["held-out"], split="validation"),
            ),
            dataset_id="ds-1",
            dataset_hash="d" * 64,
            checkpoints_dir=tmp_path / name / "checkpoints",
            logs_dir=tmp_path / name / "logs",
            lora=LoraSettings(r=4, lora_alpha=32, target_modules=TARGETS),
            training=TrainingSettings(**settings),
            device="cpu",
        )

    return make


def quiet(message: str) -> None:
    del message


def digests(run: TrainingRun) -> list[str]:
    folders = [run.checkpoints_dir / record.checkpoint_id for record in read_manifest(run.checkpoints_dir)]
    return [CheckpointDescription.read(folder).adapter_sha256 for folder in folders]


def test_previews_leave_the_adapters_bit_identical(make_run: Callable[..., TrainingRun]) -> None:
    heard, unheard = make_run("heard", preview_count=1), make_run("unheard", preview_count=0)
    assert heard.run_id == unheard.run_id
    train(heard, say=quiet)
    train(unheard, say=quiet)
    assert digests(heard) == digests(unheard) and len(digests(heard)) == 2
    assert not preview_folder(unheard).exists()


@pytest.mark.parametrize("precision", ["32", "bf16-mixed"])
def test_every_checkpoint_is_heard_beside_the_original(make_run: Callable[..., TrainingRun], precision: str) -> None:
    run = make_run("run", preview_count=1, precision=precision)
    said: list[str] = []
    train(run, say=said.append)
    assert not [message for message in said if "no preview" in message], said
    folders = preview_steps(run)
    assert list(folders) == [2, 4]
    for folder in (preview_folder(run) / ORIGINAL, *folders.values()):
        samples, rate = soundfile.read(folder / "held-out.mp3", dtype="float32")
        assert rate == RATE and 0.9 < len(samples) / rate < 1.1
        assert np.isfinite(samples).all() and np.abs(samples).max() > 0
    page = (preview_folder(run) / "index.html").read_text(encoding="utf-8")
    assert "step=4/held-out.mp3" in page and "original/held-out.mp3" in page


def test_the_same_run_is_heard_the_same(make_run: Callable[..., TrainingRun]) -> None:
    first, second = make_run("first", preview_count=1), make_run("second", preview_count=1)
    for run in (first, second):
        train(run, say=quiet)
    sums = [[sha256_file(folder / "held-out.mp3") for folder in preview_steps(run).values()] for run in (first, second)]
    assert sums[0] == sums[1]


def test_a_preview_that_fails_is_told_and_training_goes_on(
    make_run: Callable[..., TrainingRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise RuntimeError("no memory for the vocoder")

    monkeypatch.setattr(preview, "_sampled", broken)
    run = make_run("run", preview_count=1)
    said: list[str] = []
    assert train(run, say=said.append).step == 4
    assert [message for message in said if "no preview at step 4" in message and "no memory for the vocoder" in message]
    assert len(digests(run)) == 2 and preview_steps(run) == {}
