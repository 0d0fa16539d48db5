"""The transformer: the published layout, padding that does not leak, adapters, checkpointing, export."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from peft import LoraConfig

from lofi_assets.backbones.ace_step_v1.blocks import LinearSelfAttention, rotary_tables, rotate
from lofi_assets.backbones.ace_step_v1.transformer import ACEStepTransformer2DModel

LORA_TARGETS = ["speaker_embedder", "linear_q", "linear_k", "linear_v", "to_q", "to_k", "to_v", "to_out.0"]
PUBLISHED_SHAPES = {
    "transformer_blocks.23.scale_shift_table": (6, 2560),
    "transformer_blocks.0.attn.to_out.0.weight": (2560, 2560),
    "transformer_blocks.0.cross_attn.to_add_out.bias": (2560,),
    "transformer_blocks.0.ff.inverted_conv.conv.weight": (12800, 2560, 1),
    "transformer_blocks.0.ff.depth_conv.conv.weight": (12800, 1, 3),
    "transformer_blocks.0.ff.point_conv.conv.weight": (2560, 6400, 1),
    "t_block.1.weight": (15360, 2560),
    "speaker_embedder.weight": (2560, 512),
    "genre_embedder.weight": (2560, 768),
    "lyric_embs.weight": (6693, 1024),
    "lyric_proj.weight": (2560, 1024),
    "lyric_encoder.encoders.5.self_attn.pos_bias_v": (16, 64),
    "lyric_encoder.encoders.0.feed_forward.w_1.weight": (4096, 1024),
    "projectors.1.4.weight": (768, 5120),
    "proj_in.early_conv_layers.0.weight": (2048, 8, 16, 1),
    "proj_in.early_conv_layers.2.weight": (2560, 2048, 1, 1),
    "final_layer.linear.weight": (128, 2560),
}


def small_model(**options: Any) -> ACEStepTransformer2DModel:
    torch.manual_seed(0)
    sizes = {
        "num_layers": 3,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "speaker_embedding_dim": 8,
        "text_embedding_dim": 12,
        "ssl_encoder_depths": (1, 1),
        "ssl_latent_dims": (6, 5),
        "lyric_encoder_vocab_size": 20,
        "lyric_hidden_size": 16,
        "lyric_num_blocks": 2,
        "lyric_attention_heads": 2,
        "lyric_linear_units": 24,
        "lyric_output_size": 16,
        "patch_embed_mult": 8,
    }
    return ACEStepTransformer2DModel(**{**sizes, **options}).eval()


@dataclass
class Inputs:
    """Two items; the second is shorter in text (3 of 5), lyrics (4 of 6) and frames (7 of 11)."""

    def __post_init__(self) -> None:
        random = torch.Generator().manual_seed(1)
        self.values = {
            "hidden_states": torch.randn(2, 8, 16, 11, generator=random),
            "attention_mask": torch.ones(2, 11),
            "text_hidden_states": torch.randn(2, 5, 12, generator=random),
            "text_attention_mask": torch.ones(2, 5, dtype=torch.long),
            "speaker_embeds": torch.randn(2, 8, generator=random),
            "lyric_token_ids": torch.randint(1, 20, (2, 6), generator=random),
            "lyric_mask": torch.ones(2, 6, dtype=torch.long),
            "timestep": torch.tensor([700.0, 300.0]),
        }
        for name, length in (("attention_mask", 7), ("text_attention_mask", 3), ("lyric_mask", 4)):
            self.values[name][1, length:] = 0

    def second_alone(self) -> dict[str, torch.Tensor]:
        cuts: dict[str, Any] = {
            "hidden_states": (..., slice(7)),
            "attention_mask": (..., slice(7)),
            "text_hidden_states": (slice(None), slice(3)),
            "text_attention_mask": (slice(None), slice(3)),
            "lyric_token_ids": (slice(None), slice(4)),
            "lyric_mask": (slice(None), slice(4)),
        }
        alone = {name: value[1:] for name, value in self.values.items()}
        return {name: value[cuts[name]] if name in cuts else value for name, value in alone.items()}


@pytest.fixture
def inputs() -> Inputs:
    return Inputs()


@torch.no_grad()
def leak(model: ACEStepTransformer2DModel, inputs: Inputs) -> float:
    """Largest difference between a padded item and the same item alone, over its real frames."""
    together = model(**inputs.values).sample[1, ..., :7]
    alone = model(**inputs.second_alone()).sample[0]
    return float((together - alone).abs().max())


def test_the_default_config_is_the_published_model() -> None:
    with torch.device("meta"):
        model = ACEStepTransformer2DModel()
    state = model.state_dict()
    assert len(state) == 874
    assert sum(tensor.numel() for tensor in state.values()) == 3_305_659_264
    assert {name: tuple(state[name].shape) for name in PUBLISHED_SHAPES} == PUBLISHED_SHAPES


def test_dropping_what_no_pass_reads_saves_717_million_parameters() -> None:
    with torch.device("meta"):
        model = ACEStepTransformer2DModel(drop_dead_projections=True, build_projectors=False)
    removed = 3_305_659_264 - sum(parameter.numel() for parameter in model.parameters())
    assert removed == 629_391_360 + 87_840_512


def test_a_padded_item_equals_the_same_item_alone(inputs: Inputs) -> None:
    assert leak(small_model(), inputs) < 1e-5


def test_upstreams_padding_leaks_and_stays_selectable(inputs: Inputs) -> None:
    assert leak(small_model(mask_aware_padding=False), inputs) > 1e-3


@torch.no_grad()
def test_without_padding_both_behaviours_are_the_same(inputs: Inputs) -> None:
    alone = inputs.second_alone()
    exact, upstream = small_model(), small_model(mask_aware_padding=False)
    torch.testing.assert_close(exact(**alone).sample, upstream(**alone).sample, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_dead_projections_change_nothing(inputs: Inputs) -> None:
    full, lean = small_model(), small_model(drop_dead_projections=True)
    lean.load_state_dict(full.state_dict(), strict=False)
    assert torch.equal(full(**inputs.values).sample, lean(**inputs.values).sample)


def test_dropped_lyrics_give_finite_values_and_gradients(inputs: Inputs) -> None:
    model = small_model()
    inputs.values["lyric_token_ids"].zero_()
    inputs.values["lyric_mask"].zero_()
    model(**inputs.values).sample.square().mean().backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert gradients and all(torch.isfinite(gradient).all() for gradient in gradients)


def test_an_adapter_reaches_the_eight_upstream_targets(inputs: Inputs) -> None:
    model = small_model()
    model.add_adapter(LoraConfig(r=4, lora_alpha=2, target_modules=LORA_TARGETS, use_rslora=True))
    reached = {name.rsplit(".lora_A", 1)[0] for name, _ in model.named_parameters() if ".lora_A" in name}
    assert len(reached) == 1 + 3 * 2 + 4 * 2 * 3
    assert all(parameter.requires_grad == ("lora_" in name) for name, parameter in model.named_parameters())
    model(**inputs.values).sample.square().mean().backward()
    assert all(parameter.grad is not None for name, parameter in model.named_parameters() if "lora_B" in name)


def test_an_adapter_on_the_published_model_has_211_modules() -> None:
    with torch.device("meta"):
        model = ACEStepTransformer2DModel(drop_dead_projections=True, build_projectors=False)
        model.add_adapter(LoraConfig(r=16, lora_alpha=32, target_modules=LORA_TARGETS))
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert len(trained) == 2 * 211
    assert sum(parameter.numel() for parameter in trained.values()) == 16_367_616


def test_gradient_checkpointing_gives_the_same_gradients(inputs: Inputs) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = small_model()
        if checkpointing:
            model.recompute_blocks()
        model(**inputs.values).sample.square().mean().backward()
        gradients.append(model.get_parameter("transformer_blocks.0.attn.to_q.weight").grad)
    torch.testing.assert_close(gradients[0], gradients[1])


@torch.no_grad()
def test_ssl_losses_ignore_padded_frames(inputs: Inputs) -> None:
    model = small_model()
    targets = {"mert": [torch.randn(20, 6), torch.randn(13, 6)]}
    together = model(**inputs.values, ssl_targets=targets).projection_losses["mert"]
    first = {name: value[:1] for name, value in inputs.values.items()}
    apart = [
        model(**first, ssl_targets={"mert": targets["mert"][:1]}).projection_losses["mert"],
        model(**inputs.second_alone(), ssl_targets={"mert": targets["mert"][1:]}).projection_losses["mert"],
    ]
    torch.testing.assert_close(together, torch.stack(apart).mean(), atol=1e-5, rtol=0)


def test_ssl_targets_of_an_unknown_encoder_are_refused(inputs: Inputs) -> None:
    with pytest.raises(ValueError, match="wavlm"):
        small_model()(**inputs.values, ssl_targets={"wavlm": []})
    with pytest.raises(ValueError, match="build_projectors"):
        small_model(build_projectors=False)(**inputs.values, ssl_targets={"mert": []})


@torch.no_grad()
def test_export_constants_leave_real_frames_as_they_are(inputs: Inputs) -> None:
    model = small_model()
    before = model(**inputs.values).sample
    model.set_attention_constants(linear_eps=1e-6, mask_fill=-1e4)
    torch.testing.assert_close(model(**inputs.values).sample, before, atol=1e-4, rtol=0)


class Decoder(torch.nn.Module):
    def __init__(self, model: ACEStepTransformer2DModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, latents: torch.Tensor, context: torch.Tensor, context_mask: torch.Tensor, timestep: torch.Tensor
    ) -> torch.Tensor:
        return self.model.decode(
            hidden_states=latents,
            attention_mask=None,
            encoder_hidden_states=context,
            encoder_hidden_mask=context_mask,
            timestep=timestep,
        )


@torch.no_grad()
def test_decode_exports_with_frames_and_context_left_open() -> None:
    def arguments(batch: int, frames: int, context: int) -> tuple[torch.Tensor, ...]:
        mask = torch.ones(batch, context, dtype=torch.long)
        latents, states = torch.randn(batch, 8, 16, frames), torch.randn(batch, context, 32)
        return latents, states, mask, torch.full((batch,), 500.0)

    decoder = Decoder(small_model())
    batch, frames, context = torch.export.Dim("batch"), torch.export.Dim("frames", min=2), torch.export.Dim("context")
    shapes = ({0: batch, 3: frames}, {0: batch, 1: context}, {0: batch, 1: context}, {0: batch})
    program = torch.export.export(decoder, arguments(2, 9, 5), dynamic_shapes=shapes).module()
    other = arguments(3, 40, 12)
    torch.testing.assert_close(program(*other), decoder(*other))


def test_linear_attention_sums_in_float32_under_autocast() -> None:
    torch.manual_seed(0)
    attention = LinearSelfAttention(32, 2).to(torch.bfloat16)
    x = torch.randn(1, 2000, 32, dtype=torch.bfloat16)
    rotary = rotary_tables(torch.arange(2000), 16, 1e6)
    attention._project_out = lambda x, dtype: x.to(dtype)  # type: ignore[method-assign]
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = attention(x, rotary=rotary, mask=None)
        query, key = (rotate(attention._split(part(x)), rotary) for part in (attention.to_q, attention.to_k))
        value = attention._split(attention.to_v(x)).double()
    query, key = query.double().relu(), key.double().relu()
    exact = query @ (key.transpose(-1, -2) @ value) / (query @ key.sum(dim=-2)[..., None])
    assert (found == exact.to(torch.bfloat16)).float().mean() > 0.99
