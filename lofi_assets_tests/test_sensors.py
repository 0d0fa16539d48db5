"""New tracks landing: when an inventory is taken, and when it waits."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.sensor_definition import SensorExecutionData

from lofi_assets.definitions import build_defs
from lofi_assets.defs import sensors
from lofi_assets.defs.resources import Platform

HOUR = 3600.0
Tick = Callable[[], dg.RunRequest | str]


def land(root: Path, name: str, *, content: bytes = b"RIFF", age: float = HOUR) -> Path:
    """A file that changed `age` seconds ago."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    changed = time.time() - age
    os.utime(path, (changed, changed))
    return path


@pytest.fixture(scope="module")
def defs() -> dg.Definitions:
    return build_defs()


Evaluate = Callable[[str | None], SensorExecutionData]


@pytest.fixture
def evaluate(tmp_path: Path, defs: dg.Definitions) -> Evaluate:
    """One evaluation from a cursor, as the daemon does it."""
    resources = {"platform": Platform(data_dir=str(tmp_path), profile_name="demo")}
    repository = defs.get_repository_def()

    def at(cursor: str | None) -> SensorExecutionData:
        with dg.build_sensor_context(cursor=cursor, repository_def=repository, resources=resources) as context:
            return sensors.new_tracks_landed.evaluate_tick(context)

    return at


@pytest.fixture
def tick(evaluate: Evaluate) -> Tick:
    """One evaluation that carries the cursor on; gives the run that is requested, or why none is."""
    state: dict[str, str | None] = {"cursor": None}

    def next_tick() -> dg.RunRequest | str:
        found = evaluate(state["cursor"])
        state["cursor"] = found.cursor
        return found.run_requests[0] if found.run_requests else str(found.skip_message)

    return next_tick


def test_a_new_file_asks_for_one_inventory(tmp_path: Path, tick: Tick) -> None:
    land(tmp_path, "raw/commissioned/rain.wav")
    assert isinstance(tick(), dg.RunRequest)
    assert tick() == "nothing new among 1 files"


def test_only_the_sources_are_asked_for(defs: dg.Definitions) -> None:
    """Automation rebuilds what the inventory turns out to touch."""
    sensor = defs.get_repository_def().get_sensor_def("new_tracks_landed")
    assert sensor.asset_selection is not None
    keys = sensor.asset_selection.resolve(defs.resolve_asset_graph())
    assert {key.to_user_string() for key in keys} == {"licensed_sources", "style_taxonomy"}


def test_the_same_landing_has_the_same_run_key(tmp_path: Path, evaluate: Evaluate) -> None:
    """A tick that is repeated because its cursor was lost starts no second run."""
    land(tmp_path, "raw/commissioned/rain.wav")
    first, again = (evaluate(None).run_requests or [] for _ in range(2))
    assert [request.run_key for request in first] == [request.run_key for request in again]
    assert len(first) == 1


def test_a_file_that_is_still_arriving_is_waited_for(tmp_path: Path, tick: Tick) -> None:
    path = land(tmp_path, "raw/commissioned/rain.wav", age=0)
    assert tick() == "files are still arriving"
    os.utime(path, (time.time() - 60, time.time() - 60))
    assert isinstance(tick(), dg.RunRequest)


def test_a_part_file_is_not_a_track_yet(tmp_path: Path, tick: Tick) -> None:
    land(tmp_path, "raw/commissioned/rain.wav")
    tick()
    land(tmp_path, "raw/commissioned/snow.wav.part")
    assert isinstance(tick(), str)


@pytest.mark.parametrize(
    "name",
    [
        "raw/commissioned/snow.wav",
        "raw/commissioned/rain_prompt.txt",
        "metadata/sources.json",
        "metadata/style_mapping.json",
    ],
)
def test_whatever_people_add_is_noticed(tmp_path: Path, tick: Tick, name: str) -> None:
    land(tmp_path, "raw/commissioned/rain.wav")
    tick()
    land(tmp_path, name)
    assert isinstance(tick(), dg.RunRequest)


def test_an_edited_licence_record_is_noticed(tmp_path: Path, tick: Tick) -> None:
    land(tmp_path, "metadata/sources.json", content=b"[1]", age=2 * HOUR)
    tick()
    land(tmp_path, "metadata/sources.json", content=b"[2]")
    assert isinstance(tick(), dg.RunRequest)


def test_what_the_platform_writes_asks_for_nothing(tmp_path: Path, tick: Tick) -> None:
    land(tmp_path, "raw/commissioned/rain.wav")
    tick()
    for name in ("processed/core/rain.mp3", "metadata/raw_inventory.parquet", "metadata/measures/prompts.json"):
        land(tmp_path, name, age=0)
    assert isinstance(tick(), str)


def test_a_file_that_is_taken_away_again_is_noticed(tmp_path: Path, tick: Tick) -> None:
    """Dagster never launches a run key twice, so a state that comes back needs another one."""
    land(tmp_path, "raw/commissioned/rain.wav")
    keys = [getattr(tick(), "run_key", None)]
    snow = land(tmp_path, "raw/commissioned/snow.wav")
    keys.append(getattr(tick(), "run_key", None))
    snow.unlink()
    taken = tick()
    assert isinstance(taken, dg.RunRequest)
    assert taken.run_key is None or taken.run_key not in keys


def test_a_file_dated_in_the_future_does_not_stop_deliveries(
    tmp_path: Path, tick: Tick, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Archives and cameras carry wrong clocks; what no longer changes has arrived."""
    land(tmp_path, "raw/commissioned/rain.wav", age=-24 * HOUR)
    first = tick()
    now = time.time()
    monkeypatch.setattr(sensors.time, "time", lambda: now + 60)
    assert any(isinstance(outcome, dg.RunRequest) for outcome in (first, tick()))
