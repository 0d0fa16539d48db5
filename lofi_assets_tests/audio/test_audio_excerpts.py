"""Excerpts of a recording are found at any offset, level and noise, and with pitch or speed changed a little."""

from collections.abc import Callable

import numpy as np
import pytest

from lofi_assets.audio.excerpts import CHANGES, LEAST_WORDS, Change, agreement_at, best_matches
from lofi_assets.audio.fingerprint import SAMPLE_RATE, WORDS_PER_S, Fingerprint, at_fingerprint_rate, fingerprints_of
from lofi_assets.metrics.sample_checks import COPY_FROM
from lofi_assets_tests.evaluation.attack_corpus import RATE, Audio, each, faster, gain, higher, noise, songs, with_noise

START = 6.2


def mono(audio: Audio) -> Audio:
    return at_fingerprint_rate(audio, sample_rate=RATE)


@pytest.fixture(scope="module")
def recordings() -> dict[str, Audio]:
    return {song.name: song.audio for song in songs(3, seconds=20.0, seed=0)}


@pytest.fixture(scope="module")
def words(recordings: dict[str, Audio]) -> dict[str, Fingerprint]:
    return {name: fingerprints_of(mono(audio))[0] for name, audio in recordings.items()}


@pytest.mark.parametrize(
    ("change", "undone"),
    [
        (gain(-20.0), Change()),
        (with_noise(6.0), Change()),
        (lambda clip: -clip[::-1], Change()),
        (faster(1.03), None),
        (higher(1.0), Change(pitch=1.0)),
    ],
    ids=["quiet", "noise", "inverted and swapped", "faster", "a semitone up"],
)
def test_an_excerpt_is_found_where_it_stands(
    recordings: dict[str, Audio],
    words: dict[str, Fingerprint],
    change: Callable[[Audio], np.ndarray],
    undone: Change | None,
) -> None:
    name = list(recordings)[1]
    first = round(START * RATE)
    (clip,) = each(change)([recordings[name][:, first : first + 11 * RATE]])
    found = best_matches({"clip": mono(clip)}, words)["clip"]
    assert found is not None and found.name == name and found.similarity >= COPY_FROM + 0.02
    assert found.of_s - found.at_s * found.change.tempo == pytest.approx(START, abs=0.2)
    assert undone is None or found.change == undone


def test_other_music_and_noise_are_not_found(words: dict[str, Fingerprint]) -> None:
    clips = {song.name: mono(song.audio) for song in songs(2, seconds=11.0, seed=5, key=3, bpm=3)}
    clips["noise"] = mono(noise((2, 11 * RATE)))
    for name, match in best_matches(clips, words).items():
        assert match is not None and match.similarity < COPY_FROM - 0.02, name


def test_a_recording_is_not_found_in_itself_but_in_its_copy(
    words: dict[str, Fingerprint], recordings: dict[str, Audio]
) -> None:
    name = next(iter(recordings))
    clips = {name: mono(recordings[name])}
    alone = best_matches(clips, words, changes=())[name]
    assert alone is not None and alone.name != name and alone.similarity < COPY_FROM
    twin = best_matches(clips, {**words, "twin": words[name]}, changes=())[name]
    assert twin is not None and twin.name == "twin" and twin.similarity == 1.0


def test_what_is_too_short_or_silent_is_compared_with_nothing(words: dict[str, Fingerprint]) -> None:
    short = np.ones(round((LEAST_WORDS - 1) / WORDS_PER_S * SAMPLE_RATE), dtype=np.float32)
    clips = {"short": short, "silent": np.zeros(SAMPLE_RATE * 12, np.float32), "none": np.zeros(0, np.float32)}
    assert best_matches(clips, words) == {"short": None, "silent": None, "none": None}
    assert best_matches({"clip": short}, {}) == {"clip": None}


def test_a_fingerprint_agrees_with_itself_at_the_length_of_its_loop() -> None:
    loop = np.arange(1, 22, dtype=np.uint32) * np.uint32(2_654_435_761)
    words = np.tile(loop, 6)
    assert agreement_at(words, 21) == 1.0 and agreement_at(words, 10) < 0.7
    assert agreement_at(np.zeros(50, dtype=np.uint32), 5) == 0.0


def test_no_change_is_undone_twice() -> None:
    assert len(set(CHANGES)) == len(CHANGES) == 22 and Change() not in CHANGES
