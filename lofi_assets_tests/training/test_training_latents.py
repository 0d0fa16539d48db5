"""Latents that would outweigh or waste a training are named with their file and never trained on; music is not."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from lofi_assets.audio.synth.song import Song, render
from lofi_assets.backbones.ace_step_v1.backbone import ACE_STEP_V1
from lofi_assets.backbones.ace_step_v1.loading import load_base
from lofi_assets.backbones.features import LATENTS, FeatureError
from lofi_assets.constitution.gates import Gate, judge, load_gates
from lofi_assets.training.__main__ import main
from lofi_assets.training.config import TrainingRun, save_run
from lofi_assets.training.ending import FILES
from lofi_assets.training.features.files import FeatureKey, write_features
from lofi_assets.training.features.latents import (
    Finding,
    LatentStatistics,
    measured_latents,
    outlying,
    statistics_of,
    unusual,
)
from lofi_assets.training.track_losses import outlying_tracks, skipped_items
from lofi_assets.training.trainer.loop import train
from lofi_assets_tests.conftest import REPOSITORY
from lofi_assets_tests.training.fixtures import MakeRun, TrainingMaterial

WEIGHTS = REPOSITORY / "lofi_assets" / "demo" / "base_recipe" / "weights"
SHAPE = (8, 16, None)

Altered = Callable[[Callable[[np.ndarray], np.ndarray]], TrainingRun]
"""A run whose first track has these latents instead of its own."""
DEMO = {
    "rainy_window_02": LatentStatistics(-0.048, 0.550, 3.808, 0.320),
    "rainy_window_01": LatentStatistics(-0.055, 0.550, 5.085, 0.354),
    "vibraphone_dream_01": LatentStatistics(-0.045, 0.606, 5.369, 0.411),
    "dusty_crate_02": LatentStatistics(-0.034, 0.598, 3.559, 0.440),
    "felt_keys_01": LatentStatistics(-0.035, 0.600, 3.957, 0.428),
    "coffee_corner_01": LatentStatistics(-0.051, 0.631, 4.539, 0.462),
    "autumn_walk_01": LatentStatistics(-0.026, 0.653, 4.472, 0.476),
    "golden_hour_01": LatentStatistics(-0.040, 0.693, 4.042, 0.495),
    "kalimba_rain_01": LatentStatistics(-0.058, 0.694, 4.214, 0.500),
    "slow_haze_01": LatentStatistics(-0.016, 0.730, 4.771, 0.520),
    "zen_garden_01": LatentStatistics(-0.014, 0.767, 4.215, 0.550),
    "space_drift_01": LatentStatistics(0.008, 0.762, 3.808, 0.572),
}
"""Of tracks of the demo at both ends of what it has, encoded by its base."""

ALTERED = {
    "30 times, clamped": LatentStatistics(0.101, 1.003, 5.399, 0.356),
    "a thousandth": LatentStatistics(0.109, 0.649, 2.335, 0.129),
    "direct current alone": LatentStatistics(0.105, 0.599, 1.830, 0.035),
    "silence": LatentStatistics(0.139, 0.678, 2.278, 0.017),
    "white noise": LatentStatistics(0.122, 1.004, 3.419, 0.186),
    "a sine": LatentStatistics(0.030, 0.803, 4.570, 0.059),
    "a square wave": LatentStatistics(0.172, 1.134, 5.387, 0.283),
}
"""What the same base makes of `felt_keys_01` after it was altered (decision 032)."""


def scaled(of: LatentStatistics, factor: float) -> LatentStatistics:
    return LatentStatistics(of.mean * factor, of.deviation * factor, of.largest * factor, of.movement * factor)


def named(findings: Iterable[Finding]) -> list[str]:
    return [finding.track_id for finding in findings]


def test_the_demo_raises_no_alarm() -> None:
    assert outlying(DEMO) == [] and unusual(DEMO) == []


@pytest.mark.parametrize("factor", [30.0, 5.0, 1 / 5, 1 / 30])
def test_a_track_on_another_scale_outlies_and_no_other_does(factor: float) -> None:
    tracks = {**DEMO, "felt_keys_01": scaled(DEMO["felt_keys_01"], factor)}
    (found,) = outlying(tracks)
    assert found.track_id == "felt_keys_01" and "standard deviation" in found.why and "times the others'" in found.why


@pytest.mark.parametrize("what", ["silence", "direct current alone", "a sine"])
def test_what_never_changes_outlies(what: str) -> None:
    found = outlying({**DEMO, "odd": ALTERED[what]})
    assert named(found) == ["odd"] and "change over time" in found[0].why


@pytest.mark.parametrize("what", ["30 times, clamped", "a thousandth", "white noise", "a square wave"])
def test_what_is_no_music_any_more_is_for_a_person_to_hear(what: str) -> None:
    tracks = {**DEMO, "odd": ALTERED[what]}
    assert named(outlying(tracks)) == [] and named(unusual(tracks)) == ["odd"]


def test_a_whole_set_on_another_scale_is_held_against_the_noise() -> None:
    wrong = {name: scaled(own, 30.0) for name, own in DEMO.items()}
    assert named(outlying(wrong)) == sorted(DEMO)
    assert named(outlying({"only": scaled(DEMO["felt_keys_01"], 30.0)})) == ["only"]
    assert outlying({"only": DEMO["felt_keys_01"]}) == []


def test_a_library_of_thousands_is_judged_as_a_small_one() -> None:
    """From 64 tracks on the median is taken once; what it says stays the same."""
    many = {f"{name} {copy}": own for copy in range(250) for name, own in DEMO.items()}
    assert outlying(many) == [] and unusual(many) == []
    tracks = {**many, "loud": scaled(DEMO["felt_keys_01"], 4.0), "noise": ALTERED["white noise"]}
    assert named(outlying(tracks)) == ["loud"] and named(unusual(tracks)) == ["noise"]


def test_the_right_one_of_two_is_named_too_since_nothing_says_which_it_is() -> None:
    pair = {"one": DEMO["felt_keys_01"], "two": scaled(DEMO["golden_hour_01"], 6.0)}
    assert named(outlying(pair)) == ["one", "two"]


def test_among_few_tracks_nothing_is_usual(training_material: TrainingMaterial) -> None:
    measured = measured_latents(ACE_STEP_V1, training_material["features"], training_material["keys"])
    assert measured.unusual is None and measured.refusal() is None
    gate = Gate("features.latents_usual", "III", "asset", "unusual_latents", "==", 0, "", asset="feature_cache")
    assert judge(gate, measured.values()["unusual_latents"]).status == "inconclusive"


@pytest.fixture
def altered(make_run: MakeRun, tmp_path: Path) -> Altered:
    """A run whose first track has other latents, as sound in the cache as the rest."""

    def make(change: Callable[[np.ndarray], np.ndarray]) -> TrainingRun:
        run = make_run()
        folder = tmp_path / "features"
        folder.mkdir()
        for kind in ("text", "lyrics", "speaker", LATENTS):
            (folder / kind).mkdir()
            for file in (run.features_dir / kind).iterdir():
                (folder / kind / file.name).symlink_to(file)
        first = run.of_split("train")[0]
        key = FeatureKey.parse(first.key)
        other = FeatureKey({**key.hashes, LATENTS: "0" * 32})
        latents = load_file(key.files(folder)[LATENTS])[LATENTS]
        write_features(other.files(folder)[LATENTS], change(latents), shape=SHAPE)
        tracks = [track.model_copy(update={"key": str(other)}) if track is first else track for track in run.tracks]
        return run.model_copy(update={"tracks": tuple(tracks), "features_dir": folder})

    return make


def test_a_track_at_thirty_times_its_scale_is_never_trained(
    altered: Altered, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = altered(lambda latents: latents * 30)
    with pytest.raises(FeatureError, match=r"one \(.*/latents/0{32}\.safetensors\): standard deviation"):
        train(run, say=lambda line: None)
    save_run(tmp_path / "run.json", run)
    assert main(["--config", str(tmp_path / "run.json"), "--force"]) == FILES
    assert "lofi review reject" in capsys.readouterr().err
    assert not run.checkpoints_dir.exists()


def test_a_gate_stops_what_outlies_and_says_which(altered: Altered) -> None:
    run = altered(lambda latents: latents * 30)
    measured = measured_latents(run.backbone, run.features_dir, {track.track_id: track.key for track in run.tracks})
    row: dict[str, Any] = {
        "article": "III",
        "scope": "asset",
        "measure": "outlying_latents",
        "op": "==",
        "limit": 0,
        "why": "",
    }
    gate = Gate("features.latents", asset="feature_cache", blocking=True, **row)
    verdict = judge(gate, measured.values()["outlying_latents"])
    assert verdict.status == "fail" and "standard deviation" in verdict.text
    assert "one" not in measured.values()["outlying_latents"]["note"].split(), "evidence may be published"
    assert [(need["track"], need["what"]) for need in measured.needs()] == [("one", "not trained on")]
    assert measured.rows()[0]["deviation"] > 5


ROWS = """
- id: features.latents
  article: "II. Reproducibility"
  asset: feature_cache
  scope: asset
  measure: outlying_latents
  op: "=="
  limit: 0
  blocking: true
  why: The loss is squared, so latents at 30 times their scale weigh as much as 900 tracks.
- id: features.latents_usual
  article: "II. Reproducibility"
  asset: feature_cache
  scope: asset
  measure: unusual_latents
  op: "=="
  limit: 0
  severity: WARN
  why: Latents unlike all others may be noise, silence or clipping; somebody should listen.
- id: checkpoint.track_losses
  article: "II. Reproducibility"
  asset: lora_checkpoints
  scope: asset
  measure: outlying_track_losses
  op: "=="
  limit: 0
  severity: WARN
  why: A track whose loss stands out at its timesteps outweighs the others or is no music.
- id: checkpoint.skipped
  article: "II. Reproducibility"
  asset: lora_checkpoints
  scope: asset
  measure: skipped_items
  op: "=="
  limit: 0
  severity: WARN
  why: What was left out of a step was not learnt, and its cause is in the data or in the settings.
"""
"""The rows of the table that judge these measures."""


def test_rows_of_the_table_judge_every_measure_of_tracks_that_hurt(altered: Altered, tmp_path: Path) -> None:
    table = (REPOSITORY / "config" / "constitution.yaml").read_text(encoding="utf-8")
    (tmp_path / "config").mkdir()
    text = table if "- id: features.latents\n" in table else table.replace("\ngates:\n", f"\ngates:{ROWS}", 1)
    (tmp_path / "config" / "constitution.yaml").write_text(text, encoding="utf-8")
    gates = {gate.id: gate for gate in load_gates(tmp_path / "config")}
    run = altered(lambda latents: latents * 30)
    measured = measured_latents(run.backbone, run.features_dir, {track.track_id: track.key for track in run.tracks})
    values = {**measured.values(), "skipped_items": skipped_items([]), "outlying_track_losses": outlying_tracks([])}
    rows = ("features.latents", "features.latents_usual", "checkpoint.track_losses", "checkpoint.skipped")
    verdicts = [judge(gates[name], values[gates[name].measure]).status for name in rows]
    assert verdicts == ["fail", *["inconclusive"] * 3] and gates["features.latents"].blocking


def song(seed: int) -> np.ndarray:
    made = Song(seed=seed, bpm=70 + 3 * seed, key=seed, mode="dorian", seconds=6.0, sample_rate=48_000)
    return render(made)


@pytest.mark.slow
def test_the_limits_hold_for_songs_that_the_demos_base_encodes() -> None:
    """The calibration of decision 032, again: ten songs raise no alarm, and what is done to one of them does."""
    dcae = load_base(WEIGHTS, dtype="float32", device="cpu", components=("music_dcae",)).music_dcae

    def of(samples: np.ndarray) -> LatentStatistics:
        stereo = torch.from_numpy(np.ascontiguousarray(samples)).float().clamp(-1, 1).expand(2, -1)
        latents, frames = dcae.encode(stereo[None], sample_rate=48_000)
        return statistics_of(latents[0, ..., : int(frames[0])].numpy(), frame_axis=2)

    songs = {f"song {seed}": song(seed) for seed in range(10)}
    usual = {name: of(samples) for name, samples in songs.items()}
    assert outlying(usual) == [] and unusual(usual) == []
    first = songs["song 0"]
    stopped = {"silence": first * 0, "direct current": first * 0 + 0.5}
    heard = {"white noise": np.random.default_rng(0).uniform(-1, 1, first.shape), "clamped": first * 30}
    for samples in stopped.values():
        assert named(outlying({**usual, "odd": of(samples)})) == ["odd"]
    for samples in heard.values():
        tracks = {**usual, "odd": of(samples)}
        assert named([*outlying(tracks), *(unusual(tracks) or [])]) == ["odd"]
