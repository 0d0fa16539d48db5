"""Cutting long recordings: where, into what, and that the parts are tracks of their own."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lofi_assets.audio import encode
from lofi_assets.audio.segment import FADE_S, cut, cut_points
from lofi_assets.constitution.gates import gates_of, load_gates
from lofi_assets.tracks import process_track as process
from lofi_assets.tracks.process_track import ProcessJob, process_track

RATE = 8_000
GATES = gates_of(load_gates(), asset="processed_tracks", scope="track")


def recording(seconds: float, *, rests: tuple[float, ...] = (), channels: int = 2) -> np.ndarray:
    """Noisy chords with rests of half a second."""
    time = np.arange(round(seconds * RATE)) / RATE
    tone = sum(np.sin(2 * np.pi * hertz * time) for hertz in (220.0, 277.2, 329.6)) * 0.15
    samples = tone + 0.01 * np.random.default_rng(0).standard_normal((channels, len(time)))
    for rest in rests:
        samples[:, round(rest * RATE) : round((rest + 0.5) * RATE)] *= 0.002
    return samples.astype(np.float32)


@pytest.mark.parametrize("seconds", [180.1, 200, 239.97, 240.05, 299, 419.93, 599.9])
def test_every_part_lasts_one_to_two_minutes_and_nothing_is_lost(seconds: float) -> None:
    samples = recording(seconds)
    edges = [0, *cut_points(samples, sample_rate=RATE), samples.shape[1]]
    lengths = [(after - before) / RATE for before, after in itertools.pairwise(edges)]
    assert len(lengths) >= 2 and all(60 <= length <= 120 for length in lengths)
    parts = cut(samples, at=edges[1:-1], sample_rate=RATE)
    assert sum(part.shape[1] for part in parts) == samples.shape[1]


def test_cuts_fall_into_rests() -> None:
    rests = (70.0, 161.0, 252.0)
    cuts = cut_points(recording(340, rests=rests), sample_rate=RATE)
    assert len(cuts) == 3
    assert all(rest <= at / RATE <= rest + 0.5 for rest, at in zip(rests, cuts, strict=True))


def test_the_same_recording_is_always_cut_in_the_same_places() -> None:
    samples = recording(400, rests=(100.0, 300.0))
    assert cut_points(samples, sample_rate=RATE) == cut_points(samples.copy(), sample_rate=RATE)


def test_a_recording_that_has_no_room_for_two_parts_is_not_cut() -> None:
    assert cut_points(recording(119), sample_rate=RATE) == []


def test_only_the_edges_that_were_cut_are_faded() -> None:
    samples = np.ones((2, RATE), dtype=np.float32)
    first, second = cut(samples, at=[RATE // 2], sample_rate=RATE)
    length = round(FADE_S * RATE)
    assert first[0, 0] == 1 and first[0, -1] == 0 and second[0, 0] == 0 and second[0, -1] == 1
    assert (first[:, :-length] == 1).all() and (second[:, length:] == 1).all() and (samples == 1).all()


@pytest.fixture
def long_file(tmp_path: Path) -> Path:
    samples = recording(184, rests=(90.0,), channels=1)
    # The second part is mostly silent: it has to be rejected, and only it.
    samples[:, 110 * RATE :] = 0.0
    soundfile.write(tmp_path / "long.wav", samples.T, RATE, subtype="PCM_24")
    return tmp_path / "long.wav"


def job(source: Path, *, segment: bool = False, lossless: bool = False) -> ProcessJob:
    whole = ProcessJob("long", source, source.parent, source.parent / "out" / "long.0123.mp3", GATES)
    return replace(whole, segment=segment, lossless=lossless)


def test_a_long_file_is_rejected_unless_the_profile_cuts_it(long_file: Path) -> None:
    result = process_track(job(long_file))
    assert (result.rule, result.parts) == ("audio.duration_max", ())


def test_each_part_is_judged_and_written_as_a_track_of_its_own(
    long_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is heard in the music is tested elsewhere, and dear.
    monkeypatch.setattr(process, "_tags", lambda _: {})
    monkeypatch.setattr(process, "_tempo_measures", lambda *_: {})
    result = process_track(job(long_file, segment=True, lossless=True))
    assert result.accepted and not result.sha256
    first, second = result.parts
    assert (first.track_id, first.rule, second.track_id, second.rule) == ("long_s01", "", "long_s02", "audio.silence")
    assert first.source_sha256 == second.source_sha256 == result.source_sha256
    assert sorted(path.name for path in (long_file.parent / "out").iterdir()) == [
        *("long_s01.0123.flac", "long_s01.0123.mp3")
    ]
    assert 60 <= float(first.measures["duration_s"] or 0) <= 120 and first.fingerprint and first.lossless_sha256


# --- the lossless master ---------------------------------------------------------------------------------------------


def test_the_flac_is_the_master_itself_and_the_same_bytes_every_time(tmp_path: Path) -> None:
    mastered = encode.master(recording(3), sample_rate=RATE)
    digest = encode.write_flac(mastered, tmp_path / "a.flac")
    read, rate = soundfile.read(tmp_path / "a.flac", dtype="float64", always_2d=True)
    assert rate == encode.SAMPLE_RATE and soundfile.info(tmp_path / "a.flac").subtype == "PCM_24"
    assert np.abs(read.T - mastered).max() <= 2.0**-24
    assert encode.write_flac(mastered.copy(), tmp_path / "b.flac") == digest
