"""The asset trains in several processes, as it does in one: gloo on the CPU, through Dagster."""

import shutil

import dagster as dg
import pytest

from lofi_assets.constitution import evidence
from lofi_assets.training.checkpoints import trainer_record
from lofi_assets.training.checkpoints.files import PEFT_WEIGHTS, checkpoint_id
from lofi_assets.training.config import load_run
from lofi_assets.training.lora_checkpoints import plan_training
from lofi_assets.training.trainer.loop import train
from lofi_assets_tests.training.fixtures import TrainWith
from lofi_assets_tests.training.test_training_asset import (
    Place,
    failure_of,
    metadata_of,
    place,
    prepared,
    train_with,
)

__all__ = ["place", "prepared", "train_with"]


@pytest.mark.slow
def test_the_asset_trains_in_two_processes_and_goes_on_in_one(place: Place, train_with: TrainWith) -> None:
    train_with(max_steps=2, checkpoint_interval=2, processes=2)
    result = place.materialize()
    shown = metadata_of(result)
    assert (shown["steps"], shown["recomputed"], shown["checkpoints"]) == (2, 2, 1)
    told = [event.message for event in place.instance.all_logs(result.run_id)]
    assert sum("epoch=0-step=2_lora: loss" in message for message in told) == 1, "the main process alone reports"
    run = load_run(place.config)
    assert run.training.processes == 2

    train_with(max_steps=4, checkpoint_interval=2, accumulate=2)
    assert load_run(place.config).run_id == run.run_id
    more = metadata_of(place.materialize())
    assert (more["steps"], more["recomputed"], more["run"]) == (4, 2, run.run_id)


def test_foreign_weights_are_not_recorded_as_trained(place: Place, train_with: TrainWith) -> None:
    """Put there before a real run, as somebody would who wants them released."""
    planned = plan_training(place.store, train_with(max_steps=2, checkpoint_interval=2))
    train(planned.run, say=lambda line: None)  # what the asset would start a process for
    assert place.materialize().success
    weights = place.store.checkpoints / checkpoint_id(2) / PEFT_WEIGHTS
    genuine = weights.read_bytes()
    shutil.rmtree(place.store.checkpoints / trainer_record.FOLDER)
    assert place.materialize().success, "as a version that kept no documents left it: the run's evidence has its hashes"
    documents = evidence.read(place.store, "lora_checkpoints", evidence.current_sha256(place.store, "lora_checkpoints"))
    assert documents.given[f"checkpoints/{checkpoint_id(2)}/{PEFT_WEIGHTS}"]

    from safetensors.numpy import load, save

    weights.write_bytes(save(load(genuine), metadata={"format": "np"}))  # loads, and every form agrees with it
    told = failure_of(place.materialize()).user_failure_data.description
    assert f"checkpoints/{checkpoint_id(2)}: the trainer left no document of it" in told
    with dg.DagsterInstance.ephemeral() as another:
        place.instance = another
        weights.write_bytes(genuine)
        told = failure_of(place.materialize()).user_failure_data.description
    assert "the trainer left no document of it" in told, (
        "evidence that no run of this instance left vouches for nothing"
    )
