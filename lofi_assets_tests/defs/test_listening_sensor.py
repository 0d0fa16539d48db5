"""Answers arrive: when human_evaluation is judged anew, and when it is left alone."""

from collections.abc import Callable, Iterator
from datetime import timedelta

import dagster as dg
import numpy as np
import pytest

from lofi_assets.definitions import build_defs
from lofi_assets.defs import sensors
from lofi_assets.defs.resources import Platform
from lofi_assets.listening.ledger import read_ledger
from lofi_assets.listening.verdict import close_test, judge_checkpoint, lift_verdict
from lofi_assets.store import Store
from lofi_assets_tests.listening.stand_in_listeners import ABOUT, START, made_test, person, sit

Tick = Callable[[], dg.RunRequest | str]


@pytest.fixture(scope="module")
def defs() -> dg.Definitions:
    return build_defs()


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        made.report_runless_asset_event(dg.AssetMaterialization("quality_metrics"))
        yield made


@pytest.fixture
def tick(store: Store, defs: dg.Definitions, instance: dg.DagsterInstance) -> Tick:
    state: dict[str, str | None] = {"cursor": None}

    def next_tick() -> dg.RunRequest | str:
        context = dg.build_sensor_context(
            instance=instance,
            cursor=state["cursor"],
            repository_def=defs.get_repository_def(),
            resources={"platform": Platform(data_dir=str(store.root), profile_name="demo")},
        )
        with context:
            found = sensors.answers_arrived.evaluate_tick(context)
        state["cursor"] = found.cursor
        return found.run_requests[0] if found.run_requests else str(found.skip_message)

    return next_tick


def test_without_a_test_nothing_is_asked_for(tick: Tick) -> None:
    assert tick() == "no listening test was ever opened"


def test_a_finished_session_asks_for_one_run_of_human_evaluation(store: Store, tick: Tick) -> None:
    _, plan = made_test(store)
    first = tick()
    assert isinstance(first, dg.RunRequest)
    assert "nothing new" in str(tick())
    rng = np.random.default_rng(0)
    sit(store, plan, "L001", person(0.5), rng=rng, start=START.timestamp(), stop=5)
    assert "nothing new" in str(tick())
    sit(store, plan, "L002", person(0.5), rng=rng, start=START.timestamp())
    asked = tick()
    assert isinstance(asked, dg.RunRequest) and asked.run_key != first.run_key
    assert [key.to_user_string() for key in asked.asset_selection or ()] in ([], ["human_evaluation"])
    assert "nothing new: 1 finished" in str(tick())


def test_what_judging_records_itself_asks_for_nothing_and_what_people_decide_does(store: Store, tick: Tick) -> None:
    entry, plan = made_test(store)
    for number in range(plan.looks[0] + 2):
        start = START.timestamp() + number * 900
        sit(store, plan, f"L{number:03d}", person(0.9, slip=0.0), rng=np.random.default_rng(number), start=start)
    assert isinstance(tick(), dg.RunRequest)
    judge_checkpoint(store, ABOUT, now=START + timedelta(days=1))
    assert [e.event for e in read_ledger(store)][-1] == "look"
    assert "nothing new" in str(tick())
    lift_verdict(store, entry, by="Mo", reason="broken headphones", now=START + timedelta(days=2))
    assert isinstance(tick(), dg.RunRequest)
    other, _ = made_test(store, earlier_tests=1)
    assert isinstance(tick(), dg.RunRequest)
    close_test(store, other, by="Mo", reason="no time", now=START + timedelta(days=3))
    assert isinstance(tick(), dg.RunRequest)


def test_before_there_is_a_checkpoint_nothing_is_asked_for(store: Store, tick: Tick, defs: dg.Definitions) -> None:
    made_test(store)
    with dg.DagsterInstance.ephemeral() as empty:
        context = dg.build_sensor_context(
            instance=empty,
            repository_def=defs.get_repository_def(),
            resources={"platform": Platform(data_dir=str(store.root), profile_name="demo")},
        )
        with context:
            assert "no best checkpoint" in str(sensors.answers_arrived.evaluate_tick(context).skip_message)


def test_the_sensor_starts_by_itself_and_starts_that_asset_alone(defs: dg.Definitions) -> None:
    sensor = sensors.answers_arrived
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
    assert sensor.asset_selection is not None
    assert sensor.asset_selection.resolve(defs.resolve_asset_graph()) == {dg.AssetKey("human_evaluation")}
