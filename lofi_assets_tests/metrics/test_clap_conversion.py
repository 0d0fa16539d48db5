"""`lofi convert-clap`: laion-clap's names become transformers', and nothing that is not a tensor gets in."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lofi_assets.files.hashing import sha256_file
from lofi_assets.metrics.clap import ClapEmbedder, unit_rows
from lofi_assets.metrics.clap_conversion import (
    ROBERTA_SIZE,
    check_tokenizer,
    convert_clap,
    load_tokenizer,
    open_checkpoint,
    read_state,
    renamed,
)
from lofi_assets.metrics.errors import MetricError
from lofi_assets.metrics.probes import arpeggio, drums

State = dict[str, torch.Tensor]

DEPTHS, HEADS, WIDTH = (1, 2), (1, 2), 8
TEXT_WIDTH, WORDS, JOINT = 64, 300, 24


def linear(name: str, rows: int, columns: int) -> State:
    return {f"{name}.weight": torch.randn(rows, columns) * 0.2, f"{name}.bias": torch.randn(rows) * 0.2}


def norm(name: str, width: int) -> State:
    return {f"{name}.weight": 1.0 + 0.1 * torch.randn(width), f"{name}.bias": 0.1 * torch.randn(width)}


def block(name: str, width: int, heads: int) -> State:
    """A block of HTSAT as laion-clap names it (clap_module/htsat.py)."""
    return {
        **norm(f"{name}.norm1", width),
        **norm(f"{name}.norm2", width),
        f"{name}.attn.relative_position_bias_table": torch.randn(225, heads),
        f"{name}.attn.relative_position_index": torch.zeros(64, 64, dtype=torch.long),
        **linear(f"{name}.attn.qkv", 3 * width, width),
        **linear(f"{name}.attn.proj", width, width),
        **linear(f"{name}.mlp.fc1", 4 * width, width),
        **linear(f"{name}.mlp.fc2", width, 4 * width),
        f"{name}.attn_mask": torch.zeros(64, 64, 64),
    }


def audio_branch() -> State:
    widest = WIDTH * 2 ** (len(DEPTHS) - 1)
    state: State = {
        "audio_branch.spectrogram_extractor.stft.conv_real.weight": torch.zeros(513, 1, 1024),
        "audio_branch.logmel_extractor.melW": torch.zeros(513, 64),
        **norm("audio_branch.bn0", 64),
        "audio_branch.bn0.running_mean": torch.randn(64),
        "audio_branch.bn0.running_var": 1.0 + torch.rand(64),
        "audio_branch.bn0.num_batches_tracked": torch.tensor(7),
        "audio_branch.patch_embed.proj.weight": torch.randn(WIDTH, 1, 4, 4),
        "audio_branch.patch_embed.proj.bias": torch.randn(WIDTH),
        **norm("audio_branch.patch_embed.norm", WIDTH),
        **norm("audio_branch.norm", widest),
        **linear("audio_branch.head", 527, 527),
        "audio_branch.tscam_conv.weight": torch.zeros(527, widest, 2, 3),
    }
    for layer, (depth, heads) in enumerate(zip(DEPTHS, HEADS, strict=True)):
        width, name = WIDTH * 2**layer, f"audio_branch.layers.{layer}"
        for index in range(depth):
            state |= block(f"{name}.blocks.{index}", width, heads)
        if layer + 1 < len(DEPTHS):
            state |= norm(f"{name}.downsample.norm", 4 * width)
            state[f"{name}.downsample.reduction.weight"] = torch.randn(2 * width, 4 * width) * 0.2
    return state


def laion_clap() -> State:
    """A tiny CLAP of random numbers, every tensor as laion-clap names it."""
    from transformers import RobertaConfig, RobertaModel

    torch.manual_seed(3)
    roberta = RobertaModel(
        RobertaConfig(
            vocab_size=WORDS,
            hidden_size=TEXT_WIDTH,
            num_hidden_layers=1,
            num_attention_heads=1,
            intermediate_size=32,
            max_position_embeddings=90,
        )
    )
    widest = WIDTH * 2 ** (len(DEPTHS) - 1)
    return {
        "logit_scale_a": torch.tensor(2.7),
        "logit_scale_t": torch.tensor(2.6),
        **audio_branch(),
        **{f"text_branch.{name}": tensor for name, tensor in roberta.state_dict().items()},
        "text_branch.embeddings.position_ids": torch.arange(90)[None],
        **linear("text_transform.sequential.0", JOINT, JOINT),
        **linear("audio_transform.sequential.3", JOINT, JOINT),
        **linear("text_projection.0", JOINT, TEXT_WIDTH),
        **linear("text_projection.2", JOINT, JOINT),
        **linear("audio_projection.0", JOINT, widest),
        **linear("audio_projection.2", JOINT, JOINT),
    }


@pytest.fixture(scope="module")
def state() -> State:
    return laion_clap()


@pytest.fixture
def checkpoint(tmp_path: Path, state: State) -> Path:
    """As laion-clap's training writes it, an optimiser and a number of numpy's beside the model."""
    path = tmp_path / "tiny.pt"
    prefixed = {f"module.{name}": tensor for name, tensor in state.items()}
    optimizer = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-4}]}
    torch.save({"epoch": 15, "score": np.float64(0.9), "optimizer": optimizer, "state_dict": prefixed}, path)
    return path


def test_a_checkpoint_becomes_a_folder_that_says_where_it_comes_from(
    checkpoint: Path, clap_directory: Path, tmp_path: Path
) -> None:
    made = convert_clap(checkpoint, tmp_path / "made", tokenizer=clap_directory)
    assert made.source == "tiny.pt" and made.source_sha256 == sha256_file(checkpoint)
    assert made.weights_sha256 == sha256_file(tmp_path / "made" / "model.safetensors")
    assert "audio_branch.head.weight" in made.left_out and not any("qkv" in name for name in made.left_out)
    clap = ClapEmbedder.load(tmp_path / "made")
    assert clap.dim == JOINT and clap.trained is False
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made", "tiny.pt"], "nothing half-made is left"


def test_every_weight_arrives_under_its_new_name(checkpoint: Path, state: State) -> None:
    kept, _ = renamed(read_state(checkpoint))
    encoder = "audio_model.audio_encoder.layers.1.blocks.0"
    fused = state["audio_branch.layers.1.blocks.0.attn.qkv.weight"]
    parts = [kept[f"{encoder}.attention.self.{part}.weight"] for part in ("query", "key", "value")]
    assert torch.equal(torch.cat(parts), fused)
    for ours, theirs in (
        (f"{encoder}.layernorm_after.bias", "audio_branch.layers.1.blocks.0.norm2.bias"),
        (f"{encoder}.output.dense.weight", "audio_branch.layers.1.blocks.0.mlp.fc2.weight"),
        ("audio_projection.linear2.weight", "audio_projection.2.weight"),
        ("audio_model.audio_encoder.batch_norm.running_var", "audio_branch.bn0.running_var"),
        ("text_model.pooler.dense.weight", "text_branch.pooler.dense.weight"),
    ):
        assert torch.equal(kept[ours], state[theirs])


@pytest.fixture
def opened_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process: the start of another costs seconds."""
    from lofi_assets.metrics import clap_conversion

    monkeypatch.setattr(clap_conversion, "_opened_apart", lambda job, **limits: open_checkpoint(job))


@pytest.mark.usefixtures("opened_here")
def test_two_conversions_hear_and_read_the_same(checkpoint: Path, clap_directory: Path, tmp_path: Path) -> None:
    vectors = []
    for name in ("first", "second"):
        convert_clap(checkpoint, tmp_path / name, tokenizer=clap_directory)
        clap = ClapEmbedder.load(tmp_path / name)
        vectors.append(np.concatenate([unit_rows(clap.embed(arpeggio(10.0, 48_000))), clap.embed_text(["a", "b"])]))
    assert np.array_equal(vectors[0], vectors[1])
    clips = [clap.embed(clip(10.0, 48_000)) for clip in (arpeggio, drums)]
    assert not np.allclose(clips[0], clips[1])


class Harmful:
    """Runs a command where a pickle is read without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_does_anything_but_tensors_is_refused_and_does_nothing(
    tmp_path: Path, clap_directory: Path, state: State
) -> None:
    harm = tmp_path / "harm"
    checkpoint = tmp_path / "bad.pt"
    torch.save({"state_dict": state, "extra": Harmful(harm)}, checkpoint)
    with pytest.raises(MetricError, match="holds more than tensors"):
        convert_clap(checkpoint, tmp_path / "made", tokenizer=clap_directory)
    assert not harm.exists() and not (tmp_path / "made").exists()


@pytest.mark.usefixtures("opened_here")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state | {"audio_branch.surprise.weight": torch.zeros(2)}, "audio_branch.surprise.weight"),
        (lambda state: {k: v for k, v in state.items() if k != "audio_projection.2.bias"}, "audio_projection.linear2"),
        (lambda state: {k: v for k, v in state.items() if "word_embeddings" not in k}, "word_embeddings"),
        (lambda state: state | {"audio_branch.patch_embed.mel_conv2d.weight": torch.zeros(2)}, "fusion"),
        (lambda state: state | {"logit_scale_a": torch.zeros(3)}, "logit_scale_a"),
        (lambda state: state | {"logit_scale_a": "text"}, "no tensor"),
        (lambda state: state | {"audio_branch.norm.weight": torch.zeros(5)}, "size mismatch"),
        (lambda state: {}, "no tensors by name"),
    ],
    ids=["unknown", "missing", "no words", "fusion", "shape of a scale", "word", "shape", "empty"],
)
def test_a_tensor_too_many_too_few_or_of_another_shape_is_named(
    change: Callable[[dict[str, Any]], dict[str, Any]],
    said: str,
    state: State,
    clap_directory: Path,
    tmp_path: Path,
) -> None:
    torch.save({"state_dict": change(dict(state))}, tmp_path / "odd.pt")
    with pytest.raises(MetricError, match=said) as failure:
        convert_clap(tmp_path / "odd.pt", tmp_path / "made", tokenizer=clap_directory)
    assert "odd.pt" in str(failure.value)
    assert not (tmp_path / "made").exists()


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"PK\x03\x04 not a zip", b"\x80\x02garbage" * 40):
        (tmp_path / "x.pt").write_bytes(content)
        with pytest.raises(MetricError, match=r"x\.pt"):
            read_state(tmp_path / "x.pt")


def test_folders_and_files_that_do_not_fit_are_said_before_anything_is_opened(
    checkpoint: Path, clap_directory: Path, tmp_path: Path
) -> None:
    (tmp_path / "there").mkdir()
    for arguments, said in (
        ((tmp_path / "absent.pt", tmp_path / "made", clap_directory), "no such file"),
        ((checkpoint, tmp_path / "there", clap_directory), "exists"),
        ((checkpoint, tmp_path / "made", None), "roberta-base"),
        ((checkpoint, tmp_path / "made", tmp_path / "there"), "roberta-base"),
    ):
        source, folder, tokenizer = arguments
        with pytest.raises(MetricError, match=said):
            convert_clap(source, folder, tokenizer=tokenizer)


def test_a_tokenizer_of_another_model_is_refused(clap_directory: Path) -> None:
    words = load_tokenizer(clap_directory)
    check_tokenizer(words, size=WORDS, where=clap_directory)
    with pytest.raises(MetricError, match="the checkpoint knows 100"):
        check_tokenizer(words, size=100, where=clap_directory)
    with pytest.raises(MetricError, match="31414"):
        check_tokenizer(words, size=ROBERTA_SIZE, where=clap_directory)
