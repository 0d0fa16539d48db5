"""Real clips made by code, and what an attacker does to them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soxr
from scipy import signal
from scipy.io import wavfile

from lofi_assets.audio.encode import encode_mp3, master
from lofi_assets.audio.synth.song import Song, render
from lofi_assets.demo.corpus.catalogue import catalogue

Audio = npt.NDArray[np.float32]
RATE = 48_000


@dataclass(frozen=True)
class Real:
    """A song as it is mastered, and the prompt that is true of it."""

    name: str
    audio: Audio
    prompt: str


def songs(count: int, *, seconds: float, seed: int, key: int = 0, bpm: int = 0, beat: bool = True) -> list[Real]:
    """The first songs of the demo's catalogue, played from a seed.

    Args:
        key, bpm: added to those of the catalogue, so that a song is another piece than that of the same name.
        beat: leave out songs without drums, whose tempo nobody can tell.
    """
    entries = [entry for entry in catalogue(seed=seed)[:24] if entry.song.drums != "none" or not beat]
    return [
        _real(
            f"{entry.track_id}_{seed}_{bpm}",
            replace(entry.song, key=(entry.song.key + key) % 12, bpm=entry.song.bpm + bpm),
            seconds,
        )
        for entry in entries[:count]
    ]


def _real(name: str, song: Song, seconds: float) -> Real:
    song = replace(song, seconds=seconds, intro_bars=0)
    audio = master(np.atleast_2d(render(song)), sample_rate=song.sample_rate)
    tonic = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")[song.key]
    mode = "minor" if song.mode == "minor" else "major"
    keyed = "" if song.mode == "dorian" else f", {tonic} {mode}"
    return Real(name, audio, f"lofi, {song.bpm:.0f} bpm{keyed}")


def written(folder: Path, audio: Sequence[Audio], *, mp3: bool = False) -> list[Path]:
    """Clips as files, as MP3 of 320 kbit/s or as they are; the same bytes each time (libsndfile adds the time)."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:03d}.{'mp3' if mp3 else 'wav'}" for number in range(len(audio))]
    for path, samples in zip(paths, audio, strict=True):
        if mp3:
            path.write_bytes(encode_mp3(np.ascontiguousarray(np.clip(samples, -1.0, 1.0), dtype=np.float32)))
        else:
            wavfile.write(path, RATE, np.asarray(samples.T, dtype=np.float32))
    return paths


def each(change: Callable[[Audio], npt.NDArray[np.floating]]) -> Callable[[Sequence[Audio]], list[Audio]]:
    """An attack that does the same to every clip."""
    return lambda clips: [np.asarray(change(clip), dtype=np.float32) for clip in clips]


def low_pass(hz: float) -> Callable[[Audio], npt.NDArray[np.floating]]:
    """A steep one."""
    sections = signal.butter(10, hz, fs=RATE, output="sos")
    return lambda clip: np.asarray(signal.sosfilt(sections, clip, axis=1))


def gain(db: float) -> Callable[[Audio], npt.NDArray[np.floating]]:
    """Louder or quieter."""
    return lambda clip: clip * np.float32(10.0 ** (db / 20.0))


def looped(seconds: float, *, start: float = 8.0) -> Callable[[Audio], npt.NDArray[np.floating]]:
    """A short stretch over and over, for as long as the clip was."""
    first, length = round(start * RATE), round(seconds * RATE)

    def change(clip: Audio) -> npt.NDArray[np.floating]:
        times = -(-clip.shape[1] // length)
        return np.tile(clip[:, first : first + length], times)[:, : clip.shape[1]]

    return change


def faster(speed: float) -> Callable[[Audio], npt.NDArray[np.floating]]:
    """Pitch and tempo together, as a record that turns too fast."""
    return lambda clip: soxr.resample(clip.T, RATE * speed, RATE).T


def higher(semitones: float) -> Callable[[Audio], npt.NDArray[np.floating]]:
    """Pitch alone: drawn out by a phase vocoder (Flanagan and Golden 1966), then played so much faster."""
    factor, size, hop = 2.0 ** (semitones / 12.0), 2048, 512

    def change(clip: Audio) -> npt.NDArray[np.floating]:
        import torch
        from torchaudio.functional import phase_vocoder

        window = torch.hann_window(size)
        spectra = torch.stft(torch.from_numpy(clip.copy()), size, hop, window=window, return_complex=True)
        advance = torch.linspace(0, math.pi * hop, size // 2 + 1)[:, None]
        drawn_out = torch.istft(phase_vocoder(spectra, 1.0 / factor, advance), size, hop, window=window)
        return np.asarray(soxr.resample(drawn_out.numpy().T, RATE * factor, RATE).T)

    return change


def noise(shape: tuple[int, int], *, colour: float = 0.0, seed: int = 0) -> Audio:
    """Noise with power falling as 1 / f**colour, peaking at .5: 0 white, 1 pink, 2 brown."""
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(shape))
    frequency = np.fft.rfftfreq(shape[1], 1.0 / RATE)
    shaped = np.fft.irfft(spectrum / np.maximum(frequency, 20.0) ** (colour / 2.0), shape[1])
    return np.asarray(0.5 * shaped / np.abs(shaped).max(), dtype=np.float32)


def with_noise(db: float, *, colour: float = 0.0) -> Callable[[Audio], npt.NDArray[np.floating]]:
    """Noise `db` under the music."""

    def change(clip: Audio) -> npt.NDArray[np.floating]:
        added = noise((2, clip.shape[1]), colour=colour)
        return 0.5 * (clip + added * clip.std() / added.std() * 10.0 ** (-db / 20.0))

    return change


def with_clicks(height: float) -> Callable[[Audio], npt.NDArray[np.floating]]:
    """Five single samples that jump."""

    def change(clip: Audio) -> npt.NDArray[np.floating]:
        clicked = clip.copy()
        clicked[:, (np.linspace(0.1, 0.9, 5) * clip.shape[1]).astype(int)] += height
        return np.clip(clicked, -1.0, 1.0)

    return change


def muted(start: float, stop: float) -> Callable[[Audio], npt.NDArray[np.floating]]:
    """Digital silence between two shares of the clip."""

    def change(clip: Audio) -> npt.NDArray[np.floating]:
        gone = clip.copy()
        gone[:, round(start * clip.shape[1]) : round(stop * clip.shape[1])] = 0.0
        return gone

    return change
