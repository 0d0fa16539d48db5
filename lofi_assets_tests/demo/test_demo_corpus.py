"""The demo corpus: complete, repeatable, polite to what is already there, and with its faults in place."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lofi_assets.audio.synth.song import Song, render
from lofi_assets.demo.corpus import catalogue as catalogue_module
from lofi_assets.demo.corpus import files as corpus
from lofi_assets.demo.corpus.catalogue import SOURCES, Entry, catalogue
from lofi_assets.demo.corpus.files import write_demo_corpus
from lofi_assets.files.hashing import sha256_file
from lofi_assets.records import SourceRecord, parse

KEPT = ("rainy_window_01", "sunday_rhodes_01", "found_on_a_drive_01", "broken_upload_01", "rainy_window_01_reupload")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five entries of the catalogue, ten seconds each: the whole takes half a minute."""

    def few(*, seed: int) -> tuple[Entry, ...]:
        from dataclasses import replace

        chosen = (entry for entry in catalogue(seed=seed) if entry.track_id in KEPT)
        return tuple(replace(entry, song=replace(entry.song, seconds=10.0)) for entry in chosen)

    monkeypatch.setattr(corpus, "catalogue", few)


def _audio(root: Path) -> dict[str, str]:
    suffixes = {".wav", ".flac", ".aiff", ".mp3"}
    return {path.name: sha256_file(path) for path in sorted(root.rglob("*")) if path.suffix in suffixes}


def test_the_catalogue_has_48_good_tracks_and_every_planted_fault() -> None:
    entries = catalogue(seed=0)
    assert len({entry.track_id for entry in entries}) == len(entries) == 56
    good = [entry for entry in entries if entry.expected_rule is None]
    assert len(good) == 48
    assert all(30 <= entry.song.seconds <= 60 and 62 <= entry.song.bpm <= 96 for entry in good)
    assert {entry.song.sample_rate for entry in good} == {32_000, 44_100, 48_000, 96_000}
    assert {entry.song.channels for entry in good} == {1, 2}
    assert {entry.format[0] for entry in good} == {"wav", "flac", "aiff", "mp3"}
    assert sum(entry.prompt is not None for entry in good) == 8
    assert [entry.expected_rule for entry in entries if entry.expected_rule] == [
        "licence.record",
        "licence.denied",
        "licence.date_acquired",
        "audio.clipping",
        "audio.duration_min",
        "audio.silence",
        "audio.readable",
        "audio.near_duplicate",
    ]


def test_a_b_side_is_another_piece_of_the_same_band() -> None:
    good = {entry.track_id: entry for entry in catalogue(seed=0) if entry.expected_rule is None}
    assert len({entry.song.seed for entry in good.values()}) == 48
    b_sides = [entry for track_id, entry in good.items() if track_id.endswith("_b")]
    assert len(b_sides) == 24
    for entry in b_sides:
        song, first = entry.song, good[entry.track_id.removesuffix("_b")]
        assert (song.chords, song.lead) == (first.song.chords, first.song.lead)
        assert song.drums == (first.song.drums if first.song.drums != "none" else "brushes") and song.intro_bars == 0
        assert song.key != first.song.key and song.bpm != first.song.bpm
        assert (entry.style_id, entry.source_id, entry.prompt) == (first.style_id, first.source_id, None)


def test_every_licence_record_is_valid_and_its_tracks_lie_in_its_folder() -> None:
    folders = {
        "commissioned": "commissioned",
        "royalty_free": "royalty-free",
        "creative_commons": "creative-commons",
        "partnership": "partnerships",
    }
    for source_id, source in SOURCES.items():
        record = parse(SourceRecord, source.record | {"track_ids": ["a"]}, where=source_id)
        assert folders[record.source_type] == source.folder
        assert record.ai_training_rights and record.verified_by and record.evidence
        assert record.source_type != "commissioned" or record.cost


def test_a_second_call_writes_nothing(small: None, tmp_path: Path) -> None:
    first = write_demo_corpus(tmp_path, workers=0)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    second = write_demo_corpus(tmp_path, workers=0)
    assert set(first.written) == set(second.unchanged) == set(KEPT)
    assert second.written == second.foreign == second.records_added == ()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == times


def test_a_file_that_went_missing_comes_back_with_the_same_bytes(small: None, tmp_path: Path) -> None:
    write_demo_corpus(tmp_path, workers=0)
    before = _audio(tmp_path)
    for path in tmp_path.rglob("*.wav"):
        path.unlink()
    assert set(write_demo_corpus(tmp_path, workers=0).written) == {"rainy_window_01", "sunday_rhodes_01"}
    assert _audio(tmp_path) == before


def test_a_run_killed_between_a_file_and_its_note_is_repaired(small: None, tmp_path: Path) -> None:
    write_demo_corpus(tmp_path, workers=0)
    before, ledger = _audio(tmp_path), tmp_path / "metadata" / "demo_corpus.json"
    data = json.loads(ledger.read_text(encoding="utf-8"))
    data["tracks"]["rainy_window_01"]["sha256"] = ""
    ledger.write_text(json.dumps(data), encoding="utf-8")
    assert write_demo_corpus(tmp_path, workers=0).written == ("rainy_window_01",)
    assert _audio(tmp_path) == before


def test_nothing_of_a_user_is_overwritten(small: None, tmp_path: Path) -> None:
    own_audio = tmp_path / "raw" / "commissioned" / "rainy_window_01.wav"
    own_record = {"source_id": "demo-partner-01", "track_ids": ["sunday_rhodes_01"], "provider": "me"}
    own_prompt = tmp_path / "raw" / "partnerships" / "sunday_rhodes_01_prompt.txt"
    for path, text in (
        (own_audio, "mine"),
        (own_prompt, "my tags"),
        (tmp_path / "metadata" / "sources.json", json.dumps([own_record])),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    summary = write_demo_corpus(tmp_path, workers=0)
    assert summary.foreign == ("rainy_window_01",)
    assert own_audio.read_text(encoding="utf-8") == "mine"
    assert own_prompt.read_text(encoding="utf-8") == "my tags"
    records = json.loads((tmp_path / "metadata" / "sources.json").read_text(encoding="utf-8"))
    assert records[0] == own_record
    assert [record["source_id"] for record in records].count("demo-partner-01") == 1
    assert all("rainy_window_01" not in record["track_ids"] for record in records)


def test_what_a_later_version_brings_joins_the_records_that_nobody_changed(
    small: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole: Callable[..., tuple[Entry, ...]] = vars(corpus)["catalogue"]
    sources = tmp_path / "metadata" / "sources.json"
    late = {"sunday_rhodes_01", "rainy_window_01"}
    monkeypatch.setattr(corpus, "catalogue", lambda seed: tuple(e for e in whole(seed=seed) if e.track_id not in late))
    write_demo_corpus(tmp_path, workers=0)
    records = json.loads(sources.read_text(encoding="utf-8"))
    changed = next(record for record in records if record["source_id"] == "demo-commission-01")
    changed["ai_training_rights"] = False
    sources.write_text(json.dumps(records), encoding="utf-8")
    monkeypatch.setattr(corpus, "catalogue", whole)
    assert write_demo_corpus(tmp_path, workers=0).records_added == ("demo-partner-01",)
    after = {record["source_id"]: record for record in json.loads(sources.read_text(encoding="utf-8"))}
    assert after["demo-partner-01"]["track_ids"] == ["rainy_window_01_reupload", "sunday_rhodes_01"]
    assert after["demo-commission-01"] == changed
    after["demo-partner-01"]["track_ids"].remove("sunday_rhodes_01")
    sources.write_text(json.dumps([*after.values()]), encoding="utf-8")
    assert write_demo_corpus(tmp_path, workers=0).records_added == ()


def test_another_seed_replaces_its_own_files_with_other_music(small: None, tmp_path: Path) -> None:
    write_demo_corpus(tmp_path, seed=0, workers=0)
    before = _audio(tmp_path)
    assert set(write_demo_corpus(tmp_path, seed=1, workers=0).written) == set(KEPT)
    after = _audio(tmp_path)
    assert after.keys() == before.keys() and not set(after.values()) & set(before.values())


def test_the_ground_truth_says_what_every_file_is(small: None, tmp_path: Path) -> None:
    write_demo_corpus(tmp_path, workers=0)
    truth = json.loads((tmp_path / "metadata" / "demo_corpus.json").read_text(encoding="utf-8"))["tracks"]
    assert truth["rainy_window_01"]["bpm"] == 74 and truth["rainy_window_01"]["key"] == "C minor"
    assert truth["rainy_window_01_reupload"]["copy_of"] == "rainy_window_01"
    for track in truth.values():
        assert sha256_file(tmp_path / track["path"]) == track["sha256"]


def test_a_song_is_clean_stereo_and_decided_by_its_seed() -> None:
    song = Song(3, 80, 2, "major", 8, 44_100)
    first, second = render(song), render(song)
    np.testing.assert_array_equal(first, second)
    assert first.shape == (2, 8 * 44_100) and first.dtype == np.float32
    assert np.abs(first).max() == pytest.approx(0.7, abs=1e-3)
    assert not np.array_equal(first, render(Song(4, 80, 2, "major", 8, 44_100)))


def test_the_ledger_is_where_the_records_say_the_evidence_is() -> None:
    assert all(source.record["evidence"] == catalogue_module.LEDGER for source in SOURCES.values())


@pytest.mark.slow
def test_every_planted_fault_is_caught_by_its_rule_and_every_good_track_passes(tmp_path: Path) -> None:
    from lofi_assets.audio.fingerprint import find_duplicates
    from lofi_assets.constitution.gates import gates_of, load_gates
    from lofi_assets.tracks.process_track import ProcessJob, ProcessResult, process_track
    from lofi_assets.workers.process_pool import LocalProcesses

    write_demo_corpus(tmp_path, workers=2)
    gates = gates_of(load_gates(), asset="processed_tracks", scope="track")
    entries = catalogue(seed=0)
    jobs = [
        ProcessJob(e.track_id, tmp_path / e.path, tmp_path / "raw", tmp_path / "out" / f"{e.track_id}.mp3", gates)
        for e in entries
    ]
    results: dict[str, ProcessResult] = {}
    for job, result in LocalProcesses(2, 120, 4)(process_track, jobs, label="processing"):
        assert isinstance(result, ProcessResult), result
        results[job.track_id] = result
    for entry in entries:
        expected = entry.expected_rule if (entry.expected_rule or "").startswith("audio.") else None
        if expected != "audio.near_duplicate":
            assert results[entry.track_id].rule == (expected or ""), entry.track_id
    pairs = find_duplicates({name: result.fingerprint_words for name, result in results.items() if result.accepted})
    assert [(p.a, p.b) for p in pairs if p.verdict == "duplicate"] == [("rainy_window_01", "rainy_window_01_reupload")]
