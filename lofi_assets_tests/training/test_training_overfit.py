"""An adapter learns: four tracks by heart, at every noise level."""

from pathlib import Path

import pytest
import soundfile

from lofi_assets.audio.synth.song import Song, render
from lofi_assets.backbones.ace_step_v1.identity import base_fingerprint
from lofi_assets.backbones.features import FeatureJob
from lofi_assets.files.hashing import sha256_file
from lofi_assets.training.checkpoints.runs import log_path
from lofi_assets.training.config import TrackFeatures, TrainingRun, TrainingSettings
from lofi_assets.training.lora_settings import LoraSettings
from lofi_assets.training.trainer.log import read_log
from lofi_assets.training.trainer.loop import train
from lofi_assets_tests.feature_material import encoded

TARGETS = ("speaker_embedder", "linear_q", "linear_k", "linear_v", "to_q", "to_k", "to_v", "to_out.0")


@pytest.mark.slow
def test_four_tracks_learnt_by_heart_lower_the_validation_loss_in_every_timestep_bin(
    tiny_base: Path, tmp_path: Path
) -> None:
    jobs = []
    for seed in range(4):
        path = tmp_path / f"song-{seed}.wav"
        song = Song(seed=seed, bpm=70 + 5 * seed, key=seed, mode="minor", seconds=3.0, sample_rate=48_000)
        soundfile.write(path, render(song).T, 48_000)
        jobs.append(FeatureJob(f"song-{seed}", path, sha256_file(path), f"lofi, {song.key_name}"))
    identity = base_fingerprint(tiny_base)
    rows = encoded(jobs, tiny_base, tmp_path / "features", base_fingerprint=identity)
    heard = [TrackFeatures(track_id=row.track_id, key=row.key) for row in rows]
    again = [TrackFeatures(track_id=f"{row.track_id}-again", key=row.key, split="validation") for row in rows]
    run = TrainingRun(
        base=tiny_base,
        base_fingerprint=identity,
        features_dir=tmp_path / "features",
        tracks=(*heard, *again),
        dataset_id="four",
        dataset_hash="4" * 64,
        checkpoints_dir=tmp_path / "checkpoints",
        logs_dir=tmp_path / "logs",
        lora=LoraSettings(r=16, lora_alpha=8, target_modules=TARGETS),
        training=TrainingSettings(
            max_steps=400,
            checkpoint_interval=100,
            learning_rate=5e-3,
            batch_size=4,
            precision="32",
            gradient_checkpointing=False,
        ),
        device="cpu",
    )
    train(run, say=lambda message: None)
    curves = [line["validation_by_timestep"] for line in read_log(log_path(run)) if "validation_loss" in line]
    falls = {name: curves[-1][name] / curves[0][name] for name in curves[0]}
    assert len(curves) == 5 and len(falls) == 5
    assert all(fall < 0.9 for fall in falls.values()), falls
