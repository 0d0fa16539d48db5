"""The clips that the card plays: made by the bundle, in each repository, named by the card as the Hub reads it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from lofi_assets.backbones.ace_step_v1.backbone import ACE_STEP_V1
from lofi_assets.profiles import SamplingSettings
from lofi_assets.release import bundle_samples as module
from lofi_assets.release.bundle_runs import Run
from lofi_assets.release.bundle_samples import FOLDER, PROMPTS, Samples, write_samples
from lofi_assets.release.card_metadata import front_matter
from lofi_assets.store import Store
from lofi_assets_tests.release.cleared import publish
from lofi_assets_tests.release.fake_hub import FakeHub
from lofi_assets_tests.release.stand_in_release import REPOS, list_bundle, profile_for

SETTINGS = SamplingSettings(count=2, seconds=1, steps=3, guidance_scale=3.0, seed=1)
TONE = (0.3 * np.sin(np.arange(2 * 48000).reshape(2, -1) / 40)).astype(np.float32)


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> dict[str, Run]:
    """What the bundle's runs come to, by prompt; a tone unless a test says otherwise."""
    said: dict[str, Run] = {}

    def run(folder: Path, *, clip: Any, variants: list[str], **_: Any) -> dict[str, Run]:
        return dict.fromkeys(variants, said.get(clip.prompt, Run("", TONE)))

    monkeypatch.setattr(module, "run_bundle", run)
    return said


def make(bundle: Path) -> None:
    bundle.mkdir(exist_ok=True)
    write_samples(bundle, python=Path("python"), scratch=bundle, settings=SETTINGS)


def test_each_prompt_has_a_clip_without_loss_that_can_be_made_again(heard: dict[str, Run], tmp_path: Path) -> None:
    make(tmp_path)
    samples = Samples.read(tmp_path)
    assert samples and [clip.prompt for clip in samples.clips] == list(PROMPTS)
    assert (samples.tier, samples.seconds, samples.steps, samples.guidance_scale) == ("fp16", 1, 3, 3.0)
    assert len({clip.seed for clip in samples.clips}) == len(PROMPTS)
    kept, rate = soundfile.read(tmp_path / FOLDER / "1.flac", dtype="float32")
    assert rate == 48000 and np.abs(kept.T - TONE).max() < 1e-4


def test_a_clip_that_nobody_could_hear_leaves_the_bundle_without_samples(heard: dict[str, Run], tmp_path: Path) -> None:
    heard[PROMPTS[1]] = Run("silent", TONE * 0)
    make(tmp_path)
    assert Samples.read(tmp_path) is None and not (tmp_path / FOLDER).exists()


def test_the_card_names_them_as_the_hub_reads_it_and_both_repositories_have_them(
    heard: dict[str, Run], released: Store, hub: FakeHub
) -> None:
    from huggingface_hub import ModelCard

    make(released.export)
    list_bundle(released)
    text = front_matter(profile_for("hub"), ACE_STEP_V1, None, Samples.read(released.export))
    data: Any = ModelCard(text + "\n# A\n", ignore_metadata_errors=False).data
    widget = data.to_dict()["widget"]
    assert [row["text"] for row in widget] == list(PROMPTS)
    publish(released, profile_for("hub"))
    for repo in REPOS.values():
        for row in widget:
            assert hub.files(repo)[row["output"]["url"]].startswith(b"fLaC")
    listed = json.loads(hub.files(REPOS["adapter"])["release.json"])["files"]
    assert f"{FOLDER}/1.flac" in listed


def test_a_bundle_without_samples_has_a_card_without_a_widget() -> None:
    assert "widget" not in front_matter(profile_for("folder"), ACE_STEP_V1, None)
