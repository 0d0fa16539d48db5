"""What makes two training runs the same run, and what a broken run file says."""

from pathlib import Path

import pytest

from lofi_assets.files.documents import read_json, write_json
from lofi_assets.training.config import (
    ConfigError,
    TrackFeatures,
    TrainingRun,
    TrainingSettings,
    load_lora_settings,
    load_run,
    save_run,
)
from lofi_assets.training.lora_settings import LoraSettings
from lofi_assets_tests.conftest import REPOSITORY

KEY = f"{'a' * 32}" + f".{'b' * 32}" * 3


def a_run(**changes: object) -> TrainingRun:
    tracks = (TrackFeatures(track_id="one", key=KEY), TrackFeatures(track_id="two", key=KEY, split="validation"))
    values: dict = {
        "base": "base",
        "base_fingerprint": "f" * 64,
        "features_dir": "features",
        "tracks": tracks,
        "dataset_id": "ds-1",
        "dataset_hash": "d" * 64,
        "checkpoints_dir": "checkpoints",
        "logs_dir": "logs",
        "lora": LoraSettings(target_modules=("to_q",)),
        "training": TrainingSettings(),
    }
    return TrainingRun(**{**values, **changes})


def test_the_shipped_settings_are_the_constitutions() -> None:
    lora = load_lora_settings(REPOSITORY / "config" / "lofi_lora_config.json")
    training = TrainingSettings()
    assert (lora.r, lora.lora_alpha, lora.use_rslora, lora.scale) == (256, 32, True, 2.0)
    assert (training.learning_rate, training.max_steps, training.checkpoint_interval) == (1e-4, 100_000, 5_000)
    assert (training.precision, training.gradient_clip, training.keep_best) == ("bf16-mixed", 0.5, 3)


def test_a_run_file_gives_back_the_run(tmp_path: Path) -> None:
    save_run(tmp_path / "run.json", a_run())
    assert load_run(tmp_path / "run.json") == a_run()


def test_a_run_of_an_earlier_version_goes_on_under_its_id() -> None:
    """A setting that is added belongs into ADDED_LATER or UNIDENTIFYING; this id was given before there were any."""
    assert a_run().run_id == "528464d39c1a"


def test_a_later_setting_makes_another_run_only_where_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    class Later(TrainingSettings):
        noise_offset: float = 0.0

    monkeypatch.setattr("lofi_assets.training.hashed_settings.ADDED_LATER", frozenset({"noise_offset"}))
    assert a_run(training=Later()).config_hash == a_run().config_hash
    assert a_run(training=Later(noise_offset=0.1)).config_hash != a_run().config_hash


@pytest.mark.parametrize(
    ("key", "value"),
    [("training.learning_rate", -1), ("training.precision", "fp8"), ("lora.rank", 4), ("dataset_hash", "short")],
)
def test_a_broken_run_file_names_file_and_key(tmp_path: Path, key: str, value: object) -> None:
    path = tmp_path / "run.json"
    save_run(path, a_run())
    data = read_json(path)
    *parents, last = key.split(".")
    target = data
    for parent in parents:
        target = target[parent]
    target[last] = value
    write_json(path, data)
    with pytest.raises(ConfigError, match=key) as caught:
        load_run(path)
    assert str(path) in str(caught.value)


def test_a_missing_run_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_run(tmp_path / "run.json")


def test_a_run_without_training_tracks_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to train on"):
        a_run(tracks=(TrackFeatures(track_id="one", key=KEY, split="validation"),))


def test_more_steps_continue_the_run_under_a_constant_rate_only() -> None:
    longer = a_run(training=TrainingSettings(max_steps=200_000))
    assert longer.run_id == a_run().run_id
    for schedule in ("linear", "cosine"):
        decaying = [a_run(training=TrainingSettings(schedule=schedule, max_steps=steps)) for steps in (100, 200)]
        assert decaying[0].run_id != decaying[1].run_id


def test_recomputing_activations_is_the_same_run_unless_a_compiler_fuses_them() -> None:
    for compiled in (False, True):
        runs = [
            a_run(training=TrainingSettings(gradient_checkpointing=choice, compile=compiled))
            for choice in (False, True)
        ]
        assert (runs[0].run_id == runs[1].run_id) is not compiled


def test_order_of_tracks_and_place_of_files_do_not_make_another_run() -> None:
    moved = a_run(
        tracks=a_run().tracks[::-1], base=Path("/elsewhere"), checkpoints_dir=Path("/elsewhere"), device="cpu"
    )
    assert moved.run_id == a_run().run_id


@pytest.mark.parametrize(
    "change",
    [
        {"dataset_hash": "e" * 64},
        {"base_fingerprint": "e" * 64},
        {"training": TrainingSettings(seed=1)},
        {"training": TrainingSettings(compile=True)},
        {"training": TrainingSettings(processes=2)},
        {"training": TrainingSettings(parallel="fsdp")},
        {"training": TrainingSettings(ema_decay=0.999)},
        {"training": TrainingSettings(optimizer="adamw_8bit")},
        {"training": TrainingSettings(base_quantization="nf4")},
        {"training": TrainingSettings(timestep_density="mode")},
        {"lora": LoraSettings(target_modules=("to_q",), use_dora=True)},
        {"lora": LoraSettings(target_modules=("to_q", "to_k"))},
        {"tracks": (TrackFeatures(track_id="one", key=KEY, repeat=2), a_run().tracks[1])},
    ],
)
def test_what_changes_the_weights_makes_another_run(change: dict) -> None:
    assert a_run(**change).run_id != a_run().run_id
