"""Checkpoint and tier evaluation on real audio: order, determinism, and the ways in which nothing may pass."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from scipy.io import wavfile

from lofi_assets.audio.arrays import FloatArray
from lofi_assets.files.typed import plain
from lofi_assets.metrics.embedding import embed_files
from lofi_assets.metrics.errors import MetricError
from lofi_assets.metrics.frechet import frechet_distance
from lofi_assets.metrics.known_music import known_music
from lofi_assets.metrics.musicnn import MusicnnEmbedder
from lofi_assets.metrics.results import Evaluation, StyleFound, TierFidelity
from lofi_assets.metrics.sample_quality import GeneratedSample, ReferenceTrack, evaluate_checkpoint, reference_sha256
from lofi_assets.metrics.tier_fidelity import evaluate_tier

RATE = 22050
SECONDS = 4.0
World = tuple[Path, list[ReferenceTrack], list[GeneratedSample], MusicnnEmbedder]
Item = TypeVar("Item", ReferenceTrack, GeneratedSample)
STYLES = {"CORE-01": "jazz, piano", "CORE-02": "ambient, synth"}


def music(seed: int, style: str) -> np.ndarray:
    """A chord loop with a beat, different for every seed; the second style is a pad without one."""
    r = np.random.default_rng(seed)
    t = np.arange(round(SECONDS * RATE)) / RATE
    root = 110.0 * 2 ** (r.integers(12) / 12)
    beat = (t * r.uniform(1.2, 1.6)) % 1.0
    decay = np.exp(-4.0 * beat) if style == "CORE-01" else 0.6 + 0.4 * np.sin(2 * np.pi * 0.2 * t)
    chord = sum(np.sin(2 * np.pi * root * ratio * t + r.uniform(0, 6)) / ratio for ratio in (1, 1.2, 1.5, 2, 3))
    drums = (style == "CORE-01") * np.exp(-30 * beat) * r.normal(size=t.size)
    return (0.12 * decay * chord + 0.1 * drums + 0.002 * r.normal(size=t.size)).astype(np.float32)


def written(path: Path, audio: FloatArray, rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    wavfile.write(path, rate, np.asarray(audio, dtype=np.float32))  # of libsndfile, floats carry the time of writing
    return path


def sample_at(path: Path, style: str, seed: int) -> GeneratedSample:
    return GeneratedSample(path=path, prompt=STYLES[style], style_id=style, seed=seed, seconds=SECONDS)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Reference tracks, samples of two styles, the real encoder and one cache for all tests."""
    root = tmp_path_factory.mktemp("world")
    reference = [
        ReferenceTrack(path=written(root / "ref" / f"{style}-{i}.wav", music(i, style)), prompt=p, style_ids=[style])
        for style, p in STYLES.items()
        for i in range(4)
    ]
    samples = [
        sample_at(written(root / "gen" / f"{style}-{i}.wav", music(50 + i, style)), style, i)
        for style in STYLES
        for i in range(3)
    ]
    return root, reference, samples, MusicnnEmbedder()


def evaluated(
    world: World,
    *,
    samples: Sequence[GeneratedSample] | None = None,
    reference: Sequence[ReferenceTrack] | None = None,
    embedder: MusicnnEmbedder | None = None,
    **options: Any,
) -> Evaluation:
    root, known, made, musicnn = world
    return evaluate_checkpoint(
        checkpoint_id="epoch=0-step=10_lora",
        samples=made if samples is None else samples,
        reference=known if reference is None else reference,
        embedder=embedder or musicnn,
        cache_dir=root / "cache",
        seed=0,
        n_resamples=50,
        progress=False,
        **options,
    )


def test_an_evaluation_carries_everything_that_its_numbers_depend_on(world: World) -> None:
    result = evaluated(world)
    fad = result.fad
    assert fad.value > 0 and fad.floor > 0 and fad.over_floor == fad.value / fad.floor and not fad.note
    assert fad.interval[0] < fad.value < fad.interval[1]
    assert (fad.n_clips, fad.n_windows, fad.n_reference_clips, fad.n_reference_windows) == (6, 12, 8, 16)
    assert not fad.enough_windows and fad.infinity is None and "32 clips" in fad.infinity_note
    assert fad.kad_interval[0] < fad.kad < fad.kad_interval[1] and fad.kad_floor > 0
    assert fad.by_clip == {} and fad.real_by_clip is None, "two windows are too few for a clip by itself"
    assert result.proof and result.proof.trained and result.clap_proof is None
    assert (result.encoder, result.trained) == ("musicnn", True) and "lufs-23" in result.encoder_version
    assert result.reference_sha256 == reference_sha256([track.path for track in reversed(world[1])])
    assert result.clap is None and "no CLAP checkpoint" in result.clap_note
    assert result.tag_alignment.auc is not None
    assert result.style_coverage.styles == {
        "CORE-01": StyleFound(generated=True, recognizable=False),
        "CORE-02": StyleFound(generated=True, recognizable=False),
    }, "three samples of two styles cannot beat chance one half"
    assert result.style_coverage.top1 == 1.0 and not result.problems
    json.dumps(plain(result), allow_nan=False)


def test_evaluation_is_deterministic_and_blind_to_listing_order(world: World) -> None:
    first = evaluated(world)
    again = evaluated(world, samples=world[2][::-1], reference=world[1][::-1])
    assert again == first


def test_a_tagger_that_is_not_what_it_was_judges_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from lofi_assets.metrics.musicnn import MusicnnTagger

    monkeypatch.setattr(MusicnnTagger, "trained", False)
    with pytest.raises(MetricError, match="musicnn_tags is untrained"):
        evaluated(world)


def test_an_untrained_encoder_has_no_distance(world: World) -> None:
    class Untrained(MusicnnEmbedder):
        trained = False

    fad = evaluated(world, embedder=Untrained()).fad
    assert (fad.value, fad.interval, fad.floor, fad.over_floor, fad.kad, fad.kad_interval) == (None,) * 6
    assert fad.by_clip == {} and fad.infinity is None and "untrained" in fad.note and fad.n_clips == 6


def test_no_samples_one_sample_or_a_broken_one_is_none_with_a_reason(world: World, tmp_path: Path) -> None:
    empty = evaluated(world, samples=[])
    assert empty.fad.value is None and "no samples" in empty.fad.note and empty.tag_alignment.auc is None
    lone = evaluated(world, samples=world[2][:1]).fad
    assert lone.value is not None and lone.interval is None and "interval" in lone.note
    nan = written(tmp_path / "nan.wav", np.full(RATE * 4, np.nan, dtype=np.float32))
    for path, reason in ((nan, "NaN"), (tmp_path / "absent.wav", "absent.wav")):
        result = evaluated(world, samples=[*world[2], sample_at(path, "CORE-01", 9)])
        assert result.fad.value is None and reason in result.fad.note
        assert result.tag_alignment.auc is None and path.name in result.problems
        assert not result.style_coverage.styles["CORE-01"].generated


def test_silence_is_measured_against_the_model_and_marked(world: World, tmp_path: Path) -> None:
    silent = sample_at(written(tmp_path / "silent.wav", np.zeros(round(SECONDS * RATE), np.float32)), "CORE-02", 9)
    result = evaluated(world, samples=[*world[2], silent])
    assert result.fad.value > evaluated(world).fad.value
    assert not result.style_coverage.styles["CORE-02"].generated and "silent" in result.problems["silent.wav"][0]


def test_an_empty_folder_and_white_noise_cover_no_style(world: World, tmp_path: Path) -> None:
    asked = ["CORE-01", "CORE-02", "CORE-02"]
    empty = evaluated(world, samples=[], asked=asked).style_coverage.styles
    assert {name: style.generated for name, style in empty.items()} == {"CORE-01": False, "CORE-02": False}
    noise = np.random.default_rng(0).normal(size=round(SECONDS * RATE)).astype(np.float32) * 0.1
    noisy = [sample_at(written(tmp_path / f"{i}.wav", np.roll(noise, i)), style, i) for i, style in enumerate(asked)]
    result = evaluated(world, samples=noisy, asked=asked)
    assert not any(style.generated for style in result.style_coverage.styles.values())
    assert all("noise" in problems[0] for problems in result.problems.values()) and len(result.problems) == 3
    partly = evaluated(world, asked=["CORE-01"] * 4 + ["CORE-02"] * 3).style_coverage.styles
    assert (partly["CORE-01"].generated, partly["CORE-02"].generated) == (False, True), "three of four are there"


def test_samples_are_checked_against_known_music(world: World, tmp_path: Path) -> None:
    root, reference, made, musicnn = world
    known = known_music(
        training=[track.path for track in reference[:4]],
        validation=[track.path for track in reference[4:]],
        prompts=[track.prompt for track in reference[4:]],
        embedder=musicnn,
        cache_dir=root / "cache",
        seconds=SECONDS,
        progress=False,
    )
    checks = evaluated(world, known=known).checks
    assert len(checks.clips) == len(made) and checks.signal.n_real == 8
    assert all(clip.tag_auc is not None and 0.0 <= clip.tag_auc <= 1.0 for clip in checks.clips)
    assert checks.copies.similarity is None and "too short" in checks.copies.note, "clips of 4 s"
    assert checks.diversity.over_reference > 0 and checks.copies.distance > 0
    assert evaluated(world, samples=made[::-1], known=known).checks == checks
    assert evaluated(world).checks is None
    nothing = evaluated(world, samples=[], known=known).checks
    assert (nothing.copies.similarity, nothing.signal.clips_with_artefacts, nothing.diversity.spread) == (None,) * 3

    class Untrained(MusicnnEmbedder):
        trained = False

    blind = evaluated(world, known=known, embedder=Untrained()).checks
    assert (
        blind.copies.nearness_p is None
        and blind.diversity.over_reference is None
        and "untrained" in blind.diversity.note
    )


def test_a_copy_is_not_a_second_sample(world: World, tmp_path: Path) -> None:
    copied = replace(world[2][0], path=written(tmp_path / "zz-copy.wav", music(50, "CORE-01")), seed=99)
    problems = evaluated(world, samples=[*world[2], copied]).problems
    assert list(problems) == [copied.path.name] or list(problems) == [world[2][0].path.name]
    assert "same audio as" in next(iter(problems.values()))[0]


def test_a_reference_that_is_empty_or_unreadable_is_an_error(world: World, tmp_path: Path) -> None:
    with pytest.raises(MetricError, match="no tracks"):
        evaluated(world, reference=[])
    missing = ReferenceTrack(path=tmp_path / "gone.wav", prompt="jazz", style_ids=["CORE-01"])
    with pytest.raises(MetricError, match=r"gone\.wav"):
        evaluated(world, reference=[*world[1], missing])


class FakeClap:
    """An encoder whose audio and text agree by construction.

    A text is its style and a little of its words, audio is its style and a little of the clip.
    """

    name, version, sample_rate, window_s, hop_s, dim = "laion_clap", "fake", 48000, 10.0, 10.0, 16
    normalized, weights_sha256 = False, "f" * 64

    def __init__(self, *, trained: bool) -> None:
        self.trained = trained

    def embed_text(self, texts: Sequence[str]) -> FloatArray:
        return np.stack([self._of(text.rpartition(",")[0]) + 0.1 * self._of(text) for text in texts])

    def embed(self, audio: FloatArray) -> FloatArray:
        mono = audio.mean(axis=0)
        beat = np.abs(mono).max() / np.abs(mono).mean() > 6
        own = np.random.default_rng(int(abs(mono[:1000].sum()) * 1e6)).normal(size=16)
        return (self._of(STYLES["CORE-01" if beat else "CORE-02"]) + 0.1 * own).astype(np.float32)[None]

    @staticmethod
    def _of(text: str) -> FloatArray:
        row = np.random.default_rng(sum(map(ord, text))).normal(size=16)
        return row / np.linalg.norm(row)


def numbered(items: Sequence[Item]) -> list[Item]:
    """The same, each with a prompt of its own."""
    return [replace(item, prompt=f"{item.prompt}, {index}") for index, item in enumerate(items)]


def test_clap_is_relative_and_an_untrained_clap_gives_none(world: World, tmp_path: Path) -> None:
    more = [sample_at(written(tmp_path / f"{style}.wav", music(70, style)), style, 9) for style in STYLES]
    items: dict[str, Any] = {"samples": numbered([*world[2], *more]), "reference": numbered(world[1])}
    aligned = evaluated(world, clap=FakeClap(trained=True), **items)
    assert aligned.clap.value == pytest.approx(1.0, abs=0.1) and 0.0 < aligned.clap.lower <= aligned.clap.value
    assert aligned.clap.raw_cosine < 1.0 and "ffff" in aligned.clap_note
    assert aligned.clap.recall == 1.0 and aligned.clap.recall_chance < 0.5 and aligned.clap.n_prompts == 8
    few = evaluated(world, clap=FakeClap(trained=True)).clap
    assert few.value is not None and few.lower is None and "2 different prompts" in few.note
    untrained = evaluated(world, clap=FakeClap(trained=False), **items)
    assert untrained.clap is None and "untrained" in untrained.clap_note


class Bands:
    """Levels of eight bands a quarter of a second: quick, and it hears coarse audio."""

    name, version, sample_rate, window_s, hop_s, dim = "bands", "1", RATE, 0.25, 0.25, 8
    normalized, trained, weights_sha256 = False, True, "b" * 64

    def embed(self, audio: FloatArray) -> FloatArray:
        mono = audio.mean(axis=0)
        frames = mono[: len(mono) // 5512 * 5512].reshape(-1, 5512)
        spectra = np.abs(np.fft.rfft(frames, axis=1))[:, 8:]
        bands = np.array_split(spectra, np.geomspace(8, spectra.shape[1], 9).astype(int)[1:-1], axis=1)
        return np.log10(1e-6 + np.stack([band.mean(axis=1) for band in bands], axis=1)).astype(np.float32)


@pytest.fixture(scope="module")
def sixteen(world: World) -> list[GeneratedSample]:
    """As many FP32 samples as a bound needs."""
    root = world[0]
    return [
        sample_at(written(root / "fp32" / f"{style}-{i}.wav", music(100 + i, style)), style, i)
        for style in STYLES
        for i in range(8)
    ]


def tier_of(
    samples: Sequence[GeneratedSample], tmp_path: Path, damage: Callable[[FloatArray], FloatArray]
) -> list[GeneratedSample]:
    made = []
    for sample in samples:
        audio, rate = soundfile.read(sample.path, dtype="float32")
        made.append(replace(sample, path=written(tmp_path / sample.path.name, damage(audio), rate)))
    return made


def tier_fidelity(
    world: World, fp32: Sequence[GeneratedSample], tier: Sequence[GeneratedSample], **options: Any
) -> TierFidelity:
    root, reference, *_ = world
    return evaluate_tier(
        fp32=fp32,
        tier=tier,
        reference=reference,
        cache_dir=root / "cache",
        progress=False,
        **{"embedder": Bands(), **options},
    )


def test_a_tier_is_paired_with_fp32_and_damage_shows(
    world: World, sixteen: list[GeneratedSample], tmp_path: Path
) -> None:
    same = tier_fidelity(world, sixteen, tier_of(sixteen, tmp_path / "same", lambda a: a))
    assert same.ratio == pytest.approx(0, abs=1e-9) and same.upper == pytest.approx(0, abs=1e-6)
    assert same.fad_between == pytest.approx(0, abs=1e-6) and same.n_pairs == 16 and not same.note
    coarse = tier_fidelity(
        world, sixteen, tier_of(sixteen, tmp_path / "coarse", lambda a: np.round(a * 8) / np.float32(8))
    )
    assert coarse.fad_between > 0.1 and coarse.upper > 0.15 and coarse.fad_tier > coarse.fad_fp32
    assert coarse.upper >= coarse.ratio


def test_fewer_than_sixteen_pairs_have_a_ratio_and_no_bound(
    world: World, sixteen: list[GeneratedSample], tmp_path: Path
) -> None:
    tier = tier_of(sixteen[:15], tmp_path, lambda a: a)
    few = tier_fidelity(world, sixteen[:15], tier)
    assert few.ratio == pytest.approx(0, abs=1e-9) and few.fad_between is not None
    assert few.upper is None and few.note == "inconclusive: 15 pairs, needs 16"


def test_a_tier_without_pairs_or_without_a_trained_encoder_has_no_ratio(
    world: World, sixteen: list[GeneratedSample], tmp_path: Path
) -> None:
    tier = tier_of(sixteen, tmp_path, lambda a: a)
    for result in (
        tier_fidelity(world, sixteen, tier[:-1]),
        tier_fidelity(world, sixteen, [replace(tier[0], seed=77), *tier[1:]]),
        tier_fidelity(world, sixteen, [*tier[:-1], replace(tier[0])]),
        tier_fidelity(world, sixteen, []),
    ):
        assert result.ratio is None and result.upper is None and result.note

    class Untrained(Bands):
        trained = False

    assert tier_fidelity(world, sixteen, tier, embedder=Untrained()).upper is None


DEGRADATIONS: dict[str, Callable[[FloatArray, np.random.Generator], NDArray[np.floating]]] = {
    "12 bit": lambda a, r: np.round(a * 2048) / 2048,
    "noise 40 dB": lambda a, r: a + 0.01 * a.std() * r.normal(size=a.size),
    "noise 20 dB": lambda a, r: a + 0.1 * a.std() * r.normal(size=a.size),
    "noise 0 dB": lambda a, r: a + a.std() * r.normal(size=a.size),
    "only noise": lambda a, r: r.normal(size=a.size) * a.std(),
}


@pytest.mark.slow
def test_distance_grows_with_every_step_of_degradation(world: World, tmp_path: Path) -> None:
    root, reference, _, musicnn = world
    clean = embed_files([t.path for t in reference], musicnn, root / "cache", progress=False)
    target = np.concatenate([*clean.values()])
    distances = []
    for name, damage in DEGRADATIONS.items():
        paths = []
        for index, track in enumerate(reference):
            audio = soundfile.read(track.path, dtype="float32")[0]
            damaged = damage(audio, np.random.default_rng(index)).astype(np.float32)
            paths.append(written(tmp_path / name / track.path.name, damaged))
        found = embed_files(paths, musicnn, root / "cache", progress=False)
        distances.append(frechet_distance(np.concatenate([*found.values()]), target))
    assert distances == sorted(distances), dict(zip(DEGRADATIONS, distances, strict=True))
    assert distances[-1] > 20 * distances[0]
