"""A trained LoRA merged into its base: the one float32 model that every tier is made from.

The scale comes from the adapter's own configuration (rank-stabilised or not), as it was trained. Merging into weights
that are already quantized is not possible here: the merge is the first step. One weight at a time is in memory, the
others are on disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from peft import PeftConfig, PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor

from lofi_assets.backbones import Backbone
from lofi_assets.errors import LofiError
from lofi_assets.files.hashing import sha256_file
from lofi_assets.files.writing import atomic_folder
from lofi_assets.quantization.mapped import on_disk, widen
from lofi_assets.quantization.merge_report import MergeReport, write_merge_report
from lofi_assets.training.layer_patterns import strengths

ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
MAX_RELATIVE_ERROR = 1e-3
"""Float32 rounding over 24 blocks stays two orders below; a wrong scale is two orders above."""


class MergeError(LofiError, ValueError):
    """An adapter that cannot be merged into this base; the message says why and what to do."""


def merge_lora(
    base_dir: Path, adapter_dir: Path, target_dir: Path, *, backbone: Backbone, lyric_vocabulary: Path | None = None
) -> MergeReport:
    """Write `target_dir` as a base model in the layout of its family that has the adapter merged in, in float32.

    The other components are hard links to the base's files (copies where linking is impossible). The folder appears
    at once or not at all, and replaces an earlier one; the report lies in it as merge.json.

    Args:
        base_dir: folder of a base model.
        adapter_dir: adapter_model.safetensors and adapter_config.json in PEFT form.
        lyric_vocabulary: goes with the model; else the base's, if it holds one.
    Raises:
        MergeError: a file is absent, no layer takes the adapter, or the merged model disagrees.
        BaseModelError: the base cannot be read.
    """
    _expect_adapter(adapter_dir)
    base = backbone.mergeable(base_dir)
    with atomic_folder(target_dir) as partial:
        widen(base, folder=partial)
        velocity = backbone.velocity_probe(base)
        plain = velocity(base)
        model = PeftModel.from_pretrained(base, str(adapter_dir))
        model.eval()
        layers = [layer for layer in model.modules() if isinstance(layer, LoraLayer)]
        _expect_layers(layers, adapter_dir)
        adapted = velocity(base)
        _merge_layers(layers, partial)
        merged = model.unload()
        if any("lora_" in name for name, _ in merged.named_parameters()):
            raise MergeError(f"{adapter_dir}: adapter weights are left after merging; is {ADAPTER_CONFIG} complete?")
        report = _judged(plain, adapted, velocity(merged), _numbers(layers), (base_dir, adapter_dir), backbone)
        backbone.write_merged(merged, base_dir, partial, vocabulary=lyric_vocabulary)
        write_merge_report(partial, report)
    return report


def _merge_layers(layers: Sequence[LoraLayer], folder: Path) -> None:
    """As `merge_and_unload`, but each weight is on disk before the next is merged."""
    for layer in layers:
        layer.merge(safe_merge=True)
        for weight in layer.get_base_layer().parameters(recurse=False):
            weight.data = on_disk(weight.data, folder)


def _judged(
    plain: Tensor,
    adapted: Tensor,
    after: Tensor,
    numbers: Sequence[tuple[int, float]],
    folders: tuple[Path, Path],
    backbone: Backbone,
) -> MergeReport:
    """The report of a merge, from what base, base with adapter, and merged model predict.

    Raises:
        MergeError: the last two disagree.
    """
    base_dir, adapter_dir = folders
    size = float(adapted.abs().max())
    report = MergeReport(
        max_error=float((after - adapted).abs().max()) / size,
        adapter_effect=float((after - plain).abs().max()) / size,
        modules=len(numbers),
        scale=max(scale for _, scale in numbers),
        rank=max(rank for rank, _ in numbers),
        layers=strengths(numbers),
        base_fingerprint=backbone.fingerprint(base_dir),
        adapter_sha256=sha256_file(adapter_dir / ADAPTER_WEIGHTS),
    )
    if not report.max_error <= MAX_RELATIVE_ERROR:
        raise MergeError(
            f"{adapter_dir}: merged and adapter outputs differ by {report.max_error:.2e} of the output, "
            f"at most {MAX_RELATIVE_ERROR:.0e} is float32 rounding; check lora_alpha and use_rslora in {ADAPTER_CONFIG}"
        )
    return report


def _expect_adapter(adapter_dir: Path) -> None:
    missing = [name for name in (ADAPTER_WEIGHTS, ADAPTER_CONFIG) if not (adapter_dir / name).is_file()]
    if missing:
        raise MergeError(f"{adapter_dir} lacks {' and '.join(missing)}: give a checkpoint's folder in PEFT form")
    config = PeftConfig.from_pretrained(str(adapter_dir))
    if str(config.peft_type).rpartition(".")[2] != "LORA":
        raise MergeError(f"{adapter_dir} is a {config.peft_type} adapter; only LoRA (also rsLoRA, DoRA) can be merged")


def _expect_layers(layers: Sequence[LoraLayer], adapter_dir: Path) -> None:
    if not layers:
        raise MergeError(f"{adapter_dir}: none of its target_modules is in this base; was it trained on another model?")


def _numbers(layers: Sequence[LoraLayer]) -> list[tuple[int, float]]:
    """Rank and scale of each layer, as peft took them from the adapter's configuration."""
    return [(int(layer.r[name]), round(float(scale), 9)) for layer in layers for name, scale in layer.scaling.items()]
