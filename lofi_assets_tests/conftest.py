"""Fixtures that several test files share; what only one file needs is made in that file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lofi_assets.store import Store

REPOSITORY = Path(__file__).resolve().parent.parent
REFERENCE = REPOSITORY.parent / "shared" / "reference"


@pytest.fixture(scope="session")
def reference_dir() -> Path:
    """Tensors computed by the public ACE-Step code and MusiCNN golden outputs; kept outside the project."""
    if not REFERENCE.is_dir():
        pytest.skip(f"reference tensors absent: {REFERENCE} (comparisons against upstream are NOT run here)")
    return REFERENCE


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty data root."""
    return Store(tmp_path / "data")


TARGETS = ("speaker_embedder", "linear_q", "linear_k", "linear_v", "to_q", "to_k", "to_v", "to_out.0")
SECONDS = {"one": 1.5, "two": 2.0, "three": 1.0}


@pytest.fixture(scope="session")
def training_material(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Tiny base, its fingerprint, cache and feature keys of three short tracks."""
    import numpy as np
    import soundfile

    from lofi_assets.backbones.ace_step_v1.identity import base_fingerprint
    from lofi_assets.backbones.ace_step_v1.tiny import write_tiny_base
    from lofi_assets.backbones.features import FeatureJob
    from lofi_assets.files.hashing import sha256_file
    from lofi_assets_tests.feature_material import encoded

    folder = tmp_path_factory.mktemp("training")
    write_tiny_base(folder / "base")
    jobs = []
    for index, (name, seconds) in enumerate(SECONDS.items()):
        path = folder / f"{name}.wav"
        soundfile.write(path, np.random.default_rng(index).uniform(-0.5, 0.5, (int(48_000 * seconds), 2)), 48_000)
        jobs.append(FeatureJob(name, path, sha256_file(path), f"lofi, {name}", lyrics="rain\n" * index))
    fingerprint = base_fingerprint(folder / "base")
    rows = encoded(jobs, folder / "base", folder / "features", base_fingerprint=fingerprint)
    return {"folder": folder, "fingerprint": fingerprint, "keys": {row.track_id: row.key for row in rows}}


@pytest.fixture
def make_run(training_material: dict[str, Any], tmp_path: Path) -> Callable[..., Any]:
    """Runs on the tiny base, with checkpoints below this test's folder."""
    from lofi_assets.training.config import LoraSettings, TrackFeatures, TrainingRun, TrainingSettings

    def make(
        name: str = "run",
        *,
        dataset_hash: str = "d" * 64,
        lora: dict[str, Any] | None = None,
        **training: Any,
    ) -> TrainingRun:
        keys = training_material["keys"]
        tracks = [TrackFeatures(track_id=track, key=keys[track]) for track in ("one", "two")]
        tracks.append(TrackFeatures(track_id="three", key=keys["three"], split="validation"))
        settings = {"max_steps": 6, "checkpoint_interval": 3, "precision": "32", "gradient_checkpointing": False}
        settings |= {"preview_count": 0}
        return TrainingRun(
            base=training_material["folder"] / "base",
            base_fingerprint=training_material["fingerprint"],
            features_dir=training_material["folder"] / "features",
            tracks=tuple(tracks),
            dataset_id="ds-1",
            dataset_hash=dataset_hash,
            checkpoints_dir=tmp_path / name / "checkpoints",
            logs_dir=tmp_path / name / "logs",
            lora=LoraSettings(**{"r": 4, "lora_alpha": 32, "target_modules": TARGETS, **(lora or {})}),
            training=TrainingSettings(**{**settings, **training}),
            device="cpu",
        )

    return make
