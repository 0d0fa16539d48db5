"""Our transformer's forward and backward pass against the same with the linear attention as the reference writes it.

The reference formulation (facts of ACE-Step v1, 1.1): values padded with a row of ones, so that one product gives sums
and normaliser, then the division. Ours keeps the normaliser apart and saves the copy.
"""

from unittest import mock

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn import functional as F

from lofi_assets.backbones.ace_step_v1.blocks import LinearSelfAttention, Rotary, rotate
from lofi_assets.backbones.ace_step_v1.transformer import ACEStepTransformer2DModel
from lofi_assets_tests.bench.report import Row, interleaved

LAYERS, HEADS, HEAD_DIM, FRAMES = 4, 4, 128, 1292
REPEATS = 5
NO_SLOWER = 0.95


def rows() -> list[Row]:
    """Forward and backward of one 120 s item, in turns, on one thread."""
    torch.manual_seed(0)
    model = ACEStepTransformer2DModel(
        num_layers=LAYERS,
        attention_head_dim=HEAD_DIM,
        num_attention_heads=HEADS,
        lyric_num_blocks=1,
        lyric_hidden_size=64,
        lyric_output_size=64,
        lyric_attention_heads=4,
        lyric_linear_units=64,
        drop_dead_projections=True,
        build_projectors=False,
        patch_embed_mult=32,
    )

    def reference() -> Tensor:
        with mock.patch.object(LinearSelfAttention, "forward", reference_forward):
            return _step(model)

    with threadpool_limits(1):
        difference = float((_step(model) - reference()).abs().max())
        ours, theirs = interleaved(lambda: _step(model), reference, repeats=REPEATS)
    note = (
        f"{LAYERS} layers of {HEADS * HEAD_DIM}, {FRAMES} frames, one thread: {ours:.2f} s against {theirs:.2f} s; "
        f"largest difference of the outputs {difference:.1e}"
    )
    return [Row("forward and backward, times the reference's speed", theirs / ours, "x", NO_SLOWER, "least", note)]


def reference_forward(self: LinearSelfAttention, x: Tensor, *, rotary: Rotary, mask: Tensor | None) -> Tensor:
    """`LinearSelfAttention.forward` without a mask, formulated as upstream formulates it."""
    assert mask is None
    query, key = (rotate(self._split(part(x)), rotary).transpose(-1, -2) for part in (self.to_q, self.to_k))
    value = F.pad(self._split(self.to_v(x)).transpose(-1, -2).float(), (0, 0, 0, 1), value=1.0)
    summed = (value @ F.relu(key).float().transpose(-1, -2)) @ F.relu(query).float()
    attended = summed[:, :, :-1] / (summed[:, :, -1:] + self.eps)
    return self._project_out(attended.transpose(-1, -2), x.dtype)


def _step(model: ACEStepTransformer2DModel) -> Tensor:
    random = torch.Generator().manual_seed(1)
    model.zero_grad(set_to_none=True)
    output = model(
        hidden_states=torch.randn(1, 8, 16, FRAMES, generator=random),
        attention_mask=None,
        text_hidden_states=torch.randn(1, 32, 768, generator=random),
        text_attention_mask=torch.ones(1, 32, dtype=torch.long),
        speaker_embeds=torch.zeros(1, 512),
        lyric_token_ids=torch.zeros(1, 1, dtype=torch.long),
        lyric_mask=torch.ones(1, 1, dtype=torch.long),
        timestep=torch.tensor([500.0]),
    ).sample
    output.square().mean().backward()
    return output.detach()
