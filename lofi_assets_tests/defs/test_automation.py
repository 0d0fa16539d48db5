"""Automation: what changed is rebuilt, what did not is not, and a failed gate holds the request."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from lofi_assets_tests.defs.test_gate_checks import SEAMS, StandIns, materialized

LINEAGE = list(SEAMS)
BEFORE_RELEASE = LINEAGE[:-1]
AFTER_TRAINING = LINEAGE[LINEAGE.index("generated_samples") : -1]
Tick = Callable[[], set[str]]


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIns:
    return StandIns(tmp_path).install(monkeypatch)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def tick(stand_ins: StandIns, instance: dg.DagsterInstance) -> Tick:
    """One evaluation of every condition; gives the assets that it requests."""
    state: dict[str, Any] = {"cursor": None}

    def evaluate() -> set[str]:
        result = dg.evaluate_automation_conditions(stand_ins.defs, instance, cursor=state["cursor"])
        state["cursor"] = result.cursor
        return {asset for asset in LINEAGE if result.get_num_requested(dg.AssetKey(asset))}

    return evaluate


@pytest.fixture
def settled(stand_ins: StandIns, instance: dg.DagsterInstance, tick: Tick) -> StandIns:
    """Everything built, every gate passed, and automation has seen it."""
    tick()
    stand_ins.report(instance, *BEFORE_RELEASE)
    tick()
    return stand_ins


def test_an_unchanged_library_recomputes_nothing(settled: StandIns, instance: dg.DagsterInstance, tick: Tick) -> None:
    assert tick() == set()
    settled.materialize(instance, "licensed_sources", "style_taxonomy")
    assert tick() == set()


def test_new_data_rebuilds_what_stands_on_it(settled: StandIns, instance: dg.DagsterInstance, tick: Tick) -> None:
    settled.versions["prompts"] = "prompts 2"
    settled.materialize(instance, "prompts")
    assert tick() == {"dataset_manifest"}


def test_a_request_is_made_once(settled: StandIns, instance: dg.DagsterInstance, tick: Tick) -> None:
    settled.versions["prompts"] = "prompts 2"
    settled.materialize(instance, "prompts")
    tick()
    assert tick() == set()


def test_a_change_travels_down_in_one_run(settled: StandIns, instance: dg.DagsterInstance, tick: Tick) -> None:
    """The dataset is not built before the prompts, and nothing that follows training moves."""
    settled.versions |= {"licensed_sources": "s2", "processed_tracks": "p2", "prompts": "r2", "dataset_manifest": "d2"}
    settled.materialize(instance, "licensed_sources")
    requested = tick()
    assert requested == {"processed_tracks", "prompts", "dataset_manifest"}
    assert materialized(settled.materialize(instance, *requested)) == [
        "processed_tracks",
        "prompts",
        "dataset_manifest",
    ]
    assert tick() == tick() == set()


def test_a_run_of_the_whole_data_side_is_followed_by_nothing(
    settled: StandIns, instance: dg.DagsterInstance, tick: Tick
) -> None:
    """What the sensor starts when a track lands."""
    data = ("licensed_sources", "processed_tracks", "prompts", "dataset_manifest")
    settled.versions |= {asset: f"{asset} 2" for asset in data}
    settled.materialize(instance, *data)
    assert tick() == tick() == set()


def test_a_new_dataset_moves_nothing_after_training(
    settled: StandIns, instance: dg.DagsterInstance, tick: Tick
) -> None:
    settled.versions["dataset_manifest"] = "dataset_manifest 2"
    settled.materialize(instance, "dataset_manifest")
    assert tick() == tick() == set()


def test_what_a_run_left_undone_when_it_failed_is_not_started_again_by_itself(
    settled: StandIns, instance: dg.DagsterInstance, tick: Tick
) -> None:
    """A person is alerted; starting the same work at once would fail the same way."""
    settled.versions["processed_tracks"] = "processed_tracks 2"
    settled.broken["prompts"] = RuntimeError("disk is full")
    settled.materialize(instance, "processed_tracks", "prompts", "dataset_manifest")
    assert tick() == tick() == set()


def test_an_update_that_changes_nothing_travels_no_further(
    settled: StandIns, instance: dg.DagsterInstance, tick: Tick
) -> None:
    """A new raw file that is rejected moves the inventory, not the tracks."""
    settled.versions["licensed_sources"] = "s2"
    settled.materialize(instance, "licensed_sources")
    tick()
    settled.materialize(instance, "processed_tracks")
    assert "prompts" not in tick()


@pytest.mark.parametrize("gate_id", ["tracks.accepted", "tracks.unlicensed"])
def test_a_failed_blocking_gate_upstream_holds_the_request(
    settled: StandIns, instance: dg.DagsterInstance, tick: Tick, gate_id: str
) -> None:
    settled.versions["processed_tracks"] = "processed_tracks 2"
    settled.measured[gate_id] = None
    settled.materialize(instance, "processed_tracks")
    assert tick() == set()


def test_a_held_rebuild_is_requested_once_the_gate_passes(
    settled: StandIns, instance: dg.DagsterInstance, tick: Tick
) -> None:
    settled.versions["processed_tracks"] = "processed_tracks 2"
    settled.measured["tracks.accepted"] = 0
    settled.materialize(instance, "processed_tracks")
    assert tick() == set()
    del settled.measured["tracks.accepted"]
    settled.materialize(instance, "processed_tracks")
    assert tick() == {"prompts", "dataset_manifest"}


def test_a_gate_that_does_not_block_holds_no_request(
    settled: StandIns, instance: dg.DagsterInstance, tick: Tick
) -> None:
    settled.versions["processed_tracks"] = "processed_tracks 2"
    settled.measured["tracks.rejected_share"] = 0.9
    settled.materialize(instance, "processed_tracks")
    assert "prompts" in tick()


def test_a_first_delivery_starts_the_lineage(stand_ins: StandIns, instance: dg.DagsterInstance, tick: Tick) -> None:
    tick()
    stand_ins.materialize(instance, "licensed_sources", "style_taxonomy")
    assert tick() == {"processed_tracks", "prompts", "dataset_manifest"}


def test_a_failing_asset_is_not_requested_for_ever(settled: StandIns, instance: dg.DagsterInstance, tick: Tick) -> None:
    settled.versions["prompts"] = "prompts 2"
    settled.broken["dataset_manifest"] = RuntimeError("disk is full")
    settled.materialize(instance, "prompts")
    assert "dataset_manifest" in tick()
    for _ in range(3):
        settled.materialize(instance, "dataset_manifest")
        assert "dataset_manifest" not in tick()


def test_features_training_and_release_are_never_started_by_automation(
    settled: StandIns, instance: dg.DagsterInstance, tick: Tick
) -> None:
    settled.versions = {name: f"{name} 2" for name in LINEAGE}
    requested = set()
    for upstream in BEFORE_RELEASE:
        settled.report(instance, upstream)
        requested |= tick()
    assert requested and not requested & {"feature_cache", "lora_checkpoints", "hub_release"}


def test_a_new_checkpoint_is_heard_and_measured_without_being_asked_for(
    settled: StandIns, instance: dg.DagsterInstance, tick: Tick
) -> None:
    """What is requested together runs together, in lineage order."""
    settled.versions |= {asset: f"{asset} 2" for asset in ("lora_checkpoints", "generated_samples", "quality_metrics")}
    settled.report(instance, "lora_checkpoints")
    requested = tick()
    assert requested == set(AFTER_TRAINING)
    assert materialized(settled.materialize(instance, *requested)) == AFTER_TRAINING
    assert tick() == tick() == set()
