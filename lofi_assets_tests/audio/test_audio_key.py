"""The key of a recording, up to its relative."""

import numpy as np
import pytest

from lofi_assets.audio.key import Key, estimate_key, same_notes
from lofi_assets.metrics.signal_panel import power_spectra

RATE = 48_000


def chords(*roots: tuple[int, bool]) -> np.ndarray:
    """Triads of a second each, as (semitones above A, minor), with four partials a note."""
    t = np.arange(RATE) / RATE
    played = []
    for root, minor in roots:
        notes = [220.0 * 2.0 ** ((root + step) / 12.0) for step in (0, 3 if minor else 4, 7)]
        played.append(sum(np.sin(2 * np.pi * n * note * t) / n for note in notes for n in (1, 2, 3, 4)))
    return np.concatenate(played).astype(np.float32)


def key_of(mono: np.ndarray) -> Key | None:
    power = power_spectra(mono[None])
    return estimate_key(power, np.linspace(0.0, RATE / 2, power.shape[1]))


@pytest.mark.parametrize("up", range(12))
def test_a_cadence_tells_its_key(up: int) -> None:
    found = key_of(chords((up, False), (up + 5, False), (up + 7, False), (up, False)))
    assert found == Key((9 + up) % 12, False)


def test_a_minor_key_and_its_relative_have_the_same_notes() -> None:
    found = key_of(chords((0, True), (5, True), (7, True), (0, True)))
    assert found is not None and same_notes(found, Key(9, True)) and same_notes(Key(0, False), Key(9, True))
    assert not same_notes(Key(0, False), Key(0, True)) and str(Key(9, True)) == "A minor"


def test_a_semitone_up_is_another_key() -> None:
    low, high = (key_of(chords((up, False), (up + 5, False), (up + 7, False))) for up in (0, 1))
    assert low is not None and high is not None and not same_notes(low, high)


def test_silence_has_no_key() -> None:
    assert key_of(np.zeros(RATE, np.float32)) is None
