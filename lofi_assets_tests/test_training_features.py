"""What is computed once: a prompt edit never encodes audio again, a damaged file is replaced, nothing is deleted."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lofi_assets.ace_step.identity import base_fingerprint
from lofi_assets.ace_step.tiny import write_tiny_base
from lofi_assets.store import sha256_file
from lofi_assets.training.features import (
    FeatureError,
    FeatureJob,
    cache_features,
    orphaned_features,
    read_conditions,
    read_frames,
    read_latents,
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    write_tiny_base(folder)
    return folder


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> list[FeatureJob]:
    folder = tmp_path_factory.mktemp("audio")
    return [a_job(folder / "one.wav", seconds=1.0), a_job(folder / "two.wav", seconds=1.5)]


@pytest.fixture
def cache(base: Path, tmp_path: Path):
    """Features of jobs, in a cache of this test's own."""
    fingerprint = base_fingerprint(base)

    def call(jobs: list[FeatureJob], **changes):
        return cache_features(
            jobs, **{"base_path": base, "base_fingerprint": fingerprint, "cache_dir": tmp_path, **changes}
        )

    return call


def a_job(path: Path, *, seconds: float) -> FeatureJob:
    noise = np.random.default_rng(len(path.stem)).uniform(-0.5, 0.5, (int(48_000 * seconds), 2))
    soundfile.write(path, noise, 48_000)
    prompt = f"lofi, {path.stem}"
    return FeatureJob(path.stem, path, sha256_file(path), prompt, lyrics="rain on the window")


def test_features_have_the_models_shapes(jobs, cache, tmp_path: Path):
    rows = cache(jobs)
    assert [row.track_id for row in rows] == ["one", "two"]
    assert not any(row.reused for row in rows)
    latents = read_latents(tmp_path, rows[0].key)
    conditions = read_conditions(tmp_path, rows[0].key)
    assert latents.shape == (8, 16, rows[0].frames) and rows[0].frames == 10
    assert conditions.text.shape[1] == 32 and conditions.speaker.shape == (512,)
    assert len(conditions.lyric_ids) == len(conditions.lyric_mask) > 1


def test_an_unchanged_set_is_not_computed_again_and_needs_no_model(jobs, cache):
    first = cache(jobs)
    second = cache(jobs, base_path=Path("/nowhere"))
    assert all(row.reused for row in second)
    assert [row.key for row in second] == [row.key for row in first]


def test_an_edited_prompt_encodes_text_only(jobs, cache, tmp_path: Path):
    cache(jobs)
    edited = [replace(jobs[0], prompt="lofi, rainy"), jobs[1]]
    rows = cache(edited)
    assert [(row.latents_reused, row.text_reused) for row in rows] == [(True, False), (True, True)]
    assert [path.parent.name for path in orphaned_features(tmp_path, rows)] == ["text"]


def test_changed_audio_encodes_that_track_only(jobs, cache, tmp_path: Path):
    cache(jobs)
    rows = cache([a_job(tmp_path / "one.wav", seconds=2.0), jobs[1]])
    assert [(row.latents_reused, row.text_reused) for row in rows] == [(False, True), (True, True)]


def test_another_model_computes_everything(jobs, cache):
    cache(jobs)
    assert not any(row.latents_reused or row.text_reused for row in cache(jobs, base_fingerprint="0" * 64))


@pytest.mark.parametrize("damage", [lambda data: data[:-8], lambda data: data[:-8] + bytes(8), lambda data: b""])
def test_a_damaged_file_is_refused_and_replaced(jobs, cache, tmp_path: Path, damage):
    row = cache(jobs)[0]
    whole = row.path.read_bytes()
    row.path.write_bytes(damage(whole))
    with pytest.raises(FeatureError, match=row.path.name):
        read_latents(tmp_path, row.key)
    assert not cache(jobs)[0].latents_reused
    assert row.path.read_bytes() == whole


def test_an_instrumental_track_has_one_lyric_token(jobs, cache, tmp_path: Path):
    row = cache([replace(jobs[0], lyrics="")])[0]
    assert read_conditions(tmp_path, row.key).lyric_ids.tolist() == [0]


def test_tags_stand_in_for_an_empty_prompt_and_neither_is_an_error(jobs, cache):
    with_tags = replace(jobs[0], prompt=" ", tags=("lofi", "one"))
    assert cache([with_tags])[0].key == cache([jobs[0]])[0].key
    with pytest.raises(FeatureError, match="one: empty prompt"):
        cache([replace(jobs[0], prompt="")])


def test_a_file_that_is_not_the_hashed_one_is_refused(jobs, cache):
    with pytest.raises(FeatureError, match="one"):
        cache([replace(jobs[0], audio=jobs[1].audio)])


def test_dropped_conditions_are_zeros_of_the_same_shape(jobs, cache, tmp_path: Path):
    conditions = read_conditions(tmp_path, cache(jobs)[0].key)
    dropped = conditions.without(text=True, speaker=True, lyrics=True)
    assert dropped.text.shape == conditions.text.shape and not dropped.text.any()
    assert not dropped.lyric_ids.any() and not dropped.lyric_mask.any()
    kept = conditions.without(text=False, speaker=False, lyrics=False)
    assert kept.text.equal(conditions.text) and kept.lyric_mask.all()


def test_a_file_is_verified_once_and_again_when_it_was_replaced(jobs, cache, tmp_path: Path, monkeypatch):
    row = cache(jobs)[0]
    whole = read_latents(tmp_path, row.key).clone()
    data = row.path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("zlib.crc32", lambda *_: pytest.fail("verified again"))
        assert read_latents(tmp_path, row.key).equal(whole)
    row.path.unlink()
    row.path.write_bytes(data[:-8] + bytes(8))
    with pytest.raises(FeatureError, match="damaged"):
        read_latents(tmp_path, row.key)


def test_the_length_of_a_track_is_read_from_the_header(jobs, cache, tmp_path: Path):
    row = cache(jobs)[0]
    assert read_frames(tmp_path, row.key) == row.frames == 10
    row.path.unlink()
    with pytest.raises(FeatureError, match="materialise feature_cache"):
        read_frames(tmp_path, row.key)
