"""The sensor `alerts` as the daemon runs it, for tests: a new context each tick; only the data root remembers."""

import time
from dataclasses import dataclass

import dagster as dg
import pytest

from lofi_assets.defs import alerts
from lofi_assets.defs.resources import Notifier, Platform
from lofi_assets_tests.defs.test_gate_checks import GATES, StandIns

NOTHING = "0 new, 0 delivered"


@dataclass
class Watch:
    """Ticks over one instance and one data root."""

    stand_ins: StandIns
    instance: dg.DagsterInstance
    monkeypatch: pytest.MonkeyPatch
    ahead: float = 0.0
    """Seconds by which the sensor's clock is ahead."""
    profile_name: str = "demo"

    def tick(self) -> str:
        """One evaluation; what the daemon shows of it."""
        now = time.time
        with self.monkeypatch.context() as patched:
            patched.setattr("lofi_assets.defs.alerts.time.time", lambda: now() + self.ahead)
            with dg.build_sensor_context(
                instance=self.instance,
                repository_def=self.stand_ins.defs.get_repository_def(),
                resources={
                    "platform": Platform(data_dir=str(self.stand_ins.root), profile_name=self.profile_name),
                    "notifier": Notifier(),
                },
            ) as context:
                return str(alerts.alerts.evaluate_tick(context).skip_message)

    def receivers(self, *urls: str) -> None:
        """Name the receivers."""
        self.monkeypatch.setenv("LOFI_ALERT_URLS", ",".join(urls))

    def judge_by_hand(self, gate_id: str, *, passed: bool) -> None:
        """A person's verdict."""
        gate = GATES[gate_id]
        self.instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(
                asset_key=dg.AssetKey(str(gate.asset)),
                check_name=gate.check_name,
                passed=passed,
                metadata={"rater": "Ada"},
                description="the left channel hums",
            )
        )


def fail(stand_ins: StandIns, instance: dg.DagsterInstance, why: str = "no space left on /srv/lofi") -> str:
    """A run that fails; its id."""
    stand_ins.broken["style_taxonomy"] = OSError(why)
    result = stand_ins.materialize(instance, "style_taxonomy")
    assert not result.success
    return result.run_id
