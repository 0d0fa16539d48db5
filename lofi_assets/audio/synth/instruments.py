"""Instruments made of sines and noise: each a pure function of pitch, length and sample rate.

Electric piano and vibraphone are two-operator frequency modulation (Chowning 1973); piano, guitar, pad and flute are
sums of partials.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lofi_assets.audio.arrays import FloatArray

Name = Literal[
    "rhodes",
    "piano",
    "pad",
    "guitar",
    "vibes",
    "flute",
    "kalimba",
    "bass",
    "organ",
    "strings",
    "saw_lead",
    "square_lead",
    "harp",
    "marimba",
    "overdriven_guitar",
    "upright_bass",
    "synth_bass",
]


class Band:
    """Plays notes and hits at one sample rate; what repeats is computed once."""

    def __init__(self, *, sample_rate: int, seed: int) -> None:
        self._sample_rate = sample_rate
        self._seed = seed
        self._notes: dict[tuple[Name, int, int], FloatArray] = {}
        self._hits: dict[tuple[str, int], FloatArray] = {}

    def note(self, name: Name, pitch: int, seconds: float) -> FloatArray:
        """Mono samples of a MIDI pitch, released at the end."""
        frames = max(1, round(seconds * self._sample_rate))
        key = (name, pitch, frames)
        if key not in self._notes:
            time = np.arange(frames, dtype=np.float32) / np.float32(self._sample_rate)
            hertz = 440.0 * 2.0 ** ((pitch - 69) / 12)
            release = np.minimum(1.0, (time[::-1] + np.float32(1e-4)) / np.float32(0.03))
            self._notes[key] = (_NOTES[name](time, hertz) * release).astype(np.float32)
        return self._notes[key]

    def hit(self, name: str, *, variant: int) -> FloatArray:
        """Mono samples of a drum; variants differ in their noise, as no two strokes are the same."""
        key = (name, variant)
        if key not in self._hits:
            rng = np.random.default_rng([self._seed, variant, len(name)])
            self._hits[key] = _HITS[name](self._sample_rate, rng).astype(np.float32)
        return self._hits[key]


def _phase(time: FloatArray, hertz: float) -> FloatArray:
    return time * np.float32(2 * np.pi * hertz)


def _partials(time: FloatArray, hertz: float, levels: tuple[float, ...], decay: float) -> FloatArray:
    """Harmonics by recurrence, the nth fading n times as fast; those above 12 kHz are left out."""
    phase = _phase(time, hertz)
    twice_cos, fade = 2 * np.cos(phase), np.exp(-np.float32(decay) * time)
    before, now, envelope = np.zeros_like(time), np.sin(phase), fade.copy()
    total = np.zeros_like(time)
    for number, level in enumerate(levels, start=1):
        if number * hertz > 12_000:
            break
        total += np.float32(level) * now * envelope
        before, now = now, twice_cos * now - before
        envelope *= fade
    return total


def _rhodes(time: FloatArray, hertz: float) -> FloatArray:
    phase = _phase(time, hertz)
    body = np.sin(phase + 1.1 * np.exp(-3.0 * time) * np.sin(phase))
    tine = np.sin(phase + 0.8 * np.exp(-14.0 * time) * np.sin(14.0 * phase)) if hertz * 14 < 14_000 else 0.0
    tremolo = 1.0 + 0.12 * np.sin(_phase(time, 4.6))
    tone: FloatArray = (body + 0.35 * tine) * np.exp(-1.5 * time) * tremolo * _attack(time, 0.004)
    return tone


def _vibes(time: FloatArray, hertz: float) -> FloatArray:
    phase = _phase(time, hertz)
    strike = 0.4 * np.exp(-9.0 * time) * np.sin(4.0 * phase)
    tone: FloatArray = (
        (np.sin(phase) + strike) * np.exp(-2.0 * time) * (1 + 0.25 * np.sin(_phase(time, 5.5))) * _attack(time, 0.002)
    )
    return tone


def _kalimba(time: FloatArray, hertz: float) -> FloatArray:
    phase = _phase(time, hertz)
    tone: FloatArray = (
        (np.sin(phase) + 0.3 * np.sin(5.4 * phase) * np.exp(-25 * time)) * np.exp(-5.0 * time) * _attack(time, 0.002)
    )
    return tone


def _piano(time: FloatArray, hertz: float) -> FloatArray:
    return _partials(time, hertz, (1.0, 0.5, 0.3, 0.18, 0.1, 0.06), 0.9) * _attack(time, 0.006)


def _guitar(time: FloatArray, hertz: float) -> FloatArray:
    # Plucked at a fifth of the string: every fifth partial is missing.
    levels = tuple(abs(float(np.sin(np.pi * n / 5))) / n for n in range(1, 13))
    return _partials(time, hertz, levels, 1.1) * _attack(time, 0.003)


def _pad(time: FloatArray, hertz: float) -> FloatArray:
    levels = tuple(1.0 / n**1.4 for n in range(1, 7))
    voices = sum(_partials(time, hertz * detune, levels, 0.05) for detune in (0.997, 1.0, 1.003))
    return np.asarray(voices, dtype=np.float32) * 0.4 * _attack(time, 0.35)


def _flute(time: FloatArray, hertz: float) -> FloatArray:
    vibrato = np.float32(0.35) * np.sin(_phase(time, 5.0)) * np.minimum(1.0, time * 2)
    phase = _phase(time, hertz) + vibrato
    tone: FloatArray = (np.sin(phase) + 0.25 * np.sin(2 * phase) + 0.08 * np.sin(3 * phase)) * _attack(time, 0.07) * 0.8
    return tone


def _bass(time: FloatArray, hertz: float) -> FloatArray:
    return _partials(time, hertz, (1.0, 0.35, 0.12, 0.05), 1.6) * _attack(time, 0.008)


def _organ(time: FloatArray, hertz: float) -> FloatArray:
    """Drawbars at the octaves and the twelfth, turned by a slow rotor."""
    rotor = 1.0 + 0.15 * np.sin(_phase(time, 5.8))
    pipes = _partials(time, hertz, (0.8, 0.6, 0.4, 0.3, 0.0, 0.15, 0.0, 0.2), 0.02)
    return np.asarray(0.7 * pipes * rotor * _attack(time, 0.01), dtype=np.float32)


def _strings(time: FloatArray, hertz: float) -> FloatArray:
    """Three desks, each with its own vibrato."""
    levels = tuple(1.0 / n**1.1 for n in range(1, 11))
    desks = [
        _partials((time + depth * np.sin(_phase(time, rate))).astype(np.float32), hertz * detune, levels, 0.03)
        for detune, rate, depth in ((0.998, 4.7, 4e-4), (1.0, 5.2, 3e-4), (1.002, 5.6, 4e-4))
    ]
    return np.asarray(sum(desks), dtype=np.float32) * 0.3 * _attack(time, 0.18)


def _saw_lead(time: FloatArray, hertz: float) -> FloatArray:
    levels = tuple(1.0 / n for n in range(1, 17))
    voices = sum(_partials(time, hertz * detune, levels, 0.25) for detune in (0.996, 1.004))
    return np.asarray(voices, dtype=np.float32) * 0.35 * _attack(time, 0.01)


def _square_lead(time: FloatArray, hertz: float) -> FloatArray:
    """The pulse wave of an old console: odd partials, no decay."""
    return _partials(time, hertz, tuple(n % 2 / n for n in range(1, 16)), 0.05) * 0.7


def _harp(time: FloatArray, hertz: float) -> FloatArray:
    return _partials(time, hertz, (1.0, 0.35, 0.25, 0.1, 0.06), 1.8) * _attack(time, 0.003)


def _marimba(time: FloatArray, hertz: float) -> FloatArray:
    phase = _phase(time, hertz)
    bar = np.sin(phase) + 0.35 * np.sin(4.0 * phase) * np.exp(-18 * time)
    tone: FloatArray = bar * np.exp(-6.0 * time) * _attack(time, 0.002)
    return tone


def _overdriven_guitar(time: FloatArray, hertz: float) -> FloatArray:
    string = _partials(time, hertz, (1.0, 0.7, 0.5, 0.35, 0.25, 0.18), 0.35)
    tone: FloatArray = np.tanh(3.0 * string).astype(np.float32) * 0.55 * _attack(time, 0.004)
    return tone


def _upright_bass(time: FloatArray, hertz: float) -> FloatArray:
    thump = 0.3 * np.sin(_phase(time, 2.0 * hertz)) * np.exp(-14 * time)
    string = _partials(time, hertz, (1.0, 0.5, 0.18, 0.08, 0.05), 1.1)
    return np.asarray((string + thump) * _attack(time, 0.012), dtype=np.float32)


def _synth_bass(time: FloatArray, hertz: float) -> FloatArray:
    return _partials(time, hertz, tuple(1.0 / n for n in range(1, 13)), 0.9) * 0.75 * _attack(time, 0.004)


def _attack(time: FloatArray, seconds: float) -> FloatArray:
    rise: FloatArray = np.minimum(np.float32(1.0), time / np.float32(seconds))
    return rise


def _kick(rate: int, rng: np.random.Generator) -> NDArray[np.float64]:
    time = _time(0.35, rate)
    # The phase of a pitch that falls from 140 to 48 Hz.
    phase = 2 * np.pi * (48 * time + 92 / 28 * (1 - np.exp(-28 * time)))
    click = rng.standard_normal(len(time)) * np.exp(-400 * time) * 0.15
    return np.sin(phase) * np.exp(-8 * time) + click


def _snare(rate: int, rng: np.random.Generator) -> NDArray[np.float64]:
    time = _time(0.25, rate)
    rattle = _smooth(rng.standard_normal(len(time)), rate, 6_000) * np.exp(-16 * time)
    return 0.9 * rattle + 0.5 * np.sin(2 * np.pi * 185 * time) * np.exp(-24 * time)


def _hat(rate: int, rng: np.random.Generator) -> NDArray[np.float64]:
    time = _time(0.08, rate)
    noise = rng.standard_normal(len(time))
    return (noise - _smooth(noise, rate, 5_000)) * np.exp(-55 * time)


def _brush(rate: int, rng: np.random.Generator) -> NDArray[np.float64]:
    time = _time(0.3, rate)
    return _smooth(rng.standard_normal(len(time)), rate, 4_000) * np.minimum(1, time / 0.03) * np.exp(-12 * time)


def _clap(rate: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Three hands a few milliseconds apart, then the room."""
    time = _time(0.2, rate)
    noise = _smooth(rng.standard_normal(len(time)), rate, 7_000)
    hands = sum(np.exp(-180 * np.abs(time - late)) for late in (0.002, 0.012, 0.021))
    clap: NDArray[np.float64] = noise * (hands + 0.6 * np.exp(-22 * time))
    return clap


def _rim(rate: int, rng: np.random.Generator) -> NDArray[np.float64]:
    time = _time(0.06, rate)
    click = rng.standard_normal(len(time)) * np.exp(-600 * time) * 0.3
    return np.sin(2 * np.pi * 1_650 * time) * np.exp(-70 * time) + click


def _shaker(rate: int, rng: np.random.Generator) -> NDArray[np.float64]:
    time = _time(0.1, rate)
    noise = rng.standard_normal(len(time))
    return (noise - _smooth(noise, rate, 4_000)) * np.minimum(1, time / 0.03) * np.exp(-35 * time)


def _ride(rate: int, rng: np.random.Generator) -> NDArray[np.float64]:
    time = _time(0.5, rate)
    noise = rng.standard_normal(len(time))
    bell = sum(np.sin(2 * np.pi * hertz * time) for hertz in (3_150, 4_270, 5_630)) * 0.25
    return (noise - _smooth(noise, rate, 5_000) + bell) * np.exp(-9 * time)


def _time(seconds: float, rate: int) -> NDArray[np.float64]:
    return np.arange(round(seconds * rate)) / rate


def _smooth(noise: NDArray[np.float64], rate: int, cutoff_hz: float) -> NDArray[np.float64]:
    """Moving average whose first zero is at twice the cutoff: enough of a low-pass for noise."""
    width = max(1, round(rate / (2 * cutoff_hz)))
    return np.convolve(noise, np.ones(width) / width, mode="same")


_NOTES: dict[Name, Callable[[FloatArray, float], FloatArray]] = {
    "rhodes": _rhodes,
    "piano": _piano,
    "pad": _pad,
    "guitar": _guitar,
    "vibes": _vibes,
    "flute": _flute,
    "kalimba": _kalimba,
    "bass": _bass,
    "organ": _organ,
    "strings": _strings,
    "saw_lead": _saw_lead,
    "square_lead": _square_lead,
    "harp": _harp,
    "marimba": _marimba,
    "overdriven_guitar": _overdriven_guitar,
    "upright_bass": _upright_bass,
    "synth_bass": _synth_bass,
}
_HITS: dict[str, Callable[[int, np.random.Generator], NDArray[np.floating]]] = {
    "kick": _kick,
    "snare": _snare,
    "hat": _hat,
    "brush": _brush,
    "clap": _clap,
    "rim": _rim,
    "shaker": _shaker,
    "ride": _ride,
}
