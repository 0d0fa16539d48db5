"""A run that makes nothing vouches for nothing: what changed must have been written while a run was at work."""

import math
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lofi_assets.constitution import evidence
from lofi_assets.constitution.made_here import Attempt, NotMadeHereError
from lofi_assets.constitution.verdicts import Measures
from lofi_assets.outcome import Outcome, Written
from lofi_assets.store import Store
from lofi_assets_tests.constitution.test_evidence import REPORT, put
from lofi_assets_tests.recorded_evidence import record


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A report, as a run left it."""
    store = Store(tmp_path)
    record(store, Measures("metrics", "m1", {}, values={"fad": 0.1}), written=Written([put(store, REPORT, "numbers")]))
    return store


def again(store: Store, *attempts: tuple[float, float]) -> str:
    """`metrics` materialised once more, after runs that worked on it from and to so many seconds from now."""
    outcome = Outcome("m1", {}, values={"fad": 0.1}, written=Written(files=[store.root / REPORT]))
    before, now = evidence.current_sha256(store, "metrics"), time.time()
    at_work = [Attempt(now + start, now + end) for start, end in attempts]
    return evidence.write(store, outcome, asset="metrics", upstream=(), before=before, attempts=lambda: at_work)


LATER, EARLIER, NOW = (60.0, math.inf), (-90.0, -60.0), (-60.0, 60.0)


@pytest.mark.parametrize("attempts", [[LATER], [EARLIER], [LATER, EARLIER], []], ids=str)
def test_a_file_put_in_the_place_of_what_a_run_made_is_not_vouched_for_by_the_next(
    store: Store, attempts: list[tuple[float, float]]
) -> None:
    put(store, REPORT, "better numbers")
    with pytest.raises(NotMadeHereError, match=f"{REPORT}: changed since a run made it, and not by a run of metrics"):
        again(store, *attempts)


@pytest.mark.parametrize("attempts", [[NOW], [(-60.0, math.inf)], [LATER, NOW], [LATER, EARLIER, NOW]], ids=str)
def test_a_file_that_this_run_or_one_that_was_killed_wrote_is_vouched_for(
    store: Store, attempts: list[tuple[float, float]]
) -> None:
    put(store, REPORT, "measured again")
    assert again(store, *attempts)


@pytest.mark.parametrize("hours", [-3, 3])
def test_the_clock_of_a_file_server_may_be_another(store: Store, monkeypatch: pytest.MonkeyPatch, hours: int) -> None:
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 3600 * hours)
    put(store, REPORT, "measured again")
    with pytest.raises(NotMadeHereError):
        again(store, LATER)
    assert again(store, NOW)


def test_runs_are_looked_at_only_until_they_explain_what_changed(store: Store) -> None:
    put(store, REPORT, "measured again")
    outcome = Outcome("m1", {}, values={"fad": 0.1}, written=Written(files=[store.root / REPORT]))
    before = evidence.current_sha256(store, "metrics")

    def attempts() -> Iterator[Attempt]:
        yield Attempt(0.0, math.inf)
        raise AssertionError("asked for more")

    for _ in range(2):  # the second time nothing has changed, so that nothing is asked for
        before = evidence.write(store, outcome, asset="metrics", upstream=(), before=before, attempts=attempts)


def test_without_the_earlier_evidence_nothing_is_vouched_for_and_the_way_out_is_said(store: Store) -> None:
    evidence.document_path(store, "metrics", evidence.current_sha256(store, "metrics")).unlink()
    with pytest.raises(
        NotMadeHereError, match=rf"the evidence of metrics is gone: .*whether {REPORT} is .*DAGSTER_HOME"
    ):
        again(store, LATER)
    assert again(store, NOW)


def test_a_file_that_stayed_as_it_was_is_vouched_for(store: Store) -> None:
    assert again(store, LATER)
