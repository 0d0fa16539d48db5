"""`lofi fad`, `kad`, `clap`, `copies`, `compare`, and functions of the same names: a number with its proof, or none."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result

from lofi_assets.cli.main import main
from lofi_assets.measure import clap, compare, copies, fad, kad
from lofi_assets.measure import encoder as measured_encoder
from lofi_assets.measure.folders import audio_of
from lofi_assets.measure.prompted import read_prompts
from lofi_assets.metrics.clap import ClapEmbedder
from lofi_assets.metrics.errors import MetricError
from lofi_assets.metrics.probes import drums, noise
from lofi_assets.metrics.results import EncoderProof, ProofCheck

RATE = 22_050
PROVEN = EncoderProof(checks=(ProofCheck(name="x", value=1.0, passed=True, told="a stand-in"),))


def tune(seed: int, seconds: float = 12.0) -> np.ndarray:
    """Chords of its own at a tempo of its own, over drums."""
    random = np.random.RandomState(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    beat = 0.4 + 0.05 * (seed % 5)
    hertz = 110.0 * 2.0 ** (random.randint(0, 24, size=64) / 12.0)
    since = time % beat
    pitch = hertz[(time / beat).astype(int) % 64]
    tones = sum(np.sin(2 * np.pi * pitch * k * since) / k for k in (1, 2, 3)) * np.exp(-since / 0.3)
    mixed: np.ndarray = (0.3 * tones + 0.2 * drums(seconds, RATE)).astype(np.float32)
    return mixed


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """real/ and more/ of one kind, noise/, and a cache."""
    root = tmp_path_factory.mktemp("folders")
    for name, clips in {
        "real": [tune(seed) for seed in range(3)],
        "more": [tune(seed) for seed in range(10, 13)],
        "noise": [noise(10.0, RATE), 0.3 * noise(11.0, RATE)],
    }.items():
        (root / name / "deep").mkdir(parents=True)
        for index, clip in enumerate(clips):
            soundfile.write(root / name / ("deep" if index == 0 else "") / f"{index}.wav", clip, RATE)
        (root / name / "notes.txt").write_text("no audio")
    return root


def lofi(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_a_distance_names_its_encoder_and_what_that_proved(folders: Path) -> None:
    found = fad(folders / "real", folders / "noise", resamples=20, cache_dir=folders / "cache")
    near = fad(folders / "real", folders / "more", resamples=20, cache_dir=folders / "cache")
    assert found.result.value > 4.0 * near.result.value
    assert (found.result.n_clips, found.result.n_reference_clips) == (2, 3)
    assert found.encoder.name == "musicnn" and found.encoder.proof.trained and found.encoder.lufs == -23.0
    assert kad(folders / "real", folders / "noise", resamples=20, cache_dir=folders / "cache").result.kad > 10.0


def test_the_level_is_said_and_changes_the_number(folders: Path) -> None:
    own = fad(folders / "real", folders / "noise", lufs=None, resamples=20, cache_dir=folders / "cache")
    assert own.encoder.lufs is None and "own-level" in own.encoder.version
    assert own.result.value != pytest.approx(
        fad(folders / "real", folders / "noise", resamples=20, cache_dir=folders / "cache").result.value, rel=0.01
    )


def test_commands_say_the_same_as_functions(folders: Path) -> None:
    told = lofi("fad", folders / "real", folders / "more", "--json", "--cache", folders / "cache")
    assert told.exit_code == 0, told.output
    found = json.loads(told.output.splitlines()[-1])
    again = fad(folders / "real", folders / "more", cache_dir=folders / "cache")
    assert found["result"]["value"] == again.result.value and found["result"]["interval"]
    assert found["encoder"]["proof"]["checks"] and len(found["encoder"]["weights_sha256"]) == 64
    table = lofi("kad", folders / "real", folders / "more", "--cache", folders / "cache").output
    assert "proof: weights are MusiCNN" in table and "kad" in table and "-23 LUFS" in table


def test_folders_are_compared_with_one_reference(folders: Path) -> None:
    told = lofi(
        "compare", folders / "real", folders / "more", folders / "noise", "--json", "--cache", folders / "cache"
    )
    assert told.exit_code == 0, told.output
    found = json.loads(told.output.splitlines()[-1])
    values = {Path(name).name: result["value"] for name, result in found["folders"].items()}
    assert list(values) == ["more", "noise"] and values["more"] < values["noise"]
    assert {Path(name).name: near["copied"] for name, near in found["copies"].items()} == {"more": 0, "noise": 0}
    with pytest.raises(MetricError, match="each once"):
        compare(folders / "real", folders / "more", folders / "more")


def test_a_copy_is_found_whatever_its_level_name_and_format(folders: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    soundfile.write(tmp_path / "taken" / "mine.flac", 0.2 * tune(1)[RATE * 2 :], RATE)
    soundfile.write(tmp_path / "taken" / "own.wav", tune(20), RATE)
    found = copies(folders / "real", tmp_path / "taken")
    assert list(found.clips) == ["mine.flac", "own.wav"]
    nearest = found.clips["mine.flac"]
    assert (nearest.recording, nearest.verdict) == ("1.wav", "copy")
    assert nearest.of_s - nearest.at_s == pytest.approx(2.0, abs=0.1) and (nearest.pitch, nearest.tempo) == (0.0, 1.0)
    assert found.copied == 1 and found.floor < 0.85 and found.clips["own.wav"].verdict != "copy"
    assert "1 of 2 clips are copies" in lofi("copies", folders / "real", tmp_path / "taken").output


# --- no number -------------------------------------------------------------------------------------------------------


def broken(folder: Path, kind: str) -> Path:
    folder.mkdir()
    if kind == "absent":
        folder.rmdir()
    elif kind != "empty":
        soundfile.write(folder / "good.wav", tune(5), RATE)
    if kind == "unreadable":
        (folder / "first.mp3").write_bytes(b"ID3 nothing")
        (folder / "second.wav").write_bytes(b"RIFF")
    if kind == "nan":
        soundfile.write(folder / "nan.wav", np.full(RATE * 5, np.nan, dtype=np.float32), RATE, subtype="FLOAT")
    if kind == "short":
        soundfile.write(folder / "short.wav", tune(6, seconds=0.5), RATE)
    return folder


@pytest.mark.parametrize("command", ["fad", "copies"])
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("absent", ["no such folder"]),
        ("empty", ["no audio files"]),
        ("one", ["1 audio file in it"]),
        ("unreadable", ["2 of 3 files", "first.mp3", "second.wav"]),
        ("nan", ["nan.wav"]),
        ("short", ["short.wav"]),
    ],
)
def test_what_cannot_be_measured_is_named_and_gives_no_number(
    command: str, kind: str, said: list[str], folders: Path, tmp_path: Path
) -> None:
    folder = broken(tmp_path / "folder", kind)
    cache = [] if command == "copies" else ["--cache", folders / "cache"]
    for pair in ((folders / "real", folder), (folder, folders / "real")):
        told = lofi(command, *pair, "--json", *cache)
        assert told.exit_code == 1, told.output
        assert all(word in told.output for word in said), told.output
        assert '"value"' not in told.output and '"clips"' not in told.output


def test_an_untrained_encoder_gives_no_number(folders: Path, tmp_path: Path, clap_directory: Path) -> None:
    for weights in ("laion_clap",):
        told = lofi("fad", folders / "real", folders / "noise", "--encoder", weights, "--weights", clap_directory)
        assert told.exit_code == 1 and "untrained" in told.output and "unlike captions" in told.output
        assert "FAD" not in told.output.replace("FADs", "")
    told = lofi("clap", folders / "real", "--prompts", prompts_of(folders, tmp_path), "--weights", clap_directory)
    assert told.exit_code == 1 and "untrained" in told.output and "cosine  " not in told.output


@pytest.mark.parametrize("trained", [None, "True", 1])
def test_only_true_is_trained(trained: Any, folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = SimpleNamespace(name="odd", version="1", weights_sha256="0" * 64, proof=PROVEN, trained=trained)
    monkeypatch.setattr(measured_encoder, "load_embedder", lambda name, **options: odd)
    with pytest.raises(MetricError, match="untrained"):
        fad(folders / "real", folders / "noise")


def test_links_to_nothing_and_hidden_files_are_no_clips(folders: Path, tmp_path: Path) -> None:
    shutil.copytree(folders / "real", tmp_path / "real")
    (tmp_path / "real" / ".hidden.wav").write_bytes(b"RIFF")
    (tmp_path / "real" / "._1.wav").write_bytes(b"RIFF")
    (tmp_path / "real" / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    with pytest.raises(MetricError, match=r"gone\.wav"):
        audio_of(tmp_path / "real")
    (tmp_path / "real" / "gone.wav").unlink()
    assert list(audio_of(tmp_path / "real")) == ["1.wav", "2.wav", "deep/0.wav"]


# --- prompts ---------------------------------------------------------------------------------------------------------


def prompts_of(folders: Path, tmp_path: Path) -> Path:
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps({"deep/0.wav": "slow piano", "1.wav": "jazz guitar", "2.wav": "slow piano"}))
    return path


def test_clap_says_how_clips_fit_their_own_prompts_and_each_others(
    folders: Path, tmp_path: Path, clap_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ClapEmbedder, "_proof", lambda self, conversion: PROVEN)
    found = clap(folders / "real", prompts_of(folders, tmp_path), weights=clap_directory)
    model = ClapEmbedder.load(clap_directory)
    texts = model.embed_text(["jazz guitar", "slow piano"])
    expected = []
    for seed, row in ((0, 1), (1, 0), (2, 1)):
        samples, rate = soundfile.read(folders / "real" / ("deep" if seed == 0 else "") / f"{seed}.wav")
        import soxr

        vector = model.embed(soxr.resample(samples.astype(np.float32), rate, 48_000)).mean(axis=0)
        expected.append(float(vector @ texts[row] / np.linalg.norm(vector)))
    assert found.cosine == pytest.approx(np.mean(expected), abs=1e-4)
    assert found.interval[0] < found.cosine < found.interval[1]
    assert (found.n_clips, found.n_prompts, found.chance) == (3, 2, 0.5)
    assert found.floor is not None and list(found.clips.values()) == sorted(found.clips.values())


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("p.json", "[1]", "must be an object"),
        ("p.json", "{", "no JSON"),
        ("p.json", '{"1.wav": "a", "1.wav": "b"}', "named twice"),
        ("p.json", '{"1.wav": null}', "no prompt"),
        ("p.csv", "name,text\n1.wav,a\n", "needs the columns"),
        ("p.csv", "file,prompt\n1.wav,\n", "no prompt"),
        ("p.csv", "file,prompt\n1.wav,a\n1.wav,b\n", "named twice"),
    ],
)
def test_prompts_of_another_form_are_refused(name: str, text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(MetricError, match=said):
        read_prompts(tmp_path / name)


def test_prompts_are_read_from_a_table_by_name_and_not_by_place(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text('prompt,file\n"piano, slow",b.wav\njazz,a.wav\n', encoding="utf-8-sig")
    assert read_prompts(tmp_path / "p.csv") == {"b.wav": "piano, slow", "a.wav": "jazz"}


def test_clips_and_prompts_have_to_belong_together(folders: Path, clap_directory: Path) -> None:
    with pytest.raises(MetricError, match=r"1 clips without a prompt: deep/0\.wav"):
        clap(folders / "real", {"1.wav": "a", "2.wav": "b"}, weights=clap_directory)
    with pytest.raises(MetricError, match=r"1 prompts without a clip: 9\.wav"):
        clap(folders / "real", {"1.wav": "a", "2.wav": "b", "deep/0.wav": "c", "9.wav": "d"}, weights=clap_directory)


def test_a_level_that_is_none_is_refused(folders: Path) -> None:
    for level in ("loud", "3", "-90"):
        assert lofi("fad", folders / "real", folders / "more", "--level", level).exit_code == 2
