"""A base as it is before the stages that teach it time: the shipped one, as narrow as it then was."""

import math
from pathlib import Path

import torch
from transformers import UMT5EncoderModel

from lofi_assets.backbones.ace_step_v1.loading import load_base
from lofi_assets.backbones.ace_step_v1.transformer import ACEStepTransformer2DModel
from lofi_assets.demo.base_recipe import architecture
from lofi_assets.demo.base_recipe.settings import FULL
from lofi_assets.store import CONFIG_DIR
from lofi_assets.styles.taxonomy import load_taxonomy
from lofi_assets.training.base_model import SHIPPED_BASE

CLOCK = "transformer_blocks.0.cross_attn."


def write_plain_base(folder: Path) -> None:
    """The transformer is as it was trained last, without its clock and its rotary periods: it makes no music."""
    shipped = load_base(SHIPPED_BASE)
    assert shipped.music_dcae is not None and shipped.transformer is not None and shipped.text_encoder is not None
    architecture.write_base(
        folder,
        dcae=shipped.music_dcae.dcae,
        vocoder=shipped.music_dcae.vocoder,
        transformer=_narrow_transformer(shipped.transformer),
        text_encoder=_narrow_text_encoder(shipped.text_encoder),
        taxonomy=load_taxonomy(CONFIG_DIR),
    )


def _narrow_transformer(wide: ACEStepTransformer2DModel) -> ACEStepTransformer2DModel:
    config = {name: value for name, value in dict(wide.config).items() if not name.startswith("_")}
    width = FULL.transformer.text_width
    config |= {"text_embedding_dim": width, "rope_theta": FULL.transformer.rope_theta}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        narrow: ACEStepTransformer2DModel = ACEStepTransformer2DModel.from_config(config)
    state = {name: value for name, value in wide.state_dict().items() if not name.startswith(CLOCK)}
    state["genre_embedder.weight"] = state["genre_embedder.weight"][:, :width]
    left_out = narrow.load_state_dict(state, strict=False)
    assert not left_out.unexpected_keys and all(name.startswith(CLOCK) for name in left_out.missing_keys)
    return narrow


@torch.no_grad()
def _narrow_text_encoder(wide: UMT5EncoderModel) -> UMT5EncoderModel:
    """`tempo_code.with_tempo_code` the other way round: the old weights are in the corner of the new ones."""
    settings, found = FULL.transformer, dict(wide.named_parameters())
    narrow = architecture.build_text_encoder(settings, text_ids=len(found["shared.weight"]))
    shrunk = math.sqrt(settings.text_width / wide.config.d_model)
    for name, parameter in narrow.named_parameters():
        corner = found[name][tuple(slice(size) for size in parameter.shape)]
        parameter.copy_(corner / shrunk if parameter.ndim == 1 else corner)
    return narrow
