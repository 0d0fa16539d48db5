"""Encoders prove themselves: random, collapsed and constant ones are untrained, whatever their names and shapes are."""

import os
from pathlib import Path

import numpy as np
import pytest

from lofi_assets.metrics import clap as clap_module
from lofi_assets.metrics.clap import ClapEmbedder, Conversion, right_captions
from lofi_assets.metrics.encoders import content_of, load_embedder
from lofi_assets.metrics.errors import MetricError
from lofi_assets.metrics.frechet import frechet_distance
from lofi_assets.metrics.musicnn import MusicnnEmbedder, MusicnnTagger
from lofi_assets.metrics.probes import PROBES, arpeggio
from lofi_assets.metrics.proof import (
    answers,
    audio_spread,
    known_answer,
    published_weights,
    text_spread,
    why_untrained,
)
from lofi_assets.metrics.results import EncoderProof, ProofCheck
from lofi_assets.metrics.vggish import PUBLISHED, VggishEmbedder, vggish_network


def said(proof: EncoderProof, name: str) -> list[bool | None]:
    return [check.passed for check in proof.checks if check.name == name]


def test_probes_are_the_same_samples_everywhere_and_unlike_each_other() -> None:
    clips = {name: clip(1.0, 16_000) for name, clip in PROBES.items()}
    assert all(len(clip) == 16_000 and np.abs(clip).max() == pytest.approx(0.5) for clip in clips.values())
    assert all(np.array_equal(clip, PROBES[name](1.0, 16_000)) for name, clip in clips.items())
    rows = np.array([clip / np.linalg.norm(clip) for clip in clips.values()])
    assert np.abs((rows @ rows.T)[np.triu_indices(len(rows), k=1)]).max() < 0.5


def test_the_shipped_encoders_are_trained_by_their_weights_and_by_their_answers() -> None:
    for encoder in (MusicnnEmbedder(), MusicnnEmbedder(lufs=None), MusicnnTagger()):
        assert encoder.trained is True
        assert said(encoder.proof, "known answer") == [True] and all(said(encoder.proof, "weights"))


def test_musicnn_with_other_weights_is_untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from lofi_assets.audio import musicnn as port

    torch.manual_seed(0)
    right = port._network("msd")
    wrong = {
        name: torch.randn_like(tensor) * tensor.std() if tensor.ndim > 1 else tensor for name, tensor in right.items()
    }
    assert MusicnnEmbedder().trained and MusicnnEmbedder().proof is MusicnnEmbedder().proof, "asked once"
    with monkeypatch.context() as patch:
        patch.setattr("lofi_assets.metrics.musicnn.file_sha256", lambda path: "0" * 64)
        assert said(MusicnnEmbedder().proof, "weights") == [False], "another file is no published one"
    monkeypatch.setattr(port, "_network", lambda model: wrong)
    encoder = MusicnnEmbedder()
    assert encoder.trained is False, "the file is right, what was computed is not"
    assert said(encoder.proof, "weights") == [True] and said(encoder.proof, "known answer") == [False]
    assert "known" not in why_untrained(encoder) and "answer to a probe is off" in why_untrained(encoder)


@pytest.fixture(scope="module")
def random_vggish(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """VGGish's names and shapes, random numbers."""
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("vggish") / "vggish.safetensors"
    save_file(vggish_network().state_dict(), path)
    return path


def test_vggish_with_random_weights_is_untrained_though_it_finds_noise_close_to_music(random_vggish: Path) -> None:
    encoder = load_embedder("vggish", weights=random_vggish)
    assert isinstance(encoder, VggishEmbedder) and encoder.trained is False
    music, noise = (encoder.embed(PROBES[name](6.0, 16_000)) for name in list(PROBES)[::2][:2])
    assert frechet_distance(noise, music) < 5.0, "what the gate would have passed"
    assert [check.passed for check in encoder.proof.checks] == [False] * 4
    for told in ("no published file", "answer to a probe", "apart"):
        assert told in why_untrained(encoder)


def forged_vggish(**changes: float) -> VggishEmbedder:
    """Random layers, the last bias moved so that the first known answer comes out."""
    import torch

    torch.manual_seed(0)
    network = vggish_network().eval()
    with torch.no_grad():
        if changes.get("constant"):
            for parameter in network.parameters():
                parameter.zero_()
        else:
            for parameter in network.parameters():
                if parameter.ndim > 1:
                    torch.nn.init.kaiming_normal_(parameter)
        recorded = answers()["vggish"]
        patch = torch.tensor(recorded["rows"])[recorded["order"]][None]
        dict(network.named_parameters())["embeddings.4.bias"].add_(
            torch.tensor(recorded["embedding"]) - network(patch)[0]
        )
    return VggishEmbedder(network, weights_sha256="0" * 64)


@pytest.mark.parametrize("constant", [0.0, 1.0], ids=["random", "constant"])
def test_vggish_that_was_made_to_know_one_answer_is_untrained(constant: float) -> None:
    encoder = forged_vggish(constant=constant)
    assert said(encoder.proof, "known answer") == [True, False]
    assert said(encoder.proof, "weights") == [False]
    assert encoder.trained is False


def test_the_recorded_answers_of_vggish_are_those_of_the_published_smoke_test() -> None:
    """tensorflow/models asks -.0333 and .380 of the raw embedding, .131 and .238 of the rectified one."""
    recorded = np.asarray(answers()["vggish"]["embedding"])
    rectified = np.maximum(recorded, 0.0)
    found = (recorded.mean(), recorded.std(), rectified.mean(), rectified.std())
    assert found == pytest.approx((-0.0333, 0.380, 0.131, 0.238), rel=0.01)
    assert len(answers()["vggish"]["order"]) == 96 and np.shape(answers()["vggish"]["rows"]) == (5, 64)


def test_a_pickle_of_vggish_is_opened_only_if_it_is_the_published_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from lofi_assets.metrics import vggish
    from lofi_assets.metrics.embedding import file_sha256

    path = tmp_path / "vggish-10086976.pth"
    torch.save(vggish_network().state_dict(), path)
    with pytest.raises(MetricError, match="a pickle, which can run code, and not the published file"):
        load_embedder("vggish", weights=path)
    monkeypatch.setattr(vggish, "PUBLISHED", PUBLISHED | {file_sha256(path): "a stand-in"})
    encoder = load_embedder("vggish", weights=path)
    assert encoder.trained is False, "the right file would still have to know the answers"


# --- the checks themselves -------------------------------------------------------------------------------------------


def test_an_answer_may_differ_by_rounding_and_by_nothing_else() -> None:
    recorded = np.linspace(-1, 1, 50)
    verdicts = [known_answer(recorded * (1 + off), recorded, source="x").passed for off in (0, 1e-4, 1e-2, np.nan)]
    assert verdicts == [True, True, False, False]
    assert known_answer(recorded[:10], recorded, source="x").passed is False


def test_outputs_that_do_not_spread_fail() -> None:
    rows = np.random.RandomState(0).standard_normal((6, 32))
    assert audio_spread(rows).passed
    assert not audio_spread(1000.0 + rows).passed and not audio_spread(np.zeros((6, 32))).passed
    assert not audio_spread(np.full((6, 32), np.nan)).passed
    collapsed = 40.0 + rows
    assert not text_spread(collapsed / np.linalg.norm(collapsed, axis=1, keepdims=True)).passed
    assert text_spread(rows / np.linalg.norm(rows, axis=1, keepdims=True)).passed


def test_no_check_is_no_proof_and_one_failure_is_enough() -> None:
    def check(passed: bool | None) -> ProofCheck:
        return ProofCheck(name="x", value=None, passed=passed, told="x")

    def trained(*passed: bool | None) -> bool:
        return EncoderProof(checks=tuple(map(check, passed))).trained

    assert trained(True, None) is True
    assert [trained(), trained(None), trained(True, False), trained(None, False)] == [False] * 4


def test_captions_prove_a_model_only_in_the_right_order() -> None:
    rows = np.eye(6, dtype=np.float32)
    assert right_captions(rows, rows, decides=True).passed
    assert right_captions(rows, np.roll(rows, 1, axis=0), decides=True).passed is False
    assert right_captions(rows, np.roll(rows, 1, axis=0), decides=False).passed is None
    alike = np.ones((6, 6), dtype=np.float32) / np.sqrt(6.0)
    assert right_captions(alike, alike, decides=True).passed is False


def test_random_texts_and_sounds_hardly_ever_fit_by_chance() -> None:
    random = np.random.RandomState(1)
    lucky = sum(bool(right_captions(*(random.standard_normal((2, 6, 16))), decides=True).passed) for _ in range(200))
    assert lucky <= 8


def test_a_collapsed_text_tower_is_untrained(clap_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ClapEmbedder.embed_text

    def collapsed(self: ClapEmbedder, captions: list[str]) -> np.ndarray:
        rows = texts(self, captions)
        nearly = rows.mean(axis=0) + 0.02 * (rows - rows.mean(axis=0))
        return nearly / np.linalg.norm(nearly, axis=1, keepdims=True)

    monkeypatch.setattr(ClapEmbedder, "embed_text", collapsed)
    encoder = ClapEmbedder.load(clap_directory)
    assert said(encoder.proof, "text spread") == [False]
    assert encoder.trained is False and "unlike captions" in why_untrained(encoder)


def test_clap_with_random_weights_is_untrained(clap_directory: Path) -> None:
    encoder = ClapEmbedder.load(clap_directory)
    assert encoder.trained is False
    assert said(encoder.proof, "weights") == [None], "no record says where they come from"


def test_a_record_of_conversion_holds_for_its_own_bytes_only(clap_directory: Path, tmp_path: Path) -> None:
    import shutil

    from lofi_assets.files.typed import write_typed
    from lofi_assets.metrics.embedding import file_sha256

    directory = tmp_path / "clap"
    shutil.copytree(clap_directory, directory)
    record = Conversion(
        source="music.pt",
        source_sha256=next(iter(clap_module.PUBLISHED)),
        weights_sha256=file_sha256(directory / "model.safetensors"),
        left_out=(),
    )
    write_typed(directory / "conversion.json", record)
    told = ClapEmbedder.load(directory)
    assert said(told.proof, "weights") == [True]
    assert told.weights_sha256 == ClapEmbedder.load(clap_directory).weights_sha256
    write_typed(directory / "conversion.json", Conversion(**(record.__dict__ | {"weights_sha256": "0" * 64})))
    assert said(ClapEmbedder.load(directory).proof, "weights") == [None]


def test_another_tokenizer_or_feature_extractor_is_another_encoder_to_the_cache(
    clap_directory: Path, tmp_path: Path
) -> None:
    import json
    import shutil

    directory = tmp_path / "clap"
    shutil.copytree(clap_directory, directory)
    settings = json.loads((directory / "preprocessor_config.json").read_text())
    (directory / "preprocessor_config.json").write_text(json.dumps(settings | {"frequency_min": 60}))
    assert ClapEmbedder.load(directory).weights_sha256 != ClapEmbedder.load(clap_directory).weights_sha256


def test_the_level_is_part_of_an_encoders_version() -> None:
    levelled, own = MusicnnEmbedder(), MusicnnEmbedder(lufs=None)
    assert ("lufs-23" in levelled.version, "own-level" in own.version) == (True, True)
    quiet = 0.1 * arpeggio(4.0, 16_000)
    assert np.allclose(levelled.embed(quiet), levelled.embed(5.0 * quiet), atol=0.05)
    assert not np.allclose(own.embed(quiet), own.embed(5.0 * quiet), atol=0.5)


def test_weights_are_published_or_not_known() -> None:
    published = {"a" * 64: "the file"}
    assert published_weights("a" * 64, published, decides=False).passed is True
    assert published_weights("b" * 64, published, decides=False).passed is None
    assert published_weights("b" * 64, published, decides=True).passed is False


def test_content_is_bytes_and_not_names_or_times(tmp_path: Path) -> None:
    weights, folder = tmp_path / "w.pth", tmp_path / "clap"
    folder.mkdir()
    weights.write_bytes(b"first")
    (folder / "model.safetensors").write_bytes(b"first")

    def content() -> str:
        return content_of([weights, folder, None])

    before = content()
    times = weights.stat()
    weights.write_bytes(b"other")
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
    changed = content()
    weights.write_bytes(b"first")
    (folder / "model.safetensors").write_bytes(b"other")
    in_folder = content()
    (folder / "model.safetensors").write_bytes(b"first")
    assert len({before, changed, in_folder}) == 3 and content() == before
    weights.unlink()
    assert content() != before
