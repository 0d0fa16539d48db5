"""What a checkpoint's listening tests say together, and what no attack makes them say."""

import json
import re
from datetime import datetime, timedelta

import numpy as np
import pytest

from lofi_assets.files.documents import read_json, write_json
from lofi_assets.listening import ledger
from lofi_assets.listening.answers import collect
from lofi_assets.listening.arrivals import session_files
from lofi_assets.listening.errors import ListeningError
from lofi_assets.listening.ledger import read_ledger
from lofi_assets.listening.plan import Plan, plan_path
from lofi_assets.listening.verdict import JudgedTest, close_test, judge_checkpoint, lift_verdict, the_worst
from lofi_assets.metrics.listener_screening import screened
from lofi_assets.store import Store
from lofi_assets_tests.listening.stand_in_listeners import (
    ABOUT,
    START,
    Listener,
    clicker,
    crowd,
    made_test,
    person,
    script,
    sit,
    undecided,
)

LATER = START + timedelta(days=30)


def judged(store: Store, now: datetime = LATER) -> JudgedTest:
    """What the checkpoint is judged by."""
    worst = the_worst(judge_checkpoint(store, ABOUT, now=now))
    assert worst is not None
    return worst


def left_out(store: Store, plan: Plan) -> dict[str, str]:
    finished = collect(store, plan.test, seconds=plan.seconds).finished
    return screened([sat.sitting for sat in finished], plan.screening)


def test_people_who_cannot_tell_show_it_at_a_planned_look(store: Store) -> None:
    _, plan = made_test(store)
    crowd(store, plan, [undecided() for _ in range(26)])
    found = judged(store)
    assert found.verdict == "indistinguishable" and found.statistics is not None
    assert found.statistics.look in (1, 2, 3) and found.statistics.evaluator_count in plan.looks
    assert found.statistics.adjusted_p is not None and found.statistics.adjusted_p > 0.05
    look = [entry for entry in read_ledger(store) if entry.event == "look"][-1]
    assert look.final and look.verdict == "indistinguishable"


def test_people_who_can_tell_are_heard_at_the_first_look(store: Store) -> None:
    _, plan = made_test(store)
    crowd(store, plan, [person(0.75)] * 13)
    found = judged(store)
    assert (found.verdict, found.statistics and found.statistics.look) == ("distinguishable", 1)


def test_nothing_is_looked_at_before_a_planned_look(store: Store) -> None:
    _, plan = made_test(store)
    crowd(store, plan, [person(0.75, slip=0.0)] * (plan.looks[0] - 1))
    found = judged(store)
    assert found.verdict is None and found.statistics is None
    assert found.note.startswith(f"{plan.looks[0] - 1} listeners counted; look 1 of 3 is at {plan.looks[0]}")


def test_listeners_who_leave_are_counted_and_not_judged(store: Store) -> None:
    _, plan = made_test(store)
    sit(store, plan, "L001", person(0.5), rng=np.random.default_rng(0), start=START.timestamp(), stop=7)
    assert "0 listeners counted" in judged(store).note and "1 not finished" in judged(store).note


ALTERNATING, ALL_AI, LIST = script("10"), script("1"), script("110100111010001011001010110")
FOUR_HUNDRED: list[Listener] = [ALTERNATING] * 5 + [ALL_AI] * 5 + [LIST] * 15
"""25 sessions of 16 answers."""


@pytest.mark.parametrize("form", ["single", "pair"])
@pytest.mark.parametrize(
    ("replies", "kept"),
    [(FOUR_HUNDRED, 0), ([clicker] * 20, 2)],
    ids=["400 scripted answers", "20 random clickers"],
)
def test_who_does_not_listen_shows_nothing(store: Store, form: str, replies: list[Listener], kept: int) -> None:
    _, plan = made_test(store, forms={form: 16})  # type: ignore[dict-item]
    crowd(store, plan, replies)
    found, excluded = judged(store), left_out(store, plan)
    assert found.verdict is None and len(excluded) >= len(replies) - kept
    assert "left out" in found.note


@pytest.mark.parametrize("bots", [40, pytest.param(160, marks=pytest.mark.slow)])
def test_bots_that_drown_five_listeners_show_nothing(store: Store, bots: int) -> None:
    """The few who pass every control do not make a panel: most of those who came are left out."""
    _, plan = made_test(store, listeners=17)
    crowd(store, plan, [person(0.8)] * 5 + [clicker] * bots)
    found = judged(store)
    assert len(left_out(store, plan)) > 0.87 * bots
    assert found.verdict in (None, "inconclusive", "distinguishable") and found.verdict != "indistinguishable"


def test_a_panel_of_which_most_are_left_out_is_no_panel(store: Store) -> None:
    _, plan = made_test(store)
    crowd(store, plan, [undecided() for _ in range(26)] + [ALTERNATING] * 14)
    found = judged(store)
    assert found.verdict != "indistinguishable" and "more than 30%" in found.note


def test_a_new_seed_or_sample_set_does_not_make_a_failed_test_forgotten(store: Store) -> None:
    _, failed = made_test(store)
    crowd(store, failed, [person(0.75)] * 13)
    assert judged(store).verdict == "distinguishable"
    _, again = made_test(store, earlier_tests=1, listeners=24, now=LATER)
    crowd(store, again, [undecided() for _ in range(26)])
    tests = judge_checkpoint(store, ABOUT, now=LATER)
    assert [test.verdict for test in tests] == ["distinguishable", "indistinguishable"]
    worst = the_worst(tests)
    assert worst is not None and worst.test == failed.test


def test_a_removed_folder_does_not_make_a_failed_test_forgotten(store: Store) -> None:
    _, plan = made_test(store)
    crowd(store, plan, [person(0.75)] * 13)
    judged(store)
    (store.listening / plan.test).rename(store.root / "away")
    found = judged(store)
    assert found.verdict == "distinguishable" and "is gone" in found.note


def test_a_verdict_without_its_answers_is_none(store: Store) -> None:
    _, plan = made_test(store)
    crowd(store, plan, [undecided() for _ in range(26)])
    assert judged(store).verdict == "indistinguishable"
    for path in session_files(store, plan.test)[:20]:
        path.unlink()
    assert judged(store).verdict == "inconclusive"


def test_a_lifted_verdict_counts_no_more_and_stays_on_record(store: Store) -> None:
    entry, plan = made_test(store)
    crowd(store, plan, [person(0.75)] * 13)
    judged(store)
    with pytest.raises(ListeningError, match="a name and a reason"):
        lift_verdict(store, entry, by="Mo", reason=" ", now=LATER)
    lift_verdict(store, entry, by="Mo", reason="the excerpts were clipped", now=LATER)
    (test,) = judge_checkpoint(store, ABOUT, now=LATER)
    assert test.verdict == "distinguishable" and test.lifted == "Mo: the excerpts were clipped"
    assert the_worst([test]) is None


def test_a_test_is_not_closed_because_it_is_about_to_fail(store: Store) -> None:
    entry, plan = made_test(store)
    crowd(store, plan, [person(0.85)] * 8)
    assert judged(store).verdict is None
    assert close_test(store, entry, by="Mo", reason="no time", now=LATER) == "distinguishable"
    assert judged(store).verdict == "distinguishable"


def test_a_test_that_is_closed_without_a_verdict_shows_nothing(store: Store) -> None:
    entry, plan = made_test(store)
    crowd(store, plan, [person(0.5)] * 4)
    assert close_test(store, entry, by="Mo", reason="nobody comes", now=LATER) == "inconclusive"
    assert judged(store).verdict == "inconclusive" and "closed by Mo" in judged(store).note
    with pytest.raises(ListeningError, match="ended already"):
        close_test(store, entry, by="Mo", reason="again", now=LATER)


@pytest.mark.parametrize("change", [{"listeners": 12}, {"margin": 0.2}, {"alpha": 0.2}, {"looks": [4]}])
def test_a_plan_that_was_changed_is_refused_by_name(store: Store, change: dict[str, object]) -> None:
    entry, plan = made_test(store)
    crowd(store, plan, [person(0.5)] * 2)
    path = plan_path(store, entry.test)
    write_json(path, read_json(path) | change)
    found = judged(store)
    assert found.verdict is None and str(path) in found.note and "was changed after the test was opened" in found.note


def test_each_further_test_of_a_checkpoint_has_half_of_the_level(store: Store) -> None:
    levels = [made_test(store, earlier_tests=n, listeners=60)[1].equivalence_alpha for n in range(3)]
    assert levels == [0.025, 0.0125, 0.00625]


def ledger_lines(store: Store) -> list[dict[str, object]]:
    return [json.loads(line) for line in ledger.ledger_path(store).read_text().splitlines()]


@pytest.mark.parametrize("attack", ["edited", "taken out", "put in front"])
def test_a_changed_ledger_is_refused_as_a_whole(store: Store, attack: str) -> None:
    _, plan = made_test(store)
    crowd(store, plan, [person(0.75)] * 13)
    judged(store)
    lines = ledger_lines(store)
    if attack == "edited":
        lines[0]["name"] = "another"
    elif attack == "taken out":
        del lines[0]
    else:
        lines.insert(0, lines[0])
    ledger.ledger_path(store).write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ListeningError, match=r"ledger\.jsonl, line \d: .*restore it from a copy"):
        judged(store)


def test_lines_taken_off_the_end_are_found_by_who_noted_the_head(store: Store) -> None:
    _, plan = made_test(store)
    crowd(store, plan, [person(0.75)] * 13)
    judged(store)
    head = ledger.head(store)
    path = ledger.ledger_path(store)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    assert not ledger.contains(store, head) and ledger.contains(store, ledger.head(store))


def test_half_a_line_of_a_killed_process_is_no_line(store: Store) -> None:
    entry, _ = made_test(store)
    path = ledger.ledger_path(store)
    path.write_bytes(path.read_bytes() + b'{"at": "2026')
    assert read_ledger(store) == [entry]
    lift_verdict(store, entry, by="Mo", reason="why not", now=LATER)
    assert [found.event for found in read_ledger(store)] == ["opened", "lifted"]


def tampered(store: Store, plan: Plan, change: str) -> None:
    path = session_files(store, plan.test)[0]
    lines = path.read_bytes().splitlines(keepends=True)
    place = next(n for n, line in enumerate(lines) if b'"event":"answer"' in line and n > 12)
    if change == "edited":
        lines[place] = re.sub(rb'"seconds":\d', b'"seconds":9', lines[place])
    elif change == "copied":
        lines.append(lines[place])
    elif change == "of another":
        lines[place] = session_files(store, plan.test)[1].read_bytes().splitlines(keepends=True)[place]
    else:
        lines[place] = b"{not json\n"
    path.write_bytes(b"".join(lines))


@pytest.mark.parametrize("change", ["edited", "copied", "of another", "broken"])
def test_one_bad_line_voids_itself_and_is_named(store: Store, change: str) -> None:
    _, plan = made_test(store)
    crowd(store, plan, [undecided()] * 3)
    before = collect(store, plan.test, seconds=plan.seconds)
    tampered(store, plan, change)
    after = collect(store, plan.test, seconds=plan.seconds)
    assert len(after.finished) == len(before.finished) == 3 and before.void == ()
    assert len(after.void) == 1 and after.void[0].startswith("L001, line ")
    assert "1 line void (L001, line" in judged(store).note


def test_a_control_whose_line_is_void_is_missed(store: Store) -> None:
    _, plan = made_test(store)
    sit(store, plan, "L001", person(0.5, slip=0.0), rng=np.random.default_rng(1), start=START.timestamp())
    assert left_out(store, plan) == {}
    (path,) = session_files(store, plan.test)
    lines = path.read_bytes().splitlines(keepends=True)
    order = json.loads(lines[0])["order"]
    obvious = next(one["id"] for one in order if one["kind"] == "obvious")
    kept = [line for line in lines if not (b'"event":"answer"' in line and obvious.encode() in line)]
    path.write_bytes(b"".join(kept))
    assert left_out(store, plan) == {"L001": "missed 1 of 5 obvious controls"}
    assert "1 lines are gone" in collect(store, plan.test, seconds=plan.seconds).void[0]


@pytest.mark.slow
def test_fifty_listeners_and_bots_get_the_verdict_that_the_statistics_say(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Printed with `pytest -s -m slow`: verdict and how many are left out, for each accuracy, with and without bots."""
    for bots in (0, 160):
        for accuracy in (0.5, 0.6, 0.7):
            for seed in range(2 if bots else 5):
                store = Store(tmp_path_factory.mktemp("data"))
                _, plan = made_test(store, listeners=40)
                crowd(store, plan, [person(accuracy)] * 50 + [clicker] * bots, seed=seed)
                found, excluded = judged(store), left_out(store, plan)
                share = found.statistics.accuracy if found.statistics else float("nan")
                told = f"{found.verdict}, {share:.3f} right, {len(excluded)} left out"
                print(f"{accuracy} + {bots} bots, seed {seed}: {told}", flush=True)
                if bots:
                    assert found.verdict != "indistinguishable" and len(excluded) > 140
                elif accuracy == 0.5:
                    assert found.verdict != "distinguishable"
                else:
                    assert found.verdict == "distinguishable"
