"""LoRA files as other programs write them, made here from their documented conventions, and what they come to.

Each maker gives the file and the weights that its own reader ends up with: W + scale * B A, the scale by that
program's rule.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

Pairs = Mapping[str, tuple[torch.Tensor, torch.Tensor]]
"""Layer -> (A, B)."""
Deltas = dict[str, torch.Tensor]
"""Layer -> what is added to its weight."""

RANK = 6
LAYERS = (
    "speaker_embedder",
    "lyric_encoder.encoders.0.self_attn.linear_q",
    "transformer_blocks.0.attn.to_q",
    "transformer_blocks.1.cross_attn.to_out.0",
    "transformer_blocks.3.attn.to_v",
)


def random_pairs(layers: Mapping[str, tuple[int, ...]], *, ranks: Mapping[str, int] | None = None) -> Pairs:
    """Matrices for `LAYERS`, large enough to be heard."""
    random = torch.Generator().manual_seed(11)
    found = {}
    for layer in LAYERS:
        outputs, inputs = layers[layer][:2]
        rank = (ranks or {}).get(layer, RANK)
        down, up = torch.randn(rank, inputs, generator=random), torch.randn(outputs, rank, generator=random)
        found[layer] = (0.2 * down, 0.2 * up)
    return found


def deltas(pairs: Pairs, scale: Callable[[str, int], float]) -> Deltas:
    """scale(layer, rank) * B A."""
    return {layer: scale(layer, down.shape[0]) * (up @ down) for layer, (down, up) in pairs.items()}


def ace_step(folder: Path, pairs: Pairs) -> tuple[Path, Deltas]:
    """ACE-Step's trainer with an early diffusers: bare names and nothing else; its pipeline applies B A."""
    path = folder / "pytorch_lora_weights.safetensors"
    tensors = {
        f"{layer}.lora_{kind}.weight": part.clone()
        for layer, p in pairs.items()
        for kind, part in zip("AB", p, strict=True)
    }
    save_file(tensors, path, metadata={"format": "pt"})
    return path, deltas(pairs, lambda layer, rank: 1.0)


def ace_step_with_header(folder: Path, pairs: Pairs) -> tuple[Path, Deltas]:
    """The same with a later diffusers, which writes the LoraConfig: rank-stabilised, alpha 32."""
    path, _ = ace_step(folder, pairs)
    tensors = {
        f"{layer}.lora_{kind}.weight": part.clone()
        for layer, p in pairs.items()
        for kind, part in zip("AB", p, strict=True)
    }
    config = {"r": RANK, "lora_alpha": 32, "use_rslora": True, "target_modules": ["to_q"], "peft_type": "LORA"}
    save_file(tensors, path, metadata={"format": "pt", "lora_adapter_metadata": json.dumps(config)})
    return path, deltas(pairs, lambda layer, rank: 32 / rank**0.5)


def simpletuner(folder: Path, pairs: Pairs) -> tuple[Path, Deltas]:
    """SimpleTuner by diffusers' pipelines: `transformer.` in front of names and settings, ModelSpec beside them."""
    path = folder / "pytorch_lora_weights.safetensors"
    config = {"transformer.r": RANK, "transformer.lora_alpha": 9, "transformer.use_rslora": False}
    tensors = {
        f"transformer.{layer}.lora_{kind}.weight": part.to(torch.bfloat16)
        for layer, p in pairs.items()
        for kind, part in zip("AB", p, strict=True)
    }
    metadata = {"format": "pt", "lora_adapter_metadata": json.dumps(config), "modelspec.architecture": "ace_step/lora"}
    save_file(tensors, path, metadata=metadata)
    rounded = {layer: (down.bfloat16().float(), up.bfloat16().float()) for layer, (down, up) in pairs.items()}
    return path, deltas(rounded, lambda layer, rank: 9 / rank)


def peft(folder: Path, pairs: Pairs) -> tuple[Path, Deltas]:
    """PEFT's save_pretrained with a rank of its own for one layer and an alpha of its own for another."""
    tensors = {
        f"base_model.model.{layer}.lora_{kind}.weight": part.clone()
        for layer, p in pairs.items()
        for kind, part in zip("AB", p, strict=True)
    }
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "r": RANK,
        "lora_alpha": 12,
        "use_rslora": True,
        "target_modules": ["to_q", "to_v", "to_out.0", "speaker_embedder", "linear_q"],
        "rank_pattern": {"speaker_embedder": 3},
        "alpha_pattern": {"attn.to_v": 5, "^lyric_encoder.*linear_q": 7},
        "base_model_name_or_path": "ACE-Step/ACE-Step-v1-3.5B",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    alphas = {"transformer_blocks.3.attn.to_v": 5, "lyric_encoder.encoders.0.self_attn.linear_q": 7}
    return folder, deltas(pairs, lambda layer, rank: alphas.get(layer, 12) / rank**0.5)


def comfyui(folder: Path, pairs: Pairs) -> tuple[Path, Deltas]:
    """kohya's and ComfyUI's names; alpha / rank where there is an alpha, which one layer lacks, and 1 there."""
    path = folder / "style.safetensors"
    tensors: dict[str, torch.Tensor] = {}
    without = "speaker_embedder"
    for layer, (down, up) in pairs.items():
        tensors |= {f"diffusion_model.{layer}.lora_down.weight": down, f"diffusion_model.{layer}.lora_up.weight": up}
        if layer != without:
            tensors[f"diffusion_model.{layer}.alpha"] = torch.tensor(2.5)
    save_file(tensors, path)
    return path, deltas(pairs, lambda layer, rank: 1.0 if layer == without else 2.5 / rank)


def kohya(folder: Path, pairs: Pairs) -> tuple[Path, Deltas]:
    """`lora_unet_` with underscores, as ComfyUI maps it for every model."""
    path = folder / "kohya.safetensors"
    tensors: dict[str, torch.Tensor] = {}
    for layer, (down, up) in pairs.items():
        name = f"lora_unet_{layer.replace('.', '_')}"
        tensors |= {
            f"{name}.lora_down.weight": down,
            f"{name}.lora_up.weight": up,
            f"{name}.alpha": torch.tensor([4.0]),
        }
    save_file(tensors, path)
    return path, deltas(pairs, lambda layer, rank: 4 / rank)


MAKERS: Mapping[str, Callable[[Path, Pairs], tuple[Path, Deltas]]] = {
    "ace_step": ace_step,
    "ace_step with header": ace_step_with_header,
    "simpletuner": simpletuner,
    "peft": peft,
    "comfyui": comfyui,
    "kohya": kohya,
}
