"""Reading a base model: the four folders of the Hub repository, from disk or by repository id and pinned revision.

One loader for the published 3.5B model and for the tiny one that `tiny.write_tiny_base` writes. Safetensors only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from lofi_assets.backbones import BaseModelError
from lofi_assets.backbones.ace_step_v1.lyric_vocabulary import LYRIC_VOCABULARY
from lofi_assets.backbones.ace_step_v1.strict import strict
from lofi_assets.backbones.ace_step_v1.transformer import ACEStepTransformer2DModel
from lofi_assets.backbones.freed_memory import keep_freed_memory
from lofi_assets.errors import explanation
from lofi_assets.lyrics.tokenizer import LyricTokenizer
from lofi_assets.progress import transformers_bars_on_terminals

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, UMT5EncoderModel

    from lofi_assets.backbones.ace_step_v1.music_dcae import MusicDCAE

TRANSFORMER = "ace_step_transformer"
DCAE = "music_dcae_f8c8"
VOCODER = "music_vocoder"
TEXT_ENCODER = "umt5-base"
FOLDERS = (TRANSFORMER, DCAE, VOCODER, TEXT_ENCODER)
ALL = ("transformer", "music_dcae", "text_encoder", "lyric_tokenizer")
MAX_TEXT_TOKENS = 256


@dataclass(frozen=True)
class Base:
    """A base model; parts that were not asked for are None.

    `music_dcae` is always float32: its decoder and the vocoder decide what is heard.
    """

    path: Path
    transformer: ACEStepTransformer2DModel | None = None
    music_dcae: MusicDCAE | None = None
    text_encoder: UMT5EncoderModel | None = None
    tokenizer: PreTrainedTokenizerBase | None = None
    lyric_tokenizer: LyricTokenizer | None = None


def load_base(
    path_or_repo: str | Path,
    *,
    dtype: str = "float32",
    device: str = "cpu",
    revision: str | None = None,
    components: Collection[str] = ALL,
    lyric_vocabulary: Path | None = None,
    transformer_options: dict[str, Any] | None = None,
) -> Base:
    """Read a base model in evaluation mode.

    Args:
        path_or_repo: a folder with the four sub-folders, or a Hub repository id.
        dtype: "float32", "bfloat16" or "float16", for transformer and text encoder.
        revision: commit hash; required for a repository id, so that a run can be repeated.
        components: of "transformer", "music_dcae", "text_encoder" (with its tokenizer), "lyric_tokenizer".
        lyric_vocabulary: upstream's vocab.json, which the Hub repository lacks; else `lyric_vocab.json` in the folder.
        transformer_options: overrides of the transformer's config, e.g. drop_dead_projections.
    Raises:
        BaseModelError: a folder or a tensor is missing, or a tensor is not of this model.
    """
    unknown = sorted(set(components) - set(ALL))
    if unknown:
        raise BaseModelError(f"unknown components {unknown}: choose from {list(ALL)}")
    path = base_directory(path_or_repo, revision=revision)
    precision = _dtype(dtype)
    transformer = music_dcae = text_encoder = tokenizer = lyric_tokenizer = None
    if "transformer" in components:
        transformer = load_transformer(path / TRANSFORMER, dtype=dtype, **(transformer_options or {}))
    if "music_dcae" in components:
        if torch.device(device).type == "cpu":
            keep_freed_memory()
        # every autoencoder of diffusers comes with it: a second of a trainer's start, which has no use for one
        from lofi_assets.backbones.ace_step_v1.music_dcae import MusicDCAE

        with _whole(path / DCAE):
            music_dcae = MusicDCAE.from_pretrained(path / DCAE, path / VOCODER)
    if "text_encoder" in components:
        with _whole(path / TEXT_ENCODER):
            text_encoder, tokenizer = _load_text_encoder(path / TEXT_ENCODER, precision)
    if "lyric_tokenizer" in components:
        lyric_tokenizer = _load_lyric_tokenizer(path, lyric_vocabulary)
    for module in (transformer, music_dcae, text_encoder):
        if isinstance(module, nn.Module):
            nn.Module.to(module, device)
    return Base(path, transformer, music_dcae, text_encoder, tokenizer, lyric_tokenizer)


def base_directory(path_or_repo: str | Path, *, revision: str | None = None) -> Path:
    """The local folder of a base model; a repository id is downloaded at its revision, the four folders only.

    Raises:
        BaseModelError: a local folder is incomplete, or a repository id comes without a revision or is not to be had.
    """
    path = Path(path_or_repo)
    if path.is_dir():
        missing = [folder for folder in FOLDERS if not (path / folder).is_dir()]
        if missing:
            raise BaseModelError(
                f"{path} is no base model: it lacks {missing}. `lofi tiny-base {path}` writes a tiny one."
            )
        return path
    if isinstance(path_or_repo, Path) or path_or_repo.count("/") != 1:
        raise BaseModelError(f"no folder {path_or_repo}, and it is no repository id such as ACE-Step/ACE-Step-v1-3.5B")
    if revision is None:
        raise BaseModelError(
            f"{path_or_repo}: give the revision (a commit hash; https://huggingface.co/{path_or_repo}/commits), "
            "a moving model cannot be reproduced"
        )
    from huggingface_hub import snapshot_download

    patterns = [f"{folder}/*.{suffix}" for folder in FOLDERS for suffix in ("json", "safetensors")]
    try:
        return Path(snapshot_download(path_or_repo, revision=revision, allow_patterns=patterns))
    except Exception as error:  # httpx, OSError, ValueError: the client has no common base
        if explanation(error):
            raise
        raise BaseModelError(
            f"{path_or_repo} at {revision}: cannot be downloaded ({' '.join(str(error).split())[:300]}); see that the "
            "network and the revision are there, or fetch it by hand (`hf download`) and name its folder"
        ) from error


def load_transformer(
    directory: Path, *, dtype: str = "float32", mask_aware_padding: bool = True, **options: Any
) -> ACEStepTransformer2DModel:
    """Read a transformer folder strictly: every tensor accounted for, except those that the options leave out.

    Args:
        mask_aware_padding, options: overrides of the config (`drop_dead_projections`, `build_projectors`).
    Raises:
        BaseModelError: missing or unknown tensors, or none in safetensors.
    """
    with _whole(directory):
        loaded = ACEStepTransformer2DModel.from_pretrained(
            str(directory),
            torch_dtype=_dtype(dtype),
            use_safetensors=True,
            output_loading_info=True,
            mask_aware_padding=mask_aware_padding,
            **options,
        )
    model: ACEStepTransformer2DModel = strict(loaded, directory)
    model.eval()
    return model


@contextmanager
def _whole(directory: Path) -> Iterator[None]:
    """Within the block, weights that are absent, cut short or no safetensors are named with their folder."""
    try:
        yield
    except (OSError, SafetensorError) as error:  # diffusers makes the one of the other
        if explanation(error):
            raise
        why = " ".join(str(error).split())[:300]
        raise BaseModelError(f"{directory} holds no whole weights in safetensors ({why}); fetch it again") from error


def encode_lyrics(base: Base, lyrics: Sequence[str], *, language: str | None = None) -> tuple[Tensor, Tensor]:
    """Lyrics -> token ids (B, Tl) padded with 0, and mask (B, Tl), 1 for a token.

    Args:
        language: of all of them; None takes each song's own (`lyrics.tokenizer.song_language`), as the features do.
    Raises:
        BaseModelError: the base was loaded without its lyric tokenizer.
        LyricError: there are words and no vocabulary.
    """
    if base.lyric_tokenizer is None:
        raise BaseModelError(f"{base.path} was loaded without lyric_tokenizer: name it in components")
    sequences = [torch.tensor(base.lyric_tokenizer.encode(text, language=language)) for text in lyrics]
    ids = pad_sequence(sequences, batch_first=True)
    mask = pad_sequence([torch.ones_like(sequence) for sequence in sequences], batch_first=True)
    return ids, mask


@torch.no_grad()
def encode_text(base: Base, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Prompts -> text states (B, Tt, width) and mask (B, Tt), 1 for a token; cut at 256 tokens.

    Raises:
        BaseModelError: the base was loaded without its text encoder.
    """
    if base.text_encoder is None or base.tokenizer is None:
        raise BaseModelError(f"{base.path} was loaded without text_encoder: name it in components")
    batch = base.tokenizer(
        list(prompts), return_tensors="pt", padding=True, truncation=True, max_length=MAX_TEXT_TOKENS
    ).to(base.text_encoder.device)
    states = base.text_encoder(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    return states.last_hidden_state, batch["attention_mask"]


def _dtype(name: str) -> torch.dtype:
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name not in known:
        raise BaseModelError(f"unknown dtype {name!r}: choose from {list(known)}")
    return known[name]


def _load_text_encoder(directory: Path, dtype: torch.dtype) -> tuple[UMT5EncoderModel, PreTrainedTokenizerBase]:
    from transformers import AutoTokenizer, UMT5EncoderModel

    with transformers_bars_on_terminals():
        loaded: Any = UMT5EncoderModel.from_pretrained(
            str(directory), dtype=dtype, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    return strict(loaded, directory).eval(), AutoTokenizer.from_pretrained(str(directory), local_files_only=True)


def _load_lyric_tokenizer(path: Path, vocabulary: Path | None) -> LyricTokenizer:
    if vocabulary is not None:
        return LyricTokenizer(vocabulary)
    inside = path / LYRIC_VOCABULARY
    return LyricTokenizer(inside if inside.is_file() else None)
