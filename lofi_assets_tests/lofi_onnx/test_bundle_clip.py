"""One clip from a bundle: what is refused, what is written, and a description that the runtime holds itself to."""

import json
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lofi_assets.lofi_onnx import clip as module
from lofi_assets.lofi_onnx import description
from lofi_assets.lofi_onnx.clip import ClipError, write_clip
from lofi_assets.lofi_onnx.description import DESCRIPTION, Defaults, DescriptionError, computed, defaults_of, described
from lofi_assets.lofi_onnx.pipeline import CUDA_OPTIONS, SESSION_CONFIG, session_options

AUDIO = np.array([[0.0, 0.5, -1.0, 1.0], [0.25, -0.25, 0.0, 1.0]], np.float32)


def describe(folder: Path, **changes: Any) -> Path:
    told = {**described(6, 3.0, {}, {}), **changes}
    (folder / DESCRIPTION).write_text(json.dumps(told), encoding="utf-8")
    return folder


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A runtime that gives `audio`, and keeps what it was asked for."""
    asked: dict[str, Any] = {"audio": AUDIO}

    class StandIn:
        def __init__(self, folder: Path, **options: Any) -> None:
            asked.update(folder=folder, **options)

        def generate(self, prompts: list[str], *, on_latents: Any, **options: Any) -> np.ndarray:
            asked.update(prompts=prompts, **options)
            on_latents(np.ones((1, 8, 16, 2), np.float32))
            found: np.ndarray = asked["audio"][None]
            return found

    monkeypatch.setattr(module, "OnnxPipeline", StandIn)
    return asked


def test_a_clip_is_made_with_what_the_bundle_was_measured_with_unless_it_is_asked_for(
    tmp_path: Path, asked: dict[str, Any]
) -> None:
    describe(tmp_path)
    told = write_clip(tmp_path, "lofi", output=tmp_path / "a.wav", tier="int8", seed=7, seconds=2.0)
    assert told == f"{tmp_path / 'a.wav'}: 2 s, int8, seed 7"
    assert (asked["steps"], asked["guidance_scale"], asked["folder"]) == (6, 3.0, tmp_path / "int8")
    write_clip(tmp_path, "lofi", output=tmp_path / "a.wav", steps=9, guidance_scale=1.0, cpu_graph=False)
    assert (asked["steps"], asked["guidance_scale"], asked["cpu_profile"]) == (9, 1.0, False)


def test_what_is_written_is_what_was_made(tmp_path: Path, asked: dict[str, Any]) -> None:
    describe(tmp_path)
    for name in ("a.wav", "a.npy"):
        write_clip(tmp_path, "lofi", output=tmp_path / name, latents=tmp_path / "latents.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), AUDIO)
    assert np.load(tmp_path / "latents.npy").shape == (8, 16, 2)
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert (file.getnchannels(), file.getframerate(), file.getsampwidth()) == (2, 48000, 2)
        samples = np.frombuffer(file.readframes(4), "<i2").reshape(-1, 2).T
    np.testing.assert_allclose(samples / 32767, AUDIO, atol=1 / 32767)


def test_nan_is_not_written(tmp_path: Path, asked: dict[str, Any]) -> None:
    asked["audio"] = AUDIO * np.float32("nan")
    with pytest.raises(ClipError, match="fp16: the audio holds NaN"):
        write_clip(describe(tmp_path), "lofi", output=tmp_path / "a.wav")
    assert not (tmp_path / "a.wav").exists()


@pytest.mark.parametrize(
    ("options", "fault"),
    [({"seconds": 0.0}, "more than 0 seconds"), ({"seconds": float("nan")}, "0 seconds"), ({"steps": 0}, "1 step")],
)
def test_a_clip_of_no_length_or_no_steps_is_refused(tmp_path: Path, options: dict[str, Any], fault: str) -> None:
    with pytest.raises(ClipError, match=fault):
        write_clip(describe(tmp_path), "lofi", output=tmp_path / "a.wav", **options)
    with pytest.raises(ClipError, match="no such folder"):
        write_clip(describe(tmp_path), "lofi", output=tmp_path / "absent" / "a.wav")
    with pytest.raises(ClipError, match=r"ends in \.wav or \.npy"):
        write_clip(describe(tmp_path), "lofi", output=tmp_path / "a.mp3")


@pytest.mark.parametrize("section", computed())
def test_a_bundle_that_is_described_otherwise_is_refused_by_name(tmp_path: Path, section: str) -> None:
    assert defaults_of(describe(tmp_path)) == Defaults(6, 3.0)
    with pytest.raises(DescriptionError, match=f"{section} is not what this runtime computes"):
        defaults_of(describe(tmp_path, **{section: "other"}))


def test_a_bundle_from_before_sessions_were_described_is_played(tmp_path: Path) -> None:
    told = {name: section for name, section in described(6, 3.0, {}, {}).items() if name not in description.RUNTIME}
    (tmp_path / DESCRIPTION).write_text(json.dumps(told), encoding="utf-8")
    assert defaults_of(tmp_path) == Defaults(6, 3.0)


def test_the_readme_says_what_graphs_are_opened_with() -> None:
    """The slow test of a script written from it alone runs an INT8 tier, which is another without."""
    readme = Path(description.__file__).with_name("BUNDLE.md").read_text(encoding="utf-8")
    assert computed()["session_config"] == SESSION_CONFIG and computed()["cuda_options"] == CUDA_OPTIONS
    assert 'P["session_config"]' in readme and 'P["cuda_options"]' in readme
    for entry, value in SESSION_CONFIG.items():
        assert session_options().get_session_config_entry(entry) == value


@pytest.mark.parametrize(
    ("variable", "asked", "threads"), [("3", None, 3), ("3", 2, 2), ("", None, 0), ("4,2", None, 0), (None, None, 0)]
)
def test_a_session_has_as_many_threads_as_the_process_may_use(
    variable: str | None, asked: int | None, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """onnxruntime does not read the variable that torch and numpy go by, and 0 is its own choice: every core."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if variable is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    assert session_options(threads=asked).intra_op_num_threads == threads


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"defaults": {"steps": 6}}', '{"defaults": {"steps": "x"}}'])
def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path, text: str) -> None:
    if text:
        (tmp_path / DESCRIPTION).write_text(text, encoding="utf-8")
    with pytest.raises(DescriptionError, match=r"pipeline\.json: no description of a bundle"):
        defaults_of(tmp_path)
