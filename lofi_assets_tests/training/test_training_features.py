"""What is computed once: each kind by itself, whole or not at all, mapped, removed when nothing needs it."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import soundfile
import torch
from transformers import HubertConfig, HubertModel

from lofi_assets.backbones.ace_step_v1.conditions import without
from lofi_assets.backbones.ace_step_v1.identity import base_fingerprint
from lofi_assets.backbones.ace_step_v1.ssl_encoders import SslEncoderError, load_ssl_encoder
from lofi_assets.backbones.features import FeatureError, FeatureJob
from lofi_assets.files.documents import write_json
from lofi_assets.files.hashing import sha256_file
from lofi_assets.training.features import files as feature_files
from lofi_assets.training.features.cache import FeatureRow
from lofi_assets.training.features.files import FeatureKey, exclusive, keys_of_runs, unneeded_files
from lofi_assets_tests.feature_material import encoded, read

Encode = Callable[..., list[FeatureRow]]
"""Caches the features of jobs, with these changes to what `encoded` is given."""
KINDS = {"latents", "text", "lyrics", "speaker"}


@pytest.fixture
def base(tiny_base: Path) -> Path:
    return tiny_base


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> list[FeatureJob]:
    folder = tmp_path_factory.mktemp("audio")
    return [a_job(folder / "one.wav", seconds=1.0), a_job(folder / "two.wav", seconds=1.5)]


@pytest.fixture
def cache(base: Path, tmp_path: Path) -> Encode:
    """Features of jobs, in a cache of this test's own."""
    fingerprint = base_fingerprint(base)

    def call(jobs: list[FeatureJob], **changes: Any) -> list[FeatureRow]:
        return encoded(
            jobs, **{"base": base, "base_fingerprint": fingerprint, "cache_dir": tmp_path / "cache", **changes}
        )

    return call


@pytest.fixture(scope="module")
def hubert(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny stand-ins for the two SSL encoders, as wide as the tiny base's projectors."""
    folders = {}
    for name, width, rate in (("mert", 32, 24_000), ("m-hubert", 24, 16_000)):
        folder = folders[name] = tmp_path_factory.mktemp(name)
        sizes = {"hidden_size": width, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        convolutions = {"conv_dim": (8,) * 7, "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
        torch.manual_seed(0)
        HubertModel(HubertConfig(**sizes, **convolutions)).save_pretrained(folder)
        write_json(folder / "preprocessor_config.json", {"sampling_rate": rate})
    return folders


def a_job(path: Path, *, seconds: float) -> FeatureJob:
    noise = np.random.default_rng(len(path.stem)).uniform(-0.5, 0.5, (int(48_000 * seconds), 2))
    soundfile.write(path, noise, 48_000)
    prompt = f"lofi, {path.stem}"
    return FeatureJob(path.stem, path, sha256_file(path), prompt, lyrics="rain on the window")


def a_speaker(path: Path, *, width: int = 512, value: float = 0.5) -> Path:
    np.save(path, np.full(width, value))
    return path


def computed(rows: Iterable[FeatureRow]) -> list[set[str]]:
    return [set(row.computed) for row in rows]


# --- what is computed, and when --------------------------------------------------------------------------------------


def test_features_have_the_models_shapes(jobs: list[FeatureJob], cache: Encode, tmp_path: Path) -> None:
    rows = cache(jobs)
    assert [row.track_id for row in rows] == ["one", "two"]
    assert not any(row.reused for row in rows)
    latents = read(tmp_path / "cache").latents(rows[0].key)
    conditions = read(tmp_path / "cache").conditions(rows[0].key)
    assert latents.shape == (8, 16, rows[0].frames) and rows[0].frames == 10
    assert read(tmp_path / "cache").frames(rows[0].key) == 10
    assert conditions["text"].shape[1] == 32 and conditions["speaker"].shape == (512,)
    assert len(conditions["lyric_ids"]) == len(conditions["lyric_mask"]) > 1


def test_an_unchanged_set_is_not_computed_again_and_needs_no_model(
    jobs: list[FeatureJob], cache: Encode, base: Path, tmp_path: Path
) -> None:
    first = cache(jobs)
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "lyric_vocab.json").write_bytes((base / "lyric_vocab.json").read_bytes())
    second = cache(jobs, base=empty)
    assert all(row.reused for row in second)
    assert [row.key for row in second] == [row.key for row in first]


@pytest.mark.parametrize(
    ("change", "kinds"),
    [
        ({"prompt": "lofi, rainy"}, {"text"}),
        ({"lyrics": "[Language: de]\nregen am fenster"}, {"lyrics"}),
        ({"speaker": "mia.npy"}, {"speaker"}),
    ],
)
def test_a_change_computes_only_what_it_touches(
    jobs: list[FeatureJob], cache: Encode, tmp_path: Path, change: dict[str, Any], kinds: set[str]
) -> None:
    cache(jobs)
    if "speaker" in change:
        change = {"speaker": a_speaker(tmp_path / change["speaker"])}
    rows = cache([replace(jobs[0], **change), jobs[1]])
    assert computed(rows) == [kinds, set()]


def test_changed_audio_encodes_that_tracks_audio_only(jobs: list[FeatureJob], cache: Encode, tmp_path: Path) -> None:
    cache(jobs)
    rows = cache([a_job(tmp_path / "one.wav", seconds=2.0), jobs[1]])
    assert computed(rows) == [{"latents"}, set()]


def test_another_model_encodes_again_what_it_has_a_part_in(jobs: list[FeatureJob], cache: Encode) -> None:
    cache(jobs)
    rows = cache(jobs, base_fingerprint="0" * 64)
    assert computed(rows) == [{"latents", "text"}, {"latents", "text"}]


def test_another_lyric_vocabulary_encodes_lyrics_again(
    jobs: list[FeatureJob], cache: Encode, base: Path, tmp_path: Path
) -> None:
    cache(jobs)
    vocabulary = tmp_path / "vocab.json"
    vocabulary.write_text((base / "lyric_vocab.json").read_text() + "\n")
    assert computed(cache(jobs, vocabulary=vocabulary)) == [{"lyrics"}, set()]


def test_tracks_with_the_same_text_share_its_files(jobs: list[FeatureJob], cache: Encode) -> None:
    rows = cache([jobs[0], replace(jobs[1], prompt=jobs[0].prompt)])
    assert rows[0].files["text"] == rows[1].files["text"] and rows[0].files["latents"] != rows[1].files["latents"]
    assert computed(rows) == [KINDS, {"latents"}]


def test_tags_stand_in_for_an_empty_prompt_and_neither_is_an_error(jobs: list[FeatureJob], cache: Encode) -> None:
    with_tags = replace(jobs[0], prompt=" ", tags=("lofi", "one"))
    assert cache([with_tags])[0].key == cache([jobs[0]])[0].key
    with pytest.raises(FeatureError, match="one: empty prompt"):
        cache([replace(jobs[0], prompt="")])


def test_a_file_that_is_not_the_hashed_one_is_refused(jobs: list[FeatureJob], cache: Encode) -> None:
    with pytest.raises(FeatureError, match="one"):
        cache([replace(jobs[0], audio=jobs[1].audio)])


# --- lyrics and speakers ---------------------------------------------------------------------------------------------


def test_the_language_of_the_lyrics_is_recorded(jobs: list[FeatureJob], cache: Encode) -> None:
    stated = replace(jobs[1], lyrics="[Language: de]\nrain")
    for _ in range(2):
        assert [row.notes["language"] for row in cache([jobs[0], stated])] == ["en", "de"]


@pytest.mark.parametrize(("lyrics", "ids"), [("", 1), ("[Instrumental]", 17)])
def test_an_instrumental_track_has_no_language(
    jobs: list[FeatureJob], cache: Encode, tmp_path: Path, lyrics: str, ids: int
) -> None:
    row = cache([replace(jobs[0], lyrics=lyrics)])[0]
    assert row.notes["language"] == "" and len(read(tmp_path / "cache").conditions(row.key)["lyric_ids"]) == ids


def test_lyrics_that_cannot_be_encoded_name_their_track(jobs: list[FeatureJob], cache: Encode) -> None:
    with pytest.raises(FeatureError, match=r"one: lyrics cannot be encoded .*script of none"):
        cache([replace(jobs[0], lyrics="Дождь за окном")])


def test_a_speaker_is_read_from_either_format_and_is_zeros_without_one(
    jobs: list[FeatureJob], cache: Encode, tmp_path: Path
) -> None:
    vector = np.linspace(-1, 1, 512, dtype=np.float32)
    np.save(tmp_path / "mia.npy", vector[None].astype(np.float64))
    safetensors.numpy.save_file({"speaker": vector}, tmp_path / "mia.safetensors")
    for name in ("mia.npy", "mia.safetensors"):
        row = cache([replace(jobs[0], speaker=tmp_path / name)])[0]
        assert np.array_equal(read(tmp_path / "cache").conditions(row.key)["speaker"], vector)
    assert not read(tmp_path / "cache").conditions(cache([jobs[0]])[0].key)["speaker"].any()


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (lambda path: a_speaker(path, width=256), r"float64 \(256,\), a speaker is one vector of 512"),
        (lambda path: a_speaker(path, value=np.nan), "NaN"),
        (lambda path: np.save(path, np.array([{}]), allow_pickle=True), "holds no single array"),
        (lambda path: None, "No such file"),
    ],
)
def test_a_speaker_that_cannot_be_used_names_track_and_file(
    jobs: list[FeatureJob], cache: Encode, tmp_path: Path, made: Callable[[Path], object], reason: str
) -> None:
    made(tmp_path / "mia.npy")
    with pytest.raises(FeatureError, match=rf"one: .*mia\.npy.*{reason}"):
        cache([replace(jobs[0], speaker=tmp_path / "mia.npy")])


def test_dropped_conditions_are_zeros_of_the_same_shape(jobs: list[FeatureJob], cache: Encode, tmp_path: Path) -> None:
    conditions = read(tmp_path / "cache").conditions(cache(jobs)[0].key)
    dropped = without(conditions, ["text", "speaker", "lyrics"])
    assert dropped["text"].shape == conditions["text"].shape and not dropped["text"].any()
    assert not dropped["lyric_ids"].any() and not dropped["lyric_mask"].any()
    kept = without(conditions, [])
    assert kept["text"].equal(conditions["text"]) and kept["lyric_mask"].all()


# --- SSL targets -----------------------------------------------------------------------------------------------------


def test_ssl_targets_are_computed_by_themselves_at_the_encoders_rates(
    jobs: list[FeatureJob], cache: Encode, hubert: dict[str, Path], tmp_path: Path
) -> None:
    cache(jobs)
    rows = cache(jobs, ssl_encoders=hubert)
    assert computed(rows) == [{"mert", "m-hubert"}] * 2
    targets = read(tmp_path / "cache").targets(rows[1].key)
    assert targets["mert"].shape == (113, 32) and targets["m-hubert"].shape == (75, 24)  # 1.5 s at 75 and 50 Hz
    assert targets["mert"].dtype == torch.float16


def test_without_ssl_targets_the_error_says_how_to_get_them(
    jobs: list[FeatureJob], cache: Encode, tmp_path: Path
) -> None:
    with pytest.raises(FeatureError, match="name ssl_encoders in the profile"):
        read(tmp_path / "cache").targets(cache(jobs)[0].key)


def test_an_ssl_encoder_of_another_width_than_the_projector_is_refused(
    jobs: list[FeatureJob], cache: Encode, hubert: dict[str, Path]
) -> None:
    with pytest.raises(FeatureError, match=r"has 24 numbers per frame, .* mert takes 32"):
        cache(jobs, ssl_encoders={"mert": hubert["m-hubert"]})


def test_targets_do_not_depend_on_loudness_and_pieces_are_encoded_alone(hubert: dict[str, Path]) -> None:
    encoder = replace(load_ssl_encoder("m-hubert", hubert["m-hubert"], device="cpu"), piece_seconds=1.0)
    audio = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, (2, 48_000))).float()
    whole = encoder.encode(torch.cat([audio, audio[:, :24_000]], dim=1), sample_rate=48_000)
    assert whole.shape == (49 + 25, 24)
    assert torch.allclose(
        encoder.encode(audio * 3, sample_rate=48_000), encoder.encode(audio, sample_rate=48_000), atol=1e-4
    )


def test_a_mert_is_read_as_the_hubert_it_is_and_one_that_is_not_is_refused(
    hubert: dict[str, Path], tmp_path: Path
) -> None:
    described = {"auto_map": {"AutoModel": "modeling_MERT.MERTModel"}, "model_type": "mert_model"}
    (tmp_path / "model.safetensors").write_bytes((hubert["mert"] / "model.safetensors").read_bytes())
    config = HubertConfig.from_pretrained(hubert["mert"]).to_dict() | described
    write_json(tmp_path / "config.json", config | {"feature_extractor_cqt": False, "attention_relax": 32.0})
    assert load_ssl_encoder("mert", tmp_path, device="cpu").width == 32
    write_json(tmp_path / "config.json", config | {"feature_extractor_cqt": True})
    with pytest.raises(SslEncoderError, match="feature_extractor_cqt needs code"):
        load_ssl_encoder("mert", tmp_path, device="cpu")
    write_json(tmp_path / "config.json", config | {"num_hidden_layers": 2})
    with pytest.raises(SslEncoderError, match="do not fit"):
        load_ssl_encoder("mert", tmp_path, device="cpu")


def test_pickled_weights_are_refused(hubert: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((hubert["mert"] / "config.json").read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(SslEncoderError, match="nothing pickled is loaded"):
        load_ssl_encoder("mert", tmp_path, device="cpu")


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", [lambda data: data[:-8], lambda data: data[:-8] + bytes(8), lambda data: b""])
def test_a_damaged_file_is_refused_and_replaced(
    jobs: list[FeatureJob], cache: Encode, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    row = cache(jobs)[0]
    path = row.files["latents"]
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    with pytest.raises(FeatureError, match=path.name):
        read(tmp_path / "cache").latents(row.key)
    assert computed(cache(jobs)) == [{"latents"}, set()]
    assert path.read_bytes() == whole


def test_a_file_is_checked_once_per_process_and_mapped_not_copied(
    jobs: list[FeatureJob], cache: Encode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = cache(jobs)[0]
    first = read(tmp_path / "cache").latents(row.key)
    monkeypatch.setattr(feature_files, "_checksum", lambda array: pytest.fail("checked again"))
    assert read(tmp_path / "cache").latents(row.key).data_ptr() == first.data_ptr()
    assert str(row.files["latents"]) in Path("/proc/self/maps").read_text(encoding="utf-8")


def test_a_key_is_read_back_and_anything_else_is_refused() -> None:
    kinds = dict(zip(("latents", "text", "lyrics", "speaker"), (letter * 32 for letter in "abcd"), strict=True))
    key = FeatureKey(kinds | {"mert": "e" * 32, "m-hubert": "f" * 32})
    assert FeatureKey.parse(str(key)) == key
    assert str(FeatureKey(kinds)) == ".".join(letter * 32 for letter in "abcd")
    other = FeatureKey({"latents": "a" * 32, "condition": "b" * 32})
    assert FeatureKey.parse(str(other)) == other and str(other) == f"condition={'b' * 32}.latents={'a' * 32}"
    for wrong in ("", "a" * 32, f"{'a' * 32}.{'b' * 32}", f"{key}.x", f"../x={'a' * 32}", f"{other}.{'a' * 32}"):
        with pytest.raises(FeatureError, match="is no key"):
            FeatureKey.parse(wrong)


def test_only_files_that_no_run_needs_are_named_as_unneeded(
    jobs: list[FeatureJob], cache: Encode, tmp_path: Path
) -> None:
    folder = tmp_path / "cache"
    recorded = cache(jobs)[1]
    archived = cache([replace(jobs[0], prompt="lofi, archived")])[0]
    gone = cache([replace(jobs[0], prompt="lofi, gone")])[0]
    (folder / "text" / ".x.safetensors.12345678.part").write_bytes(b"killed")
    write_json(tmp_path / "features.json", {"tracks": [{"track_id": "two", "key": recorded.key}]})
    run = {"tracks": [{"track_id": "one", "key": archived.key, "split": "train"}]}
    write_json(tmp_path / "checkpoints/archive/0123/epoch=0-step=5_lora/config.json", run)
    write_json(tmp_path / "checkpoints/manifest.json", [])
    keys = keys_of_runs(tmp_path / "features.json", tmp_path / "absent.json", tmp_path / "checkpoints")
    assert keys == {recorded.key, archived.key}
    unneeded = unneeded_files(folder, keys)
    assert {path.name for path in unneeded} == {
        ".x.safetensors.12345678.part",
        gone.files["text"].name,
        cache(jobs)[0].files["text"].name,
    }


def test_two_processes_do_not_fill_or_prune_at_once(jobs: list[FeatureJob], cache: Encode, tmp_path: Path) -> None:
    with exclusive(tmp_path / "cache"), pytest.raises(FeatureError, match="another process"):
        cache(jobs)


KILLED = """
import sys, time
from pathlib import Path
from lofi_assets.backbones.features import FeatureJob
from lofi_assets.files.hashing import sha256_file
from lofi_assets.training.features import cache as features
from lofi_assets_tests.feature_material import encoded
write = features.write_features
def slow(path, *arguments, **named):
    write(path, *arguments, **named)
    print(path.parent.name, flush=True)
    time.sleep(0.5)
features.write_features = slow
base, audio, cache = map(Path, sys.argv[1:])
jobs = [FeatureJob(path.stem, path, sha256_file(path), f"lofi, {path.stem}") for path in sorted(audio.glob("*.wav"))]
encoded(jobs, base, cache)
"""


def test_a_killed_call_goes_on_where_it_stopped(
    jobs: list[FeatureJob], base: Path, cache: Encode, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", KILLED, str(base), str(jobs[0].audio.parent), str(tmp_path / "cache")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "latents\n"
        process.send_signal(signal.SIGKILL)
    (written,) = (tmp_path / "cache").rglob("*.safetensors")
    before = written.stat().st_mtime_ns
    rows = cache([replace(job, lyrics="") for job in jobs])
    assert computed(rows) == [KINDS - {"latents"}, {"latents", "text"}]
    assert written.stat().st_mtime_ns == before
