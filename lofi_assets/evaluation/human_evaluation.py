"""The blind listening test of the best checkpoint, and the statistics of its answers (constitution III).

What belongs here: which clips stand against which, where answers are collected. What does not: the page and the
statistics (`listening_page.py`, `metrics/listening_trials.py`).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lofi_assets.evaluation.samples import reference_tracks, samples_of
from lofi_assets.files.documents import write_json
from lofi_assets.files.hashing import fingerprint
from lofi_assets.html.links import page_url
from lofi_assets.outcome import Outcome
from lofi_assets.profiles import Profile
from lofi_assets.records import Checkpoint
from lofi_assets.store import Store
from lofi_assets.training.checkpoints.manifest import best, read_manifest
from lofi_assets.wording import counted, rounded

RESULTS = "results.jsonl"
"""Answers, one JSON object per line, as the page exports them."""


def evaluate_listening(store: Store, profile: Profile) -> Outcome:
    """Write the best checkpoint's listening test if it is not there, and judge the answers collected so far."""
    chosen = best(read_manifest(store.checkpoints))
    test = _listening_test(store, profile, chosen) if chosen else None
    statistics, note = _statistics(store, test)
    summary = {"checkpoint_id": chosen.checkpoint_id if chosen else None, "note": note, "statistics": statistics}
    write_json(store.metadata("human_evaluation.json"), summary)
    answers = {"note": note}
    return Outcome(
        data_version=fingerprint(test.name if test else "", statistics),
        counts={
            "listeners": (statistics or {}).get("evaluator_count", 0),
            "trials": (statistics or {}).get("n_trials", 0),
        },
        values={
            "p_value": {"value": (statistics or {}).get("p_value"), **answers},
            "equivalence": {"value": (statistics or {}).get("verdict"), **answers},
        },
        summary=_summary(chosen, statistics, note),
        links={"listening test": page_url(store, test / "page" / "index.html") if test else None},
        details={
            **_numbers(statistics or {}),
            "answers go to": store.relative(test / RESULTS) if test else None,
            "checkpoint": chosen.checkpoint_id if chosen else None,
        },
    )


def _summary(chosen: Checkpoint | None, statistics: Mapping[str, Any] | None, note: str) -> str:
    if statistics is None:
        return (
            f"Waits for people: {note}." if chosen else "No checkpoint has a FAD yet, so there is nothing to listen to."
        )
    heard = f"{counted(statistics['evaluator_count'], 'listener')}, {counted(statistics['n_trials'], 'answer')}"
    missing = statistics["trials_missing"]
    wanted = f" A sure verdict needs {counted(missing, 'more answer')}." if missing else ""
    return f"{statistics['verdict'].capitalize()} by {heard}: {statistics['accuracy']:.0%} right.{wanted}"


def _numbers(statistics: Mapping[str, Any]) -> dict[str, Any]:
    """What the UI plots of the statistics."""
    digits = {"accuracy": 3, "p_value": 4, "equivalence_p": 4, "d_prime": 2, "trials_missing": 0}
    numbers = {name: rounded(statistics.get(name), places) for name, places in digits.items()}
    return numbers | {"verdict": statistics.get("verdict"), "notes": "; ".join(statistics.get("notes", ())) or None}


def _listening_test(store: Store, profile: Profile, chosen: Checkpoint) -> Path | None:
    from lofi_assets.evaluation.listening_page import Clip, write_listening_page
    from lofi_assets.metrics.errors import MetricError

    samples = samples_of(store, chosen.checkpoint_id)
    folder = store.listening / f"step-{chosen.step}-{samples.get('key', '')[:12]}"
    if (folder / "truth.json").is_file():
        return folder
    ai_clips = [Clip(path=store.root / clip["path"], style_id=clip["style_id"]) for clip in samples.get("clips", ())]
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


def _statistics(store: Store, test: Path | None) -> tuple[dict[str, Any] | None, str]:
    from lofi_assets.metrics.errors import MetricError
    from lofi_assets.metrics.listening_trials import evaluate_trials, read_trials

    if test is None:
        return None, "no listening test could be made from the samples"
    results = test / RESULTS
    if not results.is_file():
        return None, f"no answers yet to the test in {store.relative(test)}"
    try:
        return evaluate_trials(read_trials(results, truth_path=test / "truth.json")).as_dict(), ""
    except MetricError as error:
        return None, str(error)
