"""The table of tracks: what is tried again, and what quarantine holds."""

from dataclasses import replace

import pytest

from lofi_assets.files.documents import read_json
from lofi_assets.store import Store
from lofi_assets.tracks.process_track import ProcessJob, ProcessResult
from lofi_assets.tracks.quarantine import Quarantined, write_quarantine
from lofi_assets.tracks.track_table import read_tracks
from lofi_assets.workers.mapping import WorkerFailure
from lofi_assets_tests.stage_rows import source_row, write_sources
from lofi_assets_tests.tracks.stand_in_audio import TRACK_GATES, Run, accepted, inventory, statuses

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
    assert read_tracks(store) == []
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
    assert (worked, read_tracks(store)) == ([], [])
    assert outcome.values["rejected_share"] is None


def test_tracks_rejected_for_their_licence_are_in_quarantine_too(store: Store, run: Run) -> None:
    write_sources(store, [source_row("a", status="rejected", source_id="", rule="licence.record", reason="none")])
    run()
    assert read_json(store.quarantine / "sources" / "a.json")["rule"] == "licence.record"


# --- quarantine ------------------------------------------------------------------------------------------------------


def test_quarantine_shows_the_rejected_of_its_own_stage_only(store: Store) -> None:
    rejected = Quarantined(track_id="a", rule="audio.clipping", reason="0.2", measures={"clipped_share": 0.2})
    write_quarantine(store, "tracks", [rejected])
    write_quarantine(store, "prompts", [replace(rejected, track_id="b")])
    write_quarantine(store, "tracks", [])
    assert [path.relative_to(store.quarantine).as_posix() for path in store.quarantine.rglob("*.json")] == [
        "prompts/b.json"
    ]
