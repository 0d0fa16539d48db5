"""The feature cache of a dataset version: what a profile and the curator's files bring to it, and what prune leaves."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from lofi_assets.backbones.features import FeatureError
from lofi_assets.cli.main import main
from lofi_assets.dataset.versions import current_dataset
from lofi_assets.files.documents import read_json, write_json
from lofi_assets.files.hashing import sha256_file
from lofi_assets.outcome import Outcome
from lofi_assets.profiles import BaseModelSettings, LyricVocabularySettings, Profile, ProfileError, load_profile
from lofi_assets.records import Track
from lofi_assets.store import SPEAKERS, Store
from lofi_assets.training.feature_cache import FEATURES, cache_dataset_features, unneeded_features
from lofi_assets.training.features.jobs import SpeakersError, feature_jobs
from lofi_assets.training.lora_checkpoints import plan_training
from lofi_assets_tests.dataset.stand_in_version import deliver, track_record
from lofi_assets_tests.feature_material import read

LYRICS = {"one": "[Verse]\nrain on the window", "two": "[Language: de]\n[Verse]\nregen am fenster"}
SPLITS = {"one": "train", "two": "validation"}


@pytest.fixture
def base(tiny_base: Path) -> Path:
    return tiny_base


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A data root with a dataset version of two short tracks."""
    made = Store(tmp_path / "data")
    folder = made.datasets / "lofi-1"
    (folder / "audio").mkdir(parents=True)
    tracks: list[Track] = []
    for name in LYRICS:
        audio = folder / "audio" / f"{name}.mp3"
        noise = np.random.default_rng(len(tracks)).uniform(-0.5, 0.5, (48_000, 2))
        soundfile.write(audio, noise, 48_000, format="WAV")
        write_texts(made, name, prompt=f"lofi, {name}")
        tracks.append(track_record(name, audio_sha256=sha256_file(audio), split=SPLITS[name]))
    deliver(made, "lofi-1", tracks)
    return made


def write_texts(store: Store, name: str, *, prompt: str) -> None:
    for kind, text in (("prompt", prompt), ("lyrics", LYRICS[name])):
        (store.datasets / "lofi-1" / "audio" / f"{name}_{kind}.txt").write_text(text)


def a_profile(base: Path, **changes: Any) -> Profile:
    base_model = BaseModelSettings(kind="folder", path=str(base))
    return load_profile("demo").model_copy(update={"base_model": base_model, **changes})


def cached(store: Store, base: Path, **changes: Any) -> Outcome:
    return cache_dataset_features(store, a_profile(base, **changes))


def test_the_cache_records_keys_languages_and_what_it_read(store: Store, base: Path) -> None:
    first, second = cached(store, base), cached(store, base)
    assert (first.counts["recomputed"], second.counts["recomputed"]) == (2, 0)
    assert first.data_version == second.data_version and not second.values["missing_features"]
    recorded = read_json(store.metadata(FEATURES))
    assert recorded["languages"] == {"one": "en", "two": "de"} and recorded["lyric_vocabulary"] is None
    assert {track.track_id for track in plan_training(store, a_profile(base)).run.tracks} == {"one", "two"}


def test_a_split_that_changes_moves_the_version_of_the_features_though_no_key_does(store: Store, base: Path) -> None:
    before, keys = cached(store, base), read_json(store.metadata(FEATURES))["tracks"]
    tracks = [item.model_copy(update={"split": "train"}) for item in current_dataset(store).tracks]
    deliver(store, "lofi-1", tracks, digest="e" * 64)
    after, keys_after = cached(store, base), read_json(store.metadata(FEATURES))["tracks"]
    assert [track["key"] for track in keys_after] == [track["key"] for track in keys]
    assert after.counts["recomputed"] == 0 and after.data_version != before.data_version
    assert {track.split for track in plan_training(store, a_profile(base)).run.tracks} == {"train"}


def test_the_pinned_vocabulary_of_the_profile_is_used_and_another_is_refused(store: Store, base: Path) -> None:
    vocabulary = store.root / "vocab.json"
    vocabulary.write_bytes((base / "lyric_vocab.json").read_bytes())
    pinned = LyricVocabularySettings(source="vocab.json", sha256=sha256_file(vocabulary))
    cached(store, base, lyric_vocabulary=pinned)
    assert read_json(store.metadata(FEATURES))["lyric_vocabulary"] == str(vocabulary)
    vocabulary.write_text("{}")
    with pytest.raises(ValueError, match="the profile pins"):
        cached(store, base, lyric_vocabulary=pinned)


def test_a_speaker_named_by_the_curator_reaches_its_track_and_no_other(store: Store, base: Path) -> None:
    before = cached(store, base)
    np.save(store.root / "mia.npy", np.ones(512, np.float32))
    write_json(store.metadata(SPEAKERS), {"one": "mia.npy"})
    after = cached(store, base)
    assert after.counts["recomputed"] == 1 and after.data_version != before.data_version
    keys = {track["track_id"]: track["key"] for track in read_json(store.metadata(FEATURES))["tracks"]}
    assert read(store.features).conditions(keys["one"])["speaker"].all()
    assert not read(store.features).conditions(keys["two"])["speaker"].any()


@pytest.mark.parametrize(
    ("named", "reason"),
    [
        ({"one": "absent.npy"}, "one: 'absent.npy' is no file below"),
        ({"one": "../outside.npy"}, "one: '../outside.npy' is no file below"),
        (["mia.npy"], "must be an object"),
        ({"one": 1}, "must be an object"),
    ],
)
def test_a_speaker_file_that_is_not_there_is_named(store: Store, named: object, reason: str) -> None:
    (store.root.parent / "outside.npy").write_bytes(b"")
    write_json(store.metadata(SPEAKERS), named)
    with pytest.raises(SpeakersError, match=reason):
        feature_jobs(store, store.datasets / "lofi-1", [])


def test_an_ssl_encoder_that_is_not_there_is_named(store: Store, base: Path) -> None:
    with pytest.raises(ProfileError, match=r"ssl_encoders\.mert: .* is no folder"):
        cached(store, base, ssl_encoders={"mert": "models/MERT"})


def test_production_pins_the_vocabulary_and_caches_no_ssl_targets() -> None:
    profile = load_profile("production")
    assert profile.lyric_vocabulary is not None and profile.lyric_vocabulary.source.startswith("https://")
    assert not profile.ssl_encoders and not profile.training.get("ssl_weight")


def test_prune_removes_what_nothing_needs_and_keeps_what_an_archived_run_needs(
    store: Store, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOFI_DATA_DIR", str(store.root))
    for prompt in ("lofi, archived", "lofi, gone", "lofi, current"):
        write_texts(store, "one", prompt=prompt)
        cached(store, base)
        if prompt == "lofi, archived":
            run = json.loads(plan_training(store, a_profile(base)).run.model_dump_json())
            write_json(store.checkpoints / "archive" / "0123" / "epoch=0-step=5_lora" / "config.json", run)
    plan_training(store, a_profile(base))
    (gone,) = unneeded_features(store)
    assert "1 files" in CliRunner().invoke(main, ["features", "prune", "--dry-run"]).output and gone.is_file()
    result = CliRunner().invoke(main, ["features", "prune"])
    assert result.exit_code == 0 and store.relative(gone) in result.output and not gone.exists()
    assert len(list((store.features / "text").iterdir())) == 3 and not unneeded_features(store)


def test_each_wording_of_a_training_prompt_has_text_states_of_its_own(store: Store, base: Path) -> None:
    write_texts(store, "one", prompt="lofi, rainy, slow, warm, vinyl crackle")
    plain = cached(store, base)
    asked = {"training": {**load_profile("demo").training, "prompt_variants": 4}}
    found = cached(store, base, **asked)
    assert found.counts["tracks"] == 2 and found.data_version != plain.data_version
    run = plan_training(store, a_profile(base, **asked)).run
    (one,), (two,) = run.of_split("train"), run.of_split("validation")
    assert len(one.variants) == 3 and two.variants == ()
    kinds = [len(set(kind)) for kind in zip(*(key.split(".") for key in (one.key, *one.variants)), strict=True)]
    assert kinds == [1, 4, 1, 1]  # latents, text, lyrics, speaker
    features = read(store.features)
    states = [features.conditions(key)["text"] for key in (one.key, *one.variants)]
    assert not any(other.shape == states[0].shape and other.equal(states[0]) for other in states[1:])
    assert not unneeded_features(store)


def test_a_run_has_as_many_wordings_as_it_asks_for_and_is_told_where_there_are_fewer(store: Store, base: Path) -> None:
    write_texts(store, "one", prompt="lofi, rainy, slow, warm")
    demo = load_profile("demo").training
    cached(store, base)
    before = plan_training(store, a_profile(base)).run
    with pytest.raises(FeatureError, match="prompt_variants is 3, the features have 1 of each prompt: materialise"):
        plan_training(store, a_profile(base, training={**demo, "prompt_variants": 3}))
    cached(store, base, training={**demo, "prompt_variants": 4})
    three = plan_training(store, a_profile(base, training={**demo, "prompt_variants": 3})).run
    assert len(three.of_split("train")[0].variants) == 2 and three.run_id != before.run_id
    assert plan_training(store, a_profile(base)).run.run_id == before.run_id
