"""A small band: chords, bass, drums and a lead, played from a seed, clean or put on a worn tape.

The composition and the mix; instruments are in `instruments`, rhythms in `grooves`. The truth about every song (tempo,
key, mode) is known before a note is played, which is what makes it a test of everything that listens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from lofi_assets.audio.arrays import FloatArray
from lofi_assets.audio.synth import instruments
from lofi_assets.audio.synth.grooves import ARPEGGIO, BASS_NOTES, CHORD_HITS, PATTERNS, Bassline, Comping, Drums

Mode = Literal["major", "minor", "dorian"]

NOTE_NAMES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
SCALES: dict[Mode, tuple[int, ...]] = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
}
# Scale degrees (0 is the tonic) of four bars that come round.
PROGRESSIONS: dict[Mode, tuple[tuple[int, ...], ...]] = {
    "major": ((1, 4, 0, 5), (0, 5, 1, 4), (3, 2, 1, 0), (0, 2, 3, 4), (3, 4, 2, 5)),
    "minor": ((0, 5, 2, 6), (0, 3, 5, 4), (3, 6, 2, 0), (5, 6, 0, 0), (0, 2, 5, 3)),
    "dorian": ((0, 3, 0, 3), (0, 1, 2, 3), (0, 6, 3, 0), (0, 3, 6, 2)),
}
GAINS = {"kick": 0.75, "snare": 0.42, "hat": 0.13, "brush": 0.25, "clap": 0.4, "rim": 0.25, "shaker": 0.1, "ride": 0.14}
BLOCK = 2**16
"""Samples of a transform."""
REACH_S = 0.1
"""How far a filter hears to either side: a rumble filter at 35 Hz has fallen by 135 dB there."""
EIGHTHS_SWING = ("hat", "ride")
"""Hits whose off-beat eighths swing too."""


@dataclass(frozen=True)
class Song:
    """Everything that decides how a song sounds; the same song gives the same samples."""

    seed: int
    bpm: float
    key: int
    """Tonic as semitones above C."""
    mode: Mode
    seconds: float
    sample_rate: int
    chords: instruments.Name = "rhodes"
    lead: instruments.Name | None = "vibes"
    bass: instruments.Name = "bass"
    drums: Drums = "boom_bap"
    comping: Comping = "held"
    bassline: Bassline = "root_fifth"
    voicing: tuple[int, ...] = (0, 2, 4, 6, 8)
    """Scale steps above the root that make a chord."""
    intro_bars: int = 2
    """Bars before drums and lead come in."""
    swing: float = 0.58
    """Where the off-beat sixteenth falls between two eighths; 0.5 is straight."""
    cutoff_hz: float = 7_000.0
    """Where the tape loses its treble."""
    hiss_dbfs: float = -58.0
    crackles_per_s: float = 4.0
    rain_dbfs: float | None = None
    wow: float = 0.0015
    """Largest relative change of speed."""
    channels: int = 2

    @property
    def key_name(self) -> str:
        """For people, e.g. "Eb minor"."""
        return f"{NOTE_NAMES[self.key]} {self.mode}"


def render(song: Song, *, peak: float = 0.7) -> FloatArray:
    """The song, (channels, frames) float32, peaking at `peak` of full scale."""
    rng = np.random.default_rng(song.seed)
    frames = round(song.seconds * song.sample_rate)
    return _finished(song, _tape(song, rng, _perform(song, rng, frames)), peak=peak)


def render_clean(song: Song, *, peak: float = 0.7) -> FloatArray:
    """The performance alone, without tape, hiss, crackle or rain; shape and peak as in `render`."""
    rng = np.random.default_rng(song.seed)
    return _finished(song, _perform(song, rng, round(song.seconds * song.sample_rate)), peak=peak)


def _finished(song: Song, mix: FloatArray, *, peak: float) -> FloatArray:
    """Channels, a fade at either end, and the peak."""
    frames = mix.shape[1]
    if song.channels == 1:
        mix = mix.mean(axis=0, keepdims=True)
    fade = np.minimum(1.0, np.minimum(np.arange(frames), np.arange(frames)[::-1] / 4) / (0.3 * song.sample_rate))
    mix = mix * fade.astype(np.float32)
    return mix * np.float32(peak / np.abs(mix).max())


def _perform(song: Song, rng: np.random.Generator, frames: int) -> FloatArray:
    """Every part, dry, (2, frames)."""
    mix = np.zeros((2, frames), dtype=np.float32)
    progression = PROGRESSIONS[song.mode][int(rng.integers(len(PROGRESSIONS[song.mode])))]
    phrases = [_melody(song, rng, progression) for _ in range(2)]
    band = instruments.Band(sample_rate=song.sample_rate, seed=song.seed)
    bar_s = 240.0 / song.bpm
    bars = int(np.ceil(song.seconds / bar_s))
    for bar in range(bars):
        at = bar * bar_s
        degree = progression[bar % 4]
        # Drums rest in the intro and in every eighth bar, so that there is something to come back to.
        beat = bar >= song.intro_bars and bar % 8 != 7
        _play_chord(song, rng, band, mix, at, degree)
        _play_bass(song, band, mix, at, degree)
        if beat:
            _play_drums(song, rng, band, mix, at)
        if song.lead and bar >= song.intro_bars:
            # A A B A over sixteen bars.
            for start, length, pitch in phrases[(bar // 4) % 4 == 2][bar % 4]:
                tone = band.note(song.lead, pitch, length * bar_s / 8 + 0.6)
                late = float(rng.normal(0.012, 0.006))
                _add(mix, tone, at + start * bar_s / 8 + late, 0.30, pan=0.25, rate=song.sample_rate)
    return mix


def _pitches(song: Song, degree: int, *, around: int, steps: tuple[int, ...]) -> list[int]:
    """MIDI pitches of scale steps above `degree`, each in the octave nearest to `around`."""
    scale = SCALES[song.mode]
    pitches = []
    for step in steps:
        pitch = song.key + scale[(degree + step) % 7]
        pitches.append(pitch + 12 * round((around - pitch) / 12))
    return sorted(pitches)


def _play_chord(
    song: Song, rng: np.random.Generator, band: instruments.Band, mix: FloatArray, at: float, degree: int
) -> None:
    """The bar's chord as the song comps: whole chords strummed a little, or broken into eighths."""
    pitches = _pitches(song, degree, around=63, steps=song.voicing)
    if song.comping == "arpeggio":
        _play_arpeggio(song, band, mix, at, pitches)
        return
    for start, length, velocity in _chord_hits(song, rng):
        for index, pitch in enumerate(pitches):
            tone = band.note(song.chords, pitch, length)
            strum = 0.011 * index + float(rng.uniform(0, 0.004))
            _add(mix, tone, at + start + strum, 0.16 * velocity, pan=-0.2 + 0.08 * index, rate=song.sample_rate)


def _chord_hits(song: Song, rng: np.random.Generator) -> list[tuple[float, float, float]]:
    """(start, length, velocity) in seconds; a held chord is sometimes struck again on the off-beat."""
    bar_s, sixteenth = 240.0 / song.bpm, 15.0 / song.bpm
    if song.comping != "held":
        return [(start * sixteenth, length * sixteenth, force) for start, length, force in CHORD_HITS[song.comping]]
    if rng.random() < 0.5:
        return [(0.0, bar_s * 0.6, 1.0), (bar_s * 0.625, bar_s * 0.36, 0.7)]
    return [(0.0, bar_s * 0.98, 1.0)]


def _play_arpeggio(song: Song, band: instruments.Band, mix: FloatArray, at: float, pitches: list[int]) -> None:
    eighth = 30.0 / song.bpm
    for number, index in enumerate(ARPEGGIO):
        tone = band.note(song.chords, pitches[index % len(pitches)], 2 * eighth)
        _add(mix, tone, at + number * eighth, 0.3, pan=-0.25 + 0.1 * index, rate=song.sample_rate)


def _play_bass(song: Song, band: instruments.Band, mix: FloatArray, at: float, degree: int) -> None:
    beat_s = 60.0 / song.bpm
    for start, length, step in BASS_NOTES[song.bassline]:
        pitch = _pitches(song, degree, around=40, steps=(step,))[0]
        tone = band.note(song.bass, pitch, length * beat_s)
        _add(mix, tone, at + start * beat_s, 0.42, pan=0.0, rate=song.sample_rate)


def _play_drums(song: Song, rng: np.random.Generator, band: instruments.Band, mix: FloatArray, at: float) -> None:
    sixteenth = 15.0 / song.bpm
    for name, steps in PATTERNS[song.drums].items():
        for step in steps:
            off_beat = step % 2 or (name in EIGHTHS_SWING and step % 4 == 2)
            swung = (song.swing - 0.5) * 2.0 * sixteenth if off_beat else 0.0
            late = float(rng.normal(0.0, 0.003))
            accent = float(rng.uniform(0.75, 1.0)) * (0.8 if name == "hat" and step % 4 else 1.0)
            pan = {"hat": 0.3, "brush": -0.15, "shaker": -0.3, "ride": 0.25}.get(name, 0.0)
            hit = band.hit(name, variant=int(rng.integers(3)))
            _add(mix, hit, at + step * sixteenth + swung + late, GAINS[name] * accent, pan=pan, rate=song.sample_rate)


def _melody(song: Song, rng: np.random.Generator, progression: tuple[int, ...]) -> list[list[tuple[int, int, int]]]:
    """Four bars of (start, length, pitch) in eighths: steps through the pentatonic, chord tones on the first beat."""
    pentatonic = (0, 1, 2, 4, 5) if song.mode == "major" else (0, 2, 3, 4, 6)
    bars, position = [], int(rng.integers(5))
    for degree in progression:
        notes, eighth = [], 0
        while eighth < 8:
            length = int(rng.choice([1, 1, 2, 3]))
            if rng.random() < 0.62:
                position = int(np.clip(position + rng.integers(-2, 3), -2, 7))
                step = pentatonic[position % 5]
                around = 72 + 12 * (position // 5)
                on_chord = eighth == 0
                pitch = _pitches(song, degree if on_chord else 0, around=around, steps=(2 if on_chord else step,))[0]
                notes.append((eighth, length, pitch))
            eighth += length
        bars.append(notes)
    return bars


def _add(mix: FloatArray, sound: FloatArray, at_s: float, gain: float, *, pan: float, rate: int) -> None:
    """Mix a mono sound in at a time; constant-power pan from -1 (left) to 1 (right)."""
    start = max(0, round(at_s * rate))
    piece = sound[: max(0, mix.shape[1] - start)]
    angle = (pan + 1.0) * np.pi / 4
    for channel, share in enumerate((np.cos(angle), np.sin(angle))):
        mix[channel, start : start + len(piece)] += np.float32(gain * share) * piece


def _tape(song: Song, rng: np.random.Generator, mix: FloatArray) -> FloatArray:
    """Wow and flutter, saturation, a worn head, then what the medium adds: hiss, crackle, rain on the window."""
    driven = np.tanh(_wow(song, rng, mix) * np.float32(1.3 / max(1e-6, float(np.abs(mix).max()))))
    worn = _filtered(driven, song.sample_rate, _worn_head(song.cutoff_hz))
    frames = mix.shape[1]
    for noise in _noises(song, rng, frames):
        worn += noise
    return worn


def _wow(song: Song, rng: np.random.Generator, mix: FloatArray) -> FloatArray:
    """Read the tape at a speed that drifts at 0.6 Hz and trembles at 7 Hz; on average the speed is right."""
    time = np.arange(mix.shape[1], dtype=np.float64)
    position = time.copy()
    for hertz, depth in ((0.6, song.wow), (7.1, song.wow / 6)):
        angular = 2 * np.pi * hertz / song.sample_rate
        position += depth / angular * np.sin(angular * time + float(rng.uniform(0, 2 * np.pi)))
    return np.stack([np.interp(position, time, row).astype(np.float32) for row in mix])


def _worn_head(cutoff_hz: float) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Magnitude of a soft low-pass with a rumble filter: 12 dB per octave on either side."""

    def magnitude(hertz: NDArray[Any]) -> NDArray[Any]:
        low_cut = (hertz / 35.0) ** 2
        return low_cut / np.sqrt(1.0 + low_cut**2) / np.sqrt(1.0 + (hertz / cutoff_hz) ** 4)

    return magnitude


def _filtered(samples: FloatArray, sample_rate: int, magnitude: Callable[[NDArray[Any]], NDArray[Any]]) -> FloatArray:
    """Zero-phase filter of whole rows, by overlap-save: blocks that a cache holds take a fifth of the time of one long
    transform. scipy's `oaconvolve` takes half as long again, and a worker two seconds to import it."""
    reach, frames = round(REACH_S * sample_rate), samples.shape[1]
    impulse = fft.irfft(magnitude(fft.rfftfreq(BLOCK, 1.0 / sample_rate)), BLOCK)
    impulse[reach + 1 : -reach] = 0.0
    response, kept = fft.rfft(impulse.astype(np.float32)), BLOCK - 2 * reach
    padded = np.pad(samples, ((0, 0), (reach, reach + -frames % kept)))
    blocks = np.lib.stride_tricks.sliding_window_view(padded, BLOCK, axis=1)[:, ::kept]
    filtered: FloatArray = fft.irfft(fft.rfft(blocks) * response, BLOCK)[:, :, reach:-reach]
    return filtered.reshape(len(samples), -1)[:, :frames]


def _noises(song: Song, rng: np.random.Generator, frames: int) -> Iterator[FloatArray]:
    def white() -> FloatArray:
        return rng.standard_normal((2, frames), dtype=np.float32)

    # Averaging neighbours takes the top octave off, which is all that tells hiss from white noise.
    hiss = white()
    hiss[:, 1:] += hiss[:, :-1]
    yield hiss * np.float32(10 ** (song.hiss_dbfs / 20) / 1.41)
    yield _crackle(song, rng, frames)
    if song.rain_dbfs is not None:
        drops = _filtered(white(), song.sample_rate, lambda hertz: np.exp(-0.5 * ((hertz - 3_000.0) / 1_800.0) ** 2))
        level = np.float32(10 ** (song.rain_dbfs / 20) / max(1e-9, float(drops.std())))
        gusts = 1.0 + 0.35 * np.sin(2 * np.pi * 0.11 * np.arange(frames) / song.sample_rate + rng.uniform(0, 6))
        yield drops * level * gusts.astype(np.float32)


def _crackle(song: Song, rng: np.random.Generator, frames: int) -> FloatArray:
    """Dust in the groove: short decaying clicks at random moments, few of them loud."""
    dust = np.zeros((2, frames), dtype=np.float32)
    count = int(rng.poisson(song.crackles_per_s * song.seconds))
    length = max(8, song.sample_rate // 1_500)
    click = (np.exp(-np.arange(length) / (length / 5)) * np.cos(np.arange(length) * 1.9)).astype(np.float32)
    for start in rng.integers(0, frames - length, count):
        loudness = min(0.09, float(rng.lognormal(-4.6, 0.8)))
        dust[int(rng.integers(2)), start : start + length] += np.float32(loudness) * click
    return dust
