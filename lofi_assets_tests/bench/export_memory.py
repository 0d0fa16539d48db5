"""What merging, exporting and quantizing hold in memory, by the size of the model: three sizes, and the line through
them at the published one.

    python -m lofi_assets_tests.bench --only export_memory

Each size is a process of its own, with a transformer of the published width and so many blocks. Counted is what cannot
be given back: private memory (RssAnon of /proc/self/status), 100 times a second. Weights that are views of a file are
not: the kernel drops them when memory is short.
"""

import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model

from lofi_assets.backbones.ace_step_v1.backbone import ACE_STEP_V1
from lofi_assets.backbones.ace_step_v1.loading import TRANSFORMER
from lofi_assets.backbones.ace_step_v1.tiny import write_tiny_base
from lofi_assets.backbones.ace_step_v1.transformer import ACEStepTransformer2DModel
from lofi_assets.backbones.export import Probe
from lofi_assets.quantization.components import write_cpu_profile
from lofi_assets.quantization.export import Precision, export
from lofi_assets.quantization.graph import open_graph, save
from lofi_assets.quantization.half_range import measure
from lofi_assets.quantization.int4 import quantize_int4
from lofi_assets.quantization.int8 import quantize_int8
from lofi_assets.quantization.linear_weights import store_rest_as_half
from lofi_assets.quantization.merge import merge_lora
from lofi_assets.quantization.opset import lower_to_17, raise_from_18
from lofi_assets.quantization.policy import check_file
from lofi_assets.quantization.sensitivity import layer_losses, spared
from lofi_assets.quantization.spool import spooled
from lofi_assets.quantization.tier_manifest import TierName
from lofi_assets_tests.bench.report import Row

BLOCKS = (1, 2, 4)
PUBLISHED = 2_491e6
"""Parameters of the published transformer that a finished model reads."""
MOST_MB = 8_000
"""A third of the memory that the design allows: the rest is the runtime's, which measures what was built."""
LAYOUT = ACE_STEP_V1.layout
ADAPTED = ["to_q", "to_k", "to_v", "to_out.0"]


@dataclass(frozen=True)
class Measured:
    """One size."""

    parameters: int
    peaks: dict[str, float]
    """Step -> MB."""

    @property
    def largest(self) -> float:
        """MB of the step that takes most."""
        return max(self.peaks.values())


def rows() -> list[Row]:
    """The largest peak of each size, and of the published model by the line through them."""
    found = [_measured(blocks) for blocks in BLOCKS]
    slope, start = np.polyfit([one.parameters for one in found], [one.largest for one in found], 1)
    told = [
        f"{one.parameters / 1e6:.0f} M: {', '.join(f'{step} {peak:.0f}' for step, peak in one.peaks.items())}"
        for one in found
    ]
    line = f"{slope * 1e6:.2f} MB for each million parameters, FP32 has 4; MB by step at {'; '.join(told)}"
    at_most = float(start + slope * PUBLISHED)
    return [
        Row(f"merge, export and tiers, {found[-1].parameters / 1e6:.0f} M parameters", found[-1].largest, "MB"),
        Row("the same at the published size, by the line", at_most, "MB", MOST_MB, note=line),
    ]


def _measured(blocks: int) -> Measured:
    with tempfile.TemporaryDirectory(prefix="lofi-bench-") as folder:
        for part in ("model", "tiers"):  # random weights are made in another process than that which is measured
            done = subprocess.run(
                [sys.executable, "-m", __name__, part, str(blocks), folder], check=True, capture_output=True, text=True
            )
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def _write_model(blocks: int, folder: Path) -> None:
    """A base with a transformer of the published width, and an adapter."""
    write_tiny_base(folder / "base")
    sizes = json.loads((folder / "base" / TRANSFORMER / "config.json").read_text())
    kept = {name: value for name, value in sizes.items() if name.startswith(("lyric", "text"))}
    torch.manual_seed(0)
    model = ACEStepTransformer2DModel(
        num_layers=blocks, ssl_encoder_depths=(0, 0), drop_dead_projections=True, build_projectors=False, **kept
    )
    for old in (folder / "base" / TRANSFORMER).iterdir():
        old.unlink()
    model.save_pretrained(folder / "base" / TRANSFORMER, max_shard_size="100GB")
    adapted = get_peft_model(model, LoraConfig(r=16, lora_alpha=16, target_modules=ADAPTED))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    adapted.save_pretrained(str(folder / "adapter"))


class Peaks:
    """The largest private memory of each step, in MB."""

    def __init__(self) -> None:
        self.of: dict[str, float] = {}
        self._largest = 0.0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self._largest = max(self._largest, _private())
            time.sleep(0.01)

    def step(self, name: str, work: Callable[[], object]) -> None:
        """Do something and note its peak."""
        self._largest = 0.0
        work()
        self.of[name] = max(self._largest, _private())


def _private() -> float:
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    found = re.search(r"RssAnon:\s+(\d+) kB", text)
    assert found
    return int(found[1]) / 1024


def _write_tiers(folder: Path) -> Measured:
    """All steps of one component, as `build_tiers` takes them."""
    merged, peaks = folder / "merged", Peaks()
    peaks.step("merge", lambda: merge_lora(folder / "base", folder / "adapter", merged, backbone=ACE_STEP_V1))
    peaks.step("fp32", lambda: _export(merged, folder / "fp32", "float32"))
    peaks.step("range", lambda: _range(merged))
    peaks.step("fp16", lambda: _export(merged, folder / "fp16", "half"))
    peaks.step("int8", lambda: _int8(folder))
    in_eight: list[str] = []
    peaks.step("layers", lambda: in_eight.extend(_sensitive(merged, folder)))
    peaks.step("int4", lambda: _int4(folder, set(in_eight)))
    tiers: tuple[TierName, ...] = ("fp16", "int8", "int4")
    for tier in tiers:
        peaks.step(f"proof of {tier}", partial(_prove, folder, tier))
    exportable = ACE_STEP_V1.exportable("transformer", merged)
    return Measured(sum(weight.numel() for weight in exportable.module.parameters()), peaks.of)


def _export(merged: Path, folder: Path, precision: Precision) -> None:
    folder.mkdir()
    exportable = ACE_STEP_V1.exportable("transformer", merged)
    with spooled(folder) as spool:
        save(export(exportable, precision=precision, spool=spool), folder / "transformer.onnx")


def _range(merged: Path) -> None:
    exportable = ACE_STEP_V1.exportable("transformer", merged)
    measure(
        exportable.module,
        [{name: value.numpy() for name, value in exportable.inputs.items()}],
        inputs=list(exportable.inputs),
    )


def _int8(folder: Path) -> None:
    (folder / "int8").mkdir()
    with spooled(folder / "int8") as spool:
        model = lower_to_17(open_graph(folder / "fp32" / "transformer.onnx"))
        quantize_int8(model, wanted=_quantizable, spool=spool)
        store_rest_as_half(model, spool=spool)
        save(model, folder / "int8" / "transformer.onnx", weights_beside=True)
    write_cpu_profile(folder / "int8" / "transformer.onnx", folder / "int8" / "transformer.cpu.onnx")


def _sensitive(merged: Path, folder: Path) -> tuple[str, ...]:
    inputs = {name: value.numpy() for name, value in ACE_STEP_V1.exportable("transformer", merged).inputs.items()}
    call = Probe("transformer", inputs, np.zeros(0))
    return spared(layer_losses(folder / "fp32" / "transformer.onnx", [call], LAYOUT))


def _int4(folder: Path, in_eight: set[str]) -> None:
    (folder / "int4").mkdir()
    with spooled(folder / "int4") as spool:
        model = raise_from_18(open_graph(folder / "fp16" / "transformer.onnx"))
        quantize_int4(
            model, wanted=lambda name: bool(re.match(LAYOUT.block, name)) and name not in in_eight, spool=spool
        )
        quantize_int8(model, wanted=_quantizable, spool=spool)
        save(model, folder / "int4" / "transformer.onnx")


def _quantizable(module: str) -> bool:
    return not re.match(LAYOUT.kept_in_float, module)


def _prove(folder: Path, tier: TierName) -> None:
    found = check_file(
        folder / tier / "transformer.onnx",
        component="transformer",
        tier=tier,
        layout=LAYOUT,
        baseline=folder / "fp32" / "transformer.onnx",
    )
    assert not found.violations, found.violations


if __name__ == "__main__":
    part, blocks, root = sys.argv[1:]
    if part == "model":
        _write_model(int(blocks), Path(root))
    else:
        print(json.dumps(asdict(_write_tiers(Path(root)))))
