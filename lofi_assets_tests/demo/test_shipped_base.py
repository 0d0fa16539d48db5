"""The base inside the package: small enough, made by the recipe as it stands, and it hears and plays music."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from lofi_assets.audio.tempo import estimate_tempo
from lofi_assets.backbones.ace_step_v1.loading import Base, load_base
from lofi_assets.backbones.ace_step_v1.sampler import text_to_music
from lofi_assets.demo.base_recipe import listening
from lofi_assets.demo.base_recipe.card import tempo_row
from lofi_assets.demo.base_recipe.settings import FULL
from lofi_assets.lyrics.text import INSTRUMENTAL
from lofi_assets.profiles import load_profile
from lofi_assets.store import Store
from lofi_assets.training.base_model import SHIPPED_BASE, resolve_base

LARGEST_BASE = 25_000_000
ROUND_TRIP_NATS = 1.0
"""Issue of the small base: largest mean log-mel error."""


@pytest.fixture(scope="module")
def base() -> Base:
    return load_base(SHIPPED_BASE)


def test_it_is_the_demos_base_and_small_enough_to_ship(tmp_path: Path) -> None:
    assert resolve_base(Store(tmp_path), load_profile("demo").base_model) == SHIPPED_BASE
    weights = [path for path in SHIPPED_BASE.rglob("*") if path.suffix in (".safetensors", ".json")]
    assert sum(path.stat().st_size for path in weights) < LARGEST_BASE
    for path in SHIPPED_BASE.rglob("*.safetensors"):
        with safe_open(path, "np") as tensors:
            kinds = {tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118
        assert kinds == {"F16"}, path
    assert not any("_name_or_path" in path.read_text("utf-8") for path in SHIPPED_BASE.rglob("config.json"))


def test_its_report_is_of_the_recipe_as_it_stands_and_found_no_copies() -> None:
    report = json.loads((SHIPPED_BASE / "report.json").read_text("utf-8"))
    assert report["recipe"] == FULL.recipe_hash
    assert report["nearest"]["copies"] == 0
    card = (SHIPPED_BASE / "README.md").read_text("utf-8")
    assert "Apache-2.0" in card
    assert all(tempo_row(row) in card for row in report["tempo"].values()) and "None" not in card


@pytest.fixture(scope="module")
def song() -> listening.Sound:
    return listening.lofi_references(1, replace(FULL.report, seconds=16.0), peak=0.89)[0]


def test_the_codec_keeps_a_lofi_song_recognisable_and_in_time(base: Base, song: listening.Sound) -> None:
    assert base.music_dcae is not None
    (passed,) = listening.round_trip(base.music_dcae, [song])
    assert listening.mel_error(base.music_dcae, [song], [passed]) < ROUND_TRIP_NATS
    before, after = (estimate_tempo(sound.samples, sample_rate=44_100) for sound in (song, passed))
    assert before is not None and after is not None
    assert after.bpm == pytest.approx(before.bpm, rel=0.04)


def test_its_low_tones_keep_their_place_and_level(base: Base, song: listening.Sound) -> None:
    """What earlier vocoders lost: energy below 700 Hz, band by band of a third of an octave."""
    assert base.music_dcae is not None
    (passed,) = listening.round_trip(base.music_dcae, [song])
    edges = 55.0 * 2.0 ** (np.arange(12) / 3)
    before, after = (_levels(sound.samples.mean(axis=0), edges) for sound in (song, passed))
    loud = before > before.max() - 25
    assert np.abs(after - before)[loud].mean() < 3.0


def _levels(wave: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Energy between neighbouring edges, dB."""
    power = np.abs(np.fft.rfft(wave)) ** 2
    hertz = np.fft.rfftfreq(len(wave), 1 / 44_100)
    bands = [power[(hertz >= low) & (hertz < high)].sum() for low, high in pairwise(edges)]
    return 10 * np.log10(np.array(bands) + 1e-9)


def test_a_prompt_becomes_music_of_its_length(base: Base) -> None:
    torch.manual_seed(0)
    audio = text_to_music(
        base,
        prompts=["lofi, piano, 82 bpm"],
        lyrics=[INSTRUMENTAL],
        seconds=6.0,
        seeds=[1],
        steps=4,
        guidance_scale=3.0,
    )
    assert audio.shape == (1, 2, 6 * 48_000) and np.isfinite(audio).all() and np.abs(audio).max() > 0.01
