"""A checkpoint as the trainer and the installed peft write it is one that a release takes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from lofi_assets.constitution.clearance import give
from lofi_assets.files.documents import read_json
from lofi_assets.release import hub_release
from lofi_assets.release.adapter_files import NEUTRAL, expect_config
from lofi_assets.release.files import ReleaseError
from lofi_assets.store import Store
from lofi_assets.training.checkpoints.soundness import fault
from lofi_assets.training.lora_checkpoints import PlannedRun, describe_training
from lofi_assets_tests.release.cleared import cleared, publish
from lofi_assets_tests.release.stand_in_release import (
    CHECKPOINT,
    HALVES,
    LAYERS,
    LORA,
    adapter_config,
    profile_for,
    published,
    run,
    write_checkpoint,
    write_records,
    write_release,
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `write_checkpoint` imitates."""
    import torch

    from lofi_assets.training.trainer.adapters import write_adapter

    root = tmp_path_factory.mktemp("trained")
    folder = root / "checkpoints" / CHECKPOINT
    folder.mkdir(parents=True)
    random = np.random.default_rng(1)
    tensors = {
        f"{name}.lora_{half}.weight": torch.from_numpy(random.normal(size=size).astype(np.float32))
        for name in LAYERS
        for half, size in HALVES
    }
    write_adapter(folder, tensors, lora=LORA, base="/work/models/base")
    write_records(folder, run(root))
    return root


def test_what_the_trainer_writes_is_released(trained: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "data")
    write_release(store, trained)
    publish(store, profile_for("folder"))
    adapter = published(store, "adapter")
    config = json.loads(adapter["adapter_config.json"])
    assert config["base_model_name_or_path"] is None and config["lora_alpha"] == 32
    assert b"/work/models" not in b"".join(adapter.values())
    assert fault(store.release / "published" / "adapter") is None


def test_the_stand_in_is_what_the_trainer_writes(trained: Path, tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    ours, theirs = tmp_path / "checkpoints" / CHECKPOINT, trained / "checkpoints" / CHECKPOINT
    for path in theirs.glob("*.safetensors"):
        real, made = load_file(path), load_file(ours / path.name)
        assert real.keys() == made.keys() and all(np.array_equal(real[name], made[name]) for name in real)
    written = read_json(theirs / "adapter_config.json")
    known = adapter_config()
    assert {name: written[name] for name in known} == known


def test_every_field_of_the_installed_peft_that_is_set_is_decided_by_the_settings_or_neutral(trained: Path) -> None:
    """Otherwise an honest release is refused: then the field belongs into NEUTRAL, if it changes nothing."""
    written = read_json(trained / "checkpoints" / CHECKPOINT / "adapter_config.json")
    decided = {"r", "lora_alpha", "target_modules", "use_rslora", "use_dora"}
    of_the_reader = {"base_model_name_or_path", "peft_version"}
    assert {name for name, value in written.items() if value} - decided - of_the_reader == NEUTRAL.keys()


def test_dropout_and_ranks_by_layer_are_what_was_trained_with(tmp_path: Path) -> None:
    none = run(tmp_path).lora
    some = none.model_copy(update={"lora_dropout": 0.1})
    by_layer = none.model_copy(update={"rank_pattern": {"to_q": 2}})
    expect_config({**adapter_config(), "rank_pattern": {"to_q": 2}}, by_layer, where=tmp_path)
    for lora, given in ((none, {"to_q": 2}), (by_layer, {}), (by_layer, {"to_q": 3})):
        with pytest.raises(ReleaseError, match="rank_pattern is"):
            expect_config({**adapter_config(), "rank_pattern": given}, lora, where=tmp_path)
    for lora, share in ((none, 0.0), (some, 0.1)):
        expect_config({**adapter_config(), "lora_dropout": share}, lora, where=tmp_path)
        with pytest.raises(ReleaseError, match=r"lora_dropout is 0\.2, trained with"):
            expect_config({**adapter_config(), "lora_dropout": 0.2}, lora, where=tmp_path)


def test_a_base_that_is_not_the_one_trained_on_is_not_named(released: Store) -> None:
    profile = profile_for("folder")
    hub = profile.base_model.model_copy(update={"kind": "hub", "path": "team/base", "revision": "1" * 40})
    with pytest.raises(ReleaseError, match=r"config\.json: was not trained on team/base at 111111111111"):
        publish(released, profile.model_copy(update={"base_model": hub}))
    unnamed = hub.model_copy(update={"revision": None})
    with pytest.raises(ReleaseError, match=r"base_model\.revision is empty"):
        publish(released, profile.model_copy(update={"base_model": unnamed}))


def test_everything_that_a_release_reads_of_a_checkpoint_is_in_its_evidence(trained: Path, tmp_path: Path) -> None:
    """Or the guard's own clearance would refuse every honest release."""
    store = Store(tmp_path / "data")
    write_release(store, trained)
    planned = PlannedRun(run(store.root), store.metadata("training_run.json"), 0)
    told = {store.relative(path) for path in describe_training(store, planned).written.given}
    allowed = cleared(store)
    files = {name: sha for name, sha in allowed.files.items() if not name.startswith("checkpoints/") or name in told}
    outcome = hub_release.publish(store, profile_for("folder"), give(replace(allowed, files=files)))
    assert outcome.counts["files"]
