"""A release of real files at tiny size, let go by the real guard to a Hub on this machine.

Real: a training run of three steps on the tiny base and its checkpoint, the merge, the four tiers with the proof of
their precision and FAD on 16 pairs, the bundle, which ran in an environment of its own, the model card and a person's
word on it, the evidence of all of them, the guard over event log, chain and gates, the release with pull requests, and
what is read back of it.

Stand-ins, whose numbers are what their gates let through: everything before the training (no track of these seconds
would be let in), and what no tiny model can earn: its samples, their quality, what people heard.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import dagster as dg
import numpy as np
import pytest

from lofi_assets.audio.encode import encode_mp3
from lofi_assets.defs import release as release_defs
from lofi_assets.defs import resources
from lofi_assets.defs import training as training_defs
from lofi_assets.defs.gates import held_back
from lofi_assets.files.documents import write_json, write_text
from lofi_assets.files.hashing import sha256_file
from lofi_assets.profiles import Profile, SamplingSettings
from lofi_assets.records import SourceRecord, parse
from lofi_assets.release.model_card import approve
from lofi_assets.release.read_back import read_back
from lofi_assets.store import Store
from lofi_assets.training.checkpoints.manifest import read_manifest, update_record
from lofi_assets.training.config import TrackFeatures, TrainingRun, TrainingSettings, save_run
from lofi_assets.training.feature_cache import FeatureRecord
from lofi_assets.training.lora_checkpoints import PlannedRun
from lofi_assets.training.lora_settings import LoraSettings
from lofi_assets.training.trainer.loop import train
from lofi_assets_tests.dataset.stand_in_version import deliver, track_record
from lofi_assets_tests.defs.test_gate_checks import SEAMS, StandIns
from lofi_assets_tests.release.stand_in_release import profile_for
from lofi_assets_tests.stage_rows import source_row, write_sources

REAL = ("lora_checkpoints", "merged_model", "quantized_tiers", "onnx_artifacts", "model_card", "hub_release")
SPLITS: dict[str, Literal["train", "validation"]] = {"one": "train", "two": "train", "three": "validation"}
TARGETS = ("speaker_embedder", "linear_q", "linear_k", "linear_v", "to_q", "to_k", "to_v", "to_out.0")
SETTINGS: dict[str, Any] = {
    "max_steps": 3,
    "checkpoint_interval": 3,
    "precision": "32",
    "gradient_checkpointing": False,
}
PAIRS = SamplingSettings(count=16, seconds=5, steps=2, guidance_scale=3.0, seed=9000)
BY = "R. Manager"


@dataclass(frozen=True)
class Deployment:
    """A data root whose release went out."""

    store: Store
    base: Path
    checks: dict[str, bool]
    """Check of `hub_release` -> whether it passed in the run that released."""


def profile(**release: Any) -> Profile:
    """The demo's, with fewer steps of shorter clips, released to the Hub."""
    return profile_for("hub", **release).model_copy(update={"quantization": PAIRS})


def write_material(store: Store) -> None:
    """The dataset version, the inventory and the ledger that the training names."""
    folder = deliver(store, "ds-1", [track_record(name, split=split) for name, split in SPLITS.items()])
    random = np.random.default_rng(4)
    for name in SPLITS:
        write_text(folder / "audio" / f"{name}_prompt.txt", f"lofi hip hop, rhodes, 74 bpm, {name}")
        write_text(folder / "audio" / f"{name}_lyrics.txt", "[instrumental]")
        (folder / "audio" / f"{name}.mp3").write_bytes(
            encode_mp3(random.normal(0, 0.1, (2, 20 * 48000)).astype(np.float32))
        )
    write_sources(store, [source_row(name) for name in SPLITS])
    record = {
        "source_id": "s1", "source_type": "commissioned", "provider": "Someone", "date_acquired": "2025-01-01",
        "license_type": "Work for hire (AI training)", "cost": 10.0, "ai_training_rights": True,
        "verified_by": "A. Reviewer", "evidence": "metadata/contract.txt", "track_ids": list(SPLITS),
    }  # fmt: skip
    write_text(store.metadata("contract.txt"), "All rights, for training too.")
    parse(SourceRecord, record, where="test")
    write_json(store.metadata("sources.json"), [record])


def trained(store: Store, material: dict[str, Any]) -> PlannedRun:
    """The run as `lora_checkpoints` plans it, done by the trainer in this process."""
    tracks = tuple(
        TrackFeatures(track_id=name, key=material["keys"][name], split=split) for name, split in SPLITS.items()
    )
    run = TrainingRun(
        base=material["base"],
        base_fingerprint=material["fingerprint"],
        features_dir=material["features"],
        tracks=tracks,
        dataset_id="ds-1",
        dataset_hash="d" * 64,
        checkpoints_dir=store.checkpoints,
        logs_dir=store.logs,
        lora=LoraSettings(r=4, lora_alpha=32, target_modules=TARGETS),
        training=TrainingSettings(**SETTINGS, preview_count=0),
        device="cpu",
    )
    FeatureRecord(str(run.base), run.base_fingerprint, tracks, dataset_id="ds-1", dataset_hash="d" * 64).write(store)
    config = store.metadata("training_run.json")
    save_run(config, run)
    train(run, say=lambda message: None)
    for record in read_manifest(store.checkpoints):
        update_record(store.checkpoints, record.checkpoint_id, fad_score=3.0)
    return PlannedRun(run, config, 0)


@contextmanager
def deployed(root: Path, material: dict[str, Any]) -> Iterator[Deployment]:
    """Make everything and release it to the Hub that huggingface_hub talks to."""
    stand_ins, settings = StandIns(root), profile()
    store = stand_ins.store
    originals = {asset: getattr(*SEAMS[asset]) for asset in REAL}
    write_material(store)
    planned = trained(store, material)
    with pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.ephemeral() as instance:
        stand_ins.install(patch)
        patch.setattr(release_defs, "read_back", read_back)
        patch.setattr(training_defs, "plan_training", lambda *_: planned)
        patch.setattr(resources, "load_profile", lambda name=None: settings)
        for asset, function in originals.items():
            module, name = SEAMS[asset]
            patch.setattr(module, name, function)
        made(stand_ins, instance, *list(SEAMS)[:-1])
        assert [found.gate.id for found in held_back(instance, store, "hub_release")] == ["card.approved"]
        approve(store, card=card_sha256(store), by=BY)
        made(stand_ins, instance, "model_card")
        result = made(stand_ins, instance, "hub_release")
        checks = {
            found.check_name: found.passed
            for found in result.get_asset_check_evaluations()
            if found.asset_key == dg.AssetKey("hub_release")
        }
        yield Deployment(store, Path(planned.run.base), checks)


def card_sha256(store: Store) -> str:
    """What a person copies from the card's page."""
    return sha256_file(store.release / "README.md")


def made(stand_ins: StandIns, instance: dg.DagsterInstance, *assets: str) -> dg.ExecuteInProcessResult:
    """A run that has to succeed."""
    result = stand_ins.materialize(instance, *assets)
    failed = [event.step_failure_data.error_display_string for event in result.all_events if event.is_step_failure]
    assert result.success, failed
    return result
