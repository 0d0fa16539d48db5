"""The blind listening test of the best checkpoint, and the statistics of its answers (constitution III).

Which clips stand against which, and where answers are collected. The page is written by `listening_page.py`; the
statistics are in `metrics/listening_trials.py`.
"""

from pathlib import Path
from typing import Any

from pydantic.dataclasses import dataclass

from lofi_assets.evaluation.samples import ModelSamples, reference_tracks
from lofi_assets.files.documents import write_json
from lofi_assets.files.hashing import hash_of
from lofi_assets.files.typed import STORED, plain, read_typed, write_typed
from lofi_assets.html.links import page_url
from lofi_assets.metrics.results import ListeningResult
from lofi_assets.outcome import Outcome
from lofi_assets.profiles import Profile
from lofi_assets.records import Checkpoint
from lofi_assets.store import Store
from lofi_assets.training.checkpoints.manifest import best, read_manifest
from lofi_assets.wording import counted, rounded

RESULTS = "results.jsonl"
"""Answers, one JSON object per line, as the page exports them."""


@dataclass(frozen=True, config=STORED)
class HumanEvaluation:
    """What people heard of the best checkpoint: `metadata/human_evaluation.json`."""

    checkpoint_id: str | None
    """None before any checkpoint has a FAD."""
    note: str
    """Why there are no statistics."""
    statistics: ListeningResult | None

    @classmethod
    def read(cls, store: Store) -> "HumanEvaluation | None":
        """What is on record; None before.

        Raises:
            StoreError: it is broken, or of another version.
        """
        return read_typed(cls._path(store), cls, remedy="remove it and materialise human_evaluation again")

    def write(self, store: Store) -> None:
        """Put on record."""
        write_typed(self._path(store), self)

    @staticmethod
    def _path(store: Store) -> Path:
        return store.metadata("human_evaluation.json")


def evaluate_listening(store: Store, profile: Profile) -> Outcome:
    """Write the best checkpoint's listening test if it is not there, and judge the answers collected so far."""
    chosen = best(read_manifest(store.checkpoints))
    test = _listening_test(store, profile, chosen) if chosen else None
    statistics, note = _statistics(store, test)
    HumanEvaluation(chosen.checkpoint_id if chosen else None, note, statistics).write(store)
    answers = {"note": note}
    return Outcome(
        data_version=hash_of(test.name if test else "", plain(statistics) if statistics else None),
        counts={
            "listeners": statistics.evaluator_count if statistics else 0,
            "trials": statistics.n_trials if statistics else 0,
        },
        values={
            "p_value": {"value": statistics.p_value if statistics else None, **answers},
            "equivalence": {"value": statistics.verdict if statistics else None, **answers},
        },
        summary=_summary(chosen, statistics, note),
        links={"listening test": page_url(store, test / "page" / "index.html") if test else None},
        details={
            **_numbers(statistics),
            "answers go to": store.relative(test / RESULTS) if test else None,
            "checkpoint": chosen.checkpoint_id if chosen else None,
        },
    )


def _summary(chosen: Checkpoint | None, statistics: ListeningResult | None, note: str) -> str:
    if statistics is None:
        return (
            f"Waits for people: {note}." if chosen else "No checkpoint has a FAD yet, so there is nothing to listen to."
        )
    heard = f"{counted(statistics.evaluator_count, 'listener')}, {counted(statistics.n_trials, 'answer')}"
    missing = statistics.trials_missing
    wanted = f" A sure verdict needs {counted(missing, 'more answer')}." if missing else ""
    return f"{statistics.verdict.capitalize()} by {heard}: {statistics.accuracy:.0%} right.{wanted}"


def _numbers(statistics: ListeningResult | None) -> dict[str, Any]:
    """What the UI plots of the statistics."""
    if statistics is None:
        return dict.fromkeys(_NUMBERS)
    return {
        "accuracy": rounded(statistics.accuracy, 3),
        "p_value": rounded(statistics.p_value, 4),
        "equivalence_p": rounded(statistics.equivalence_p, 4),
        "d_prime": rounded(statistics.d_prime, 2),
        "trials_missing": rounded(statistics.trials_missing, 0),
        "verdict": statistics.verdict,
        "notes": "; ".join(statistics.notes) or None,
    }


_NUMBERS = ("accuracy", "p_value", "equivalence_p", "d_prime", "trials_missing", "verdict", "notes")


def _listening_test(store: Store, profile: Profile, chosen: Checkpoint) -> Path | None:
    from lofi_assets.evaluation.listening_page import Clip, truth_path, write_listening_page
    from lofi_assets.metrics.errors import MetricError

    samples = ModelSamples.read(store, chosen.checkpoint_id)
    folder = store.listening / f"step-{chosen.step}-{samples.key[:12] if samples else ''}"
    if truth_path(folder).is_file():
        return folder
    clips = samples.clips if samples else ()
    ai_clips = [Clip(path=clip.file(store), style_id=clip.style_id) for clip in clips]
    real_clips = [Clip(path=track.path, style_id=track.style_ids[0]) for track in reference_tracks(store)]
    try:
        write_listening_page(
            folder,
            ai_clips=ai_clips,
            real_clips=real_clips,
            seed=profile.sampling.seed,
            title=f"Lofi listening test {folder.name[-4:]}",
        )
    except MetricError as error:
        write_json(folder / "not_written.json", {"reason": str(error)})
        return None
    return folder


def _statistics(store: Store, test: Path | None) -> tuple[ListeningResult | None, str]:
    from lofi_assets.evaluation.listening_page import truth_path
    from lofi_assets.metrics.errors import MetricError
    from lofi_assets.metrics.listening_trials import evaluate_trials, read_trials

    if test is None:
        return None, "no listening test could be made from the samples"
    results = test / RESULTS
    if not results.is_file():
        return None, f"no answers yet to the test in {store.relative(test)}"
    try:
        return evaluate_trials(read_trials(results, truth_path=truth_path(test))), ""
    except MetricError as error:
        return None, str(error)
