"""What evaluation records: read back as it was written, as the release before wrote it, or refused by name."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lofi_assets.evaluation.human_evaluation import HumanEvaluation, TestOnRecord
from lofi_assets.evaluation.measured import METRICS_VERSION, Marks, Measured, read_measured, write_measured
from lofi_assets.evaluation.samples import BASE, Clip, ModelSamples, clips_of, samples_key
from lofi_assets.files.documents import write_json
from lofi_assets.files.writing import StoreError
from lofi_assets.metrics.results import NoiseDistances
from lofi_assets.records import QualityMetrics
from lofi_assets.store import Store
from lofi_assets_tests.metrics.stand_in_results import EVALUATION, LISTENING, evaluation, listening_result

CHECKPOINT = "epoch=0-step=80_lora"
CLIP = {
    "path": "samples/base/000_rain.mp3",
    "prompt": "lofi, jazz, 96 bpm",
    "style_id": "CORE-03",
    "seed": 7000,
    "problems": ["silent"],
}
SAMPLES = {"key": "0" * 64, "clips": [CLIP]}
RECORD = {
    "checkpoint_id": CHECKPOINT,
    "evaluation_date": "2026-11-28T00:31:36.983500Z",
    "fad_score": 28.85,
    "style_coverage": {"CORE-01": {"generated": True, "recognizable": False}},
}
METRICS = {CHECKPOINT: {"key": "a" * 64, "record": RECORD, "evaluation": EVALUATION, "version": METRICS_VERSION}}
MARKS = {"key": "b" * 64, "base": EVALUATION, "noise": {"fad": 261.9, "kad": 150.7}, "version": METRICS_VERSION}
HEARD = {"checkpoint_id": CHECKPOINT, "note": "", "statistics": LISTENING}


def put(path: Path, content: Any) -> bytes:
    write_json(path, content)
    return path.read_bytes()


# --- as the release before wrote it ----------------------------------------------------------------------------------


def test_samples_are_read_and_written_again_byte_for_byte(store: Store) -> None:
    path = store.samples / BASE / "samples.json"
    before = put(path, SAMPLES)
    found = ModelSamples.read(store, BASE)
    assert found == ModelSamples(
        "0" * 64, (Clip("samples/base/000_rain.mp3", "lofi, jazz, 96 bpm", "CORE-03", 7000, ("silent",)),)
    )
    assert found is not None and clips_of(store, BASE) == found.clips and samples_key(store, BASE) == "0" * 64
    assert found.clips[0].file(store) == store.root / str(CLIP["path"])
    found.write(path.parent)
    assert path.read_bytes() == before


def test_measures_are_read_and_written_again_byte_for_byte(store: Store) -> None:
    path = store.metadata("quality_metrics.json")
    before = put(path, METRICS)
    found = read_measured(store)
    assert found[CHECKPOINT].evaluation == evaluation() and found[CHECKPOINT].record.clap_score is None
    write_measured(store, found)
    assert path.read_bytes() == before


def test_marks_are_read_and_written_again_byte_for_byte(store: Store) -> None:
    path = store.metadata("quality_marks.json")
    before = put(path, MARKS)
    found = Marks.read(store)
    assert found == Marks("b" * 64, evaluation(), NoiseDistances(fad=261.9, kad=150.7)) and found is not None
    found.write(store)
    assert path.read_bytes() == before


EARLIER_FAD = {
    "value": 28.85,
    "interval": [22.92, 36.5],
    "floor": 8.44,
    "over_floor": 3.42,
    "infinity": None,
    "kad": 32.9,
}
EARLIER = EVALUATION | {"fad": EARLIER_FAD}


@pytest.mark.parametrize("version", [{}, {"version": "1"}, {"version": "99"}])
def test_what_other_measures_made_is_not_measured_and_never_half_read(store: Store, version: dict[str, str]) -> None:
    """A floor at half the clips and one at all of them have the same name in the file."""
    earlier = {"key": "a" * 64, "record": RECORD, "evaluation": EARLIER} | version
    put(store.metadata("quality_metrics.json"), METRICS | {"epoch=0-step=40_lora": earlier})
    put(store.metadata("quality_marks.json"), {"key": "b", "base": EARLIER, "noise": {}} | version)
    assert set(read_measured(store)) == {CHECKPOINT} and Marks.read(store) is None


def test_marks_of_an_untrained_encoder_have_no_noise(store: Store) -> None:
    put(store.metadata("quality_marks.json"), MARKS | {"noise": {}})
    found = Marks.read(store)
    assert found is not None and found.noise == NoiseDistances()
    found.write(store)
    assert Marks.read(store) == found


@pytest.mark.parametrize("content", [HEARD, {"checkpoint_id": None, "note": "no answers yet", "statistics": None}])
def test_what_version_1_heard_is_read_as_of_no_planned_look(store: Store, content: dict[str, Any]) -> None:
    put(store.metadata("human_evaluation.json"), content)
    found = HumanEvaluation.read(store)
    statistics = listening_result() if content["statistics"] else None
    assert found == HumanEvaluation(content["checkpoint_id"], content["note"], statistics) and found is not None
    assert statistics is None or (statistics.look, statistics.adjusted_p, statistics.forms) == (0, None, {})
    found.write(store)
    assert HumanEvaluation.read(store) == found


def test_what_people_heard_is_read_as_it_was_written(store: Store) -> None:
    test = TestOnRecord(test="00af", verdict="indistinguishable", lifted="", note="done")
    heard = HumanEvaluation(CHECKPOINT, "", listening_result(look=2, looks=3, adjusted_p=0.4), (test,), "e" * 64)
    heard.write(store)
    assert HumanEvaluation.read(store) == heard


def test_new_measures_are_read_as_they_were_written(store: Store) -> None:
    record = QualityMetrics(checkpoint_id=CHECKPOINT, evaluation_date=datetime(2026, 1, 1, tzinfo=UTC), fad_score=None)
    known = {CHECKPOINT: Measured("k", record, evaluation(clap_note="none"))}
    write_measured(store, known)
    assert read_measured(store) == known


# --- absent, or of another version -----------------------------------------------------------------------------------


def test_before_anything_was_evaluated_there_is_nothing_on_record(store: Store) -> None:
    assert ModelSamples.read(store, BASE) is None and clips_of(store, BASE) == () and samples_key(store, BASE) is None
    assert read_measured(store) == {} and Marks.read(store) is None and HumanEvaluation.read(store) is None


@pytest.mark.parametrize(
    ("file", "content", "read", "said"),
    [
        ("samples/base/samples.json", SAMPLES | {"steps": 9}, lambda store: clips_of(store, BASE), "steps"),
        ("samples/base/samples.json", {"key": "0"}, lambda store: samples_key(store, BASE), "clips"),
        (
            "samples/base/samples.json",
            {"key": "0", "clips": [{"path": "a"}]},
            lambda store: clips_of(store, BASE),
            "seed",
        ),
        (
            "metadata/quality_metrics.json",
            {CHECKPOINT: {"evaluation": EVALUATION, "version": METRICS_VERSION}},
            read_measured,
            f"{CHECKPOINT}.*key",
        ),
        ("metadata/quality_metrics.json", [], read_measured, "not an object of checkpoints"),
        ("metadata/quality_marks.json", MARKS | {"noise": {"fad": "loud"}}, Marks.read, "noise.fad"),
        ("metadata/quality_marks.json", {"key": "b", "version": METRICS_VERSION}, Marks.read, "base"),
        ("metadata/human_evaluation.json", HEARD | {"listeners": 3}, HumanEvaluation.read, "listeners"),
        ("metadata/human_evaluation.json", {"note": ""}, HumanEvaluation.read, "statistics"),
    ],
)
def test_a_record_of_another_version_is_refused_by_name(
    store: Store, file: str, content: Any, read: Callable[[Store], object], said: str
) -> None:
    path = store.root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    with pytest.raises(StoreError, match=f"{path}.*{said}.*; remove .* and materialise .* again"):
        read(store)
