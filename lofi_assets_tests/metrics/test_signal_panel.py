"""What encoders do not hear: each fault of a clip shows in its own number, and real music has none."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lofi_assets.metrics.clip_measures import ClipMeasures, measure_clip, measured_clips
from lofi_assets.metrics.coverage import check_sample
from lofi_assets.metrics.signal_panel import SignalPanel
from lofi_assets.metrics.signal_range import NOISE, artefacts, outside, range_of
from lofi_assets_tests.evaluation.attack_corpus import (
    RATE,
    Audio,
    each,
    gain,
    looped,
    low_pass,
    muted,
    noise,
    songs,
    with_clicks,
    with_noise,
    written,
)

SECONDS = 10.0
FRAMES = round(SECONDS * RATE)


def panel(audio: Audio) -> SignalPanel:
    found = measure_clip(audio).panel
    assert found is not None
    return found


@pytest.fixture(scope="module")
def real() -> list[Audio]:
    return [song.audio for song in songs(5, seconds=SECONDS, seed=0)]


@pytest.fixture(scope="module")
def panels(real: list[Audio]) -> list[SignalPanel]:
    return [panel(audio) for audio in real]


def test_real_clips_are_in_range_and_without_artefact(panels: list[SignalPanel]) -> None:
    ranges = range_of(panels)
    assert [(outside(found, ranges), artefacts(found, ranges)) for found in panels] == [((), ())] * len(panels)


@pytest.mark.parametrize(
    ("change", "says", "kind"),
    [
        (low_pass(8_000.0), "treble_step_db", outside),
        (gain(-30.0), "loudness_lufs", outside),
        (lambda clip: clip * np.array([[1.0], [-1.0]]), "correlation", outside),
        (looped(2.0, start=4.0), "loop", outside),
        (lambda clip: clip * np.array([[1.0], [-1.0]]), "channels that cancel", artefacts),
        (gain(-44.0), "level", artefacts),
        (lambda clip: clip * np.array([[1.0], [0.01]]), "a channel", artefacts),
        (with_clicks(0.6), "a click", artefacts),
        (muted(0.3, 0.6), "a gap", artefacts),
        (lambda clip: 0.8 * clip + 0.02, "an offset", artefacts),
        (lambda clip: 0.89 * np.clip(clip * 4.0, -1.0, 1.0), "clipped", artefacts),
        (lambda clip: noise((2, FRAMES), colour=1.0), "noise", artefacts),
    ],
)
def test_a_fault_is_named(
    real: list[Audio],
    panels: list[SignalPanel],
    change: Callable[[Audio], np.ndarray],
    says: str,
    kind: Callable[..., tuple[str, ...]],
) -> None:
    (changed,) = each(change)([real[0]])
    assert any(words.startswith(says) for words in kind(panel(changed), range_of(panels)))


@pytest.mark.parametrize("colour", [0.0, 1.0, 2.0])
def test_noise_of_any_colour_is_noise_and_music_under_as_much_noise_is_not(real: list[Audio], colour: float) -> None:
    assert panel(noise((2, FRAMES), colour=colour)).noise == pytest.approx(0.56, abs=0.02)
    (rained,) = each(with_noise(3.0, colour=colour))([real[0]])
    assert panel(rained).noise < NOISE


def test_a_sample_of_noise_is_not_usable(real: list[Audio]) -> None:
    for colour in (0.0, 1.0):
        check = check_sample(noise((2, FRAMES), colour=colour), sample_rate=RATE, seconds=SECONDS)
        assert not check.usable and check.problems[0].startswith("noise")
    assert check_sample(real[0], sample_rate=RATE, seconds=SECONDS).usable
    turned_down = 0.5 * np.clip(real[0] * 4.0, -1.0, 1.0)
    assert "clipped" in check_sample(turned_down, sample_rate=RATE, seconds=SECONDS).problems[0]


def test_the_level_of_a_clip_moves_nothing_but_its_level(panels: list[SignalPanel], real: list[Audio]) -> None:
    quiet = panel(real[0] * np.float32(0.1))
    assert quiet.loudness_lufs == pytest.approx(panels[0].loudness_lufs - 20.0, abs=0.1)
    same = ("crest_db", "treble_db", "treble_step_db", "click_ratio", "click_height", "loop", "noise")
    for name in same:
        assert getattr(quiet, name) == pytest.approx(getattr(panels[0], name), rel=0.01, abs=0.01), name


def test_crackle_in_the_reference_allows_clicks(panels: list[SignalPanel], real: list[Audio]) -> None:
    (clicked,) = each(with_clicks(0.6))([real[0]])
    found = panel(clicked)
    crackling = [replace(other, click_ratio=found.click_ratio, click_height=found.click_height) for other in panels]
    assert artefacts(found, range_of(panels)) and not artefacts(found, range_of(crackling))


def test_four_real_clips_are_no_range(panels: list[SignalPanel]) -> None:
    assert range_of(panels[:4]) == {} and artefacts(panels[0], {}) == ()


def test_a_file_is_measured_once_for_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, real: list[Audio]
) -> None:
    first, second = written(tmp_path / "a", [real[0], real[0]])
    taken: list[int] = []

    def measured(samples: Audio, *, seconds: float | None = None) -> ClipMeasures:
        taken.append(samples.shape[1])
        return measure_clip(samples, seconds=seconds)

    monkeypatch.setattr("lofi_assets.metrics.clip_measures.measure_clip", measured)
    for _ in range(2):
        found = measured_clips([first, second], seconds=5.0, cache_dir=tmp_path, label="", progress=False)
    assert len(taken) == 1 and found[first] == found[second]
    (cached,) = (tmp_path / "clips").glob("*.json")
    cached.write_text("{", encoding="utf-8")
    assert measured_clips([first], seconds=5.0, cache_dir=tmp_path, label="", progress=False)[first] == found[first]
    assert len(taken) == 2


def test_what_cannot_be_measured_says_why(tmp_path: Path) -> None:
    broken, short, nan, silent = (
        tmp_path / "broken.wav",
        *written(
            tmp_path / "b",
            [
                np.zeros((2, 100), np.float32),
                np.full((2, RATE * 2), np.nan, np.float32),
                np.zeros((2, RATE * 2), np.float32),
            ],
        ),
    )
    broken.write_bytes(b"not audio")
    paths = [broken, short, nan, silent, tmp_path / "gone.wav"]
    found = measured_clips(paths, seconds=None, cache_dir=tmp_path, label="", progress=False)
    faults = [found[path].fault for path in paths]
    for fault, word in zip(faults, ("decoded", "too short", "NaN", "silence", "no such file"), strict=True):
        assert word in fault
    assert all(clip.panel is None and clip.tempo_bpm is None for clip in found.values())
    assert all(clip.tempo_confidence is None for clip in found.values())
