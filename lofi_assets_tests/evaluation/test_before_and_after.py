"""Samples of base and checkpoints, their distances between floor and noise, and the pages to hear them on."""

import io
import re
import shutil
from base64 import b64decode
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import soundfile
from PIL import Image

from lofi_assets.backbones.features import FeatureError
from lofi_assets.dataset.versions import DatasetError
from lofi_assets.defs.reporting import MAX_PICTURE_BYTES
from lofi_assets.evaluation import before_after
from lofi_assets.evaluation.generated_samples import generate_samples
from lofi_assets.evaluation.measured import Marks
from lofi_assets.evaluation.quality_metrics import evaluate_checkpoints
from lofi_assets.evaluation.reports.pages import comparison_path
from lofi_assets.evaluation.samples import BASE, ModelSamples, clips_of, reference_tracks, sample_prompts
from lofi_assets.files.documents import read_json, write_json
from lofi_assets.html.links import page_url
from lofi_assets.profiles import Profile, SamplingSettings, load_profile
from lofi_assets.store import Store
from lofi_assets.training.checkpoints.files import DIFFUSERS_WEIGHTS
from lofi_assets.training.checkpoints.manifest import best, read_manifest
from lofi_assets.training.feature_cache import FEATURES
from lofi_assets.training.trainer.loop import train
from lofi_assets_tests.dataset.stand_in_version import deliver, track_record
from lofi_assets_tests.defs.test_asset_pages import assert_reads_well

RATE = 48_000
SECONDS = 5.0
NOW = datetime(2026, 1, 1, tzinfo=UTC)
PROMPT = "lofi, <rhodes> & rain"
DATASET = "ds #1"
"""A name that an address has to quote."""


def profile(**changes: Any) -> Profile:
    sampling = {"count": 3, "seconds": SECONDS, "steps": 2, "guidance_scale": 2.0, "seed": 7, **changes}
    demo = load_profile("demo")
    evaluation = demo.evaluation.model_copy(update={"resamples": 10})
    return demo.model_copy(update={"sampling": SamplingSettings(**sampling), "evaluation": evaluation})


@pytest.fixture
def trained(make_run: Callable[..., Any], tmp_path: Path, training_material: dict[str, Any]) -> Store:
    """Two checkpoints of the tiny base, and three validation tracks with different chords."""
    store = Store(tmp_path / "data")
    run = make_run("data", max_steps=2, checkpoint_interval=1).model_copy(update={"dataset_id": DATASET})
    train(run, say=lambda _: None)
    tracks = [track_record(f"track_{i}", split="validation") for i in range(3)]
    audio = deliver(store, DATASET, tracks) / "audio"
    audio.mkdir()
    for index, item in enumerate(tracks):
        t = np.arange(round(SECONDS * RATE)) / RATE
        chord = sum(0.1 * np.sin(2 * np.pi * (220 + 40 * index) * ratio * t) for ratio in (1.0, 1.25, 1.5))
        path = audio / f"{item.track_id}.mp3"
        soundfile.write(path, np.stack([chord, chord], axis=1) * np.exp(-3 * (t % 0.5))[:, None], RATE)
        path.with_name(f"{item.track_id}_prompt.txt").write_text(PROMPT, encoding="utf-8")
        path.with_name(f"{item.track_id}_lyrics.txt").write_text("[Instrumental]", encoding="utf-8")
    base = {"base": str(training_material["base"]), "base_fingerprint": training_material["fingerprint"]}
    write_json(store.metadata(FEATURES), {**base, "tracks": []})
    return store


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("heard") / "data"


@pytest.fixture
def heard(trained: Store, shelf: Path, tmp_path: Path) -> Store:
    """`trained` with its samples and their measures, which are made once."""
    if not shelf.is_dir():
        generate_samples(trained, profile())
        evaluate_checkpoints(trained, profile(), now=NOW)
        keep(trained, shelf)
    return Store(Path(shutil.copytree(shelf, tmp_path / "heard")))


def keep(measured: Store, shelf: Path) -> None:
    """For `heard`; whichever test measures `trained` first."""
    if not shelf.is_dir():
        shutil.copytree(measured.root, shelf)


def audio_of(store: Store, model: str) -> list[bytes]:
    return [clip.file(store).read_bytes() for clip in clips_of(store, model)]


def test_base_and_checkpoints_are_heard_measured_and_shown_and_only_once(trained: Store, shelf: Path) -> None:
    made = generate_samples(trained, profile())
    names = [record.checkpoint_id for record in read_manifest(trained.checkpoints)]
    assert len(names) == 2 and all(record.samples_generated for record in read_manifest(trained.checkpoints))
    assert made.counts == {"checkpoints": 2, "clips": 6, "recomputed": 9}
    assert made.values["missing_samples"] == 0
    assert len(audio_of(trained, BASE)) == 3
    assert audio_of(trained, BASE) != audio_of(trained, names[-1])

    measured = evaluate_checkpoints(trained, profile(), now=NOW)
    keep(trained, shelf)
    marks = Marks.read(trained)
    assert marks is not None and marks.base.fad.n_clips == 3
    assert [row["step"] for row in measured.rows] == [2, 1, 0]
    assert measured.rows[-1]["fad"] == round(marks.base.fad.value, 2) == measured.details["base_fad"]
    assert measured.details["noise_fad"] == round(marks.noise.fad, 2) > 0
    assert_reads_well(made, root=trained.root)
    assert_reads_well(measured, root=trained.root)
    assert set(measured.pictures) == {"FAD by step", "KAD by step", "before and after"}
    assert all(0 < len(draw()) <= MAX_PICTURE_BYTES for draw in measured.pictures.values())
    page = comparison_path(trained)
    report = page.with_name(f"{measured.details['checkpoint']}.html")
    assert measured.links == {"checkpoints compared": page_url(trained, page), "report": page_url(trained, report)}
    assert sorted(path.stem for path in page.parent.iterdir()) == [*sorted(names), "index"]
    assert_page_plays(page, trained)

    written, drawn = page.stat().st_mtime_ns, sorted((trained.cache / "spectrograms").iterdir())
    assert len(drawn) == 12
    assert generate_samples(trained, profile()).counts["recomputed"] == 0
    assert evaluate_checkpoints(trained, profile(), now=NOW).counts["recomputed"] == 0
    assert page.stat().st_mtime_ns == written and sorted((trained.cache / "spectrograms").iterdir()) == drawn

    page.unlink()
    audio_before = audio_of(trained, BASE)
    evaluate_checkpoints(trained, profile(), now=NOW)
    assert_page_plays(page, trained)

    again = generate_samples(trained, profile(seed=8))
    assert again.counts["recomputed"] == 9 and audio_of(trained, BASE) != audio_before
    assert evaluate_checkpoints(trained, profile(seed=8), now=NOW).counts["recomputed"] == 3


def test_samples_in_bfloat16_are_others_and_say_so(heard: Store) -> None:
    record = heard.samples / BASE / "samples.json"
    before, exact = record.read_bytes(), audio_of(heard, BASE)
    assert b"precision" not in before
    said = generate_samples(heard, profile())
    assert said.details["precision"] == "float32" and said.counts["recomputed"] == 0
    made = generate_samples(heard, profile(precision="bf16"))
    assert made.details["precision"] == "bfloat16" and made.counts["recomputed"] == 9
    assert made.data_version != said.data_version
    found = ModelSamples.read(heard, BASE)
    assert found is not None and found.precision == "bf16" and audio_of(heard, BASE) != exact
    generate_samples(heard, profile())
    assert record.read_bytes() == before and audio_of(heard, BASE) == exact


def assert_page_plays(page: Path, store: Store) -> None:
    """Four players for each of three prompts, every one of a file that is there; nothing of a prompt is markup."""
    text = page.read_text(encoding="utf-8")
    played = [page.parent / unquote(source) for source in re.findall(r'<audio[^>]*src="([^"]+)"', text)]
    assert len(played) == 12 and all(path.is_file() for path in played)
    assert sum(path.resolve().is_relative_to(store.datasets.resolve()) for path in played) == 3
    shown = re.findall(r'<img class="(\w+)" src="data:image/png;base64,([^"]+)"', text)
    assert [kind for kind, _ in shown] == ["chart", *["strip"] * 12]
    for _, picture in shown:
        Image.open(io.BytesIO(b64decode(picture))).verify()
    assert text.count("<h3>lofi, &lt;rhodes&gt; &amp; rain</h3>") == 3 and "<rhodes>" not in text


def test_a_checkpoint_that_is_cut_short_is_marked_with_the_reason_and_the_others_are_sampled_and_measured(
    trained: Store, caplog: pytest.LogCaptureFixture
) -> None:
    broken, sound = (record.checkpoint_id for record in read_manifest(trained.checkpoints))
    weights = trained.checkpoints / broken / DIFFUSERS_WEIGHTS
    weights.write_bytes(weights.read_bytes()[:1000])
    made = generate_samples(trained, profile())
    assert {record.checkpoint_id: record.is_valid for record in read_manifest(trained.checkpoints)} == {
        broken: False,
        sound: True,
    }
    assert made.counts == {"checkpoints": 1, "clips": 3, "recomputed": 6} and made.values["missing_samples"] == 0
    assert str(trained.checkpoints / broken) in made.details[f"left out: {broken}"]
    assert "Restore its files from a copy" in caplog.text
    measured = evaluate_checkpoints(trained, profile(), now=NOW)
    assert measured.values["unevaluated_checkpoints"] == 1, "the gates still see that one is missing"
    scores = {record.checkpoint_id: record.fad_score for record in read_manifest(trained.checkpoints)}
    assert scores[broken] is None and scores[sound] > 0
    assert best(read_manifest(trained.checkpoints)).checkpoint_id == sound


def deliver_another(store: Store) -> None:
    """Another dataset than the one that was trained on, with no track of it."""
    deliver(store, "ds-2", [track_record("other", split="validation", style_ids=["CORE-02"])], digest="e" * 64)


def test_a_dataset_change_after_training_moves_nothing_until_it_is_trained_on(heard: Store) -> None:
    made, measured = generate_samples(heard, profile()), evaluate_checkpoints(heard, profile(), now=NOW)
    asked, compared = sample_prompts(heard, profile().sampling), reference_tracks(heard)
    deliver_another(heard)
    assert sample_prompts(heard, profile().sampling) == asked and reference_tracks(heard) == compared
    again, measured_again = generate_samples(heard, profile()), evaluate_checkpoints(heard, profile(), now=NOW)
    assert (again.counts["recomputed"], measured_again.counts["recomputed"]) == (0, 0)
    assert (again.data_version, measured_again.data_version) == (made.data_version, measured.data_version)
    assert_page_plays(comparison_path(heard), heard)


def test_a_version_that_was_trained_on_and_is_gone_is_named_and_no_other_takes_its_place(trained: Store) -> None:
    deliver_another(trained)
    (trained.datasets / DATASET).rename(trained.root / "elsewhere")
    asks: tuple[Callable[[], object], ...] = (
        lambda: generate_samples(trained, profile()),
        lambda: evaluate_checkpoints(trained, profile(), now=NOW),
    )
    for ask in asks:
        with pytest.raises(DatasetError, match=f"{DATASET}: is not there, and the checkpoints were trained on it; re"):
            ask()


def test_checkpoints_of_one_base_are_never_sampled_on_another(trained: Store) -> None:
    write_json(trained.metadata(FEATURES), read_json(trained.metadata(FEATURES)) | {"base_fingerprint": "0" * 64})
    with pytest.raises(FeatureError, match=r"of the base 000000000000, epoch=0-step=\d_lora was trained on"):
        generate_samples(trained, profile())


def test_a_clip_that_is_gone_leaves_its_row_out(heard: Store) -> None:
    clips_of(heard, BASE)[0].file(heard).unlink()
    chosen = read_manifest(heard.checkpoints)[-1]
    assert len(before_after.rows(heard, chosen)) == 2


def test_clips_that_are_gone_cost_their_players_and_not_the_measures(heard: Store) -> None:
    measured = evaluate_checkpoints(heard, profile(), now=NOW)
    for clip in clips_of(heard, BASE):
        clip.file(heard).unlink()
    again = evaluate_checkpoints(heard, profile(), now=NOW)
    text = comparison_path(heard).read_text(encoding="utf-8")
    assert text.count("the file is gone") == 3, "and is said to be so"
    assert again.values == measured.values and again.rows == measured.rows


def test_without_a_checkpoint_there_is_no_before(store: Store) -> None:
    deliver(store, "ds-1")
    assert generate_samples(store, profile()).counts == {"checkpoints": 0, "clips": 0, "recomputed": 0}
    outcome = evaluate_checkpoints(store, profile(), now=NOW)
    assert set(outcome.links.values()) == {None} and not outcome.pictures
    assert_reads_well(outcome, root=store.root)
