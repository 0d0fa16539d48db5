"""What `lofi demo` does around the run itself."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test

from lofi_assets.constitution.gates import Verdict, load_gates
from lofi_assets.demo import run as demo
from lofi_assets.demo.run import PROCESS_TAG, fail_killed_runs, materialise, process_mark, quiet_console, what_next
from lofi_assets.files.documents import write_text
from lofi_assets.store import Store


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    settings: dict[str, Any] = {
        "concurrency": {"pools": {"granularity": "op", "default_limit": 1}},
        "telemetry": {"enabled": False},
    }
    with dg.DagsterInstance.local_temp(str(tmp_path), overrides=settings) as instance:
        yield instance


def dead_process() -> str:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return f"{process.pid}:1"


def started(instance: dg.DagsterInstance, process: str) -> str:
    run = create_run_for_test(instance, status=dg.DagsterRunStatus.STARTED, tags={PROCESS_TAG: process})
    instance.event_log_storage.initialize_concurrency_limit_to_default("gpu")
    instance.event_log_storage.claim_concurrency_slot("gpu", run.run_id, "feature_cache")
    return run.run_id


def test_a_killed_demo_gives_its_pool_slot_back(instance: dg.DagsterInstance) -> None:
    run_id = started(instance, dead_process())
    assert instance.event_log_storage.get_concurrency_info("gpu").active_slot_count == 1
    assert fail_killed_runs(instance) == [run_id]
    assert instance.event_log_storage.get_concurrency_info("gpu").active_slot_count == 0
    run = instance.get_run_by_id(run_id)
    assert run is not None and run.status == dg.DagsterRunStatus.FAILURE
    assert fail_killed_runs(instance) == []


def test_a_demo_that_still_runs_is_left_alone(instance: dg.DagsterInstance) -> None:
    run_id = started(instance, process_mark(os.getppid()))
    with pytest.raises(click.ClickException, match=str(os.getppid())):
        fail_killed_runs(instance)
    run = instance.get_run_by_id(run_id)
    assert run is not None and run.status == dg.DagsterRunStatus.STARTED


def test_runs_of_the_ui_are_left_alone(instance: dg.DagsterInstance) -> None:
    create_run_for_test(instance, status=dg.DagsterRunStatus.STARTED)
    assert fail_killed_runs(instance) == []


def test_a_process_that_took_over_the_number_is_not_the_demo(instance: dg.DagsterInstance) -> None:
    run_id = started(instance, f"{os.getppid()}:1")
    assert fail_killed_runs(instance) == [run_id]


def lineage(made: list[str], *, broken: str = "") -> dg.Definitions:
    """A lineage of two assets: what trains, and what releases it."""

    def make(name: str) -> dg.MaterializeResult:
        made.append(name)
        if name == broken:
            raise ValueError("the disk [of the demo] is full")
        return dg.MaterializeResult()

    @dg.asset
    def model_card() -> dg.MaterializeResult:
        return make("model_card")

    @dg.asset(deps=[model_card])
    def hub_release() -> dg.MaterializeResult:
        return make("hub_release")

    everything = dg.define_asset_job("everything")
    return dg.Definitions([model_card, hub_release], jobs=[everything], loggers={"console": quiet_console})


def statuses(instance: dg.DagsterInstance) -> list[dg.DagsterRunStatus]:
    return [run.status for run in instance.get_runs()]


def held(*verdicts: Verdict) -> Callable[[object, object, object], list[Verdict]]:
    return lambda instance, store, asset: list(verdicts)


def test_a_release_that_is_held_back_is_no_red_run(
    instance: dg.DagsterInstance, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdict = Verdict(load_gates()[0], "fail", 1)
    monkeypatch.setattr(demo, "held_back", held(verdict))
    made: list[str] = []
    assert materialise(lineage(made), instance, store) == ({}, [verdict])
    assert made == ["model_card"] and statuses(instance) == [dg.DagsterRunStatus.SUCCESS]


def test_a_release_that_nothing_holds_is_made_after_all_else(
    instance: dg.DagsterInstance, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "held_back", held())
    made: list[str] = []
    assert materialise(lineage(made), instance, store) == ({}, [])
    assert made == ["model_card", "hub_release"] and statuses(instance) == [dg.DagsterRunStatus.SUCCESS] * 2


@pytest.mark.parametrize("broken", ["model_card", "hub_release"])
def test_a_step_that_fails_is_told_and_what_follows_is_not_released(
    instance: dg.DagsterInstance, store: Store, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    monkeypatch.setattr(demo, "held_back", held())
    made: list[str] = []
    failures, _ = materialise(lineage(made, broken=broken), instance, store)
    assert list(failures) == [broken] == made[-1:]
    assert "disk [of the demo] is full" in failures[broken]


def test_the_end_says_what_to_do_next(store: Store) -> None:
    said = "\n".join(what_next(store))
    assert "make dev" in said and "lofi review list" in said and str(store.raw) in said and "reports" not in said
    write_text(store.samples / "reports" / "index.html", "<!doctype html>")
    assert "http://127.0.0.1:3001/data/samples/reports/index.html" in "\n".join(what_next(store))
