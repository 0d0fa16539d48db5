"""What the recorded numbers say, and what holds a guarded asset back."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lofi_assets.constitution.chain import Chain, Materialized
from lofi_assets.constitution.gates import Gate, Verdict, load_gates
from lofi_assets.constitution.verdicts import (
    Measures,
    held_back_by,
    recorded,
    track_rule_counts,
    verdict,
    verdicts,
)
from lofi_assets.store import Store
from lofi_assets_tests.recorded_evidence import RUN, Log, record


def gate_of(gate_id: str, **changes: object) -> Gate:
    values: dict[str, Any] = {"article": "III", "scope": "asset", "op": "<", "limit": 5.0, "why": ""}
    return Gate(**{**values, "id": gate_id, **changes})


HASH = gate_of("dataset.hash", asset="dataset", measure="hash_verified", op="==", limit=True, holds=("hub_release",))
FAD = gate_of("quality.fad", asset="metrics", measure="fad", encoder="vggish", holds=("hub_release",))
COVERAGE = gate_of("quality.coverage", asset="metrics", measure="uncovered", op="==", limit=0)
LENGTH = gate_of("audio.length", asset="tracks", scope="track", measure="duration_s", op=">=", limit=30)
PINS = gate_of("repository.pins", asset=None, scope="repository", measure="unpinned", op="==", limit=0)
GATES = (LENGTH, HASH, FAD, COVERAGE, PINS)
TRACKS = Measures("tracks", "t1", tracks={"audio.length": {"accepted": 3, "violating": 0, "rejected": 1}})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Three assets, each built from the one before, whose gates all pass."""
    store = Store(tmp_path)
    record(store, TRACKS)
    record(store, Measures("dataset", "d1", upstream={"tracks": "t1"}, values={"hash_verified": True}))
    record(store, metrics(2.0))
    return store


def metrics(fad: float | None, **changes: Any) -> Measures:
    values = {"fad": {"value": fad, "encoder": "vggish", "trained": True}, "uncovered": 3}
    return Measures(
        **{"asset": "metrics", "data_version": "m1", "upstream": {"dataset": "d1"}, "values": values, **changes}
    )


def held(store: Store, *, latest: Mapping[str, Materialized | None] | None = None, **options: Any) -> list[Verdict]:
    chain = Chain(store, Log(store, **(latest or {})))
    return held_back_by(GATES, asset="hub_release", chain=chain, **options)


# --- tracks ----------------------------------------------------------------------------------------------------------


def test_a_track_rule_counts_who_passed_who_violates_and_who_was_rejected() -> None:
    rows = [{"duration_s": 60.0}, {"duration_s": 29.0}, {"duration_s": math.nan}, {}]
    counts = track_rule_counts([LENGTH], accepted=rows, rejected_by={"audio.length": 2, "audio.clipping": 5})
    assert counts == {"audio.length": {"accepted": 4, "violating": 3, "rejected": 2}}


def test_rejected_tracks_do_not_fail_their_rule_but_an_accepted_violation_does() -> None:
    clean = Measures("tracks", "t1", tracks={"audio.length": {"accepted": 3, "violating": 0, "rejected": 90}})
    assert verdict(LENGTH, clean).passed and "90 rejected" in verdict(LENGTH, clean).note
    broken = Measures("tracks", "t1", tracks={"audio.length": {"accepted": 3, "violating": 1, "rejected": 0}})
    assert verdict(LENGTH, broken).status == "fail"


def test_a_track_rule_that_was_not_counted_is_inconclusive() -> None:
    assert verdict(LENGTH, Measures("tracks", "t1")).status == "inconclusive"


def test_an_asset_that_was_never_built_has_no_passing_gate(tmp_path: Path) -> None:
    found = verdicts(Store(tmp_path), load_gates())
    assert {item.status for item in found} == {"inconclusive"}
    assert len(found) == sum(gate.asset is not None for gate in load_gates())


# --- recording -------------------------------------------------------------------------------------------------------


def test_measures_survive_a_round_trip(store: Store) -> None:
    measures = metrics(2.0, counts={"checkpoints": 4})
    record(store, measures)
    assert recorded(store, "metrics") == measures
    assert recorded(store, "unknown") is None


def test_a_number_that_is_not_finite_is_recorded_as_missing(store: Store) -> None:
    record(store, metrics(math.nan))
    assert recorded(store, "metrics").values["fad"]["value"] is None
    assert verdict(FAD, recorded(store, "metrics")).status == "inconclusive"


# --- the guard -------------------------------------------------------------------------------------------------------


def test_the_guard_opens_when_every_holding_gate_passed_for_this_build(store: Store) -> None:
    assert held(store) == []


def test_the_guard_asks_the_gates_that_hold_this_asset_only(store: Store) -> None:
    assert not verdict(COVERAGE, recorded(store, "metrics")).passed
    chain = Chain(store, Log(store, metrics=None, dataset=None, tracks=None))
    assert held_back_by(GATES, asset="merged_model", chain=chain) == []


def test_a_failed_gate_holds_a_release_back(store: Store) -> None:
    record(store, metrics(5.0))
    assert [(item.gate.id, item.status) for item in held(store)] == [("quality.fad", "fail")]


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"fad": None},
        {"fad": {"value": -1.0, "encoder": "vggish"}},
        {"fad": {"value": 2.0, "encoder": "musicnn", "trained": True}},
        {"fad": {"value": 2.0, "encoder": "vggish", "trained": False}},
        {"fad": True},
    ],
    ids=["missing", "null", "negative", "other encoder", "untrained", "truth value"],
)
def test_an_inconclusive_gate_holds_a_release_back(store: Store, values: Mapping[str, Any]) -> None:
    record(store, metrics(None, values=values))
    assert [(item.gate.id, item.status) for item in held(store)] == [("quality.fad", "inconclusive")]


def test_numbers_that_were_never_recorded_hold_a_release_back(store: Store) -> None:
    (found,) = held(store, latest={"metrics": None})
    assert found.status == "inconclusive" and "metrics is not materialised" in found.note


def test_numbers_about_another_build_hold_a_release_back(store: Store) -> None:
    (found,) = held(store, latest={"metrics": Materialized("e" * 64, "m2", RUN)})
    assert (found.gate.id, found.status) == ("quality.fad", "inconclusive") and "another build" in found.note


def test_a_build_that_the_orchestrator_does_not_know_holds_a_release_back(store: Store) -> None:
    nothing = {"tracks": None, "dataset": None, "metrics": None}
    assert {item.gate.id for item in held(store, latest=nothing)} == {"dataset.hash", "quality.fad"}


def test_an_upstream_rebuilt_since_holds_a_release_back_however_far_up(store: Store) -> None:
    record(store, Measures("tracks", "t2"))
    found = held(store)
    assert {item.gate.id for item in found} == {"dataset.hash", "quality.fad"}
    assert all(item.status == "inconclusive" and "earlier tracks" in item.note for item in found)


def test_an_upstream_whose_own_numbers_are_about_another_build_holds_a_release_back(store: Store) -> None:
    latest = Log(store).latest("tracks")
    record(store, Measures("tracks", "t0"))
    assert {item.gate.id for item in held(store, latest={"tracks": latest})} == {
        "dataset.hash",
        "quality.fad",
    }


def test_a_failure_recorded_for_this_build_overrules_a_passing_number(store: Store) -> None:
    (found,) = held(store, overruled=["quality.fad"])
    assert found.status == "fail" and "recorded for this build" in found.note


def test_several_overruled_gates_may_come_from_an_iterator(store: Store) -> None:
    found = held(store, overruled=iter(["quality.fad", "dataset.hash"]))
    assert {item.gate.id for item in found} == {"quality.fad", "dataset.hash"}


def test_an_overruled_gate_that_holds_nothing_here_changes_nothing(store: Store) -> None:
    assert held(store, overruled=["quality.coverage"]) == []
