"""What a pass of the transformer launches, counted on the CPU: one operation of aten that writes memory is a kernel.

On CUDA the norm is one kernel where a CPU takes several, so the counts are a little above what a GPU launches.
"""

from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lofi_assets.backbones.ace_step_v1.transformer import ACEStepTransformer2DModel
from lofi_assets.training.lora_settings import LoraSettings
from lofi_assets.training.trainer.adapters import add_lora

TARGETS = ("speaker_embedder", "linear_q", "linear_k", "linear_v", "to_q", "to_k", "to_v", "to_out.0")
COPIES = ("_to_copy", "copy_", "clone", "contiguous")
PRODUCTS = ("mm", "addmm", "addmm_", "bmm")
FRAMES = 65
"""Odd, as the lengths of real tracks are half of the time."""


class Kernels(TorchDispatchMode):
    """Counts operations by name, and the leading dimensions of what matrix products read."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: Counter[str] = Counter()
        self.leading: Counter[int] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__
        read = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        storages = {tensor.untyped_storage()._cdata for tensor in read}
        written = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        fresh = any(tensor.untyped_storage()._cdata not in storages for tensor in written)
        if written and not name.startswith("empty") and (fresh or function._schema.is_mutable):
            self.names[name] += 1
        if name in PRODUCTS:
            self.leading.update(max(tensor.stride()[-2:]) for tensor in read if tensor.ndim > 1)
        return result

    @property
    def copies(self) -> int:
        """Casts and changes of layout among them."""
        return sum(self.names[name] for name in COPIES)


def model_of(*, layers: int, dtype: torch.dtype) -> ACEStepTransformer2DModel:
    """A narrow transformer with an adapter whose B is not zero; the counts do not depend on widths."""
    torch.manual_seed(0)
    model = ACEStepTransformer2DModel(
        num_layers=layers,
        attention_head_dim=16,
        num_attention_heads=4,
        text_embedding_dim=12,
        speaker_embedding_dim=8,
        lyric_encoder_vocab_size=20,
        lyric_hidden_size=16,
        lyric_num_blocks=1,
        lyric_attention_heads=2,
        lyric_linear_units=24,
        lyric_output_size=16,
        patch_embed_mult=8,
        drop_dead_projections=True,
        build_projectors=False,
    ).eval()
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    for name, parameter in add_lora(model, LoraSettings(r=4, lora_alpha=3, target_modules=TARGETS), seed=0).items():
        if ".lora_B." in name:
            parameter.data.normal_(std=0.05)
    return model


def loss_of(model: ACEStepTransformer2DModel, *, frames: int = FRAMES, length: int | None = None) -> torch.Tensor:
    """A loss of one item under the autocast that training has; `length` masks the frames behind it."""
    random = torch.Generator().manual_seed(1)
    dtype = next(parameter.dtype for parameter in model.parameters() if not parameter.requires_grad)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype != torch.float32):
        velocity = model(
            hidden_states=torch.randn(1, 8, 16, frames, generator=random).to(dtype),
            attention_mask=None if length is None else (torch.arange(frames)[None] < length).long(),
            text_hidden_states=torch.randn(1, 5, 12, generator=random).to(dtype),
            text_attention_mask=torch.ones(1, 5, dtype=torch.long),
            speaker_embeds=torch.randn(1, 8, generator=random).to(dtype),
            lyric_token_ids=torch.ones(1, 3, dtype=torch.long),
            lyric_mask=torch.ones(1, 3, dtype=torch.long),
            timestep=torch.tensor([500.0]),
        ).sample
    return velocity.float().square().mean()


def step_kernels(*, layers: int, dtype: torch.dtype, recomputed: bool) -> Kernels:
    """Forward and backward pass."""
    model = model_of(layers=layers, dtype=dtype)
    if recomputed:
        model.recompute_blocks()
    with Kernels() as counted:
        loss_of(model).backward()
    return counted
