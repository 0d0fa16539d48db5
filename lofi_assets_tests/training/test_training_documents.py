"""What training writes of itself: read back as it was written, of the version before, or refused by name."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from lofi_assets.backbones.features import FeatureError
from lofi_assets.files.documents import read_json, write_json
from lofi_assets.files.writing import StoreError
from lofi_assets.records import Checkpoint
from lofi_assets.store import Store
from lofi_assets.training.checkpoints.description import CheckpointDescription, Provenance
from lofi_assets.training.checkpoints.files import DESCRIPTION, RUN_CONFIG, CheckpointError, checkpoint_id
from lofi_assets.training.checkpoints.manifest import read_manifest
from lofi_assets.training.checkpoints.runs import RUN, RunIdentity
from lofi_assets.training.config import TrackFeatures
from lofi_assets.training.feature_cache import FeatureRecord
from lofi_assets.training.trained_on import TrainedOn

HASH = "d" * 64
KEY = ".".join(letter * 32 for letter in "abcd")
RECORD = Checkpoint(
    checkpoint_id=checkpoint_id(10),
    step=10,
    path=f"checkpoints/{checkpoint_id(10)}",
    timestamp=datetime(2026, 1, 1, tzinfo=UTC),
    is_valid=True,
    config_hash=HASH,
    dataset_hash=HASH,
)
DESCRIBED = CheckpointDescription(
    record=RECORD,
    run_id="abc",
    dataset_id="lofi-1",
    seed=1,
    randomness={"seed": 1, "step": 10, "rule": "by position"},
    adapter_sha256=HASH,
    lora_scale=2.0,
    train_loss=0.5,
    validation_by_timestep={"t=125": 0.25},
    log="logs/train-abc.jsonl",
    provenance=Provenance(command="train", packages={"torch": "2.14.1", "bitsandbytes": None}, threads=2),
)
FEATURES = FeatureRecord(
    base="/models/base",
    base_fingerprint=HASH,
    tracks=(TrackFeatures(track_id="one", key=KEY),),
    dataset_id="lofi-1",
    dataset_hash=HASH,
    languages={"one": "de"},
)


def test_a_checkpoints_description_comes_back_and_says_whether_it_can_be_made_again(tmp_path: Path) -> None:
    DESCRIBED.write(tmp_path)
    assert CheckpointDescription.read(tmp_path) == DESCRIBED and DESCRIBED.reproducible
    assert "fad_score" not in read_json(tmp_path / DESCRIPTION)["record"]
    for absent in ("seed", "provenance"):
        write_json(tmp_path / DESCRIPTION, {k: v for k, v in read_json(tmp_path / DESCRIPTION).items() if k != absent})
        assert not CheckpointDescription.read(tmp_path).reproducible
        DESCRIBED.write(tmp_path)


def test_a_description_of_another_version_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"checkpoint\.json: absent"):
        CheckpointDescription.read(tmp_path)
    DESCRIBED.write(tmp_path)
    write_json(tmp_path / DESCRIPTION, read_json(tmp_path / DESCRIPTION) | {"novelty": 1})
    with pytest.raises(StoreError, match=r"checkpoint\.json: is of another version \(novelty"):
        CheckpointDescription.read(tmp_path)


def test_without_a_manifest_the_descriptions_are_it(tmp_path: Path) -> None:
    (tmp_path / RECORD.checkpoint_id).mkdir()
    DESCRIBED.write(tmp_path / RECORD.checkpoint_id)
    assert read_manifest(tmp_path) == [RECORD]


def test_the_features_record_comes_back_and_one_from_before_there_were_families_is_ace_steps(tmp_path: Path) -> None:
    store = Store(tmp_path)
    FEATURES.write(store)
    assert FeatureRecord.read(store) == FEATURES
    before = {"base": "/models/base", "base_fingerprint": HASH, "tracks": [{"track_id": "one", "key": KEY}]}
    write_json(FeatureRecord.path(store), before)
    found = FeatureRecord.read(store)
    assert found.backbone.architecture == "ace_step_v1" and not found.dataset_hash and found.vocabulary is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no features yet"),
        ({"base": "x"}, "base_fingerprint"),
        ({"base": "x", "base_fingerprint": HASH, "tracks": [{"track_id": "a", "key": "../a"}]}, "tracks.0.key"),
        ({"base": "x", "base_fingerprint": HASH, "tracks": [], "novelty": 1}, "novelty"),
    ],
)
def test_a_features_record_of_another_version_is_refused_by_name(tmp_path: Path, content: object, reason: str) -> None:
    store = Store(tmp_path)
    if content is not None:
        write_json(FeatureRecord.path(store), content)
    with pytest.raises(FeatureError, match=rf"feature_cache\.json: .*{reason}.*materialise feature_cache again"):
        FeatureRecord.read(store)


def test_a_run_says_what_it_is_and_a_person_may_write_its_id_alone(tmp_path: Path) -> None:
    assert RunIdentity.read(tmp_path) is None
    identity = RunIdentity(run_id="abc", config_hash=HASH, dataset_id="lofi-1", dataset_hash=HASH)
    identity.write(tmp_path)
    assert RunIdentity.read(tmp_path) == identity
    write_json(tmp_path / RUN, {"run_id": "abc"})
    assert RunIdentity.read(tmp_path) == RunIdentity(run_id="abc")


def test_what_was_trained_on_is_read_from_a_run_of_any_version(tmp_path: Path) -> None:
    assert TrainedOn.read(tmp_path).train == frozenset()
    tracks = [{"track_id": "a", "key": "of another version"}, {"track_id": "b", "split": "validation"}]
    write_json(tmp_path / RUN_CONFIG, {"tracks": tracks, "base_fingerprint": HASH, "novelty": 1})
    found = TrainedOn.read(tmp_path)
    assert found.train == {"a"} and found.base_fingerprint == HASH
    write_json(tmp_path / RUN_CONFIG, {"base_fingerprint": HASH})
    with pytest.raises(StoreError, match=r"config\.json: .*tracks"):
        TrainedOn.read(tmp_path)
    write_json(tmp_path / RUN_CONFIG, {"tracks": [{"id": "a"}]})
    with pytest.raises(StoreError, match=r"config\.json: .*tracks\.0\.track_id"):
        TrainedOn.read(tmp_path)
