"""Parts of long files, lossless masters, and the work files that are kept or removed."""

import hashlib
from dataclasses import replace

import pytest

from lofi_assets.files.documents import read_json, write_json
from lofi_assets.sources.raw_files import raw_track_id
from lofi_assets.store import Store
from lofi_assets.tracks.curation import chosen_styles
from lofi_assets.tracks.landing import landing_state
from lofi_assets.tracks.process_track import ProcessJob, ProcessResult, part_id
from lofi_assets.tracks.track_table import lossless_masters, read_tracks, verified_sources
from lofi_assets_tests.tracks.stand_in_audio import SETTINGS, Run, accepted, inventory, statuses

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
        digest = hashlib.sha256(track_id.encode()).hexdigest()
        parts.append(replace(part, track_id=track_id, sha256=digest, rule="audio.silence" if number == 2 else ""))
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
    sources = {row.track_id: (row.sha256, row.source_id) for row in verified_sources(store)}
    assert sources["long_s01"] == sources["long_s03"] == sources["long"] == ("1", "s1")
    again, worked = run(in_parts, settings=CUTTING)
    assert worked == [] and again.data_version == outcome.data_version


def test_parts_have_the_style_that_a_curator_gave_their_file(store: Store, run: Run) -> None:
    inventory(store, long="1")
    write_json(store.metadata("chosen_styles.json"), {"long": ["CORE-02"], "long_s03": ["CORE-03"]})
    landed = landing_state(store)
    run(in_parts, settings=CUTTING)
    assert landing_state(store) == landed, "parts that a run made are nothing that a person put in"
    assert chosen_styles(store) == {
        key: (f"CORE-0{n}",) for key, n in (("long", 2), ("long_s01", 2), ("long_s02", 2))
    } | {"long_s03": ("CORE-03",)}


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
    digest = hashlib.sha256(b"fLaC").hexdigest()

    def lossless(job: ProcessJob) -> ProcessResult:
        result = accepted(job)
        job.target.with_suffix(".flac").write_bytes(b"fLaC")
        return replace(result, lossless_sha256=digest)

    inventory(store, a="1")
    run(lossless, settings=LOSSLESS)
    (row,) = read_tracks(store)
    assert row.lossless_sha256 == digest and (store.root / row.lossless_path).read_bytes() == b"fLaC"
    assert lossless_masters(store) == {row.audio_sha256: (store.root / row.lossless_path, digest)}
    (store.root / row.lossless_path).unlink()
    assert lossless_masters(store) == {}
    assert run(lossless, settings=LOSSLESS)[1] == ["a"]
    assert run(accepted)[1] == ["a"] and read_tracks(store)[0].lossless_path == ""
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
