"""The sounds that a base is judged on, and what MusiCNN makes of them.

What belongs here: making the sounds (references, round trips, generated clips, marks) and embedding, tagging and timing
them. What does not: what follows from that (`report`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from lofi_assets.audio.arrays import FloatArray
from lofi_assets.audio.fingerprint import Fingerprint, fingerprint
from lofi_assets.audio.musicnn import PATCH_S, SAMPLE_RATE, MusicNN
from lofi_assets.audio.synth.song import render, render_clean
from lofi_assets.backbones.ace_step_v1.frame_rates import MEL_RATE
from lofi_assets.backbones.ace_step_v1.loading import Base
from lofi_assets.backbones.ace_step_v1.music_dcae import MusicDCAE
from lofi_assets.backbones.ace_step_v1.sampler import OUTPUT_RATE, seeded_noise, text_to_music
from lofi_assets.demo.base_recipe.corpus import Clip, read_whole
from lofi_assets.demo.base_recipe.genres import SPOKEN_NAMES, Piece
from lofi_assets.demo.base_recipe.settings import ReportSettings
from lofi_assets.demo.corpus.catalogue import Entry, catalogue
from lofi_assets.files.writing import atomic_path
from lofi_assets.lyrics.text import INSTRUMENTAL
from lofi_assets.metrics.embedding import Embedder, levelled, resampled
from lofi_assets.metrics.musicnn import MusicnnEmbedder, MusicnnTagger
from lofi_assets.metrics.noise import white_noise
from lofi_assets.progress import over
from lofi_assets.styles.taxonomy import bpm_tag

CATALOGUE_SEED = 77
"""Another one than the demo's, so that a base is never judged on the songs that its LoRA trains on."""
CLIPS_AT_ONCE = 4


@dataclass(frozen=True)
class Sound:
    """Something to listen to: (2, frames) at 44.1 kHz, with what it should be."""

    name: str
    prompt: str
    samples: FloatArray


@dataclass(frozen=True)
class Heard:
    """What the ear makes of a clip."""

    embedding: FloatArray
    """(200,) mean of its windows, side by side."""
    words: Fingerprint


def lofi_references(count: int, settings: ReportSettings, *, peak: float) -> list[Sound]:
    """Songs of the demo corpus's recipe with other notes, under what a curator would write."""
    chosen = [entry for entry in catalogue(seed=CATALOGUE_SEED) if entry.expected_rule is None][:count]
    return [_lofi(entry, settings, peak=peak) for entry in chosen]


def clean_references(pieces: Sequence[Piece], *, peak: float) -> list[Sound]:
    """Pieces that no base was trained on."""
    return [
        Sound(f"clean_{index:02d}", piece.caption, render_clean(piece.song, peak=peak))
        for index, piece in enumerate(pieces)
    ]


def noise(count: int, *, seconds: float, seed: int) -> list[Sound]:
    """The worst that a generator can do."""
    clips = white_noise(count, seconds=seconds, sample_rate=MEL_RATE, seed=seed)
    return [Sound(f"noise_{index}", "", samples) for index, samples in enumerate(clips)]


@torch.no_grad()
def round_trip(codec: MusicDCAE, sounds: Sequence[Sound]) -> list[Sound]:
    """Every sound through DCAE and vocoder, as long as it was."""
    passed = []
    for sound in over(sounds, "round trip", unit="clip"):
        latents, _ = codec.encode(torch.from_numpy(sound.samples)[None], sample_rate=MEL_RATE)
        lengths = [sound.samples.shape[1]]
        decoded = codec.decode(latents, sample_rate=MEL_RATE, audio_lengths=lengths)[0].clamp(-1, 1)
        passed.append(replace(sound, samples=decoded.numpy()))
    return passed


@torch.no_grad()
def random_latents(codec: MusicDCAE, count: int, *, frames: int, seed: int) -> list[Sound]:
    """What the decoder makes of latents without any music in them."""
    noise = seeded_noise(range(seed, seed + count), frames=frames)
    audio = codec.decode(noise, sample_rate=MEL_RATE).clamp(-1, 1).numpy()
    return [Sound(f"random_{index}", "", samples) for index, samples in enumerate(audio)]


def generate(base: Base, prompts: Mapping[str, str], settings: ReportSettings, *, seed: int) -> list[Sound]:
    """A clip for each named prompt; clip i has seed `seed` + i."""
    made = []
    names = list(prompts)
    for start in over(range(0, len(names), CLIPS_AT_ONCE), "generating", unit="round"):
        batch = names[start : start + CLIPS_AT_ONCE]
        audio = text_to_music(
            base,
            prompts=[prompts[name] for name in batch],
            lyrics=[INSTRUMENTAL] * len(batch),
            seconds=settings.seconds,
            seeds=[seed + start + offset for offset in range(len(batch))],
            steps=settings.steps,
            guidance_scale=settings.guidance_scale,
        )
        made += [
            Sound(name, prompts[name], resampled(samples, source=OUTPUT_RATE, target=MEL_RATE))
            for name, samples in zip(batch, audio, strict=True)
        ]
    return made


def mel_error(codec: MusicDCAE, truth: Sequence[Sound], passed: Sequence[Sound]) -> float:
    """Mean absolute log-mel difference in nats, over bands, frames, channels and clips."""
    mel = codec.vocoder.mel_transform
    errors = [
        (mel(torch.from_numpy(after.samples)) - mel(torch.from_numpy(before.samples))).abs().mean()
        for before, after in zip(truth, passed, strict=True)
    ]
    return float(torch.stack(errors).mean())


def windows(sounds: Sequence[Sound]) -> dict[str, FloatArray]:
    """MusiCNN's windows of every sound, level-normalised, one each second."""
    return {sound.name: _heard_by(MusicnnEmbedder(), sound.samples) for sound in sounds}


def mean_tags(sounds: Sequence[Sound]) -> tuple[FloatArray, tuple[str, ...]]:
    """(clips, labels) mean tag probabilities, and the labels."""
    tagger = MusicnnTagger()
    return np.stack([_heard_by(tagger, sound.samples).mean(axis=0) for sound in sounds]), tagger.labels


def hear(samples: FloatArray) -> Heard:
    """A clip's place among all clips, by ear and by fingerprint."""
    mono = resampled(samples, source=MEL_RATE, target=SAMPLE_RATE)
    level = levelled(mono, sample_rate=SAMPLE_RATE, min_seconds=PATCH_S)
    return Heard(MusicNN().embed(level, hop_s=PATCH_S).mean(axis=0), fingerprint(samples, sample_rate=MEL_RATE))


def hear_corpus(clips: Sequence[Clip], *, folder: Path) -> dict[str, Heard]:
    """What the ear makes of every training clip; each is heard once."""
    heard = {}
    for clip in over(clips, "hearing the corpus", unit="clip"):
        path = folder / f"{clip.name}.npz"
        if not path.is_file():
            found = hear(read_whole(clip))
            with atomic_path(path) as temporary, temporary.open("wb") as file:
                np.savez(file, embedding=found.embedding, words=found.words)
        with np.load(path, allow_pickle=False) as stored:
            heard[clip.name] = Heard(stored["embedding"], stored["words"])
    return heard


def _heard_by(embedder: Embedder, samples: FloatArray) -> FloatArray:
    return embedder.embed(resampled(samples, source=MEL_RATE, target=embedder.sample_rate))


def _lofi(entry: Entry, settings: ReportSettings, *, peak: float) -> Sound:
    song = replace(entry.song, seconds=settings.seconds, sample_rate=MEL_RATE, channels=2)
    players = [SPOKEN_NAMES[name] for name in (song.chords, song.lead) if name is not None]
    told = entry.prompt or ", ".join(["lofi", *dict.fromkeys(players), bpm_tag(song.bpm), "vinyl crackle"])
    return Sound(entry.track_id, told, render(song, peak=peak))
