"""Tempo and key against the prompt: what is asked for, what counts as right, and a model that does not listen."""

from collections.abc import Sequence

import pytest

from lofi_assets.audio.key import Key
from lofi_assets.metrics.adherence import adherence, bpm_asked, in_key, in_tempo, key_asked
from lofi_assets.metrics.clip_measures import ClipMeasures

ASKED = (62, 66, 70, 75, 80, 85, 90, 96)
PROMPTS = [f"lofi, jazz, {bpm} bpm" for bpm in ASKED]


def clip(bpm: float | None, key: Key | None = None) -> ClipMeasures:
    return ClipMeasures(
        panel=None,
        tempo_bpm=bpm,
        key_tonic=key.tonic if key else None,
        key_minor=key.minor if key else None,
        words=(),
    )


def clips(tempi: Sequence[float | None]) -> list[ClipMeasures]:
    return [clip(bpm) for bpm in tempi]


REAL = clips([float(bpm) for bpm in ASKED])


@pytest.mark.parametrize(
    ("prompt", "bpm"),
    [
        ("lofi, 82 bpm, rain", 82),
        ("lofi, BPM: 74", 74),
        ("lofi, 82 bpm, 82 BPM", 82),
        ("lofi, 82 bpm, 96 bpm", None),
        ("lofi, slow", None),
        ("", None),
    ],
)
def test_the_tempo_that_a_prompt_names(prompt: str, bpm: int | None) -> None:
    assert bpm_asked(prompt) == bpm


@pytest.mark.parametrize(
    ("prompt", "key"),
    [
        ("lofi, A minor", Key(9, True)),
        ("lofi, in Eb major, rain", Key(3, False)),
        ("key of F# minor", Key(6, True)),
        ("c sharp min", Key(1, True)),
        ("lofi, minor key", None),
        ("lofi, keys, major chords", None),
        ("A minor, C major", None),
    ],
)
def test_the_key_that_a_prompt_names(prompt: str, key: Key | None) -> None:
    assert key_asked(prompt) == key


@pytest.mark.parametrize(
    ("found", "right"),
    [(80.0, True), (83.1, True), (83.3, False), (40.0, True), (160.0, True), (120.0, False), (None, False)],
)
def test_a_tempo_is_right_within_four_percent_and_octaves(found: float | None, right: bool) -> None:
    assert in_tempo(found, 80) is right


def test_a_key_is_right_if_its_notes_are() -> None:
    assert (
        in_key(Key(0, False), Key(9, True))
        and not in_key(Key(1, False), Key(0, False))
        and not in_key(None, Key(0, False))
    )


def test_real_tempi_reach_one_and_one_tempo_for_all_none() -> None:
    assert adherence(REAL, PROMPTS, REAL, PROMPTS).relative_tempo == pytest.approx(1.0)
    constant = adherence(clips([80.0] * 8), PROMPTS, REAL, PROMPTS)
    assert constant.tempo.right == 1 and constant.relative_tempo == pytest.approx(0.0, abs=0.1)
    nothing = adherence(clips([None] * 8), PROMPTS, REAL, PROMPTS)
    assert nothing.tempo.right == 0 and nothing.relative_tempo == 0.0
    turned = adherence([*REAL[3:], *REAL[:3]], PROMPTS, REAL, PROMPTS)
    assert turned.relative_tempo is not None and turned.relative_tempo < 0.0
    six = adherence(clips([*map(float, ASKED[:6]), None, None]), PROMPTS, REAL, PROMPTS)
    assert six.relative_tempo == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("prompts", "real", "why"),
    [
        (PROMPTS[:5], REAL[:5], "at least 6"),
        (["lofi, rain"] * 8, REAL, "0 prompts name a tempo"),
        (["lofi, 80 bpm"] * 8, REAL, "same tempo"),
        (PROMPTS, clips([None] * 8), "real clips fit"),
        (PROMPTS, REAL[::-1], "real clips fit"),
    ],
)
def test_without_something_to_tell_from_there_is_no_number(
    prompts: list[str], real: list[ClipMeasures], why: str
) -> None:
    made = REAL[: len(prompts)]
    found = adherence(made, prompts, real, prompts)
    assert found.relative_tempo is None and why in found.note


def test_keys_are_counted_where_they_are_asked_for() -> None:
    made = [clip(80.0, Key(0, False)), clip(80.0, Key(1, False)), clip(80.0, None), clip(80.0, Key(5, False))]
    found = adherence(made, ["C major", "C major", "A minor", "lofi"], [], [])
    assert (found.key.asked, found.key.right, found.real_key.asked) == (3, 1, 0)
