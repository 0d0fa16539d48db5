"""FAD of the tiers in `lofi verify --deep`: what it takes, and what it says of a good and of a bad tier."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.io import wavfile

from lofi_assets.cli.main import main
from lofi_assets.files.typed import plain
from lofi_assets.metrics.results import TierFidelity
from lofi_assets.release import deep_fad as fad_module
from lofi_assets.release.bundle_samples import FOLDER, Sample, Samples
from lofi_assets.release.deep_fad import ABOUT, compared_with_tolerance, fad_again
from lofi_assets.release.deep_verification import FadAgain, MeasuredAgain
from lofi_assets_tests.release.test_release_deep import parity

RATE, SECONDS = 48_000, 1.0
FIRST, SECOND = "lofi, rhodes, 74 bpm", "lofi, double bass, 82 bpm"
ENOUGH = FadAgain(16)
SAMPLES = Samples(
    tier="fp16",
    seconds=SECONDS,
    steps=2,
    guidance_scale=3.0,
    clips=(Sample("1.flac", FIRST, "", 3), Sample("2.flac", SECOND, "", 4)),
)


@dataclass
class Player:
    """Two tones whose levels go by prompt and seed, and noise: what a tier adds."""

    noise: float

    def generate(self, prompts: Sequence[str], *, seeds: Sequence[int], **_: Any) -> np.ndarray:
        random = np.random.default_rng(seeds[0])
        time = np.arange(RATE) / RATE
        low, high = random.uniform(0.2, 0.22, 2) * (1.0 if prompts[0] == FIRST else 3.0)
        tones = low * np.sin(2 * np.pi * 200 * time) + high * np.sin(2 * np.pi * 2000 * time)
        return np.asarray([np.stack([tones + self.noise * random.standard_normal(RATE)] * 2)], np.float32)


class Bands:
    """An encoder that hears the energy of four bands."""

    name, version, sample_rate, window_s, hop_s, dim = "bands", "1", RATE, 0.1, 0.1, 4
    normalized, weights_sha256, trained = False, "0" * 64, True

    def embed(self, audio: np.ndarray) -> np.ndarray:
        power = np.abs(np.fft.rfft(audio.mean(axis=0).reshape(10, -1))) ** 2
        bands = [np.log10(band.mean(axis=1) + 1e-3) for band in np.array_split(power, 4, axis=1)]
        return np.stack(bands, axis=1).astype(np.float32)


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Records alone; what plays is a stand-in, and clips are written without a codec."""
    folder = tmp_path / "bundle"
    (folder / FOLDER).mkdir(parents=True)
    rows = {name: replace(row, fad_encoder="bands", fad_increase=0.01) for name, row in parity().tiers.items()}
    replace(parity(), tiers=rows).write(folder)
    (folder / FOLDER / "samples.json").write_text(json.dumps(plain(SAMPLES)))
    monkeypatch.setattr("lofi_assets.metrics.encoders.load_embedder", lambda name, *, weights: Bands())
    monkeypatch.setattr(
        fad_module,
        "write_clip",
        lambda path, audio: wavfile.write(path, RATE, np.asarray(audio.T, dtype=np.float32)),
    )
    return folder


@dataclass
class Family:
    """A family whose runtimes play with the noise of their folder's name."""

    noise: dict[str, float]

    def runtime(self, folder: Path, *, cpu_profile: bool = True) -> Any:
        return Player(self.noise.get(folder.name, 0.0))


def rows(
    bundle: Path, asked: FadAgain | None = ENOUGH, *, baseline: bool = True, **noise: float
) -> dict[str, MeasuredAgain]:
    family: Any = Family({"fp32": 0.001, "int8": 0.001, "int4": 0.001, **noise})
    found = fad_again(
        bundle,
        family,
        baseline=bundle.parent / "fp32" if baseline else None,
        reason="" if baseline else "FP32's files are not released",
        asked=asked,
        scratch=bundle.parent / "scratch",
    )
    return {row.about: row for row in found}


def test_the_variants_that_a_gate_limits_are_measured() -> None:
    assert list(ABOUT.values()) == ["tiers.fad int8", "tiers.fad int8.cpu", "tiers.fad int4"]


def test_a_tier_like_fp32_is_within_the_tolerance_and_one_that_is_far_is_beyond(bundle: Path) -> None:
    found = rows(bundle, int4=0.5)
    assert {name: row.status for name, row in found.items()} == {
        "tiers.fad int8": "same",
        "tiers.fad int8.cpu": "same",
        "tiers.fad int4": "differs",
    }
    assert found["tiers.fad int8"].recorded == "+1.0 %, no bound"
    assert "FP32's 16 clips of the other prompts" in found["tiers.fad int8"].text
    assert "another reference than the record's (the validation tracks)" in found["tiers.fad int8"].text


def test_music_that_is_given_is_the_reference(bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "music"
    folder.mkdir()
    for seed in range(4):
        audio = Player(0.0).generate([SECOND], seeds=[900 + seed])[0]
        wavfile.write(folder / f"{seed}.wav", RATE, np.asarray(audio.T, dtype=np.float32))
    found = rows(bundle, FadAgain(16, folder))
    assert found["tiers.fad int8"].status == "same" and f"4 files of {folder}" in found["tiers.fad int8"].text
    empty = tmp_path / "empty"
    empty.mkdir()
    shutil.rmtree(tmp_path / "scratch")
    assert {row.status for row in rows(bundle, FadAgain(16, empty)).values()} == {"not measured"}


@pytest.mark.parametrize("pairs", [3, 15])
def test_too_few_pairs_give_no_bound_and_are_not_measured(bundle: Path, pairs: int) -> None:
    found = rows(bundle, FadAgain(pairs))
    assert {row.status for row in found.values()} == {"not measured"}
    assert "needs 16" in found["tiers.fad int8"].text


def test_what_nobody_asked_for_or_cannot_be_had_is_said(bundle: Path) -> None:
    assert all("--fad-pairs 16" in row.text for row in rows(bundle, None).values())
    assert all("not released" in row.text for row in rows(bundle, baseline=False).values())
    assert {row.status for row in (*rows(bundle, None).values(), *rows(bundle, baseline=False).values())} == {
        "not measured"
    }


@pytest.mark.parametrize(
    ("clips", "said"),
    [(SAMPLES.clips[:1], "carries one prompt"), ((), "names none")],
)
def test_a_release_without_two_prompts_has_no_reference_of_its_own(
    bundle: Path, clips: tuple[Sample, ...], said: str
) -> None:
    (bundle / FOLDER / "samples.json").write_text(json.dumps(plain(replace(SAMPLES, clips=clips))))
    assert all(row.status == "not measured" and said in row.text for row in rows(bundle).values())
    (bundle / FOLDER / "samples.json").unlink()
    assert all("carries no prompts" in row.text for row in rows(bundle).values())


def test_an_encoder_that_does_not_prove_itself_measures_nothing(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bands, "trained", False)
    assert all(row.status == "not measured" and "is untrained" in row.text for row in rows(bundle).values())


@pytest.mark.parametrize(
    ("names", "said"), [((None, None), "no encoder"), (("vggish", "musicnn"), "musicnn and vggish")]
)
def test_the_record_names_one_encoder(bundle: Path, names: tuple[str | None, str | None], said: str) -> None:
    told = parity()
    tiers = {name: replace(told.tiers[name], fad_encoder=names[n % 2]) for n, name in enumerate(told.tiers)}
    replace(told, tiers=tiers).write(bundle)
    assert all(row.status == "not measured" and said in row.text for row in rows(bundle).values())


def test_weights_that_were_not_given_are_asked_for(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    told = parity()
    tiers = {name: replace(row, fad_encoder="vggish") for name, row in told.tiers.items()}
    replace(told, tiers=tiers).write(bundle)
    assert all(row.status == "not measured" and "vggish" in row.text.casefold() for row in rows(bundle).values())


def test_a_tier_that_does_not_play_is_no_tier(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Family):
        def runtime(self, folder: Path, *, cpu_profile: bool = True) -> Any:
            if folder.name == "int4":
                raise ValueError("a graph that nobody can read")
            return super().runtime(folder, cpu_profile=cpu_profile)

    monkeypatch.setattr("lofi_assets_tests.release.test_release_deep_fad.Family", Broken)
    found = rows(bundle)
    assert found["tiers.fad int4"].status == "differs" and "nobody can read" in found["tiers.fad int4"].text
    assert found["tiers.fad int8"].status == "same"


@pytest.mark.parametrize(
    ("ratio", "upper", "status"),
    [
        (0.01, 0.04, "same"),
        (0.01, 0.06, "not measured"),
        (0.06, 0.08, "not measured"),
        (0.10, 0.13, "differs"),
        (0.01, None, "not measured"),
        (None, None, "not measured"),
        (0.01, float("inf"), "not measured"),
    ],
)
def test_only_what_lies_below_or_beyond_the_tolerance_as_a_whole_is_decided(
    ratio: float | None, upper: float | None, status: str
) -> None:
    found = TierFidelity(
        ratio=ratio, upper=upper, fad_fp32=1.0, fad_tier=1.0, fad_between=0.1, n_pairs=16,
        encoder="bands", encoder_version="1", trained=True, note="",
    )  # fmt: skip
    assert compared_with_tolerance("a", found, None, limit=0.05, of="music").status == status
    assert compared_with_tolerance("a", found, None, limit=None, of="music").status == "not measured"


def test_the_options_go_together(tmp_path: Path) -> None:
    for options in (["--fad-pairs", "16"], ["--base", str(tmp_path), "--reference", str(tmp_path)]):
        assert CliRunner().invoke(main, ["verify", str(tmp_path), "--deep", *options]).exit_code == 2
