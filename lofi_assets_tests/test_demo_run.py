"""What `lofi demo` does around the run itself."""

import os
import subprocess
import sys

import click
import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test

from lofi_assets.defs.demo import PROCESS_TAG, bury_dead_runs, process_mark


@pytest.fixture
def instance(tmp_path):
    limits = {"concurrency": {"pools": {"granularity": "op", "default_limit": 1}}}
    with dg.DagsterInstance.local_temp(str(tmp_path), overrides=limits) as instance:
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
    assert bury_dead_runs(instance) == [run_id]
    assert instance.event_log_storage.get_concurrency_info("gpu").active_slot_count == 0
    run = instance.get_run_by_id(run_id)
    assert run is not None and run.status == dg.DagsterRunStatus.FAILURE
    assert bury_dead_runs(instance) == []


def test_a_demo_that_still_runs_is_left_alone(instance: dg.DagsterInstance) -> None:
    run_id = started(instance, process_mark(os.getppid()))
    with pytest.raises(click.ClickException, match=str(os.getppid())):
        bury_dead_runs(instance)
    run = instance.get_run_by_id(run_id)
    assert run is not None and run.status == dg.DagsterRunStatus.STARTED


def test_runs_of_the_ui_are_left_alone(instance: dg.DagsterInstance) -> None:
    create_run_for_test(instance, status=dg.DagsterRunStatus.STARTED)
    assert bury_dead_runs(instance) == []


def test_a_process_that_took_over_the_number_is_not_the_demo(instance: dg.DagsterInstance) -> None:
    run_id = started(instance, f"{os.getppid()}:1")
    assert bury_dead_runs(instance) == [run_id]
