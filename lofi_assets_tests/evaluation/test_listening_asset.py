"""human_evaluation: what the gates see of the listening tests of the best checkpoint."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lofi_assets.constitution.gates import gates_of, judge_asset, load_gates
from lofi_assets.evaluation.human_evaluation import (
    FIRST_VERSION_TEST,
    HumanEvaluation,
    adapter_sha256,
    evaluate_listening,
    open_listening_test,
)
from lofi_assets.listening import ledger
from lofi_assets.listening.errors import ListeningError
from lofi_assets.listening.verdict import lift_verdict
from lofi_assets.records import Checkpoint
from lofi_assets.store import Store
from lofi_assets.training.checkpoints.files import DIFFUSERS_WEIGHTS
from lofi_assets.training.checkpoints.manifest import read_manifest, write_manifest
from lofi_assets_tests.listening.stand_in_listeners import START, crowd, made_test, person, undecided
from lofi_assets_tests.metrics.stand_in_results import listening_result

LATER = START + timedelta(days=30)
CHECKPOINT = "epoch=0-step=80_lora"


@pytest.fixture(autouse=True)
def the_same_sessions_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    import random

    monkeypatch.setattr("lofi_assets.listening.order._RANDOM", random.Random(0))


@pytest.fixture
def trained(store: Store) -> Store:
    """A data root whose best checkpoint has weights."""
    folder = store.checkpoints / CHECKPOINT
    folder.mkdir(parents=True)
    (folder / DIFFUSERS_WEIGHTS).write_bytes(b"weights")
    record = Checkpoint(
        checkpoint_id=CHECKPOINT,
        step=80,
        path=f"checkpoints/{CHECKPOINT}",
        timestamp=datetime(2026, 1, 1, tzinfo=UTC),
        fad_score=20.0,
        is_valid=True,
        config_hash="c" * 64,
        dataset_hash="d" * 64,
    )
    write_manifest(store.checkpoints, [record])
    return store


def about(store: Store) -> str:
    return adapter_sha256(store, read_manifest(store.checkpoints)[0])


def statuses(store: Store) -> dict[str, str]:
    """The gates' verdicts on what the asset measured."""
    values = evaluate_listening(store, now=LATER).values
    gates = gates_of(load_gates(), asset="human_evaluation", scope="asset")
    return {found.gate.id: found.status for found in judge_asset(gates, values)}


PASSED = {"human.p_value": "pass", "human.equivalence": "pass"}
WAITING = {"human.p_value": "inconclusive", "human.equivalence": "inconclusive"}
FAILED = {"human.p_value": "fail", "human.equivalence": "fail"}


def test_without_a_checkpoint_or_a_test_the_gates_wait(store: Store, trained: Store) -> None:
    assert statuses(trained) == WAITING
    assert "lofi listen plan" in evaluate_listening(trained, now=LATER).summary
    write_manifest(trained.checkpoints, [])
    assert statuses(trained) == WAITING and "nothing to listen to" in evaluate_listening(trained, now=LATER).summary


def test_people_who_cannot_tell_pass_both_gates_once_a_planned_look_says_so(trained: Store) -> None:
    _, plan = made_test(trained, about=about(trained))
    crowd(trained, plan, [undecided() for _ in range(plan.looks[0] - 1)])
    assert statuses(trained) == WAITING
    crowd(trained, plan, [undecided() for _ in range(15)], first=40)
    assert statuses(trained) == PASSED
    found = HumanEvaluation.read(trained)
    assert found is not None and found.tests[0].verdict == "indistinguishable" and found.statistics is not None
    assert found.statistics.look > 0


def test_people_who_can_tell_fail_both_and_a_later_test_does_not_mend_it(trained: Store) -> None:
    entry, plan = made_test(trained, about=about(trained))
    crowd(trained, plan, [person(0.8)] * 13)
    assert statuses(trained) == FAILED
    _, again = made_test(trained, about=about(trained), earlier_tests=1)
    crowd(trained, again, [undecided() for _ in range(26)])
    assert statuses(trained) == FAILED
    lift_verdict(trained, entry, by="Mo", reason="clipped excerpts", now=LATER)
    assert statuses(trained) == PASSED
    found = HumanEvaluation.read(trained)
    assert found is not None and found.tests[0].lifted == "Mo: clipped excerpts"


def test_other_weights_are_another_checkpoint_and_other_samples_are_not(trained: Store) -> None:
    _, plan = made_test(trained, about=about(trained))
    crowd(trained, plan, [person(0.8)] * 13)
    assert statuses(trained) == FAILED
    (trained.samples / CHECKPOINT).mkdir(parents=True)
    (trained.samples / CHECKPOINT / "samples.json").write_text(json.dumps({"key": "another", "clips": []}))
    assert statuses(trained) == FAILED
    (trained.checkpoints / CHECKPOINT / DIFFUSERS_WEIGHTS).write_bytes(b"trained further")
    assert statuses(trained) == WAITING


def test_a_ledger_that_lost_its_end_opens_nothing(trained: Store) -> None:
    _, plan = made_test(trained, about=about(trained))
    crowd(trained, plan, [person(0.8)] * 13)
    assert statuses(trained) == FAILED
    path = ledger.ledger_path(trained)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    assert statuses(trained) == WAITING
    path.unlink()
    assert statuses(trained) == WAITING
    noted = HumanEvaluation.read(trained)
    assert noted is not None and "entries that it had are gone" in noted.note


@pytest.mark.parametrize(("verdict", "expected"), [("distinguishable", FAILED), ("indistinguishable", WAITING)])
def test_what_version_1_found_fails_if_it_failed_and_supports_nothing_if_it_did_not(
    trained: Store, verdict: Any, expected: dict[str, str]
) -> None:
    HumanEvaluation(CHECKPOINT, "", listening_result(verdict=verdict)).write(trained)
    found = statuses(trained)
    assert found["human.equivalence"] == expected["human.equivalence"]
    assert found["human.p_value"] != "pass"
    assert statuses(trained) == found
    tests = [entry.test for entry in ledger.opened(ledger.read_ledger(trained))]
    assert tests == ([FIRST_VERSION_TEST] if verdict == "distinguishable" else [])


def test_answers_of_version_1_are_named_and_not_counted(trained: Store) -> None:
    path = trained.listening / "step-80-ab" / "results.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text('{"listener": "Ann", "answer": "ai"}\n' * 400)
    outcome = evaluate_listening(trained, now=LATER)
    assert "listening/step-80-ab/results.jsonl: answers of version 1" in outcome.details["not counted"]
    assert statuses(trained) == WAITING


def test_the_same_answers_are_the_same_data_version(trained: Store) -> None:
    _, plan = made_test(trained, about=about(trained))
    crowd(trained, plan, [person(0.8)] * 13)
    versions = {evaluate_listening(trained, now=LATER + timedelta(days=n)).data_version for n in range(2)}
    assert len(versions) == 1


def test_a_test_needs_samples(trained: Store) -> None:
    with pytest.raises(ListeningError, match="materialise quality_metrics"):
        open_listening_test(trained, now=LATER, form="pair")
