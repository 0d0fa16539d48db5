"""An amended limit judges the tracks on record; audio is worked on again only where that alone can tell."""

from dataclasses import replace

import pytest

from lofi_assets.constitution.gates import Gate
from lofi_assets.files.documents import read_json
from lofi_assets.store import Store
from lofi_assets.tracks import track_table as track_rows
from lofi_assets.tracks.process_track import Measures, ProcessJob, ProcessResult
from lofi_assets_tests.tracks.stand_in_audio import GATES, SETTINGS, Run, accepted, inventory, statuses


def amended(measure: str, limit: float) -> list[Gate]:
    """The table with another limit for a measure of processed tracks."""
    return [
        replace(gate, limit=limit) if gate.asset == "processed_tracks" and gate.measure == measure else gate
        for gate in GATES
    ]


def test_a_stricter_limit_turns_a_track_away_without_working_on_it_and_setting_it_back_returns_it(
    store: Store, run: Run
) -> None:
    inventory(store, a="1", b="2")
    run(lambda job: accepted(job, silent_share=0.1 if job.track_id == "a" else 0.4))
    outcome, worked = run(gates=amended("silent_share", 0.3))
    assert (worked, statuses(store)["b"]) == ([], ("rejected", "audio.silence"))
    assert outcome.tracks["audio.silence"] == {"accepted": 1, "violating": 0, "rejected": 1}
    assert "0.4, must be < 0.3" in read_json(store.quarantine / "tracks" / "b.json")["reason"]
    assert not (store.processed / "core" / "b.mp3").exists()
    _, worked = run()
    assert (worked, statuses(store)["b"]) == ([], ("accepted", "")) and (store.processed / "core" / "b.mp3").is_file()


def test_a_track_that_a_looser_limit_may_accept_is_worked_on_again(store: Store, run: Run) -> None:
    inventory(store, a="1", b="2")

    def clipped(job: ProcessJob) -> ProcessResult:
        if job.track_id == "a":
            return accepted(job)
        measures: Measures = {"readable": True, "codec_accepted": True, "clipped_share": 0.002}
        return ProcessResult(job.track_id, "audio.clipping", "'b.wav': too much", measures)

    run(clipped)
    _, worked = run(clipped, gates=amended("clipped_share", 0.0015))
    assert worked == [] and statuses(store)["b"] == ("rejected", "audio.clipping")
    assert "0.0015" in read_json(store.quarantine / "tracks" / "b.json")["reason"]
    _, worked = run(gates=amended("clipped_share", 0.003))
    assert worked == ["b"] and statuses(store)["b"] == ("accepted", "")


def test_a_gate_on_something_never_measured_has_the_tracks_measured(store: Store, run: Run) -> None:
    inventory(store, a="1")
    run()
    humming = replace(GATES[0], id="audio.hum", asset="processed_tracks", scope="track", measure="hum_db", limit=-40)
    _, worked = run(gates=[*GATES, replace(humming, op="<", signed=True)])
    assert worked == ["a"]


def test_a_file_stays_unreadable_under_any_limit_and_keeps_what_the_decoder_said(store: Store, run: Run) -> None:
    inventory(store, a="1")
    run(lambda job: ProcessResult(job.track_id, "audio.readable", "'a.wav' ends early", {"readable": False}))
    _, worked = run(gates=amended("silent_share", 0.3))
    assert (worked, statuses(store)["a"]) == ([], ("rejected", "audio.readable"))
    assert read_json(store.quarantine / "tracks" / "a.json")["reason"] == "'a.wav' ends early"


def test_a_file_that_an_earlier_audio_chain_turned_away_is_worked_on_once_more_and_an_accepted_one_is_not(
    store: Store, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    inventory(store, a="1", b="2", c="3")

    def low(job: ProcessJob) -> ProcessResult:
        if job.track_id == "a":
            return accepted(job)
        peak: Measures = {"readable": True, "codec_accepted": True, "peak_dbfs": -1.44}
        return ProcessResult(job.track_id, "audio.peak_min", "peak_dbfs = -1.44", peak)

    monkeypatch.setattr(track_rows, "CHAIN_VERSION", "an earlier one")
    run(low)
    monkeypatch.undo()
    _, worked = run(lambda job: low(job) if job.track_id == "c" else accepted(job))
    assert sorted(worked) == ["b", "c"]
    assert {key: found[0] for key, found in statuses(store).items()} == {
        "a": "accepted",
        "b": "accepted",
        "c": "rejected",
    }
    assert run(low)[1] == []


def test_a_long_file_that_segmenting_would_now_cut_is_worked_on_again(store: Store, run: Run) -> None:
    inventory(store, a="1")
    settings = SETTINGS.model_copy(update={"segment": True})
    run(settings=settings)
    _, worked = run(settings=settings, gates=amended("silent_share", 0.3))
    assert worked == []
    _, worked = run(
        settings=settings, gates=[g if g.id != "audio.duration_max" else replace(g, limit=45) for g in GATES]
    )
    assert worked == ["a"]
