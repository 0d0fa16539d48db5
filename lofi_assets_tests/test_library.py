"""The table of tracks: what is tried again, which of two copies stays, and what quarantine holds."""

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest

import lofi_assets.workers
from lofi_assets.audio.process import ProcessJob, ProcessResult, part_id
from lofi_assets.constitution import gates_of, load_gates
from lofi_assets.library import (
    DUPLICATE_RULE,
    INVENTORY,
    PROCESSED,
    Row,
    _mark_duplicates,
    curated,
    lossless_masters,
    process_library,
    rows_of,
    verified_sources,
    write_quarantine,
    write_rows,
)
from lofi_assets.outcome import Outcome
from lofi_assets.profiles import AudioSettings
from lofi_assets.store import Store, read_json, write_json
from lofi_assets.track_rows import raw_track_id
from lofi_assets.workers import WorkerFailure

GATES = load_gates()
TRACK_GATES = gates_of(GATES, asset="processed_tracks", scope="track")
SETTINGS = AudioSettings(workers=1, timeout_s=10, memory_gb=1)
Answer = Callable[[ProcessJob], ProcessResult | WorkerFailure]
GOOD_MEASURES: dict[str, Any] = {
    "readable": True,
    "codec_accepted": True,
    "source_sample_rate": 44100,
    "source_channels": 2,
    "duration_s": 60.0,
    "clipped_share": 0.0,
    "silent_share": 0.0,
    "sample_rate": 48000,
    "channels": 2,
    "bit_rate_kbps": 320,
    "peak_dbfs": -1.0,
    "frames_drift": 0,
    "quality_score": 80,
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "data")


def sound(seed: int) -> np.ndarray:
    """A fingerprint of a minute: random words, so that two seeds share nothing."""
    return np.random.default_rng(seed).integers(1, 2**32, size=640, dtype=np.uint32)


def inventory(store: Store, **sha256: str) -> None:
    """Verified raw files: track id -> content hash."""
    rows = [
        {"track_id": key, "path": f"raw/{key}.wav", "sha256": digest, "status": "verified", "source_id": "s1"}
        for key, digest in sha256.items()
    ]
    write_rows(store, INVENTORY, rows)


def accepted(job: ProcessJob, *, seed: int | None = None, score: int = 80) -> ProcessResult:
    """What the audio chain gives for a good file; the MP3 is where the job wants it."""
    job.target.parent.mkdir(parents=True, exist_ok=True)
    (row,) = [row for row in rows_of(Store(job.root.parent), INVENTORY) if row["track_id"] == job.track_id]
    job.target.write_bytes(f"ID3 {job.track_id} of {row['sha256']}".encode())
    return ProcessResult(
        track_id=job.track_id,
        measures={**GOOD_MEASURES, "quality_score": score},
        fingerprint=sound(seed if seed is not None else sum(job.track_id.encode())).tobytes(),
        source_sha256=row["sha256"],
        sha256=f"mp3 of {row['sha256']}",
        envelope=np.zeros((4, 2), dtype=np.float32),
    )


@pytest.fixture
def run(store: Store, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Outcome, list[str]]]:
    """Processes the library with answers in place of the audio chain; says which tracks were worked on."""

    def processed(
        answer: Answer = accepted, styles: Mapping[str, str] | None = None, settings: AudioSettings = SETTINGS
    ) -> tuple[Outcome, list[str]]:
        worked: list[str] = []

        def answered(_: object, jobs: Sequence[ProcessJob], **__: object) -> Iterator[tuple[ProcessJob, Any]]:
            for job in jobs:
                worked.append(job.track_id)
                yield job, answer(job)

        monkeypatch.setattr(lofi_assets.workers, "map_tracks", answered)
        outcome = process_library(
            store,
            gates=GATES,
            settings=settings,
            tempo_ranges={},
            style_of=lambda rows: {row["track_id"]: (styles or {}).get(row["track_id"], "core") for row in rows},
        )
        return outcome, worked

    return processed


Run = Callable[..., tuple[Outcome, list[str]]]


def statuses(store: Store) -> dict[str, tuple[str, str]]:
    return {row["track_id"]: (row["status"], row["rule"]) for row in rows_of(store, PROCESSED)}


# --- increments ------------------------------------------------------------------------------------------------------


def test_an_unchanged_library_recomputes_nothing(store: Store, run: Run) -> None:
    inventory(store, a="1", b="2")
    first, worked = run()
    assert sorted(worked) == ["a", "b"] and first.counts["accepted"] == 2
    again, worked = run()
    assert worked == [] and again.counts["recomputed"] == 0
    assert again.data_version == first.data_version


def test_a_new_and_a_changed_track_are_worked_on_and_nothing_else(store: Store, run: Run) -> None:
    inventory(store, a="1", b="2")
    run()
    inventory(store, a="1", b="changed", c="3")
    outcome, worked = run()
    assert sorted(worked) == ["b", "c"]
    assert (outcome.counts["new"], outcome.counts["stale"], outcome.counts["unchanged"]) == (1, 1, 1)


def test_a_track_without_rights_today_leaves_the_library_and_comes_back_without_work(store: Store, run: Run) -> None:
    inventory(store, a="1", b="2")
    run()
    inventory(store, a="1")
    outcome, worked = run()
    assert (worked, outcome.counts["orphaned"]) == ([], 1)
    assert not (store.processed / "core" / "b.mp3").exists() and set(statuses(store)) == {"a"}
    inventory(store, a="1", b="2")
    _, worked = run()
    assert worked == [] and (store.processed / "core" / "b.mp3").is_file()


def test_an_output_that_was_deleted_is_made_again(store: Store, run: Run) -> None:
    inventory(store, a="1", b="2")
    run()
    next((store.cache / "tracks").glob("a.*.mp3")).unlink()
    (store.processed / "core" / "a.mp3").unlink()
    _, worked = run()
    assert worked == ["a"] and (store.processed / "core" / "a.mp3").is_file()


def test_a_run_that_was_killed_goes_on_where_it_stopped(store: Store, run: Run) -> None:
    inventory(store, a="1", b="2")

    def killed(job: ProcessJob) -> ProcessResult:
        if job.track_id == "b":
            raise KeyboardInterrupt
        return accepted(job)

    with pytest.raises(KeyboardInterrupt):
        run(killed)
    assert rows_of(store, PROCESSED) == []
    _, worked = run()
    assert worked == ["b"] and statuses(store) == {"a": ("accepted", ""), "b": ("accepted", "")}


def test_another_style_moves_the_file_without_processing_it(store: Store, run: Run) -> None:
    inventory(store, a="1")
    run()
    _, worked = run(styles={"a": "seasonal"})
    assert worked == [] and [path.parent.name for path in store.processed.rglob("a.mp3")] == ["seasonal"]


def test_files_of_other_names_in_the_processed_folders_are_left_alone(store: Store, run: Run) -> None:
    inventory(store, a="1")
    run()
    (store.processed / "core" / "notes.md").write_text("mine")
    (store.processed / "core" / "gone_prompt.txt").write_text("of a track that left")
    run()
    assert sorted(path.name for path in (store.processed / "core").iterdir()) == ["a.mp3", "notes.md"]


# --- workers ---------------------------------------------------------------------------------------------------------


def test_a_job_that_raised_is_tried_again_next_time(store: Store, run: Run) -> None:
    inventory(store, a="1", b="2")
    outcome, _ = run(lambda job: WorkerFailure("OSError: disk full") if job.track_id == "a" else accepted(job))
    assert statuses(store) == {"a": ("rejected", "audio.worker"), "b": ("accepted", "")}
    assert outcome.tracks["audio.worker"]["rejected"] == 1
    assert "disk full" in read_json(store.quarantine / "tracks" / "a.json")["reason"]
    _, worked = run()
    assert worked == ["a"] and statuses(store)["a"] == ("accepted", "")
    assert not (store.quarantine / "tracks" / "a.json").exists()


def test_a_file_that_killed_its_worker_twice_is_not_tried_again_until_it_changes(store: Store, run: Run) -> None:
    inventory(store, a="1")
    run(lambda _: WorkerFailure("its worker died (SIGABRT)", retried=True))
    assert run()[1] == []
    inventory(store, a="mended")
    assert run()[1] == ["a"] and statuses(store)["a"] == ("accepted", "")


def test_a_track_that_broke_a_rule_is_in_quarantine_with_its_id_and_measures(store: Store, run: Run) -> None:
    inventory(store, a="1")
    outcome, _ = run(lambda job: ProcessResult(job.track_id, "audio.duration_min", "12 s", {"duration_s": 12.0}))
    found = read_json(store.quarantine / "tracks" / "a.json")
    assert (found["rule"], found["raw_path"], found["measures"]["duration_s"]) == (
        *("audio.duration_min", "raw/a.wav", 12.0),
    )
    assert outcome.values["accepted_tracks"] == 0 and outcome.values["rejected_share"] == 1.0
    assert not list(store.processed.rglob("*.mp3"))


def test_every_track_rule_passes_for_accepted_tracks(store: Store, run: Run) -> None:
    inventory(store, a="1", b="2")
    outcome, _ = run()
    assert outcome.tracks.keys() == {gate.id for gate in TRACK_GATES}
    assert all(counts["violating"] == 0 and counts["accepted"] == 2 for counts in outcome.tracks.values())
    assert outcome.values["unlicensed_tracks"] == 0


def test_an_empty_library_is_a_table_without_rows(store: Store, run: Run) -> None:
    outcome, worked = run()
    assert (worked, rows_of(store, PROCESSED)) == ([], [])
    assert outcome.values["rejected_share"] is None


def test_tracks_rejected_for_their_licence_are_in_quarantine_too(store: Store, run: Run) -> None:
    row = {"track_id": "a", "path": "raw/a.wav", "sha256": "1", "status": "rejected", "source_id": ""}
    write_rows(store, INVENTORY, [row | {"rule": "licence.record", "reason": "none", "measures": "{}"}])
    run()
    assert read_json(store.quarantine / "sources" / "a.json")["rule"] == "licence.record"


# --- duplicates ------------------------------------------------------------------------------------------------------


def row(track_id: str, words: np.ndarray, *, score: int = 80, status: str = "accepted", rule: str = "") -> Row:
    return {
        "track_id": track_id,
        "status": status,
        "rule": rule,
        "reason": "",
        "quality_score": score,
        "words": base64.b64encode(words.tobytes()).decode(),
        "measures": "{}",
    }


def mark(rows: Sequence[Row], recorded: Mapping[str, Row] | None = None) -> tuple[list[Row], list[Row]]:
    with TemporaryDirectory() as folder:
        return _mark_duplicates(rows, recorded=recorded or {}, gates=TRACK_GATES, memory=Path(folder) / "memory.json")


def judged(rows: Sequence[Row], *, recorded: Mapping[str, Row] | None = None) -> tuple[dict[str, str], list[Row]]:
    marked, pairs = mark(rows, recorded or {})
    assert [row["track_id"] for row in marked] == [row["track_id"] for row in rows]
    return {row["track_id"]: row["rule"] for row in marked}, pairs


def test_of_two_new_copies_the_better_one_stays() -> None:
    rules, pairs = judged([row("a", sound(1), score=70), row("b", sound(1), score=90)])
    assert rules == {"a": DUPLICATE_RULE, "b": ""}
    assert [(pair["a"], pair["b"], pair["similarity"]) for pair in pairs] == [("a", "b", 1.0)]


def test_of_two_equal_copies_the_smaller_id_stays() -> None:
    assert judged([row("b", sound(1)), row("a", sound(1))])[0] == {"b": DUPLICATE_RULE, "a": ""}


def test_a_track_accepted_earlier_stays_when_a_better_copy_lands() -> None:
    old, new = row("z", sound(1), score=40), row("a", sound(1), score=99)
    assert judged([new, old], recorded={"z": old})[0] == {"a": DUPLICATE_RULE, "z": ""}


def test_the_reason_names_the_track_that_stays() -> None:
    marked, _ = mark([row("a", sound(1)), row("b", sound(1))])
    assert "same recording as a" in marked[1]["reason"]
    assert json.loads(marked[1]["measures"])["duplicate_similarity"] == 1.0


def test_tracks_of_their_own_are_kept_and_carry_the_measure() -> None:
    marked, pairs = mark([row("a", sound(1)), row("b", sound(2))])
    assert [row["status"] for row in marked] == ["accepted", "accepted"] and pairs == []
    assert [json.loads(row["measures"])["duplicate_similarity"] for row in marked] == [0.0, 0.0]


def test_a_copy_comes_back_when_the_track_it_copied_leaves() -> None:
    copy = row("b", sound(1), status="rejected", rule=DUPLICATE_RULE)
    assert judged([copy], recorded={"b": copy})[0] == {"b": ""}


def test_a_track_rejected_for_another_reason_rejects_nobody() -> None:
    bad = row("a", sound(1), status="rejected", rule="audio.clipping")
    rules, pairs = judged([bad, row("b", sound(1))])
    assert rules == {"a": "audio.clipping", "b": ""} and pairs == []


def test_a_pair_that_only_might_be_one_recording_stays_and_is_kept_together() -> None:
    remix = np.concatenate([sound(1)[:384], sound(2)[384:]])
    rules, pairs = judged([row("a", sound(1)), row("b", remix)])
    assert set(rules.values()) == {""}
    assert [0.62 < pair["similarity"] < 0.85 for pair in pairs] == [True]


def test_a_copy_landing_later_changes_nothing_for_the_first(store: Store, run: Run) -> None:
    inventory(store, m="1")
    first, _ = run(lambda job: accepted(job, seed=7, score=40))
    inventory(store, a="2", m="1")
    again, worked = run(lambda job: accepted(job, seed=7, score=99))
    assert worked == ["a"] and statuses(store) == {"a": ("rejected", DUPLICATE_RULE), "m": ("accepted", "")}
    assert again.data_version == first.data_version
    assert again.tracks[DUPLICATE_RULE] == {"accepted": 1, "violating": 0, "rejected": 1}


# --- quarantine ------------------------------------------------------------------------------------------------------


def test_quarantine_shows_the_rejected_of_its_own_stage_only(store: Store) -> None:
    rejected = {"track_id": "a", "rule": "audio.clipping", "reason": "0.2", "measures": '{"clipped_share": 0.2}'}
    write_quarantine(store, "tracks", [rejected])
    write_quarantine(store, "prompts", [rejected | {"track_id": "b"}])
    write_quarantine(store, "tracks", [])
    assert [path.relative_to(store.quarantine).as_posix() for path in store.quarantine.rglob("*.json")] == [
        "prompts/b.json"
    ]


# --- parts of long files, lossless masters, work files ---------------------------------------------------------------

CUTTING = SETTINGS.model_copy(update={"segment": True})
LOSSLESS = SETTINGS.model_copy(update={"lossless": True})


def in_parts(job: ProcessJob) -> ProcessResult:
    """Three parts that sound the same, as a loop does; the second is rejected."""
    parts = []
    for number in (1, 2, 3):
        track_id = f"{job.track_id}_s0{number}"
        target = job.target.with_name(job.target.name.replace(job.track_id, track_id, 1))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(track_id.encode())
        part = accepted(job, seed=5)
        parts.append(replace(part, track_id=track_id, sha256=track_id, rule="audio.silence" if number == 2 else ""))
    job.target.unlink()
    parts[1] = replace(parts[1], sha256="")
    return ProcessResult(job.track_id, source_sha256=parts[0].source_sha256, parts=tuple(parts))


def test_parts_of_a_file_are_tracks_that_share_its_source_and_its_side_of_the_split(store: Store, run: Run) -> None:
    inventory(store, long="1", other="2")
    outcome, _ = run(lambda job: in_parts(job) if job.track_id == "long" else accepted(job), settings=CUTTING)
    assert statuses(store) == {
        "long_s01": ("accepted", ""),
        "long_s02": ("rejected", "audio.silence"),
        "long_s03": ("accepted", ""),
        "other": ("accepted", ""),
    }
    pairs = [(pair["a"], pair["b"]) for pair in read_json(store.metadata("duplicates.json"))]
    assert pairs == [("long_s01", "long_s02"), ("long_s01", "long_s03")]
    assert outcome.values["unlicensed_tracks"] == 0
    sources = {row["track_id"]: (row["sha256"], row["source_id"]) for row in verified_sources(store)}
    assert sources["long_s01"] == sources["long_s03"] == sources["long"] == ("1", "s1")
    again, worked = run(in_parts, settings=CUTTING)
    assert worked == [] and again.data_version == outcome.data_version


def test_parts_have_the_style_that_a_curator_gave_their_file(store: Store, run: Run) -> None:
    inventory(store, long="1")
    write_json(store.metadata("style_mapping.json"), {"long": ["CORE-02"], "long_s03": ["CORE-03"]})
    run(in_parts, settings=CUTTING)
    assert curated(store) == {key: (f"CORE-0{n}",) for key, n in (("long", 2), ("long_s01", 2), ("long_s02", 2))} | {
        "long_s03": ("CORE-03",)
    }


def test_the_id_of_a_part_leads_back_to_its_file_unless_a_file_is_named_so() -> None:
    assert raw_track_id("song_s01", inventory={"song", "other"}) == "song"
    assert raw_track_id("song_s01", inventory={"song", "song_s01"}) == "song_s01"
    assert raw_track_id("song", inventory={"song"}) == "song"
    long_name = "n" * 120
    assert raw_track_id(part_id(long_name, 12), inventory={long_name}) == long_name


def test_a_file_whose_parts_would_be_named_like_other_files_is_not_cut(store: Store, run: Run) -> None:
    inventory(store, song="1", song_s01="2", free="3")
    may_cut: dict[str, bool] = {}

    def watched(job: ProcessJob) -> ProcessResult:
        may_cut[job.track_id] = job.segment
        return accepted(job)

    run(watched, settings=CUTTING)
    assert may_cut == {"song": False, "song_s01": True, "free": True}


def test_a_lossless_master_is_listed_and_made_again_when_lost(store: Store, run: Run) -> None:
    def lossless(job: ProcessJob) -> ProcessResult:
        result = accepted(job)
        job.target.with_suffix(".flac").write_bytes(b"fLaC")
        return replace(result, lossless_sha256="flac")

    inventory(store, a="1")
    run(lossless, settings=LOSSLESS)
    (row,) = rows_of(store, PROCESSED)
    assert row["lossless_sha256"] == "flac" and (store.root / row["lossless_path"]).read_bytes() == b"fLaC"
    assert lossless_masters(store) == {"mp3 of 1": (store.root / row["lossless_path"], "flac")}
    (store.root / row["lossless_path"]).unlink()
    assert lossless_masters(store) == {}
    assert run(lossless, settings=LOSSLESS)[1] == ["a"]
    assert run(accepted)[1] == ["a"] and rows_of(store, PROCESSED)[0]["lossless_path"] == ""
    assert not list((store.cache / "tracks").glob("*.flac"))


def test_work_files_of_a_track_that_is_now_rejected_or_changed_are_removed(store: Store, run: Run) -> None:
    inventory(store, a="1", b="2", gone="3")
    run()
    inventory(store, a="1 changed", b="2 changed")
    run(lambda job: ProcessResult(job.track_id, "audio.clipping", "0.2") if job.track_id == "a" else accepted(job))
    left = sorted(path.name.partition(".")[0] + path.suffix for path in (store.cache / "tracks").iterdir())
    assert left == ["a.json", "b.json", "b.mp3", "gone.json", "gone.mp3"]


def test_a_run_killed_while_a_file_was_replaced_never_mixes_two_versions(store: Store, run: Run) -> None:
    inventory(store, a="1")
    run()
    inventory(store, a="2")

    def killed(job: ProcessJob) -> ProcessResult:
        accepted(job)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(killed)
    inventory(store, a="1")
    run()
    assert (store.processed / "core" / "a.mp3").read_bytes() == b"ID3 a of 1"


def test_what_a_killed_run_left_half_written_is_cleared(store: Store, run: Run) -> None:
    inventory(store, a="1")
    run()
    left = (
        store.cache / "tracks" / ".a.mp3.0a.part",
        store.processed / "core" / ".a.mp3.0a.part",
        store.metadata(".processed_tracks.parquet.0a.part"),
    )
    foreign = store.metadata(".sources.json.0a.part")
    for path in (*left, foreign):
        path.touch()
    run()
    assert not any(path.exists() for path in left) and foreign.exists()
