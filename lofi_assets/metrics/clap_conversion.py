"""LAION's own CLAP checkpoints as a folder of transformers: `music_audioset_epoch_15_esc_90.14.pt` and its like.

A checkpoint is a pickle of somebody else's. It is opened in a process of its own, with a limit on memory and time, by
torch's reader that builds tensors and nothing else; what leaves that process is a safetensors file. Names are mapped
one by one: a tensor that is not known, or that the model lacks, is refused by name, so that no part of the model can
keep random weights.

The architecture is read off the shapes: HTSAT (audio) and RoBERTa (text), without fusion.
"""

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lofi_assets.files.hashing import sha256_file
from lofi_assets.files.typed import write_typed
from lofi_assets.metrics.clap import SAMPLE_RATE, WINDOW_S, Conversion
from lofi_assets.metrics.errors import MetricError
from lofi_assets.progress import transformers_bars_on_terminals
from lofi_assets.workers.mapping import WorkerFailure
from lofi_assets.workers.process_pool import LocalProcesses

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]

MEMORY_GB, SECONDS = 12.0, 900.0
"""Of the process that opens the checkpoint: the published one is 2.4 GB, with the optimiser's state."""

WEIGHTS = "model.safetensors"

LEFT_OUT = (
    r"(text|audio)_transform\..*",  # heads of the training loss
    r"audio_branch\.(tscam_conv|head)\..*",  # AudioSet's classifier
    r"audio_branch\.(spectrogram_extractor|logmel_extractor)\..*",  # fixed filters; the feature extractor has its own
    r"audio_branch\.layers\.\d+\.blocks\.\d+\.attn_mask",  # follows from the window's size
    r".*\.(position_ids|token_type_ids|relative_position_index|num_batches_tracked)",  # counts, not learnt
)
_BLOCK, _IN_BLOCK = r"audio_branch\.(layers\.\d+\.blocks\.\d+)", r"audio_model.audio_encoder.\1"
RENAMED = (
    (r"logit_scale_[at]", r"\g<0>"),
    (r"text_branch\.(.*)", r"text_model.\1"),
    (r"(text|audio)_projection\.0\.(weight|bias)", r"\1_projection.linear1.\2"),
    (r"(text|audio)_projection\.2\.(weight|bias)", r"\1_projection.linear2.\2"),
    (r"audio_branch\.bn0\.(.*)", r"audio_model.audio_encoder.batch_norm.\1"),
    (r"audio_branch\.((?:patch_embed|norm|layers\.\d+\.downsample)\..*)", r"audio_model.audio_encoder.\1"),
    (_BLOCK + r"\.norm1\.(.*)", _IN_BLOCK + r".layernorm_before.\2"),
    (_BLOCK + r"\.norm2\.(.*)", _IN_BLOCK + r".layernorm_after.\2"),
    (_BLOCK + r"\.mlp\.fc1\.(.*)", _IN_BLOCK + r".intermediate.dense.\2"),
    (_BLOCK + r"\.mlp\.fc2\.(.*)", _IN_BLOCK + r".output.dense.\2"),
    (_BLOCK + r"\.attn\.proj\.(.*)", _IN_BLOCK + r".attention.output.dense.\2"),
    (_BLOCK + r"\.attn\.(relative_position_bias_table)", _IN_BLOCK + r".attention.self.\2"),
)
"""laion-clap's name -> transformers' name, the whole name each."""

FUSED = re.compile(_BLOCK + r"\.attn\.qkv\.(weight|bias)")
"""Query, key and value in one tensor there, in three here."""

FUSION = re.compile(r"audio_branch\..*(mel_conv2d|fusion_model|mel_conv1d).*")

TOKENIZER_FROM = (
    "give the folder of roberta-base's tokenizer (MIT), e.g. `hf download roberta-base vocab.json merges.txt "
    "tokenizer.json tokenizer_config.json --local-dir FOLDER`"
)
ROBERTA_SIZE, ROBERTA_SAYS = 50_265, ("Hello world!", [0, 31414, 232, 328, 2])
"""Size of RoBERTa's vocabulary, and how it spells a text that its documentation shows."""


@dataclass(frozen=True)
class _Job:
    checkpoint: Path
    weights: Path


def convert_clap(
    checkpoint: Path,
    folder: Path,
    *,
    tokenizer: Path | None,
    memory_gb: float = MEMORY_GB,
    timeout_s: float = SECONDS,
) -> Conversion:
    """Write a checkpoint of laion-clap as a folder that `ClapEmbedder.load` reads.

    Args:
        folder: to be made; it must not exist.
        tokenizer: folder of roberta-base's tokenizer; nothing is fetched.
    Raises:
        MetricError: no such file, anything in it but tensors, a tensor too many or too few, a fusion checkpoint, a
            tokenizer that is absent or not the text model's, a folder that exists.
    """
    if not checkpoint.is_file():
        raise MetricError(f"{checkpoint}: no such file")
    if folder.exists():
        raise MetricError(f"{folder}: exists; name a new folder")
    words = load_tokenizer(tokenizer)
    making = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    try:
        left_out = _opened_apart(_Job(checkpoint, making / WEIGHTS), memory_gb=memory_gb, timeout_s=timeout_s)
        size = _save_model(making, checkpoint)
        check_tokenizer(words, size=size, where=tokenizer)
        words.save_pretrained(making)
        conversion = Conversion(
            source=checkpoint.name,
            source_sha256=sha256_file(checkpoint),
            weights_sha256=sha256_file(making / WEIGHTS),
            left_out=left_out,
        )
        write_typed(making / "conversion.json", conversion)
        making.rename(folder)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return conversion


def load_tokenizer(folder: Path | None) -> Any:
    """The tokenizer of a folder; MetricError if there is none."""
    from transformers import AutoTokenizer

    if folder is None or (not (folder / "tokenizer.json").is_file() and not (folder / "vocab.json").is_file()):
        raise MetricError(
            f"{folder or 'no folder'}: holds no tokenizer (tokenizer.json or vocab.json); {TOKENIZER_FROM}"
        )
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise MetricError(f"{folder}: the tokenizer cannot be read ({error}); {TOKENIZER_FROM}") from error


def check_tokenizer(words: Any, *, size: int, where: Path | None) -> None:
    """MetricError unless the tokenizer is the one that a text model of `size` words was trained with."""
    text, ids = ROBERTA_SAYS
    said = list(words(text)["input_ids"])
    if len(words) > size:
        raise MetricError(f"{where}: {len(words)} words, the checkpoint knows {size}; {TOKENIZER_FROM}")
    if size == ROBERTA_SIZE and said != ids:
        raise MetricError(f"{where}: spells {text!r} {said}, RoBERTa {ids}; {TOKENIZER_FROM}")


def open_checkpoint(job: _Job) -> tuple[str, ...]:
    """Write the tensors of a checkpoint under transformers' names; returns the names of those left out.

    Runs in a process of its own.
    """
    from safetensors.torch import save_file

    try:
        kept, left_out = renamed(read_state(job.checkpoint))
    except MetricError as error:
        raise error if str(job.checkpoint) in str(error) else MetricError(f"{job.checkpoint}: {error}") from error
    save_file({name: tensor.contiguous().clone() for name, tensor in kept.items()}, job.weights, {"format": "pt"})
    return tuple(left_out)


def renamed(state: "Mapping[str, torch.Tensor]") -> "tuple[Tensors, list[str]]":
    """Tensors under transformers' names, and the names of those that are not needed.

    Raises:
        MetricError: a name that is not known, or of a fusion checkpoint.
    """
    kept: Tensors = {}
    left_out: list[str] = []
    for full, tensor in state.items():
        name = full.removeprefix("module.")
        if FUSION.fullmatch(name):
            raise MetricError(f"{name}: of a fusion checkpoint, whose windows are drawn at random; take one without")
        if any(re.fullmatch(pattern, name) for pattern in LEFT_OUT):
            left_out.append(name)
        elif fused := FUSED.fullmatch(name):
            for part, third in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                kept[f"audio_model.audio_encoder.{fused[1]}.attention.self.{part}.{fused[2]}"] = third
        else:
            kept[_renamed(name)] = tensor
    return kept, left_out


def _renamed(name: str) -> str:
    for pattern, form in RENAMED:
        if found := re.fullmatch(pattern, name):
            return found.expand(form)
    raise MetricError(f"{name}: no tensor of laion-clap's HTSAT and RoBERTa; is this another model?")


def read_state(checkpoint: Path) -> "Tensors":
    """The model's tensors; everything else in the file, such as the optimiser's state, is left where it is.

    Raises:
        MetricError: anything but tensors and numbers in it, or no checkpoint.
    """
    import numpy as np
    import torch
    from numpy._core.multiarray import scalar

    # The published file notes a score of its epoch as a number of numpy's; these build numbers and nothing else.
    numbers: list[Any] = [(scalar, "numpy.core.multiarray.scalar"), scalar, np.dtype, np.dtypes.Float64DType]
    try:
        with torch.serialization.safe_globals(numbers):
            loaded = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a file that is none can make of the reader
        raise MetricError(f"{checkpoint}: holds more than tensors, or is no checkpoint: {_in_short(error)}") from error
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(state, dict) or not state:
        raise MetricError(f"{checkpoint}: no tensors by name in it")
    odd = [str(name) for name, value in state.items() if not isinstance(name, str) or not torch.is_tensor(value)]
    if odd:
        raise MetricError(f"{checkpoint}: {odd[0]!r} is no tensor")
    return state


def _in_short(error: Exception) -> str:
    told = [line.strip() for line in str(error).splitlines() if "GLOBAL" in line or "Unsupported" in line]
    return (told or [f"{type(error).__name__}: {error}"])[0][:300]


def _opened_apart(job: _Job, *, memory_gb: float, timeout_s: float) -> tuple[str, ...]:
    ((_, outcome),) = LocalProcesses(1, timeout_s, memory_gb)(open_checkpoint, [job], label="opening the checkpoint")
    if isinstance(outcome, WorkerFailure):
        reason = outcome.reason.removeprefix("MetricError: ").removeprefix(f"{job.checkpoint}: ")
        raise MetricError(f"{job.checkpoint}: {reason}")
    return outcome


def _save_model(folder: Path, checkpoint: Path) -> int:
    """Build the model from the folder's tensors and save it whole; returns the size of its vocabulary."""
    from safetensors.torch import load_file
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

    tensors = load_file(folder / WEIGHTS)
    try:
        described = architecture(tensors)
    except KeyError as error:
        raise MetricError(f"{checkpoint}: lacks {error.args[0]}; is this another model?") from error
    model = ClapModel(ClapConfig(**described))
    try:
        lacking, unknown = model.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        raise MetricError(f"{checkpoint}: {error}") from error
    lacking = [name for name in lacking if not any(re.fullmatch(pattern, name) for pattern in LEFT_OUT)]
    if lacking or unknown:
        raise MetricError(
            f"{checkpoint}: lacks {lacking[:3] or 'nothing'}, and has {unknown[:3] or 'nothing'} too many"
        )
    with transformers_bars_on_terminals():
        model.save_pretrained(folder)
    ClapFeatureExtractor(
        feature_size=64,
        sampling_rate=SAMPLE_RATE,
        hop_length=480,
        fft_window_size=1024,
        max_length_s=int(WINDOW_S),
        frequency_min=50,
        frequency_max=14_000,
        truncation="rand_trunc",
        padding="repeatpad",
    ).save_pretrained(folder)
    return int(described["text_config"]["vocab_size"])


def architecture(tensors: "Mapping[str, torch.Tensor]") -> dict[str, Any]:
    """Arguments of `ClapConfig` for these tensors; KeyError for one that every CLAP has."""
    encoder, text = "audio_model.audio_encoder", "text_model"
    depths: list[int] = []
    while f"{encoder}.layers.{len(depths)}.blocks.0.layernorm_before.weight" in tensors:
        layer = f"{encoder}.layers.{len(depths)}.blocks"
        depths.append(
            len({name for name in tensors if re.fullmatch(rf"{re.escape(layer)}\.\d+\.layernorm_before\.weight", name)})
        )
    words, width = tensors[f"{text}.embeddings.word_embeddings.weight"].shape
    projection = int(tensors["text_projection.linear1.weight"].shape[0])
    bias = "attention.self.relative_position_bias_table"
    return {
        "projection_dim": projection,
        "audio_config": {
            "enable_fusion": False,
            "depths": depths,
            "num_hidden_layers": len(depths),
            "num_attention_heads": [
                int(tensors[f"{encoder}.layers.{layer}.blocks.0.{bias}"].shape[1]) for layer in range(len(depths))
            ],
            "patch_embeds_hidden_size": int(tensors[f"{encoder}.patch_embed.proj.weight"].shape[0]),
            "hidden_size": int(tensors[f"{encoder}.norm.weight"].shape[0]),
            "projection_dim": projection,
        },
        "text_config": {
            "vocab_size": int(words),
            "hidden_size": int(width),
            "num_hidden_layers": len(
                {name.split(".")[3] for name in tensors if name.startswith(f"{text}.encoder.layer.")}
            ),
            "num_attention_heads": int(width) // 64,
            "intermediate_size": int(tensors[f"{text}.encoder.layer.0.intermediate.dense.weight"].shape[0]),
            "type_vocab_size": int(tensors[f"{text}.embeddings.token_type_embeddings.weight"].shape[0]),
            "max_position_embeddings": int(tensors[f"{text}.embeddings.position_embeddings.weight"].shape[0]),
            "layer_norm_eps": 1e-5,  # RoBERTa's own; transformers' default for CLAP is another
            "projection_dim": projection,
        },
    }
