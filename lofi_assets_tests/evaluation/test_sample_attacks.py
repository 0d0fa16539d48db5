"""What an attacker does to samples, and the verdict of every gate beside FAD: real music passes all, each attack fails.

The world is small and made by code: songs of the demo's catalogue. Training tracks are of one seed, validation tracks
and the real music that stands for samples of others, in other keys and tempi.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from lofi_assets.constitution.gates import judge, load_gates
from lofi_assets.evaluation import sample_gates
from lofi_assets.metrics.checked_samples import PromptedClip, check_samples
from lofi_assets.metrics.clip_measures import measure_clip
from lofi_assets.metrics.known_music import KnownMusic, known_music
from lofi_assets.metrics.musicnn import MusicnnEmbedder
from lofi_assets.metrics.sample_checks import COPY_FROM, SampleChecks
from lofi_assets.metrics.signal_range import artefacts, outside, range_of
from lofi_assets_tests.evaluation.attack_corpus import (
    RATE,
    Audio,
    Real,
    each,
    faster,
    gain,
    higher,
    looped,
    low_pass,
    muted,
    noise,
    songs,
    with_clicks,
    with_noise,
    written,
)
from lofi_assets_tests.metrics.stand_in_results import evaluation

SECONDS, TRACK_SECONDS = 16.0, 26.0
FRAMES = round(SECONDS * RATE)
SAMPLES = 6
GATES = ("copies", "artefacts", "nearness", "repeats", "diversity", "signal", "tempo")


@dataclass(frozen=True)
class World:
    """The real tracks as they were measured, and real music that none of them is."""

    root: Path
    known: KnownMusic
    embedder: MusicnnEmbedder
    training: tuple[Real, ...]
    validation: tuple[Real, ...]
    fresh: tuple[Real, ...]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("attacks")
    training = songs(14, seconds=TRACK_SECONDS, seed=0)
    validation = songs(SAMPLES, seconds=TRACK_SECONDS, seed=1, key=5, bpm=4)
    fresh = songs(SAMPLES, seconds=SECONDS, seed=2, key=2, bpm=2)
    embedder = MusicnnEmbedder()
    known = known_music(
        training=written(root / "training", [song.audio for song in training]),
        validation=written(root / "validation", [song.audio for song in validation]),
        prompts=[song.prompt for song in validation],
        embedder=embedder,
        cache_dir=root / "cache",
        seconds=SECONDS,
        progress=False,
    )
    return World(root, known, embedder, tuple(training), tuple(validation), tuple(fresh))


def checked(
    world: World, name: str, audio: Sequence[Audio], prompts: Sequence[str], *, mp3: bool = False
) -> SampleChecks:
    paths = written(world.root / "samples" / name.replace(" ", "_"), audio, mp3=mp3)
    clips = [PromptedClip(path=path, prompt=p, style_id="CORE-01") for path, p in zip(paths, prompts, strict=True)]
    return check_samples(clips, world.known, embedder=world.embedder, cache_dir=world.root / "cache", progress=False)


def verdicts(checks: SampleChecks) -> dict[str, str]:
    """Gate -> verdict, by the constitution's own rows."""
    found = evaluation()
    measured = sample_gates.values(type(found)(**{**vars(found), "checks": checks}), [])
    rows = {gate.id.removeprefix("quality."): gate for gate in load_gates() if gate.asset == "quality_metrics"}
    return {name: judge(rows[name], measured.get(rows[name].measure)).status for name in GATES}


Made = Callable[[World], Sequence[Audio]]


def fresh(change: Callable[[Sequence[Audio]], list[Audio]] = list) -> Made:
    """Real music that nobody trained on, and what is done to it."""
    return lambda world: change([song.audio for song in world.fresh])


def excerpts(split: str, change: Callable[[Sequence[Audio]], list[Audio]] = list, *, start: float = 5.3) -> Made:
    """Excerpts of the tracks of a split, and what is done to them."""

    def make(world: World) -> Sequence[Audio]:
        tracks: tuple[Real, ...] = getattr(world, split)[:SAMPLES]
        first = round(start * RATE)
        return change([np.ascontiguousarray(song.audio[:, first : first + FRAMES]) for song in tracks])

    return make


def one(change: Callable[[Audio, int], np.ndarray]) -> Made:
    """One clip for every prompt."""
    return lambda world: [np.asarray(change(world.fresh[1].audio, i), dtype=np.float32) for i in range(SAMPLES)]


def half_copied(world: World) -> Sequence[Audio]:
    """Eleven seconds of a training track, then music of its own."""
    cut = 11 * RATE
    pairs = zip(excerpts("training")(world), fresh()(world), strict=True)
    return [np.concatenate([copy[:, :cut], own[:, cut:]], axis=1) for copy, own in pairs]


ATTACKS: Mapping[str, tuple[Made, set[str]]] = {
    # of the issue
    "training tracks copied": (excerpts("training"), {"copies", "nearness"}),
    "validation tracks copied": (excerpts("validation"), {"copies"}),
    "one training clip every time": (
        lambda world: [excerpts("training")(world)[2]] * SAMPLES,
        {"copies", "repeats", "diversity"},
    ),
    "nothing above 8 kHz": (fresh(each(low_pass(8_000.0))), {"signal"}),
    "-45 dBFS": (fresh(each(gain(-44.0))), {"artefacts", "signal"}),
    "a dead channel": (fresh(each(lambda clip: clip * np.array([[1.0], [0.0]]))), {"artefacts", "signal"}),
    "reference a semitone off": (excerpts("validation", each(higher(1.0))), {"copies"}),
    "loops of 2 s": (fresh(each(looped(2.0))), {"signal"}),
    "an empty folder": (lambda world: [], set(GATES)),
    "white noise": (
        lambda world: [noise((2, FRAMES), seed=i) for i in range(SAMPLES)],
        {"artefacts", "signal", "tempo"},
    ),
    # more
    "training, quiet MP3": (excerpts("training", each(gain(-12.0))), {"copies", "nearness"}),
    "training 3 % faster": (excerpts("training", each(faster(1.03))), {"copies"}),
    "training a semitone up": (excerpts("training", each(higher(1.0))), {"copies"}),
    "training under noise": (excerpts("training", each(with_noise(6.0))), {"copies"}),
    "training for 11 of 16 s": (half_copied, {"copies"}),
    "one clip, other level": (one(lambda clip, i: clip * (1.0 - 0.1 * i)), {"repeats", "diversity"}),
    "one clip, shifted, noise": (
        one(lambda clip, i: np.roll(clip, 7_000 * i, axis=1) + noise((2, FRAMES), seed=i) * 0.02),
        {"repeats", "diversity"},
    ),
    "digital silence": (
        lambda world: [np.zeros((2, FRAMES), np.float32)] * SAMPLES,
        {"copies", "artefacts", "signal", "tempo", "repeats"},
    ),
    "pink noise": (
        lambda world: [noise((2, FRAMES), colour=1.0, seed=i) for i in range(SAMPLES)],
        {"artefacts", "signal"},
    ),
    "a bare tone": (
        lambda world: [
            np.tile(np.float32(0.3) * np.sin(np.arange(FRAMES) * np.float32(0.04 + 0.004 * i)), (2, 1)).astype(
                np.float32
            )
            for i in range(SAMPLES)
        ],
        {"artefacts", "signal", "tempo"},
    ),
    "hard clipping": (fresh(each(lambda clip: 0.89 * np.clip(4.0 * clip, -1.0, 1.0))), {"artefacts", "signal"}),
    "clicks": (fresh(each(with_clicks(0.6))), {"artefacts", "signal"}),
    "half of it muted": (fresh(each(muted(0.5, 1.0))), {"artefacts", "signal"}),
    "opposite phase": (fresh(each(lambda clip: clip * np.array([[1.0], [-1.0]]))), {"artefacts", "signal"}),
    "an offset": (fresh(each(lambda clip: 0.8 * clip + 0.1)), {"artefacts", "signal"}),
    "each clip for another prompt": (
        lambda world: [song.audio for song in (*world.fresh[2:], *world.fresh[:2])],
        {"tempo"},
    ),
}
"""Attack -> how it is made, and the gates that must not pass; others may."""


@pytest.mark.slow
def test_real_music_passes_every_gate(world: World) -> None:
    checks = checked(world, "real", fresh()(world), [song.prompt for song in world.fresh], mp3=True)
    assert verdicts(checks) == dict.fromkeys(GATES, "pass"), checks
    assert checks.adherence.tempo.right == checks.adherence.real_tempo.right == SAMPLES
    assert checks.copies.validation is not None and checks.copies.validation < COPY_FROM


@pytest.mark.slow
@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_does_not_pass(world: World, name: str) -> None:
    make, stopped_by = ATTACKS[name]
    audio = make(world)
    prompts = [song.prompt for song in world.fresh][: len(audio)]
    checks = checked(world, name, audio, prompts, mp3="MP3" in name)
    found = verdicts(checks)
    print(f"{name:30s}", " ".join(f"{gate} {found[gate]}" for gate in GATES))
    assert {gate for gate in stopped_by if found[gate] == "pass"} == set(), (found, checks)


@pytest.mark.slow
def test_every_real_track_lies_within_the_range_of_the_others_and_has_no_artefact() -> None:
    """The calibration of margins and limits, over the whole catalogue and two seeds."""
    real = [
        *songs(24, seconds=SECONDS, seed=0, beat=False),
        *songs(24, seconds=SECONDS, seed=3, key=2, bpm=2, beat=False),
    ]
    panels = {song.name: panel for song in real if (panel := measure_clip(song.audio).panel)}
    assert len(panels) == len(real) == 48
    for name, panel in panels.items():
        others = range_of([other for other_name, other in panels.items() if other_name != name])
        assert (outside(panel, others), artefacts(panel, others)) == ((), ()), name
