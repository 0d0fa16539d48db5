"""One track from raw file to verified MP3, or to the rule that it broke."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lofi_assets.audio import encode
from lofi_assets.audio.decode import AudioError, read_audio
from lofi_assets.audio.synth.song import Song, render
from lofi_assets.constitution.gates import gates_of, load_gates
from lofi_assets.tracks.process_track import ProcessJob, ProcessResult, measure_file, process_track

GATES = gates_of(load_gates(), asset="processed_tracks", scope="track")
SONG = Song(7, 84, 5, "minor", 32, 44_100, channels=1)


@pytest.fixture(scope="module")
def song() -> np.ndarray:
    return render(SONG)


def _process(folder: Path, samples: np.ndarray, *, rate: int = SONG.sample_rate) -> ProcessResult:
    source = folder / "song.wav"
    soundfile.write(source, samples.T, rate, subtype="PCM_16")
    return process_track(_job(source))


def _job(source: Path) -> ProcessJob:
    return ProcessJob("song", source, source.parent, source.parent / "out" / "song.mp3", GATES)


@pytest.fixture(scope="module")
def accepted(tmp_path_factory: pytest.TempPathFactory, song: np.ndarray) -> tuple[Path, ProcessResult]:
    folder = tmp_path_factory.mktemp("raw")
    return folder, _process(folder, song)


def test_a_good_track_passes_every_gate_that_audio_can_judge(accepted: tuple[Path, ProcessResult]) -> None:
    folder, result = accepted
    assert result.accepted and result.reason == ""
    judged_later = {"worker_survived", "duplicate_similarity"}
    assert {gate.measure for gate in GATES} - result.measures.keys() == judged_later
    decoded = read_audio(folder / "out" / "song.mp3", root=folder)
    assert decoded.sha256 == result.sha256
    assert (decoded.sample_rate, decoded.channels, decoded.frames) == (48_000, 2, result.measures["frames"])
    assert [path.name for path in (folder / "out").iterdir()] == ["song.mp3"]


def test_what_is_known_of_a_track_is_plain_data(accepted: tuple[Path, ProcessResult]) -> None:
    _, result = accepted
    assert all(type(value) in (bool, int, float, str, type(None)) for value in result.measures.values())
    assert result.measures["tempo_bpm"] == pytest.approx(84, rel=0.01)
    assert result.measures["quality_score"] in range(101)
    assert {model: len(tags) for model, tags in result.tags.items()} == {"msd": 50, "mtt": 50}
    assert len(result.fingerprint_words) > 300
    assert result.envelope is not None and result.envelope.shape == (400, 2)
    copy = pickle.loads(pickle.dumps(result))
    assert copy.measures == result.measures and copy.fingerprint == result.fingerprint


def test_the_same_file_gives_the_same_mp3_and_the_same_numbers(
    accepted: tuple[Path, ProcessResult], tmp_path: Path, song: np.ndarray
) -> None:
    _, first = accepted
    second = _process(tmp_path, song)
    assert (second.sha256, second.source_sha256) == (first.sha256, first.source_sha256)
    assert (second.measures, second.tags) == (first.measures, first.tags)


def _spoiled(song: np.ndarray, fault: str) -> np.ndarray:
    spoiled = song.copy()
    if fault == "clipped":
        return np.clip(spoiled * 5, -1, 1)
    if fault == "clipped, then turned down":
        return np.clip(spoiled * 5, -1, 1) * np.float32(0.5)
    if fault == "short":
        return spoiled[:, : 10 * SONG.sample_rate]
    if fault == "long":
        return np.tile(spoiled, (1, 6))
    if fault == "silent":
        spoiled[:, 5 * SONG.sample_rate :] = 0.0
        return spoiled
    return np.tile(spoiled, (6, 1))


@pytest.mark.parametrize(
    ("fault", "rule"),
    [
        ("clipped", "audio.clipping"),
        ("clipped, then turned down", "audio.clipping"),
        ("short", "audio.duration_min"),
        ("long", "audio.duration_max"),
        ("silent", "audio.silence"),
        ("surround", "audio.channels"),
    ],
)
def test_a_spoiled_track_is_rejected_by_its_rule_and_leaves_no_file(
    tmp_path: Path, song: np.ndarray, fault: str, rule: str
) -> None:
    result = _process(tmp_path, _spoiled(song, fault))
    assert (result.rule, result.accepted) == (rule, False)
    assert "song.wav" in result.reason and "must be" in result.reason
    assert not (tmp_path / "out" / "song.mp3").exists()


def test_a_cheap_rule_stops_the_work_before_the_dear_steps(tmp_path: Path, song: np.ndarray) -> None:
    result = _process(tmp_path, _spoiled(song, "short"))
    assert result.source_sha256 and result.measures["duration_s"] == 10.0
    assert "silent_share" not in result.measures and not result.tags and result.envelope is None


def test_a_file_that_is_no_audio_is_a_rejection_and_not_an_exception(tmp_path: Path) -> None:
    source = tmp_path / "song.wav"
    source.write_text("not audio", encoding="utf-8")
    result = process_track(_job(source))
    assert (result.rule, result.measures) == ("audio.readable", {"readable": False})
    with pytest.raises(AudioError):
        measure_file(source, root=tmp_path)


def test_whatever_the_audio_code_throws_at_a_file_is_a_rejection_that_names_it(
    tmp_path: Path, song: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by a header field")

    monkeypatch.setattr(encode, "master", broken)
    result = _process(tmp_path, song)
    assert result.rule == "audio.readable"
    assert "ZeroDivisionError: by a header field" in result.reason


def test_an_mp3_that_misses_an_output_gate_is_never_published(
    tmp_path: Path, song: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode, "PEAK_DBFS", -9.0)
    result = _process(tmp_path, song)
    assert result.rule == "audio.peak_min"
    assert list((tmp_path / "out").iterdir()) == []


def test_measures_of_a_raw_file_are_those_that_processing_records(
    accepted: tuple[Path, ProcessResult],
) -> None:
    folder, result = accepted
    measured = measure_file(folder / "song.wav", root=folder)
    assert measured.items() <= result.measures.items()
