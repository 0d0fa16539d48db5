"""Sessions are drawn from no seed; in tests the same ones each time."""

import random

import pytest


@pytest.fixture(autouse=True)
def the_same_sessions_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("order", "opening"):
        monkeypatch.setattr(f"lofi_assets.listening.{module}._RANDOM", random.Random(0))
