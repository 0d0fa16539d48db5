"""A transformer that takes an adapter for good, and the base that it is written into."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from lofi_assets.backbones.ace_step_v1.export import USED_PARTS
from lofi_assets.backbones.ace_step_v1.loading import FOLDERS, TRANSFORMER, load_base
from lofi_assets.backbones.ace_step_v1.lyric_vocabulary import LYRIC_VOCABULARY
from lofi_assets.files.writing import link_or_copy


def mergeable(base: Path) -> nn.Module:
    """The transformer of a base as it is stored, its weights views of the file, without what no forward pass of a
    finished model reads."""
    dtype = stored_precision(base / TRANSFORMER)
    loaded = load_base(base, dtype=dtype, components=["transformer"], transformer_options=USED_PARTS)
    assert loaded.transformer is not None
    return loaded.transformer


def stored_precision(folder: Path) -> str:
    """ "bfloat16" if all weights of a folder are, else "float32", which holds any."""
    kinds: set[str] = set()
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            kinds |= {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    return "bfloat16" if kinds == {"BF16"} else "float32"


def velocity_probe(model: nn.Module) -> Callable[[nn.Module], Tensor]:
    """What a transformer predicts for two items of random conditions, (2, 8, 16, 20)."""
    config: Any = model.config
    random = torch.Generator().manual_seed(0)
    lyrics = torch.randint(0, config.lyric_encoder_vocab_size, (2, 6), generator=random)
    inputs = {
        "hidden_states": torch.randn(2, config.in_channels, config.max_height, 20, generator=random),
        "text_hidden_states": torch.randn(2, 5, config.text_embedding_dim, generator=random),
        "text_attention_mask": torch.ones(2, 5, dtype=torch.long),
        "speaker_embeds": torch.randn(2, config.speaker_embedding_dim, generator=random),
        "lyric_token_ids": lyrics,
        "lyric_mask": torch.ones_like(lyrics),
        "timestep": torch.tensor([850.0, 300.0]),
    }

    def velocity(transformer: nn.Module) -> Tensor:
        with torch.no_grad():
            sample: Tensor = transformer(attention_mask=None, **inputs).sample
        return sample

    return velocity


def write_merged(model: nn.Module, base: Path, folder: Path, *, vocabulary: Path | None) -> None:
    """Write `model` beside links to the base's other folders."""
    transformer: Any = model
    transformer.save_pretrained(folder / TRANSFORMER, max_shard_size="100GB")
    others = [path for name in FOLDERS if name != TRANSFORMER for path in (base / name).rglob("*")]
    for source in (*others, base / LYRIC_VOCABULARY):
        if source.is_file():
            link_or_copy(source.resolve(), folder / source.relative_to(base))
    if vocabulary is not None:
        link_or_copy(vocabulary, folder / LYRIC_VOCABULARY)
