"""A second model family goes from features to tiers through the Protocol alone, and no module knows its name."""

import os
import subprocess
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest

from lofi_assets.audio.encode import encode_mp3
from lofi_assets.backbones import GROUP, BackboneError, backbone_of
from lofi_assets.backbones.features import FeatureError
from lofi_assets.evaluation.generated_samples import generate_samples
from lofi_assets.evaluation.samples import BASE
from lofi_assets.files.hashing import sha256_file
from lofi_assets.profiles import BaseModelSettings, Profile, SamplingSettings, load_profile
from lofi_assets.quantization.merged_model import merge_best
from lofi_assets.quantization.quantized_tiers import quantize
from lofi_assets.store import Store
from lofi_assets.training.checkpoints.files import checkpoint_id
from lofi_assets.training.checkpoints.manifest import read_manifest, update_record
from lofi_assets.training.feature_cache import FeatureRecord, cache_dataset_features
from lofi_assets.training.features.cache import CachedFeatures
from lofi_assets.training.lora_checkpoints import describe_training, plan_training
from lofi_assets.training.planning.profile_plan import plan_profile
from lofi_assets.training.trainer.batches import Source
from lofi_assets.training.trainer.preview import preview_steps
from lofi_assets_tests.backbones.toy import CHANNELS, RATE, TOY
from lofi_assets_tests.conftest import REPOSITORY
from lofi_assets_tests.dataset.stand_in_version import deliver, track_record

SECONDS = 5.0
SPLITS = {"one": "train", "two": "train", "three": "validation"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The toy as another package would bring it: an entry point on the path, of this process and of those it starts."""
    place = tmp_path_factory.mktemp("site")
    install(place, "toy")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(place))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(place), str(REPOSITORY)]))
        yield


def install(place: Path, architecture: str) -> None:
    """The toy under a name, as pip leaves a package behind."""
    folder = place / "toy-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(f"[{GROUP}]\n{architecture} = lofi_assets_tests.backbones.toy:TOY\n")


def profile() -> Profile:
    sampling = SamplingSettings(count=2, seconds=SECONDS, steps=2, guidance_scale=1.0, seed=7)
    demo = load_profile("demo")
    changes = {
        "base_model": BaseModelSettings(architecture="toy", kind="tiny"),
        "lora": {"r": 4, "lora_alpha": 8, "target_modules": ("to_q", "to_v")},
        "training": {
            **{"max_steps": 6, "checkpoint_interval": 3, "precision": "32", "batch_size": 2, "crop_frames": 20},
            **{"learning_rate": 0.01, "device": "cpu", "preview_seconds": 2, "text_dropout": 0.5},
        },
        "sampling": sampling,
        "quantization": sampling,
        "evaluation": demo.evaluation.model_copy(update={"resamples": 10}),
    }
    return demo.model_copy(update=changes)


@pytest.fixture(scope="module")
def trained(installed: None, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A data root with a version of three tracks that the toy was trained on, in the trainer's own process."""
    store = Store(tmp_path_factory.mktemp("toy") / "data")
    audio = store.datasets / "lofi-1" / "audio"
    audio.mkdir(parents=True)
    tracks = []
    for index, (name, split) in enumerate(SPLITS.items()):
        t = np.arange(round(SECONDS * RATE)) / RATE
        tone = 0.2 * np.sin(2 * np.pi * (220 + 55 * index) * t) * np.exp(-2 * (t % 0.5))
        (audio / f"{name}.mp3").write_bytes(encode_mp3(np.stack([tone, tone]).astype(np.float32)))
        (audio / f"{name}_prompt.txt").write_text(f"lofi, {name} piano")
        (audio / f"{name}_lyrics.txt").write_text("[Instrumental]")
        tracks.append(track_record(name, audio_sha256=sha256_file(audio / f"{name}.mp3"), split=split))
    deliver(store, "lofi-1", tracks)
    cache_dataset_features(store, profile())
    planned = plan_training(store, profile())
    subprocess.run(planned.command, check=True, capture_output=True, text=True)
    return store


def test_features_are_cached_by_kind_and_not_twice(trained: Store) -> None:
    record = FeatureRecord.read(trained)
    assert record.architecture == "toy" and record.backbone is TOY
    assert [key.split("=")[0] for key in record.tracks[0].key.split(".")] == ["caption", "latents"]
    assert sorted(path.name for path in trained.features.glob("*/")) == ["caption", "latents"]
    features = CachedFeatures(TOY, trained.features)
    assert features.latents(record.tracks[0].key).shape == (features.frames(record.tracks[0].key), CHANNELS)
    assert cache_dataset_features(trained, profile()).counts["recomputed"] == 0


def test_another_familys_features_are_refused_by_name(trained: Store) -> None:
    key = FeatureRecord.read(trained).tracks[0].key
    with pytest.raises(FeatureError, match=r"names no \w+, which ace_step_v1 needs"):
        CachedFeatures(backbone_of("ace_step_v1"), trained.features).conditions(key)


def test_it_is_trained_in_the_trainers_own_process_and_its_checkpoints_load(trained: Store) -> None:
    planned = plan_training(trained, profile())
    described = describe_training(trained, planned)
    assert planned.remaining_steps == 0 and planned.run.architecture == "toy"
    assert described.values["invalid_checkpoints"] == described.values["unreproducible_checkpoints"] == 0
    assert [record.step for record in read_manifest(trained.checkpoints)] == [3, 6]
    assert set(preview_steps(planned.run)) == {3, 6}
    assert len(list(preview_steps(planned.run)[6].glob("*.mp3"))) == 1


def test_all_conditions_are_dropped_at_once_and_a_crop_is_along_its_own_axis(trained: Store) -> None:
    run = plan_training(trained, profile()).run
    source = Source(run.of_split("train"), run.training, TOY, CachedFeatures(TOY, run.features_dir))
    items = [source.item(position) for position in range(40)]
    kept = [bool(item.conditions["mask"].any()) for item in items]
    assert 8 < sum(kept) < 32
    assert {tuple(item.latents.shape) for item in items} == {(20, CHANNELS)}
    assert all(0 <= item.sigma <= 1 for item in items) and len({item.sigma for item in items}) == 40


def test_the_plan_is_made_with_its_own_sizes(trained: Store) -> None:
    plan = plan_profile(trained, profile())
    assert plan.size.adapter == 4 * 4 * 2 * 32 and plan.work.tokens == {"caption": 3} and plan.work.frames == 25


@pytest.mark.usefixtures("operators_read_once")
def test_samples_tiers_and_their_precision_come_from_it(trained: Store) -> None:
    sampled = generate_samples(trained, profile())
    assert sampled.counts == {"checkpoints": 2, "clips": 4, "recomputed": 6}
    audio = {model: sha256_file(next((trained.samples / model).glob("*.mp3"))) for model in (BASE, checkpoint_id(6))}
    assert len(set(audio.values())) == 2
    update_record(trained.checkpoints, checkpoint_id(6), fad_score=1.0)
    merged = merge_best(trained, profile())
    assert merged.values["merge_max_error"] < 1e-5 and merged.counts["modules"] == 4
    assert merged.details["adapter_effect"] > 0
    tiers = quantize(trained, profile())
    assert tiers.values["policy_violations"] == 0
    assert tiers.values["audio_critical_bits"] == 16 and tiers.values["vocal_bits"] == 8
    names = {path.name for path in (trained.quantized / "int8").glob("*.onnx")}
    assert names == {"captions.onnx", "denoiser.onnx", "denoiser.cpu.onnx", "decoder.onnx"}
    assert merge_best(trained, profile()).counts["recomputed"] == 0
    assert quantize(trained, profile()).counts["recomputed"] == 0


def test_a_name_that_no_family_has_is_refused_with_the_one_meant(installed: None) -> None:
    with pytest.raises(BackboneError, match="no backbone is called 'ace_step_15'; there is ace_step_v1, toy"):
        backbone_of("ace_step_15")
    with pytest.raises(BackboneError, match="perhaps you mean 'ace_step_v1'; there is ace_step_v1, toy"):
        backbone_of("ACE-Step_v1")


def test_another_package_cannot_stand_in_for_a_shipped_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "ace_step_v1")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert entry_points(group=GROUP, name="ace_step_v1")
    assert backbone_of("ace_step_v1").architecture == "ace_step_v1"
