"""The modules of the base, of the very classes that read the published weights, and its folder.

Sizes become modules, and these are written as the Hub's repository is laid out. What they learn is in `codec` and
`music`, and what the vocoder holds before it learns in `additive`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_dc import AutoencoderDC
from torch import nn
from transformers import PreTrainedTokenizerBase, UMT5Config, UMT5EncoderModel

from lofi_assets.backbones.ace_step_v1.loading import DCAE, TEXT_ENCODER, TRANSFORMER, VOCODER
from lofi_assets.backbones.ace_step_v1.lyric_vocabulary import LYRIC_VOCABULARY
from lofi_assets.backbones.ace_step_v1.tiny import (
    LATENT_CHANNELS,
    make_audible,
    write_lyric_vocabulary,
    write_text_tokenizer,
)
from lofi_assets.backbones.ace_step_v1.transformer import ACEStepTransformer2DModel
from lofi_assets.backbones.ace_step_v1.vocoder import ADaMoSHiFiGANV1
from lofi_assets.demo.base_recipe.settings import DcaeSettings, Recipe, TransformerSettings, VocoderSettings
from lofi_assets.demo.base_recipe.tempo_code import with_mark
from lofi_assets.files.documents import read_json, write_json
from lofi_assets.files.writing import atomic_folder
from lofi_assets.progress import transformers_bars_on_terminals
from lofi_assets.styles.taxonomy import Taxonomy


def vocabulary(taxonomy: Taxonomy) -> list[str]:
    """Every word that a prompt may hold, aliases and tempi included, each once; what else comes is spelt out.

    Words of lofi are in it although the base never reads them: a LoRA teaches what they mean.
    """
    low, high = taxonomy.bpm_range
    phrases = [*taxonomy.index, "bpm", *(str(bpm) for bpm in range(low, high + 1))]
    return list(dict.fromkeys(word for phrase in phrases for word in phrase.split()))


def write_tokenizers(folder: Path, taxonomy: Taxonomy, *, mark: bool = False) -> tuple[int, int]:
    """Write the text tokenizer and the lyric vocabulary into a base's folder; returns their sizes.

    Args:
        mark: whether a mark stands before every prompt (`tempo_code`).
    """
    text = write_text_tokenizer(folder / TEXT_ENCODER, vocabulary(taxonomy))
    if mark:
        with_mark(read_tokenizer(folder)).save_pretrained(folder / TEXT_ENCODER)
    return text, write_lyric_vocabulary(folder / LYRIC_VOCABULARY)


def build_dcae(settings: DcaeSettings) -> AutoencoderDC:
    """Residual blocks throughout: attention over the whole image would meet lengths that it never trained on."""
    model: AutoencoderDC = AutoencoderDC(
        in_channels=2,
        latent_channels=LATENT_CHANNELS,
        encoder_block_types="ResBlock",
        decoder_block_types="ResBlock",
        encoder_block_out_channels=settings.channels,
        decoder_block_out_channels=settings.channels,
        encoder_layers_per_block=settings.encoder_layers,
        decoder_layers_per_block=settings.decoder_layers,
        encoder_qkv_multiscales=((), (), (), ()),
        decoder_qkv_multiscales=((), (), (), ()),
        downsample_block_type="Conv",
        upsample_block_type="pixel_shuffle",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
        scaling_factor=0.41407,
    )
    return model


def build_vocoder(settings: VocoderSettings) -> ADaMoSHiFiGANV1:
    """A vocoder that starts to learn at once: kernels that keep the signal's level, ConvNeXt blocks at a tenth of full
    strength (the published start, 1e-6, is for longer trainings)."""
    model: ADaMoSHiFiGANV1 = ADaMoSHiFiGANV1(
        depths=settings.depths,
        dims=settings.dims,
        num_mels=settings.dims[-1],
        upsample_rates=settings.rates,
        upsample_kernel_sizes=settings.kernels,
        upsample_initial_channel=settings.initial,
        resblock_kernel_sizes=settings.residual_kernels,
        resblock_dilation_sizes=settings.residual_dilations,
        pre_conv_kernel_size=7,
        post_conv_kernel_size=settings.post_kernel,
    )
    make_audible(model.head)
    for name, parameter in model.backbone.named_parameters():
        if name.endswith(".gamma"):
            nn.init.constant_(parameter, 0.1)
    return model


def build_transformer(settings: TransformerSettings, *, lyric_ids: int) -> ACEStepTransformer2DModel:
    """No dead projections, no SSL heads, and the smallest lyric encoder: the base is instrumental."""
    model: ACEStepTransformer2DModel = ACEStepTransformer2DModel(
        num_layers=settings.layers,
        inner_dim=settings.heads * settings.head_dim,
        attention_head_dim=settings.head_dim,
        num_attention_heads=settings.heads,
        rope_theta=settings.rope_theta,
        speaker_embedding_dim=settings.speaker_width,
        text_embedding_dim=settings.text_width,
        ssl_encoder_depths=(1, 1),
        ssl_latent_dims=(32, 24),
        lyric_encoder_vocab_size=lyric_ids,
        lyric_hidden_size=settings.lyric_width,
        lyric_num_blocks=1,
        lyric_attention_heads=4,
        lyric_linear_units=2 * settings.lyric_width,
        lyric_output_size=settings.lyric_width,
        patch_embed_mult=settings.patch_embed_mult,
        drop_dead_projections=True,
        build_projectors=False,
    )
    return model


def build_text_encoder(settings: TransformerSettings, *, text_ids: int) -> UMT5EncoderModel:
    """A small UMT5 encoder without dropout."""
    config = UMT5Config(
        vocab_size=text_ids,
        d_model=settings.text_width,
        d_kv=settings.text_width // settings.text_heads,
        d_ff=settings.text_hidden,
        num_layers=settings.text_layers,
        num_heads=settings.text_heads,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=1,
    )
    return UMT5EncoderModel(config)


def shipped_bytes(recipe: Recipe, *, text_ids: int, lyric_ids: int) -> int:
    """Bytes of the float16 tensors of a recipe's base, counted without making them."""
    with torch.device("meta"):
        modules: list[nn.Module] = [
            build_dcae(recipe.dcae),
            build_vocoder(recipe.vocoder),
            build_transformer(recipe.transformer, lyric_ids=lyric_ids),
            build_text_encoder(recipe.transformer, text_ids=text_ids),
        ]
    return sum(2 * tensor.numel() for module in modules for tensor in _stored(module))


def write_base(
    folder: Path,
    *,
    dcae: AutoencoderDC,
    vocoder: ADaMoSHiFiGANV1,
    transformer: ACEStepTransformer2DModel,
    text_encoder: UMT5EncoderModel,
    taxonomy: Taxonomy,
    mark: bool = False,
) -> None:
    """Write the four folders and the lyric vocabulary in float16; `load_base` reads them as float32.

    Args:
        mark: whether the text encoder was trained with a mark before every prompt.
    """
    parts: dict[str, Any] = {DCAE: dcae, VOCODER: vocoder, TRANSFORMER: transformer, TEXT_ENCODER: text_encoder}
    with atomic_folder(folder) as temporary:
        write_tokenizers(temporary, taxonomy, mark=mark)
        for name, module in parts.items():
            with transformers_bars_on_terminals():
                module.half().save_pretrained(temporary / name)
            _forget_where_it_was(temporary / name / "config.json")


def _forget_where_it_was(config: Path) -> None:
    """A module that was read from a folder says which, and the base goes to others."""
    said = read_json(config)
    if said.pop("_name_or_path", None):
        write_json(config, said)


def read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The text tokenizer of a base's folder."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder / TEXT_ENCODER), local_files_only=True)


def _stored(module: nn.Module) -> Iterator[torch.Tensor]:
    return iter({id(tensor): tensor for tensor in module.state_dict().values()}.values())
