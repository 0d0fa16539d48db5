"""What people heard of the best checkpoint (constitution III): its listening tests, judged.

Which clips stand against which, and what the gates see of the verdicts. How a test is planned, played and kept is in
`listening/`; the statistics are in `metrics/listening_trials.py`.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic.dataclasses import dataclass

from lofi_assets.evaluation.samples import clips_of, reference_tracks
from lofi_assets.files.hashing import hash_of, sha256_file
from lofi_assets.files.typed import STORED, plain, read_typed, write_typed
from lofi_assets.listening import ledger
from lofi_assets.listening.errors import ListeningError
from lofi_assets.metrics.results import ListeningResult, Verdict
from lofi_assets.outcome import Outcome, Written
from lofi_assets.records import Checkpoint
from lofi_assets.store import Store
from lofi_assets.training.checkpoints.files import DIFFUSERS_WEIGHTS
from lofi_assets.training.checkpoints.manifest import best, read_manifest
from lofi_assets.wording import counted, named, rounded

LISTENING_VERSION = "2"
"""Raised when a verdict means something else. Version 1 took answers that a page gave out to be copied by hand."""
FIRST_VERSION_TEST = "version-1"
"""Name in the ledger of what version 1 found."""


@dataclass(frozen=True, kw_only=True, config=STORED)
class TestOnRecord:
    """One listening test of the checkpoint."""

    __test__ = False

    test: str
    verdict: Verdict | None
    """None while it goes on."""
    lifted: str
    note: str


@dataclass(frozen=True, config=STORED)
class HumanEvaluation:
    """What people heard of the best checkpoint: `metadata/human_evaluation.json`."""

    checkpoint_id: str | None
    """None before any checkpoint has a FAD."""
    note: str
    """Why there are no statistics, or how far the test is."""
    statistics: ListeningResult | None
    """Of the test that the checkpoint is judged by, at its last look."""
    tests: tuple[TestOnRecord, ...] = ()
    """Every one that was ever opened for it; none in what version 1 wrote, whose statistics support no claim."""
    ledger_head: str = ""
    """Of the ledger when it was judged; what was in it then has to be in it for ever."""

    @classmethod
    def read(cls, store: Store) -> "HumanEvaluation | None":
        """What is on record; None before.

        Raises:
            StoreError: it is broken, or of another version.
        """
        return read_typed(cls.path(store), cls, remedy="remove it and materialise human_evaluation again")

    def write(self, store: Store) -> None:
        """Put on record."""
        write_typed(self.path(store), self)

    @staticmethod
    def path(store: Store) -> Path:
        """Where it is on record."""
        return store.metadata("human_evaluation.json")


def evaluate_listening(store: Store, *, now: datetime) -> Outcome:
    """Judge every listening test of the best checkpoint by the answers that came in; looks that are due are taken."""
    chosen = best(read_manifest(store.checkpoints))
    try:
        found = _judged(store, chosen, now=now)
    except ListeningError as error:
        noted = HumanEvaluation.read(store)
        head = noted.ledger_head if noted else ""
        found = HumanEvaluation(chosen.checkpoint_id if chosen else None, str(error), None, ledger_head=head)
    found.write(store)
    links, unwritten = _pages(store, found)
    return _outcome(store, found, links=links, unwritten=unwritten)


def _pages(store: Store, found: HumanEvaluation) -> tuple[dict[str, str | None], str]:
    """The pages say what people heard, so they are written again."""
    from lofi_assets.evaluation.reports.pages import report_links

    return report_links(store, found.checkpoint_id)


def adapter_sha256(store: Store, checkpoint: Checkpoint) -> str:
    """What a listening test is about: the weights, whatever their checkpoint is called.

    Raises:
        ListeningError: they are gone.
    """
    path = store.checkpoints / checkpoint.checkpoint_id / DIFFUSERS_WEIGHTS
    if not path.is_file():
        raise ListeningError(f"{path}: is gone, so its listening tests cannot be told; restore it from a copy")
    return sha256_file(path)


def open_listening_test(store: Store, *, now: datetime, **options: Any) -> Any:
    """Open a test of the best checkpoint against the validation tracks; `options` as of `opening.open_test`.

    Returns:
        The plan (`listening.plan.Plan`).
    Raises:
        ListeningError: no checkpoint, no samples, or as `open_test`.
    """
    from lofi_assets.listening.opening import Clip, Judged, open_test

    chosen = best(read_manifest(store.checkpoints))
    clips = clips_of(store, chosen.checkpoint_id) if chosen else ()
    if chosen is None or not clips:
        raise ListeningError("there is no checkpoint with a FAD and samples to listen to: materialise quality_metrics")
    _remember_version_1(store, chosen, now=now)
    judged = Judged(
        about=adapter_sha256(store, chosen),
        checkpoint_id=chosen.checkpoint_id,
        generated=[Clip(path=clip.file(store), style_id=clip.style_id) for clip in clips],
        real=[Clip(path=track.path, style_id=track.style_ids[0]) for track in reference_tracks(store)],
    )
    return open_test(store, judged, now=now, **options)


def _judged(store: Store, chosen: Checkpoint | None, *, now: datetime) -> HumanEvaluation:
    from lofi_assets.listening.verdict import judge_checkpoint, the_worst

    before = HumanEvaluation.read(store)
    if before and before.ledger_head and not ledger.contains(store, before.ledger_head):
        raise ListeningError(
            f"{ledger.ledger_path(store)}: entries that it had are gone; restore it from a copy: without them no "
            "listening test is evidence"
        )
    if chosen is None:
        return HumanEvaluation(None, "no checkpoint has a FAD yet", None, ledger_head=ledger.head(store))
    _remember_version_1(store, chosen, now=now)
    tests = judge_checkpoint(store, adapter_sha256(store, chosen), now=now)
    worst = the_worst(tests)
    note = worst.note if worst else "no listening test counts: `lofi listen plan` opens one"
    return HumanEvaluation(
        chosen.checkpoint_id,
        note,
        worst.statistics if worst else None,
        tuple(TestOnRecord(test=test.test, verdict=test.verdict, lifted=test.lifted, note=test.note) for test in tests),
        ledger.head(store),
    )


def _remember_version_1(store: Store, chosen: Checkpoint, *, now: datetime) -> None:
    """What version 1 found to be told apart stays told apart; whatever else it found supports no claim."""
    before = HumanEvaluation.read(store)
    statistics = before.statistics if before and before.checkpoint_id == chosen.checkpoint_id else None
    if statistics is None or statistics.look or statistics.verdict != "distinguishable":
        return
    about = adapter_sha256(store, chosen)
    entries = ledger.read_ledger(store)
    if any(entry.test == FIRST_VERSION_TEST for entry in ledger.opened(entries, about=about)):
        return
    common = {"at": now, "test": FIRST_VERSION_TEST, "kind": "ai_or_real", "about": about}
    ledger.record(store, event="opened", name=chosen.checkpoint_id, **common)
    count = statistics.evaluator_count
    ledger.record(store, event="look", listeners=count, verdict="distinguishable", final=True, **common)


def _outcome(store: Store, found: HumanEvaluation, *, links: Mapping[str, str | None], unwritten: str) -> Outcome:
    statistics, verdict = found.statistics, verdict_of(found)
    refused = _answers_of_version_1(store)
    heard = [store.checkpoints / found.checkpoint_id / DIFFUSERS_WEIGHTS] if found.checkpoint_id else []
    return Outcome(
        written=Written(files=[HumanEvaluation.path(store)], materials=heard),
        data_version=hash_of(
            LISTENING_VERSION,
            found.checkpoint_id,
            [(test.test, test.verdict, test.lifted) for test in found.tests],
            plain(statistics) if statistics else None,
        ),
        counts={
            "tests": len(found.tests),
            "listeners": statistics.evaluator_count if statistics else 0,
            "trials": statistics.n_trials if statistics else 0,
        },
        values=listening_values(found),
        summary=_summary(found, verdict),
        rows=[plain(test) for test in found.tests],
        links=links,
        details={
            **_numbers(statistics),
            "checkpoint": found.checkpoint_id,
            "how far": found.note or None,
            "no pages": unwritten or None,
            "left out": "; ".join(statistics.excluded_listeners) or None if statistics else None,
            "not counted": f"{named(refused)}: answers of version 1, which no invitation and no server vouches for"
            if refused
            else None,
        },
    )


def listening_values(found: HumanEvaluation) -> dict[str, Any]:
    """What the gates judge."""
    statistics, verdict = found.statistics, verdict_of(found)
    concluded = statistics if statistics and verdict and statistics.verdict == verdict else None
    return {
        "p_value": {"value": concluded.adjusted_p if concluded else None, "note": found.note},
        "equivalence": {"value": verdict, "note": found.note},
    }


def verdict_of(found: HumanEvaluation) -> Verdict | None:
    """What all tests say together; None where there is none, or while one that counts goes on."""
    counting = [test.verdict for test in found.tests if not test.lifted]
    if "distinguishable" in counting:
        return "distinguishable"
    return counting[-1] if counting else None


def _summary(found: HumanEvaluation, verdict: Verdict | None) -> str:
    if found.checkpoint_id is None:
        return "No checkpoint has a FAD yet, so there is nothing to listen to."
    statistics = found.statistics
    if verdict is None or statistics is None:
        told = f"{verdict.capitalize()}, as the ledger says: " if verdict else "Waits for people: "
        return f"{told}{found.note}."
    heard = f"{counted(statistics.evaluator_count, 'listener')}, {counted(statistics.n_trials, 'answer')}"
    return f"{verdict.capitalize()} by {heard}: {statistics.accuracy:.0%} right. {found.note}."


def _numbers(statistics: ListeningResult | None) -> dict[str, Any]:
    """What the UI plots of the statistics."""
    if statistics is None:
        return dict.fromkeys(_NUMBERS)
    return {
        "accuracy": rounded(statistics.accuracy, 3),
        "p_value": rounded(statistics.adjusted_p, 4),
        "equivalence_p": rounded(statistics.equivalence_p, 4),
        "d_prime": rounded(statistics.d_prime, 2),
        "trials_missing": rounded(statistics.trials_missing, 0),
        "verdict": statistics.verdict,
        "notes": "; ".join(statistics.notes) or None,
    }


_NUMBERS = ("accuracy", "p_value", "equivalence_p", "d_prime", "trials_missing", "verdict", "notes")


def _answers_of_version_1(store: Store) -> Sequence[str]:
    """Files that nobody reads any more, by name."""
    return [store.relative(path) for path in sorted(store.listening.glob("*/results.jsonl"))]
