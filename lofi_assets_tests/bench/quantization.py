"""Budgets of the tiers at the real block size: INT8 1.5 times as fast as FP32 on the CPU, and small enough files."""

import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from lofi_assets.backbones.ace_step_v1.backbone import ACE_STEP_V1
from lofi_assets.backbones.ace_step_v1.export import prepare
from lofi_assets.backbones.ace_step_v1.loading import Base
from lofi_assets.backbones.ace_step_v1.transformer import ACEStepTransformer2DModel
from lofi_assets.backbones.export import Probe
from lofi_assets.lofi_onnx.pipeline import session_options
from lofi_assets.quantization.components import write_cpu_profile
from lofi_assets.quantization.export import export
from lofi_assets.quantization.graph import BITS, elements, load, save, stored_bytes
from lofi_assets.quantization.int4 import quantize_int4
from lofi_assets.quantization.int8 import quantize_int8
from lofi_assets.quantization.linear_weights import store_rest_as_half
from lofi_assets.quantization.opset import lower_to_17, raise_from_18
from lofi_assets.quantization.sensitivity import layer_losses, spared
from lofi_assets_tests.bench.report import Row, interleaved

LEAST_SPEEDUP = 1.5
MOST_INT8, MOST_INT4 = 0.30, 0.27
BLOCKS = 24
FRAMES, CONTEXT = 256, 128
REPEATS = 7
BLOCK = "transformer_blocks."
TIERS = ("fp32", "int8", "int4")
RUN = ("fp32", "int8.cpu", "int8", "int4")


def rows() -> list[Row]:
    """One block with random weights through export and quantization, then in ONNX Runtime side by side."""
    with tempfile.TemporaryDirectory(prefix="lofi-bench-") as name:
        folder = Path(name)
        started = time.perf_counter()
        _write_tiers(folder)
        made = time.perf_counter() - started
        started = time.perf_counter()
        losses = layer_losses(folder / "fp32.onnx", [Probe("transformer", _inputs(), np.zeros(0))], ACE_STEP_V1.layout)
        measured = time.perf_counter() - started
        _write_int4(folder, {loss.layer for loss in losses} - set(spared(losses)))
        fp32, cpu, int8, int4 = interleaved(*(_runner(folder / f"{name}.onnx") for name in RUN), repeats=REPEATS)
        one = {tier: stored_bytes(folder / f"{tier}.onnx") for tier in TIERS}
        whole = _sizes_of_all_blocks({tier: Parts.of(folder / f"{tier}.onnx") for tier in one})
    note = f"2560 wide, 20 heads, {FRAMES} frames; FP32 {fp32:.2f} s, INT8 {cpu:.2f} s, INT4 {int4:.2f} s"
    told = ", ".join(f"{tier} {size / 1e9:.2f} GB" for tier, size in whole.items())
    shares = ", ".join(f"{tier} {size / one['fp32']:.3f}" for tier, size in one.items() if tier != "fp32")
    sizes = f"computed for {BLOCKS} blocks from the measured one: {told}; shares of the one-block files: {shares}"
    layers = f"{len(losses)} layers of one block, each in 4 and in 8 bits, one noise level of the two that a build asks"
    return [
        Row("Sensitivity of a layer, seconds", measured / len(losses), "s", note=layers),
        Row("INT8 CPU profile, times faster than FP32", fp32 / cpu, "x", LEAST_SPEEDUP, "least", note),
        Row("INT8 for all providers, times faster than FP32", fp32 / int8, "x", note=f"{int8:.2f} s"),
        Row("INT4, times faster than FP32", fp32 / int4, "x", note=f"made in {made:.0f} s"),
        Row("INT8 size, share of FP32", whole["int8"] / whole["fp32"], "", MOST_INT8, note=sizes),
        Row("INT4 size, share of FP32", whole["int4"] / whole["fp32"], "", MOST_INT4),
    ]


def _write_tiers(folder: Path) -> None:
    """fp32.onnx, fp16.onnx, int8.onnx and int8.cpu.onnx, made as `build_tiers` makes them."""
    torch.manual_seed(0)
    transformer = ACEStepTransformer2DModel(
        num_layers=1,
        ssl_encoder_depths=(0, 0),
        lyric_encoder_vocab_size=64,
        lyric_hidden_size=64,
        lyric_num_blocks=1,
        lyric_attention_heads=4,
        lyric_linear_units=64,
        lyric_output_size=64,
        drop_dead_projections=True,
        build_projectors=False,
    )
    exportable = prepare("transformer", Base(folder, transformer=transformer.eval()))
    save(export(exportable, precision="float32"), folder / "fp32.onnx")
    half = export(exportable, precision="half")
    del exportable, transformer
    save(half, folder / "fp16.onnx")
    del half
    int8 = lower_to_17(load(folder / "fp32.onnx"))
    quantize_int8(int8, wanted=_quantizable)
    store_rest_as_half(int8)
    save(int8, folder / "int8.onnx", weights_beside=True)
    write_cpu_profile(folder / "int8.onnx", folder / "int8.cpu.onnx")


def _write_int4(folder: Path, in_four: set[str]) -> None:
    int4 = raise_from_18(load(folder / "fp16.onnx"))
    quantize_int4(int4, wanted=in_four.__contains__)
    quantize_int8(int4, wanted=_quantizable)
    save(int4, folder / "int4.onnx")


def _quantizable(module: str) -> bool:
    return not re.match(ACE_STEP_V1.layout.kept_in_float, module)


@dataclass(frozen=True)
class Parts:
    """Bytes of a file's weights: of its one block, and of what there is once."""

    block: int
    rest: int

    @classmethod
    def of(cls, path: Path) -> "Parts":
        """Read from the tensors' shapes and types."""
        parts = {True: 0, False: 0}
        for tensor in load(path, weights=False).graph.initializer:
            parts[tensor.name.startswith(BLOCK)] += elements(tensor) * BITS.get(tensor.data_type, 64) // 8
        return cls(block=parts[True], rest=parts[False])


def _sizes_of_all_blocks(parts: dict[str, Parts]) -> dict[str, int]:
    """Bytes of each tier with 24 such blocks."""
    return {tier: BLOCKS * part.block + part.rest for tier, part in parts.items()}


def _runner(path: Path) -> Callable[[], object]:
    session = onnxruntime.InferenceSession(str(path), session_options(), providers=["CPUExecutionProvider"])
    inputs = _inputs()
    return lambda: session.run(None, inputs)


def _inputs() -> dict[str, NDArray[Any]]:
    """24 s of latents at one noise level."""
    random = np.random.default_rng(3)
    return {
        "hidden_states": random.standard_normal((1, 8, 16, FRAMES)).astype(np.float32),
        "encoder_hidden_states": random.standard_normal((1, CONTEXT, 2560)).astype(np.float32),
        "encoder_hidden_mask": np.ones((1, CONTEXT), np.int64),
        "timestep": np.array([700.0], np.float32),
    }
