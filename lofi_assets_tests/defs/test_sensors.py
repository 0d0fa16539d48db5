"""New tracks landing: when an inventory is taken, and when it waits."""

import json
import os
import time
from collections.abc import Callable, Iterator
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
def unbuilt() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def instance(unbuilt: dg.DagsterInstance) -> dg.DagsterInstance:
    """Of a library that was built once."""
    unbuilt.report_runless_asset_event(dg.AssetMaterialization("processed_tracks"))
    return unbuilt


@pytest.fixture
def evaluate(tmp_path: Path, defs: dg.Definitions, instance: dg.DagsterInstance) -> Evaluate:
    """One evaluation from a cursor, as the daemon does it."""
    return evaluation(tmp_path, defs, instance)


def evaluation(tmp_path: Path, defs: dg.Definitions, instance: dg.DagsterInstance) -> Evaluate:
    resources = {"platform": Platform(data_dir=str(tmp_path), profile_name="demo")}
    repository = defs.get_repository_def()

    def at(cursor: str | None) -> SensorExecutionData:
        context = dg.build_sensor_context(
            instance=instance, cursor=cursor, repository_def=repository, resources=resources
        )
        with context:
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


ALL = ["licensed_sources", "style_taxonomy", "processed_tracks", "prompts", "dataset_manifest"]


def asked_for(tick: dg.RunRequest | str) -> list[str]:
    """Assets of a request, in its order."""
    assert isinstance(tick, dg.RunRequest), tick
    return [key.to_user_string() for key in tick.asset_selection or ()]


@pytest.mark.parametrize(
    ("name", "assets"),
    [
        ("raw/commissioned/snow.wav", ["licensed_sources", *ALL[2:]]),
        ("metadata/sources.json", ["licensed_sources", *ALL[2:]]),
        ("metadata/chosen_styles.json", ALL[2:]),
        ("metadata/style_mapping.json", ALL[2:]),
        ("raw/commissioned/rain_prompt.txt", ALL[3:]),
        ("raw/commissioned/rain_lyrics.txt", ALL[3:]),
        ("metadata/reviews.jsonl", ALL[3:]),
    ],
)
def test_exactly_the_assets_that_read_what_changed_run_in_one_go(
    tmp_path: Path, tick: Tick, name: str, assets: list[str]
) -> None:
    land(tmp_path, "raw/commissioned/rain.wav")
    assert asked_for(tick()) == ALL
    land(tmp_path, name, content=b'{"rain": ["CORE-01"]}')
    assert asked_for(tick()) == assets
    assert "nothing new" in str(tick())


def report_run(instance: dg.DagsterInstance, defs: dg.Definitions, *assets: str, status: dg.DagsterRunStatus) -> None:
    """A run of the data side, as the queue and the run's page know it."""
    instance.create_run_for_job(
        defs.resolve_job_def("refresh_data"),
        asset_selection=frozenset(map(dg.AssetKey, assets)),
        tags={"lofi/lane": "data"},
        status=status,
    )


def test_a_run_that_has_not_started_sees_what_landed_since(
    tmp_path: Path, tick: Tick, instance: dg.DagsterInstance, defs: dg.Definitions
) -> None:
    """A hundred files in an hour while the data side is busy are one run, not a hundred."""
    land(tmp_path, "raw/commissioned/rain.wav")
    report_run(instance, defs, *asked_for(tick()), status=dg.DagsterRunStatus.NOT_STARTED)
    land(tmp_path, "raw/commissioned/snow.wav")
    assert "has not started yet" in str(tick())
    assert tick() == "nothing new among 2 files"


def test_a_waiting_run_for_less_is_no_reason_to_wait(
    tmp_path: Path, tick: Tick, instance: dg.DagsterInstance, defs: dg.Definitions
) -> None:
    land(tmp_path, "raw/commissioned/rain.wav")
    tick()
    report_run(instance, defs, "prompts", "dataset_manifest", status=dg.DagsterRunStatus.NOT_STARTED)
    land(tmp_path, "raw/commissioned/snow.wav")
    assert asked_for(tick()) == ["licensed_sources", *ALL[2:]]


def test_a_run_that_has_started_may_not_have_seen_it(
    tmp_path: Path, tick: Tick, instance: dg.DagsterInstance, defs: dg.Definitions
) -> None:
    land(tmp_path, "raw/commissioned/rain.wav")
    report_run(instance, defs, *asked_for(tick()), status=dg.DagsterRunStatus.STARTED)
    land(tmp_path, "raw/commissioned/snow.wav")
    assert isinstance(tick(), dg.RunRequest)


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED])
def test_what_a_failed_run_left_undone_is_done_with_the_next_landing(
    tmp_path: Path, tick: Tick, instance: dg.DagsterInstance, defs: dg.Definitions, status: dg.DagsterRunStatus
) -> None:
    land(tmp_path, "raw/commissioned/rain.wav")
    report_run(instance, defs, *asked_for(tick()), status=status)
    land(tmp_path, "raw/commissioned/rain_prompt.txt")
    assert asked_for(tick()) == ALL


def test_a_cursor_of_another_version_is_a_first_look(tmp_path: Path, evaluate: Evaluate) -> None:
    land(tmp_path, "raw/commissioned/rain.wav")
    for cursor in ("12:0123456789abcdef", "[]", '{"more": 1}'):
        (request,) = evaluate(cursor).run_requests or []
        assert asked_for(request) == ALL


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
    assert "nothing new" in str(tick())


def test_an_edited_licence_record_is_noticed(tmp_path: Path, tick: Tick) -> None:
    land(tmp_path, "metadata/sources.json", content=b"[1]", age=2 * HOUR)
    tick()
    land(tmp_path, "metadata/sources.json", content=b"[2]")
    assert isinstance(tick(), dg.RunRequest)


def test_what_the_platform_writes_asks_for_nothing(tmp_path: Path, tick: Tick) -> None:
    land(tmp_path, "raw/commissioned/rain.wav")
    tick()
    document = "metadata/evidence/prompts/" + "0" * 64
    for name in (
        "processed/core/rain.mp3",
        "metadata/raw_inventory.parquet",
        "metadata/evidence/prompts.json",
        f"{document}.json",
        f"{document}.tracks.json",
    ):
        land(tmp_path, name)
    assert "nothing new" in str(tick())


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
    monkeypatch.setattr("lofi_assets.defs.sensors.time.time", lambda: now + 60)
    assert any(isinstance(outcome, dg.RunRequest) for outcome in (first, tick()))


def test_a_first_delivery_waits_for_a_licence_and_is_no_failed_run(
    tmp_path: Path, defs: dg.Definitions, unbuilt: dg.DagsterInstance
) -> None:
    """Without one file to build from, the inventory's blocking gate could only fail."""
    look = evaluation(tmp_path, defs, unbuilt)
    land(tmp_path, "raw/commissioned/rain.wav")
    waiting = look(None)
    assert not waiting.run_requests and "verified licence" in str(waiting.skip_message)
    record = {
        "source_id": "studio-7",
        "track_ids": ["rain"],
        "source_type": "partnership",
        "provider": "Studio 7",
        "license_type": "AI Training Rights",
        "date_acquired": "2025-03-01",
        "evidence": "https://example.org/contract",
    }
    land(tmp_path, "metadata/sources.json", content=json.dumps([record]).encode())
    assert not look(waiting.cursor).run_requests
    verified = [record | {"ai_training_rights": True, "verified_by": "M. Keller"}]
    land(tmp_path, "metadata/sources.json", content=json.dumps(verified).encode())
    (request,) = look(waiting.cursor).run_requests or []
    assert asked_for(request) == ALL


def test_a_first_delivery_with_a_broken_ledger_starts_the_run_that_says_so(
    tmp_path: Path, defs: dg.Definitions, unbuilt: dg.DagsterInstance
) -> None:
    land(tmp_path, "raw/commissioned/rain.wav")
    land(tmp_path, "metadata/sources.json", content=b"[{")
    assert evaluation(tmp_path, defs, unbuilt)(None).run_requests
