"""Stand-ins for the assets, an instance, a receiver, and the alert sensor between them."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from lofi_assets_tests.alerts.alert_receiver import Receiver
from lofi_assets_tests.alerts.alert_watch import Watch
from lofi_assets_tests.defs.test_gate_checks import StandIns


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIns:
    return StandIns(tmp_path / "data").install(monkeypatch)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.stop()


@pytest.fixture
def unwatched(
    stand_ins: StandIns, instance: dg.DagsterInstance, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> Watch:
    """Before the sensor's first tick."""
    watch = Watch(stand_ins, instance, monkeypatch)
    watch.receivers(receiver.url)
    monkeypatch.delenv("LOFI_UI_URL", raising=False)
    return watch


@pytest.fixture
def watch(unwatched: Watch) -> Watch:
    """After it."""
    unwatched.tick()
    return unwatched
