"""How large the transformer and its adapter are, counted on the meta device, and what a training step keeps of it.

How the terms add up is in `training/planning/memory.py`. Each formula comes with the line that lets a person check it.

The activation formulas count the tensors that autograd keeps for the backward pass, by their storage; a test counts
them on real models. With N = frames x batch, M = context tokens x batch (speaker, prompt, lyrics), D width, H hidden
channels, r rank, and e bytes of a number (2 under bf16-mixed, 4 under 32), one transformer block keeps

    bf16-mixed   e (N (5 D + 5 H + 6 r) + M (2 D + 2 r) + 16 D r) + 24 N D         36 N D for a batch of several
    32           e (N (11 D + 5 H + 6 r) + M (2 D + 2 r) + 5 D r)                  14 D for a batch of several

since the inputs of the norms and of the linear attention's sums are float32 (a norm on CUDA keeps its bfloat16 input
instead, 4 N D less), the A matrices that share an input are laid side by side, and under bf16-mixed the adapter's
matrices are cast; `lora_dropout` adds (e + 1) (6 N + 2 M) D. One lyric encoder block keeps, for L tokens, width W, h
heads and F hidden units, e (2 h L² + L (8 W + F + 3 r) + 6 W r), and 3 W r under 32. The context and the last norm add
e M D + 4 N (D + 128). While a block goes backward, up to 4 e N H of gradients are under way. Not in the formulas: DoRA,
which keeps more, and `compile`, which keeps less.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import nn

from lofi_assets.backbones import BaseModelError
from lofi_assets.backbones.ace_step_v1.features import LYRICS, TEXT
from lofi_assets.backbones.ace_step_v1.frame_rates import MEL_RATE, PART_FRAMES, SAMPLES_PER_FRAME
from lofi_assets.backbones.ace_step_v1.loading import TRANSFORMER
from lofi_assets.backbones.ace_step_v1.transformer import ACEStepTransformer2DModel
from lofi_assets.backbones.features import LatentShape
from lofi_assets.backbones.sizes import Amount, StepShape
from lofi_assets.files.documents import read_json
from lofi_assets.wording import amount

DECODER = {"music_dcae_f8c8": 156_812_426, "music_vocoder": 103_005_138}
"""Parameters of the published autoencoder and vocoder, by folder: for a base that is not on this machine."""
DECODING_BYTES_PER_SECOND = 30e6
"""What the published ones hold for each second that they decode at once: 26 MB are counted, without workspaces."""
KEPT_BYTES_PER_SECOND = 1.2e6
"""What is kept of each second where a clip is decoded in parts (`decoding_parts`): 1.0 MB is counted."""
PUBLISHED_BYTES = 8_275_790_207
"""Files of ACE-Step-v1-3.5B on the Hub."""
ATTENTION = ".attn."
CROSS_ATTENTION = ".cross_attn."


@dataclass(frozen=True)
class AceStepSize:
    """A transformer as training loads it (dead projections and SSL projectors left out), with its adapter."""

    latents: LatentShape
    parts: Mapping[str, int]
    """Frozen parameters by part; "attention" are the blocks' attention layers, which quantization reaches."""
    adapter: int
    """Trained parameters."""
    adapter_evened: int
    """Numbers of the adapter where every layer has the largest rank."""
    decoder: int
    """Parameters of autoencoder and vocoder."""
    layers: int
    width: int
    hidden: int
    """Channels inside the gated convolution, of which it holds twice as many before the gate."""
    head_dim: int
    text_width: int
    lyric_layers: int
    lyric_width: int
    lyric_heads: int
    lyric_hidden: int
    rank: int
    """On average, where layers differ."""
    download_bytes: int
    dropout: bool = False
    """Whether the adapter drops a share of its inputs."""

    @property
    def largest_block(self) -> int:
        """Frozen parameters of one transformer block."""
        return (self.parts["attention"] + self.parts["feed-forward"]) // self.layers

    def block_activations(self, step: StepShape) -> Amount:
        """What one transformer block keeps for its backward pass."""
        kept = self._kept(step)
        masks = self._masks(step)
        return Amount(kept.bytes + masks.bytes, f"{kept.arithmetic} + {masks.arithmetic}") if self.dropout else kept

    def _kept(self, step: StepShape) -> Amount:
        frames, tokens = step.frames * step.batch_size, _context(step) * step.batch_size
        e, d, h, r = step.element, self.width, self.hidden, self.rank
        if step.precision == "32":
            copies = 11 if step.batch_size == 1 else 14  # several items are laid out anew for the batched products
            return Amount(
                e * (frames * (copies * d + 5 * h + 6 * r) + tokens * (2 * d + 2 * r) + 5 * d * r),
                f"{e} B x ({frames} x ({copies} x {d} + 5 x {h} + 6 x {r}) + {tokens} x (2 x {d} + 2 x {r})"
                f" + 5 x {d} x {r})",
            )
        in_float = 24 if step.batch_size == 1 else 36
        kept = frames * (5 * d + 5 * h + 6 * r) + tokens * (2 * d + 2 * r) + 16 * d * r
        return Amount(
            e * kept + in_float * frames * d,
            f"{e} B x ({frames} x (5 x {d} + 5 x {h} + 6 x {r}) + {tokens} x (2 x {d} + 2 x {r}) + 16 x {d} x {r})"
            f" + {in_float} B x {frames} x {d}",
        )

    def _masks(self, step: StepShape) -> Amount:
        """Of `lora_dropout`: what each of eight layers is given with zeros in it, and which they are."""
        frames, tokens = step.frames * step.batch_size, _context(step) * step.batch_size
        e, d = step.element, self.width
        return Amount((e + 1) * (6 * frames + 2 * tokens) * d, f"{e + 1} B x (6 x {frames} + 2 x {tokens}) x {d}")

    def block_inputs(self, step: StepShape) -> Amount:
        """What the blocks keep if they are computed again."""
        return Amount(
            step.element * self.layers * step.frames * step.batch_size * self.width,
            f"block inputs {self.layers} x {step.frames} frames x {step.batch_size} x {self.width} x {step.element} B",
        )

    def other_activations(self, step: StepShape) -> Amount:
        """Lyric encoder, context, last norm and loss."""
        lyrics, ends = self._lyric_activations(step), self._ends(step)
        return Amount(
            lyrics + ends,
            f"lyric encoder {amount(lyrics)} ({step.tokens[LYRICS]} tokens) + context and last norm {amount(ends)}",
        )

    def gradients_under_way(self, step: StepShape) -> float:
        """Inside the gated convolution."""
        return 4 * step.element * step.frames * step.batch_size * self.hidden

    def decoding(self, seconds: float, *, on_gpu: bool) -> Amount:
        """As of the published autoencoder and vocoder, float32; smaller ones take less."""
        part = PART_FRAMES * SAMPLES_PER_FRAME / MEL_RATE if on_gpu else seconds
        at_once = min(seconds, part)
        bytes_ = DECODING_BYTES_PER_SECOND * at_once + (KEPT_BYTES_PER_SECOND * seconds if seconds > part else 0)
        return Amount(bytes_, f"{seconds:g} s of decoding, {at_once:.4g} s at once")

    def operations(self, step: StepShape, *, recomputed: bool) -> float:
        """Of the transformer blocks only; patch embedding, lyric encoder and last layer are below 1 % at real sizes."""
        frames, tokens = step.frames, _context(step)
        d, h, r = self.width, self.hidden, self.rank
        frozen = 2 * frames * (6 * d * d + 3 * d * h + 6 * h) + 2 * tokens * 2 * d * d
        mixing = 4 * frames * d * self.head_dim + 4 * frames * tokens * d
        adapter = 2 * frames * 12 * d * r + 2 * tokens * 4 * d * r
        forward = frozen + mixing + adapter
        backward = frozen + 2 * mixing + 2 * adapter
        return self.layers * (forward + backward + (forward if recomputed else 0)) * step.batch_size

    def cached_conditions(self, tokens: Mapping[str, int]) -> Amount:
        """Text states; ids and speakers are small."""
        return Amount(tokens[TEXT] * self.text_width * 4, f"{tokens[TEXT]} x {self.text_width} x 4 B")

    def _lyric_activations(self, step: StepShape) -> float:
        length, items = step.tokens[LYRICS], step.batch_size
        linear = length * (8 * self.lyric_width + self.lyric_hidden + 3 * self.rank)
        adapter = (6 if step.precision == "bf16-mixed" else 3) * self.lyric_width * self.rank
        return step.element * self.lyric_layers * (items * (2 * self.lyric_heads * length**2 + linear) + adapter)

    def _ends(self, step: StepShape) -> float:
        """Bytes kept before the first block (the context) and after the last (norm and loss)."""
        frames, tokens = step.frames * step.batch_size, _context(step) * step.batch_size
        return step.element * tokens * self.width + 4 * frames * (self.width + 128)


def _context(step: StepShape) -> int:
    """Context tokens of one item: speaker, prompt, lyrics."""
    return 1 + step.tokens[TEXT] + step.tokens[LYRICS]


def measure(base: Path | None, latents: LatentShape, *, rank: int, adapt: Callable[[nn.Module], int]) -> AceStepSize:
    """Count the transformer in `base` with the adapter on it; None counts the published 3.5B model.

    Raises:
        BaseModelError: the folder holds no transformer.
    """
    config = read_json(base / TRANSFORMER / "config.json") if base else {}
    if config is None:
        raise BaseModelError(f"{base}: no {TRANSFORMER}/config.json, so this is no base model")
    with torch.device("meta"):
        transformer = ACEStepTransformer2DModel.from_config(
            dict(config), drop_dead_projections=True, build_projectors=False
        )
        adapter = adapt(transformer)
        inputs = [module for name, module in transformer.named_modules() if ".lora_dropout." in name]
        trained = [(name, weight) for name, weight in transformer.named_parameters() if weight.requires_grad]
        ranks = [len(weight) for name, weight in trained if ".lora_A." in name]
    settings = transformer.config
    return AceStepSize(
        latents=latents,
        parts=_parts(transformer),
        adapter=adapter,
        adapter_evened=_evened(trained, rank=max(ranks, default=rank)),
        decoder=sum(_stored(base / folder) if base else count for folder, count in DECODER.items()),
        layers=settings.num_layers,
        width=transformer.width,
        hidden=int(transformer.width * settings.mlp_ratio),
        head_dim=settings.attention_head_dim,
        text_width=settings.text_embedding_dim,
        lyric_layers=settings.lyric_num_blocks,
        lyric_width=settings.lyric_output_size,
        lyric_heads=settings.lyric_attention_heads,
        lyric_hidden=settings.lyric_linear_units,
        rank=round(sum(ranks) / len(ranks)) if ranks else rank,
        download_bytes=0 if base else PUBLISHED_BYTES,
        dropout=not all(isinstance(module, nn.Identity) for module in inputs),
    )


def _evened(trained: Sequence[tuple[str, nn.Parameter]], *, rank: int) -> int:
    """Numbers of an adapter with A (rank, inputs) and B (outputs, rank) in every layer."""
    total = 0
    for name, weight in trained:
        axis = next((axis for part, axis in ((".lora_A.", 0), (".lora_B.", 1)) if part in name), None)
        total += weight.numel() if axis is None else weight.numel() // weight.shape[axis] * rank
    return total


def _parts(transformer: nn.Module) -> dict[str, int]:
    """Frozen parameters of the blocks (attention, the rest), of the lyric encoder with its embeddings, of all else."""
    parts = {"attention": 0, "feed-forward": 0, "lyric encoder": 0, "other": 0}
    for name, parameter in transformer.named_parameters():
        if parameter.requires_grad:
            continue
        in_attention = ATTENTION in name or CROSS_ATTENTION in name
        if name.startswith("transformer_blocks."):
            part = "attention" if in_attention else "feed-forward"
        else:
            part = "lyric encoder" if name.startswith("lyric_") else "other"
        parts[part] += parameter.numel()
    return parts


def _stored(folder: Path) -> int:
    """Numbers in a folder's safetensors files, from their headers."""
    from safetensors import safe_open

    total = 0
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="numpy") as file:
            total += sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 (not a mapping)
    return total
