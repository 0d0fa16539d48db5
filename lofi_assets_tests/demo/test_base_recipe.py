"""The recipe of the small base: stages that survive a kill bit for bit, latents at unit scale, a folder that loads."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from torch import nn

from lofi_assets.backbones.ace_step_v1.loading import load_base
from lofi_assets.backbones.ace_step_v1.mel import LogMel
from lofi_assets.backbones.ace_step_v1.music_dcae import MusicDCAE
from lofi_assets.backbones.ace_step_v1.sampler import text_to_music
from lofi_assets.cli.main import main
from lofi_assets.demo.base_recipe import architecture
from lofi_assets.demo.base_recipe.codec import fold_latent_scale, marked, sharpened
from lofi_assets.demo.base_recipe.music import crop_from_bar, latent_statistics
from lofi_assets.demo.base_recipe.optimizer import Fixed
from lofi_assets.demo.base_recipe.plan import plan, planned_recipe
from lofi_assets.demo.base_recipe.recipe import RecipeRun, assemble, train_stage, write_music
from lofi_assets.demo.base_recipe.settings import FULL, MARKS, SMOKE, STAGES, EdgesSettings, Recipe, StageName
from lofi_assets.demo.base_recipe.spectra import SpectralLoss
from lofi_assets.demo.base_recipe.stage import Stage, Task, losses_of, run_stage
from lofi_assets.files.writing import StoreError
from lofi_assets.profiles import BaseModelSettings, ProfileError
from lofi_assets.store import CONFIG_DIR, Store
from lofi_assets.styles.taxonomy import Taxonomy, load_taxonomy
from lofi_assets.training.base_model import resolve_base

LARGEST_BASE = 25_000_000
TINY_STEPS = dict.fromkeys(STAGES, 6)


@pytest.fixture(scope="module")
def taxonomy() -> Taxonomy:
    return load_taxonomy(CONFIG_DIR)


def tiny_recipe() -> Recipe:
    """The smoke preset with six steps a stage on four short clips."""
    recipe = SMOKE.with_steps(TINY_STEPS)
    training = {name: replace(stage, save_every=2, warmup=1) for name, stage in recipe.training.items()}
    corpus = replace(recipe.corpus, clips=3, worn=1, seconds=6.5)
    return replace(
        recipe,
        corpus=corpus,
        steady=replace(recipe.steady, clips=3),
        beats=replace(recipe.beats, clips=3, crops=(32, 64), frames_per_step=128),
        training=training,
        transformer=replace(recipe.transformer, crops=(32, 64)),
    )


def hear_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oscillators read off a tenth of the music, and a scale found on as much as the three clips last: with as many
    crops as hours of music take, these are most of the time of a tiny recipe."""
    monkeypatch.setattr("lofi_assets.demo.base_recipe.codec.START_CROPS", 10)
    monkeypatch.setattr("lofi_assets.demo.base_recipe.codec.CALIBRATION_CROPS", 12)


@pytest.fixture
def fewer_crops(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `recipe_run` was made."""
    hear_less(monkeypatch)


@pytest.fixture(scope="module")
def recipe_run(tmp_path_factory: pytest.TempPathFactory, taxonomy: Taxonomy) -> RecipeRun:
    """A finished tiny recipe, made with `fewer_crops`."""
    made = RecipeRun(tmp_path_factory.mktemp("base"), tiny_recipe(), taxonomy)
    with pytest.MonkeyPatch.context() as monkeypatch:
        hear_less(monkeypatch)
        write_music(made)
        train(made)
        assemble(made)
    return made


def train(recipe_run: RecipeRun) -> None:
    for name in STAGES:
        train_stage(recipe_run, name)


def test_the_full_presets_base_is_at_most_25_mb_with_its_tokenizer(tmp_path: Path, taxonomy: Taxonomy) -> None:
    text_ids, lyric_ids = architecture.write_tokenizers(tmp_path, taxonomy)
    files = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert architecture.shipped_bytes(FULL, text_ids=text_ids, lyric_ids=lyric_ids) + files < LARGEST_BASE


def test_every_word_that_a_prompt_may_hold_is_one_token(tmp_path: Path, taxonomy: Taxonomy) -> None:
    architecture.write_tokenizers(tmp_path, taxonomy)
    tokenizer = architecture.read_tokenizer(tmp_path)
    prompt = "lofi hip hop, melancholic, rhodes, 84 bpm, vinyl crackle, rainy window, instrumental"
    words = prompt.replace(",", " ,").split()
    assert len(tokenizer(prompt)["input_ids"]) == len(words) + 1
    assert tokenizer.unk_token_id not in tokenizer("Zürich")["input_ids"][:1]


def test_the_folded_codec_decodes_as_before_with_latents_at_unit_scale() -> None:
    torch.manual_seed(3)
    codec = MusicDCAE(architecture.build_dcae(SMOKE.dcae), architecture.build_vocoder(SMOKE.vocoder)).eval()
    images = torch.rand(2, 2, 128, 256) * 2 - 1
    with torch.no_grad():
        before = codec.dcae.decoder(codec.dcae.encoder(images))
        fold_latent_scale(codec, images)
        encoded = codec.dcae.encoder(images)
        after = codec.dcae.decoder(encoded)
    latents = (encoded - codec.shift_factor) * codec.scale_factor
    spread, centre = torch.std_mean(latents, dim=(0, 2, 3))
    assert torch.allclose(spread, torch.ones(8), atol=1e-4) and torch.allclose(centre, torch.zeros(8), atol=1e-4)
    # at the edges padding means another value; seven latents inside them nothing has changed
    assert torch.allclose(before[..., 56:72, 56:200], after[..., 56:72, 56:200], atol=1e-3)


def test_the_marks_tell_eight_frames_apart_and_leave_the_other_bands_alone() -> None:
    images = torch.rand(1, 2, 128, 20)
    told = marked(images, 0.8)
    assert torch.equal(told[..., :-MARKS, :], images[..., :-MARKS, :])
    marks = told[0, 1, -MARKS:]
    assert torch.equal(marks.argmax(dim=0), torch.arange(20) % MARKS)
    assert torch.equal(marks.unique(), torch.tensor([-0.8, 0.8]))


def test_sharpening_raises_what_stands_out_in_time_lowers_all_and_leaves_the_marks_alone() -> None:
    mels = torch.full((1, 128, 20), -3.0)
    mels[..., 10] = 1.0
    told = sharpened(mels, EdgesSettings(frames=5, strength=0.5, level=-0.2))
    expected = torch.full((20,), -3.0 - 0.2)
    expected[8:13] = -3.0 - 0.5 * 4 / 5 - 0.2
    expected[10] = 1.0 + 0.5 * (4 - 4 / 5) - 0.2
    assert torch.allclose(told[0, :-MARKS], expected.expand(128 - MARKS, -1), atol=1e-5)
    assert torch.equal(told[0, -MARKS:], mels[0, -MARKS:])


def test_the_spectral_loss_hears_a_bass_that_is_out_of_tune_and_not_what_is_fainter_than_hearing() -> None:
    loss = SpectralLoss(mel=LogMel(), mel_weight=1.0, low_weight=1.0)
    seconds = torch.arange(22_528) / 44_100

    def tone(hertz: float, *, level: float = 0.3, phase: float = 0.0) -> torch.Tensor:
        return level * torch.sin(2 * torch.pi * hertz * seconds + phase)[None]

    with torch.no_grad():
        later, shifted = loss(tone(110), tone(110, phase=1)), loss(tone(110), tone(129.2))
        silent = loss(tone(440, level=1e-5), torch.zeros(1, 22_528))
        chord = tone(60) + tone(2000)
        weak_bass, weak_treble = loss(0.5 * tone(60) + tone(2000), chord), loss(tone(60) + 0.5 * tone(2000), chord)
    assert shifted["convergence"] > 4 * later["convergence"] and shifted["bands"] > 4 * later["bands"]
    assert silent["bands"] < 0.01 < shifted["bands"]
    assert weak_bass["lows"] > 5 * weak_treble["lows"]


def test_trained_latents_have_about_unit_scale_under_the_published_shift_and_scale(recipe_run: RecipeRun) -> None:
    codec = recipe_run.codec()
    assert (codec.shift_factor, codec.scale_factor) == (-1.9091, 0.1786)
    found = latent_statistics(recipe_run.latents(recipe_run.heard))
    assert abs(found["mean"]) < 0.2 and 0.8 < found["std"] < 1.25


@pytest.mark.parametrize(("place", "start"), [(0.0, 0), (0.3, 24), (0.999, 72)])
def test_a_crop_begins_with_a_bar(place: float, start: int) -> None:
    latents = torch.arange(140.0).expand(8, 16, 140)
    assert torch.equal(crop_from_bar(latents, frames=56, place=place, bar=24), latents[..., start : start + 56])
    assert torch.equal(crop_from_bar(latents, frames=140, place=place, bar=24), latents)


def test_the_folder_loads_and_samples_like_any_base(recipe_run: RecipeRun) -> None:
    base = load_base(recipe_run.base)
    assert base.transformer is not None and base.transformer.dtype == torch.float32
    assert base.transformer.config.rope_theta == recipe_run.recipe.beats.rope_theta
    stored = load_file(next((recipe_run.base / "ace_step_transformer").glob("*.safetensors")))
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    audio = text_to_music(
        base, prompts=["lofi, rhodes, 80 bpm"], lyrics=["[Instrumental]"], seconds=1.5, seeds=[1], steps=3
    )
    assert audio.shape == (1, 2, 72_000) and np.isfinite(audio).all()


@pytest.mark.usefixtures("fewer_crops")
def test_a_stage_killed_between_two_states_ends_in_the_same_bits(recipe_run: RecipeRun, tmp_path: Path) -> None:
    """The kill comes after step 5; the last state is of step 4."""

    class Killed(Exception):
        pass

    for name in STAGES:
        stage = recipe_run.stage(name)
        interrupted = Stage(name, tmp_path / name, stage.training, stage.run_id)
        for first in (True, False):
            task = fresh_task(recipe_run, name)
            if first:
                with pytest.raises(Killed):
                    run_stage(interrupted, killed_after(task, 5, Killed))
            else:
                run_stage(interrupted, task)
        whole, resumed = load_file(stage.weights), load_file(interrupted.weights)
        assert whole.keys() == resumed.keys()
        assert all(torch.equal(tensor, resumed[key]) for key, tensor in whole.items()), name
        assert list(losses_of(stage)) == list(losses_of(interrupted))


def fresh_task(recipe_run: RecipeRun, name: StageName) -> Task:
    """A stage's task as its first call saw it: with nothing finished from that stage on."""
    hidden = [recipe_run.stage(later).weights for later in STAGES[STAGES.index(name) :]]
    for weights in hidden:
        weights.rename(weights.with_suffix(".away"))
    try:
        return recipe_run.task(name)
    finally:
        for weights in hidden:
            weights.with_suffix(".away").rename(weights)


class killed_after:
    """A task whose process dies in the middle of a step."""

    def __init__(self, task: Task, step: int, kill: type[Exception]) -> None:
        self.task, self.step, self.kill = task, step, kill

    def groups(self) -> Mapping[str, Mapping[str, nn.Parameter]]:
        return self.task.groups()

    @property
    def fixed(self) -> Fixed:
        return self.task.fixed

    def backward(self, step: int) -> dict[str, float]:
        if step > self.step:
            raise self.kill
        return self.task.backward(step)


def test_a_finished_recipe_trains_nothing_again(recipe_run: RecipeRun) -> None:
    weights = [recipe_run.stage(name).weights for name in STAGES]
    before = {path: path.stat().st_mtime_ns for path in weights}
    train(recipe_run)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_another_recipe_never_overwrites_hours_of_training(recipe_run: RecipeRun) -> None:
    other = RecipeRun(recipe_run.folder, replace(recipe_run.recipe, seed=6), recipe_run.taxonomy)
    with pytest.raises(StoreError, match="another recipe"):
        train(other)


@pytest.mark.usefixtures("fewer_crops")
def test_the_plan_says_steps_and_hours_and_stays(tmp_path: Path, taxonomy: Taxonomy) -> None:
    made = RecipeRun(tmp_path, tiny_recipe(), taxonomy)
    write_music(made)
    stages = plan(made, minutes={"dcae": 0.01})
    assert [stage.name for stage in stages] == list(STAGES)
    assert stages[1].steps == 6 and stages[0].steps == max(1, round(0.6 / stages[0].seconds_per_step))
    assert plan(made, minutes={"dcae": 99.0}) == stages
    assert planned_recipe(made, stages).recipe.training["dcae"].steps == stages[0].steps


@pytest.mark.parametrize(
    ("stage", "first"),
    [
        ("beats", "bars"),
        ("bars", "transformer"),
        ("transformer", "steady"),
        ("steady", "dcae"),
        ("clock", "dcae"),
        ("vocoder", "clock"),
        ("edges", "vocoder"),
    ],
)
def test_a_stage_waits_for_the_one_that_it_listens_to(
    tmp_path: Path, taxonomy: Taxonomy, stage: StageName, first: str
) -> None:
    with pytest.raises(StoreError, match=f"train {first} first"):
        train_stage(RecipeRun(tmp_path, tiny_recipe(), taxonomy), stage)


def test_an_unfinished_recipe_is_not_assembled(tmp_path: Path, taxonomy: Taxonomy) -> None:
    made = RecipeRun(tmp_path, tiny_recipe(), taxonomy)
    with pytest.raises(StoreError, match="not finished"):
        assemble(made)


def test_a_profile_that_asks_for_the_shipped_base_gets_it_or_an_explanation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lofi_assets.training.base_model.SHIPPED_BASE", tmp_path / "weights")
    settings = BaseModelSettings(kind="shipped")
    with pytest.raises(ProfileError, match="ships no base"):
        resolve_base(Store(tmp_path), settings)
    (tmp_path / "weights").mkdir()
    assert resolve_base(Store(tmp_path), settings) == tmp_path / "weights"


@pytest.mark.slow
def test_the_smoke_preset_runs_to_its_report(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["train-base", str(tmp_path), "--preset", "smoke"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "base" / "report.json").read_text())
    assert report["fad"]["to lofi"]["white noise"] > report["fad"]["to lofi"]["floor"]
    assert report["nearest"]["copies"] == 0
    assert set(report["tempo"]) == {"slow", "fast"}
    assert {path.name for path in (tmp_path / "base").glob("*.png")} == {
        "spectrograms.png",
        *(f"loss_{name}.png" for name in STAGES),
    }
    assert "Apache-2.0" in (tmp_path / "base" / "README.md").read_text()
