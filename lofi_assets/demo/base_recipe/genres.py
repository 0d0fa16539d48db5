"""What the base hears: songs of every genre but lofi, each with a caption that is true of it.

Instruments, rhythms, tempi and words of each genre; they are played by `audio.synth.song`. Every word of a caption
follows from something that sounds: mood from mode and speed, instruments from who plays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from lofi_assets.audio.synth.grooves import Bassline, Comping, Drums
from lofi_assets.audio.synth.instruments import Name
from lofi_assets.audio.synth.song import Mode, Song
from lofi_assets.styles.prompt_text import parse_prompt, prompt_text
from lofi_assets.styles.taxonomy import Taxonomy, bpm_tag

T = TypeVar("T")

SAMPLE_RATE = 44_100
"""Hz. The rate that the autoencoder hears, so that nothing is resampled."""
SAMPLES_PER_FRAME = 4_096
"""Of a latent frame."""
FAST_BPM = 100
"""From here on a song counts as lively when its mood is named."""
STEADY_BPM = tuple(60 * SAMPLE_RATE / (SAMPLES_PER_FRAME * frames) for frames in range(5, 11))
"""Tempi whose beat is a whole number of latent frames: 129.2 to 64.6. A bar then looks alike wherever it is."""
STEADY_KEYS = (0, 5, 9)
STEADY_GENRES = ("house", "synthwave", "electronic", "bossa nova", "funk", "reggae")
"""Those whose beat is plain to hear. A small transformer learns a few well or many badly."""
TRIAD, SEVENTH, NINTH, POWER = (0, 2, 4), (0, 2, 4, 6), (0, 2, 4, 6, 8), (0, 4, 7)

SPOKEN_NAMES: dict[Name, str] = {
    "rhodes": "rhodes",
    "piano": "piano",
    "pad": "synth pad",
    "guitar": "acoustic guitar",
    "vibes": "vibraphone",
    "flute": "flute",
    "kalimba": "kalimba",
    "bass": "bass",
    "organ": "organ",
    "strings": "strings",
    "saw_lead": "synth lead",
    "square_lead": "8-bit synth",
    "harp": "harp",
    "marimba": "marimba",
    "overdriven_guitar": "electric guitar",
    "upright_bass": "upright bass",
    "synth_bass": "synth bass",
}
DRUM_NAMES: dict[Drums, tuple[str, ...]] = {
    "boom_bap": ("drums",),
    "rock": ("drums",),
    "funk": ("drums",),
    "swing": ("drums",),
    "brushes": ("brushed drums",),
    "bossa": ("percussion", "shaker"),
    "one_drop": ("drums", "rimshot"),
    "four_floor": ("drum machine",),
    "electro": ("drum machine",),
    "half_time": ("drum machine",),
}
MOODS: dict[tuple[bool, bool], tuple[str, ...]] = {
    (True, True): ("happy", "uplifting", "playful", "carefree", "energetic"),
    (True, False): ("peaceful", "gentle", "hopeful", "tender", "calm"),
    (False, True): ("moody", "adventurous", "confident", "mysterious"),
    (False, False): ("sad", "melancholic", "wistful", "lonely", "contemplative"),
}
"""By (major, lively)."""


@dataclass(frozen=True)
class Genre:
    """A kind of music: what its songs draw from."""

    tag: str
    bpm: tuple[int, int]
    chords: tuple[Name, ...]
    leads: tuple[Name | None, ...]
    drums: tuple[Drums, ...]
    comping: tuple[Comping, ...]
    basslines: tuple[Bassline, ...]
    bass: tuple[Name, ...] = ("bass",)
    modes: tuple[Mode, ...] = ("major", "minor")
    voicing: tuple[int, ...] = TRIAD
    swing: float = 0.5
    production: tuple[str, ...] = ("clean",)


GENRES: tuple[Genre, ...] = (
    Genre(
        tag="house",
        bpm=(116, 128),
        chords=("pad", "piano", "organ"),
        leads=("saw_lead", "vibes", None),
        drums=("four_floor",),
        comping=("offbeat", "stabs"),
        basslines=("offbeat", "eighths"),
        bass=("synth_bass",),
        modes=("minor", "dorian", "major"),
        voicing=SEVENTH,
        production=("polished", "punchy drums"),
    ),
    Genre(
        tag="synthwave",
        bpm=(84, 118),
        chords=("pad", "strings"),
        leads=("saw_lead",),
        drums=("electro",),
        comping=("sustained", "arpeggio", "pulsed"),
        basslines=("eighths",),
        bass=("synth_bass",),
        modes=("minor", "dorian"),
        production=("polished", "punchy drums"),
    ),
    Genre(
        tag="electronic",
        bpm=(90, 140),
        chords=("pad", "saw_lead", "rhodes"),
        leads=("kalimba", "vibes", "saw_lead", None),
        drums=("electro", "half_time", "four_floor"),
        comping=("arpeggio", "pulsed"),
        basslines=("held", "offbeat", "eighths"),
        bass=("synth_bass",),
        production=("polished",),
    ),
    Genre(
        tag="ambient",
        bpm=(60, 80),
        chords=("pad", "strings"),
        leads=("kalimba", "vibes", "flute", None),
        drums=("none",),
        comping=("sustained",),
        basslines=("held", "none"),
        voicing=NINTH,
        modes=("major", "minor", "dorian"),
        production=("clean", "minimal"),
    ),
    Genre(
        tag="folk",
        bpm=(76, 124),
        chords=("guitar",),
        leads=("flute", "guitar", "harp", None),
        drums=("none", "bossa"),
        comping=("strummed", "arpeggio"),
        basslines=("none", "root_fifth"),
        bass=("upright_bass",),
        production=("acoustic", "clean"),
    ),
    Genre(
        tag="chiptune",
        bpm=(120, 150),
        chords=("square_lead",),
        leads=("square_lead",),
        drums=("electro", "rock"),
        comping=("arpeggio", "pulsed"),
        basslines=("eighths", "offbeat"),
        bass=("synth_bass",),
        production=("dry mix", "bright"),
    ),
    Genre(
        tag="film score",
        bpm=(62, 100),
        chords=("strings",),
        leads=("flute", "strings", "harp", "piano"),
        drums=("none",),
        comping=("sustained",),
        basslines=("held",),
        bass=("upright_bass",),
        production=("layered",),
    ),
    Genre(
        tag="indie pop",
        bpm=(100, 150),
        chords=("overdriven_guitar", "guitar", "organ"),
        leads=("overdriven_guitar", "saw_lead", None),
        drums=("rock",),
        comping=("pulsed", "strummed"),
        basslines=("eighths", "root_fifth"),
        modes=("major", "minor"),
        voicing=POWER,
        production=("punchy drums", "raw"),
    ),
    Genre(
        tag="bossa nova",
        bpm=(110, 140),
        chords=("guitar", "piano"),
        leads=("flute", "vibes", "guitar", None),
        drums=("bossa",),
        comping=("charleston", "strummed"),
        basslines=("bossa",),
        bass=("upright_bass",),
        modes=("major", "dorian"),
        voicing=SEVENTH,
        production=("acoustic", "soft drums"),
    ),
    Genre(
        tag="swing jazz",
        bpm=(104, 150),
        chords=("piano", "guitar", "rhodes"),
        leads=("vibes", "piano", "flute"),
        drums=("swing", "brushes"),
        comping=("charleston",),
        basslines=("walking",),
        bass=("upright_bass",),
        modes=("major", "dorian"),
        voicing=NINTH,
        swing=0.8,
        production=("clean", "swung drums"),
    ),
    Genre(
        tag="neoclassical",
        bpm=(60, 96),
        chords=("piano",),
        leads=("piano", None),
        drums=("none",),
        comping=("arpeggio", "sustained"),
        basslines=("none",),
        production=("clean", "minimal"),
    ),
    Genre(
        tag="funk",
        bpm=(94, 120),
        chords=("organ", "guitar", "rhodes"),
        leads=("saw_lead", "vibes", None),
        drums=("funk",),
        comping=("stabs",),
        basslines=("funk",),
        modes=("dorian", "minor"),
        voicing=SEVENTH,
        production=("punchy drums", "clean"),
    ),
    Genre(
        tag="reggae",
        bpm=(68, 92),
        chords=("organ", "guitar", "piano"),
        leads=("flute", "organ", None),
        drums=("one_drop",),
        comping=("offbeat",),
        basslines=("one_drop",),
        production=("clean",),
    ),
    Genre(
        tag="latin jazz",
        bpm=(96, 132),
        chords=("piano", "marimba"),
        leads=("marimba", "vibes", "flute"),
        drums=("bossa",),
        comping=("stabs", "arpeggio"),
        basslines=("bossa",),
        bass=("upright_bass",),
        modes=("minor", "dorian"),
        voicing=SEVENTH,
        production=("acoustic", "bright"),
    ),
)


def bar_of(bpm: float) -> float:
    """Latent frames of a bar of four beats."""
    return 240 * SAMPLE_RATE / (SAMPLES_PER_FRAME * bpm)


@dataclass(frozen=True)
class Piece:
    """A song and the words that are true of it."""

    genre: Genre
    song: Song
    caption: str

    @property
    def exact_bar(self) -> float:
        """Latent frames of a bar, whole or not; the first begins with the piece."""
        return bar_of(self.song.bpm)

    @property
    def bar_frames(self) -> int:
        """Latent frames of a bar of a steady piece; 1 for others, whose bars begin anywhere."""
        frames = self.exact_bar
        return round(frames) if math.isclose(frames, round(frames)) else 1


def piece(seed: int, index: int, *, seconds: float, taxonomy: Taxonomy, steady: bool = False) -> Piece:
    """The piece at `index` of the endless list of a seed; the genres take turns.

    Args:
        steady: at the nearest of `STEADY_BPM`, in one of three keys, and without an intro.
    """
    rng = np.random.default_rng([seed, index])
    genre = GENRES[index % len(GENRES)]
    lead = any_of(rng, genre.leads)
    song = Song(
        seed=int(rng.integers(2**31)),
        bpm=float(rng.integers(genre.bpm[0], genre.bpm[1] + 1)),
        key=int(rng.integers(12)),
        mode=any_of(rng, genre.modes),
        seconds=seconds,
        sample_rate=SAMPLE_RATE,
        chords=any_of(rng, genre.chords),
        lead=lead,
        drums=any_of(rng, genre.drums),
        bass=any_of(rng, genre.bass),
        comping=any_of(rng, genre.comping),
        bassline=any_of(rng, genre.basslines),
        voicing=genre.voicing,
        intro_bars=int(rng.integers(2)),
        swing=genre.swing,
    )
    if steady:
        bpm = min(STEADY_BPM, key=lambda steady_bpm: abs(steady_bpm - song.bpm))
        song = replace(song, bpm=bpm, key=any_of(rng, STEADY_KEYS), intro_bars=0)
    return Piece(genre, song, caption_of(genre, song, rng, taxonomy))


def moods(song: Song) -> tuple[str, ...]:
    """The moods that fit a song's mode and speed."""
    return MOODS[song.mode == "major", song.bpm >= FAST_BPM and song.drums != "none"]


def true_words(genre: Genre, song: Song) -> tuple[str, ...]:
    """What else can be said of a song, since it can be heard. The BPM only where something keeps it."""
    players = [song.chords, song.lead, song.bass if song.bassline != "none" else None]
    instruments = [SPOKEN_NAMES[name] for name in players if name is not None]
    steady = song.drums != "none" or song.comping not in ("sustained", "held")
    return (
        genre.tag,
        *dict.fromkeys([*instruments, *DRUM_NAMES.get(song.drums, ())]),
        *([bpm_tag(song.bpm)] if steady else []),
        *genre.production,
        "instrumental",
    )


def caption_of(genre: Genre, song: Song, rng: np.random.Generator, taxonomy: Taxonomy) -> str:
    """All true words, one or two moods and the word for the tempo, in the order of a prompt."""
    chosen = rng.choice(moods(song), size=int(rng.integers(1, 3)), replace=False).tolist()
    tempo = taxonomy.tempo_word(song.bpm)
    tags, unknown = parse_prompt(", ".join([*true_words(genre, song), *chosen, *([tempo] if tempo else [])]), taxonomy)
    assert not unknown, f"{genre.tag}: {unknown} are not in config/styles/taxonomy.yaml"
    return prompt_text(tags)


def any_of(rng: np.random.Generator, options: tuple[T, ...]) -> T:
    return options[int(rng.integers(len(options)))]
