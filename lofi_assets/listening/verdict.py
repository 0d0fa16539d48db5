"""What people heard of a checkpoint: every test that was ever opened for it, each at its planned looks.

A look is taken once its number of listeners counts, over the first of them to finish, and stands in the ledger from
then on. A checkpoint that was told apart in one test is told apart, whatever later tests say, until a person lifts that
test with a reason that stays on record. A test that ended without a verdict costs: the next has half of its level.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from lofi_assets.listening.answers import Collected, Sat, collect
from lofi_assets.listening.arrivals import session_files, sessions_folder
from lofi_assets.listening.errors import ListeningError
from lofi_assets.listening.ledger import Entry, ended, of_test, opened, read_ledger, record
from lofi_assets.listening.plan import Plan, read_plan
from lofi_assets.metrics.errors import MetricError
from lofi_assets.metrics.listener_screening import ScreeningRule, screened, screening, too_many
from lofi_assets.metrics.listening_trials import Levels, evaluate_trials
from lofi_assets.metrics.results import ListeningResult, Verdict
from lofi_assets.store import Store
from lofi_assets.wording import counted, named


@dataclass(frozen=True, kw_only=True)
class JudgedTest:
    """One test as it stands."""

    test: str
    verdict: Verdict | None
    """None while it goes on; `inconclusive` where it ended without one."""
    lifted: str
    """Who lifted its verdict and why; "" if nobody did."""
    statistics: ListeningResult | None
    """Of its last look; None before the first."""
    note: str


def judge_checkpoint(store: Store, about: str, *, now: datetime) -> list[JudgedTest]:
    """Every test of a checkpoint, oldest first; looks that are due are taken and recorded.

    Raises:
        ListeningError: the ledger was changed.
    """
    tests = opened(read_ledger(store), kind="ai_or_real", about=about)
    return [_judged(store, entry, now=now) for entry in tests]


def the_worst(tests: Sequence[JudgedTest]) -> JudgedTest | None:
    """The test that the checkpoint is judged by: one that told it apart, else the last; None without any."""
    counting = [test for test in tests if not test.lifted]
    failed = [test for test in counting if test.verdict == "distinguishable"]
    return next(reversed(failed or counting), None)


def _judged(store: Store, entry: Entry, *, now: datetime) -> JudgedTest:
    try:
        plan = read_plan(store, entry)
        collected = collect(store, entry.test, seconds=plan.seconds)
        statistics, note = _looks(store, entry, plan, collected, now=now)
    except (ListeningError, MetricError) as error:
        statistics, note = None, str(error)
    entries = read_ledger(store)
    looks = of_test(entries, entry.test, "look")
    final = next((look.verdict for look in looks if look.final), None)
    closed = of_test(entries, entry.test, "closed")
    verdict = closed[-1].verdict if closed and final is None else final
    if statistics is None and verdict == "indistinguishable":
        verdict, note = "inconclusive", note or "its answers are gone: restore them from a copy"
    if statistics is not None and verdict == "indistinguishable" and statistics.verdict != verdict:
        verdict, note = "inconclusive", "its answers no longer give the verdict on record: restore them from a copy"
    lifts = of_test(entries, entry.test, "lifted")
    return JudgedTest(
        test=entry.test,
        verdict=verdict,
        lifted=f"{lifts[-1].by}: {lifts[-1].reason}" if lifts else "",
        statistics=statistics,
        note="; ".join([*(f"closed by {one.by}: {one.reason}" for one in closed), *([note] if note else [])]),
    )


def _looks(
    store: Store, entry: Entry, plan: Plan, collected: Collected, *, now: datetime
) -> tuple[ListeningResult | None, str]:
    """Statistics of the last look that is taken, and what there is to say of what comes in."""
    entries = read_ledger(store)
    there = {path.stem for path in session_files(store, entry.test)}
    if gone := {one.name for one in of_test(entries, entry.test, "finished")} - there:
        raise ListeningError(
            f"{sessions_folder(store, entry.test)}: finished sessions are gone ({named(sorted(gone))}); restore them "
            "from a copy: without them the test shows nothing"
        )
    taken = len(of_test(entries, entry.test, "look"))
    statistics = look_at(plan, collected, taken) if taken else None
    while not ended(read_ledger(store), entry.test) and taken < len(plan.looks):
        found = look_at(plan, collected, taken + 1)
        if found is None:
            break
        statistics, taken = found, taken + 1
        final = found.verdict != "inconclusive" or taken == len(plan.looks)
        fields = {"look": taken, "listeners": found.evaluator_count, "verdict": found.verdict, "final": final}
        record(store, at=now, event="look", test=entry.test, kind=entry.kind, about=entry.about, **fields)
    return statistics, state_of(plan, collected, taken)


def state_of(plan: Plan, collected: Collected, taken: int) -> str:
    """How far a test is, without a word about what was answered."""
    excluded = screened([sat.sitting for sat in collected.finished], plan.screening)
    counting = len(collected.finished) - len(excluded)
    looks = len(plan.looks)
    waits = f"look {taken + 1} of {looks} is at {plan.looks[taken]}" if taken < looks else "every look is taken"
    told = [f"{counted(counting, 'listener')} counted; {waits}"]
    told += [f"{len(excluded)} left out"] if excluded else []
    told += [f"{collected.unfinished} not finished"] if collected.unfinished else []
    told += [f"{collected.stopped} without headphones"] if collected.stopped else []
    told += [f"{counted(len(collected.void), 'line')} void ({named(collected.void)})"] if collected.void else []
    warning = too_many(excluded, len(collected.finished), plan.screening)
    return "; ".join([*told, warning] if warning and counting + len(excluded) >= plan.looks[0] else told)


def first_counting(finished: Sequence[Sat], count: int, rule: ScreeningRule) -> tuple[list[Sat], dict[str, str]] | None:
    """The first listeners to finish of whom `count` are not left out, and who is left out of them; None if too few."""
    found = screening([sat.sitting for sat in finished], rule)
    for end in range(count, len(finished) + 1):
        sats = finished[:end]
        excluded = found.among({sat.listener for sat in sats})
        counting = [sat for sat in sats if sat.listener not in excluded]
        if len(counting) >= count:
            return counting, excluded
    return None


def look_at(plan: Plan, collected: Collected, look: int) -> ListeningResult | None:
    """Statistics of a look; None before enough listeners have finished.

    Raises:
        MetricError: answers about one side only.
    """
    found = first_counting(collected.finished, plan.looks[look - 1], plan.screening)
    if found is None:
        return None
    counting, excluded = found
    return _evaluated(plan, counting, excluded, look=look, levels=plan.levels(look))


def _evaluated(
    plan: Plan, counting: Sequence[Sat], excluded: dict[str, str], *, look: int, levels: Levels
) -> ListeningResult:
    last = datetime.fromtimestamp(max(sat.finished_at for sat in counting), UTC).date()
    trials = [trial for sat in counting for trial in sat.trials]
    result = evaluate_trials(trials, levels=levels, date=last.isoformat())
    warning = too_many(excluded, len(counting) + len(excluded), plan.screening)
    refused = bool(warning) and result.verdict == "indistinguishable"
    return replace(
        result,
        verdict="inconclusive" if refused else result.verdict,
        notes=(*result.notes, *([warning] if warning else [])),
        excluded_listeners=tuple(f"{who}: {why}" for who, why in sorted(excluded.items())),
        look=look,
        looks=len(plan.looks),
        adjusted_p=plan.adjusted(result.p_value, look) if look else result.p_value,
    )


def close_test(store: Store, test: Entry, *, by: str, reason: str, now: datetime) -> Verdict:
    """End a test before its time. What came in so far is judged against guessing once more, at the whole level: a
    test is not closed because it is about to fail.

    Raises:
        ListeningError: it has ended already.
    """
    if ended(read_ledger(store), test.test):
        raise ListeningError(f"test {test.test} has ended already")
    verdict: Verdict = "inconclusive"
    if test.kind == "ai_or_real" and _told_apart(store, test):
        verdict = "distinguishable"
    fields = {"verdict": verdict, "by": by, "reason": reason}
    record(store, at=now, event="closed", test=test.test, kind=test.kind, about=test.about, **fields)
    return verdict


def _told_apart(store: Store, test: Entry) -> bool:
    """Whether the listeners who count so far tell generated from real; a test that cannot be read shows nothing."""
    try:
        plan = read_plan(store, test)
        finished = collect(store, test.test, seconds=plan.seconds).finished
        excluded = screened([sat.sitting for sat in finished], plan.screening)
        counting = [sat for sat in finished if sat.listener not in excluded]
        if not counting:
            return False
        found = _evaluated(plan, counting, excluded, look=0, levels=Levels(p=plan.alpha, margin=plan.margin))
        return found.verdict == "distinguishable"
    except (ListeningError, MetricError):
        return False


def lift_verdict(store: Store, test: Entry, *, by: str, reason: str, now: datetime) -> None:
    """Let a test's verdict count no more; who did so and why stays on record and is shown with every verdict."""
    if not by.strip() or not reason.strip():
        raise ListeningError("a lifted verdict needs a name and a reason")
    record(
        store, at=now, event="lifted", test=test.test, kind=test.kind, about=test.about, by=by.strip(), reason=reason
    )
