"""All tiers of a merged model: each component exported once per precision, INT8 and INT4 derived from those files.

FP32 is the baseline that quality is measured against and is not released; FP16, INT8 and INT4 are the tiers of
Principle IV. A tier whose model, recipe and tools are unchanged is left alone. FAD of the tiers is measured in
`quantized_tiers`.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

import onnx

from lofi_assets.backbones import Backbone
from lofi_assets.backbones.export import Exportable, Probe
from lofi_assets.errors import LofiError
from lofi_assets.files.hashing import hash_of, sha256_file
from lofi_assets.files.typed import plain
from lofi_assets.files.writing import atomic_folder, link_or_copy
from lofi_assets.progress import Progress
from lofi_assets.quantization.export import export
from lofi_assets.quantization.finite import not_finite
from lofi_assets.quantization.graph import load, open_graph, save, save_sharing
from lofi_assets.quantization.half_range import measure
from lofi_assets.quantization.int4 import BLOCK, quantize_int4
from lofi_assets.quantization.int8 import multiply_in_integers, quantize_int8
from lofi_assets.quantization.kept_components import KeptComponents
from lofi_assets.quantization.linear_weights import Stored, store_rest_as_half
from lofi_assets.quantization.merge_report import read_merge_report
from lofi_assets.quantization.opset import lower_to_17, raise_from_18
from lofi_assets.quantization.policy import cpu_profiles
from lofi_assets.quantization.proof import prove_tier
from lofi_assets.quantization.sensitivity import SPARED_SHARE, layer_losses, spared
from lofi_assets.quantization.shards import too_large
from lofi_assets.quantization.signal_to_noise import below_floor, compare
from lofi_assets.quantization.spool import Spool, spooled
from lofi_assets.quantization.tier_manifest import (
    TIERS,
    HalfRange,
    LayerLoss,
    PolicyReport,
    TierFile,
    TierManifest,
    TierName,
    TierRecipe,
    manifest_path,
)

LOG = logging.getLogger(__name__)
EXPORT_VERSION: Final = "6"
"""Raised when the code here or in the model changes what a file holds, so that tiers are built again."""

TOOLS: Final = ("torch", "onnx", "onnxscript", "onnxruntime", "transformers", "diffusers")


@dataclass(frozen=True)
class Recipe:
    """How many weights of the denoiser INT4 spares; which, is measured, and all else follows from the constitution."""

    spared_share: float = SPARED_SHARE
    """Most of the weights of its blocks that are stored in 8 bits."""


class TierError(LofiError, RuntimeError):
    """A tier that was built but breaks the policy, so it was not put in place."""


@dataclass(frozen=True)
class TierReport:
    """A tier in place: measured, judged, and whether this call built it."""

    tier: TierName
    directory: Path
    fingerprint: str
    rebuilt: bool
    policy: PolicyReport
    snr_db: Mapping[str, float]
    """Component, or its CPU profile -> dB against FP32 on the same inputs; 200 stands for equal."""
    not_finite: tuple[str, ...] | None
    """Files with an answer that is no number at inputs larger than any seen (`finite`); None if they were not asked."""
    seconds: dict[str, float]
    """Component -> time to export or derive it; empty if nothing was built."""


def build_tiers(
    merged_dir: Path,
    target_root: Path,
    *,
    backbone: Backbone,
    recipe: Recipe | None = None,
    provenance: Mapping[str, str] | None = None,
    kept: Path | None = None,
    progress: Callable[[str], None] = LOG.info,
) -> list[TierReport]:
    """Write `target_root`/{fp32,fp16,int8,int4}, each whole or not at all, and return their reports in that order.

    Args:
        merged_dir: a base model with the LoRA merged in (`merge_lora`).
        recipe: another than the default.
        provenance: written into every file and manifest: checkpoint, git commit, dataset hash.
        kept: where what no adapter changes is kept for the next build (`kept_components`); None exports everything.
        progress: is told of each step as a line.
    Raises:
        TierError: a built tier breaks the policy; the one in place stays.
    """
    store = KeptComponents(kept, merged=merged_dir, backbone=backbone, export_version=EXPORT_VERSION, say=progress)
    builder = _Builder(merged_dir, target_root, backbone, recipe, dict(provenance or {}), store, progress)
    waiting = len(backbone.layout.components) * sum(not current for current in builder.current.values())
    with Progress("building tiers", total=waiting, unit="component", say=progress) as builder.progress:
        return [builder.report(tier) for tier in TIERS]


def tier_fingerprint(merged_dir: Path, *, backbone: Backbone, recipe: Recipe | None = None) -> str:
    """Changes when the model, the recipe, this code or a tool changes; the same for all four tiers."""
    return hash_of(EXPORT_VERSION, backbone.fingerprint(merged_dir), asdict(recipe or Recipe()), _tools())


def write_cpu_profile(source: Path, target: Path) -> None:
    """Write the graph that multiplies in integers beside an INT8 file whose weights are in data files, for both."""
    graph = load(source, weights=False)
    multiply_in_integers(graph)
    save_sharing(graph, target)


def is_current(directory: Path, wanted: str) -> bool:
    """Whether a tier's folder was built under that fingerprint, every file has its recorded hash, and none is so large
    that it would be several today."""
    manifest = TierManifest.read(directory)
    if manifest is None or manifest.fingerprint != wanted:
        return False
    if any(too_large(file.bytes) for file in manifest.files.values()):
        return False
    return all(
        (directory / name).is_file() and sha256_file(directory / name) == file.sha256
        for name, file in manifest.files.items()
    )


class _Builder:
    """Builds the tiers of one merged model in order; later ones read the files of the first two."""

    def __init__(
        self,
        merged_dir: Path,
        root: Path,
        backbone: Backbone,
        recipe: Recipe | None,
        provenance: dict[str, str],
        kept: KeptComponents,
        progress: Callable[[str], None],
    ) -> None:
        self.merged_dir, self.root, self.say = merged_dir, root, progress
        self.backbone, self.layout = backbone, backbone.layout
        self.recipe, self.kept = recipe or Recipe(), kept
        self.fingerprint = tier_fingerprint(merged_dir, backbone=backbone, recipe=self.recipe)
        self.current = {tier: is_current(root / tier, self.fingerprint) for tier in TIERS}
        self.provenance = self._provenance(provenance)
        self.progress: Progress | None = None
        self.half: dict[str, HalfRange] = {}
        self._made: dict[str, str] = {}
        self.layers: list[LayerLoss] | None = None
        self._probes: list[Probe] | None = None
        self._stressed: list[Probe] | None = None

    def report(self, tier: TierName) -> TierReport:
        """Build the tier unless it is current."""
        directory = self.root / tier
        manifest = TierManifest.read(directory)
        if manifest and self.current[tier]:
            self.say(f"{tier}: unchanged")
            policy = prove_tier(directory, tier=tier, layout=self.layout, baseline=self.root / "fp32")
            return TierReport(
                tier, directory, self.fingerprint, False, policy, manifest.snr_db, manifest.not_finite, {}
            )
        with atomic_folder(directory) as partial:
            seconds: dict[str, float] = {name: self._timed(tier, name, partial) for name in self.layout.components}
            self._tokenizers(partial)
            baseline = partial if tier == "fp32" else self.root / "fp32"
            policy = prove_tier(partial, tier=tier, layout=self.layout, baseline=baseline)
            if not policy.holds:
                raise TierError(f"tier {tier} breaks the precision policy: {'; '.join(policy.violations)}")
            snr = self._compare(tier, partial, baseline)
            if low := below_floor(snr, tier, self.layout):
                raise TierError(f"tier {tier} is not the model that it was made from: {'; '.join(low)}")
            files = {name: name for name in self.layout.components} | cpu_profiles(self.layout, tier)
            broken = not_finite(partial, files, self._stress(baseline), masked=self.layout.quantized)
            self._manifest(partial, tier, policy, snr, broken)
        self._keep(tier, directory)
        denoiser = self.layout.denoiser
        self.say(f"{tier}: {policy.size_bytes / 1e6:.2f} MB, {denoiser} {snr[denoiser]:.1f} dB against FP32")
        return TierReport(tier, directory, self.fingerprint, True, policy, snr, broken, seconds)

    def _timed(self, tier: TierName, component: str, folder: Path) -> float:
        started = time.monotonic()
        how = self._place(tier, component, folder)
        taken = time.monotonic() - started
        if self.progress:
            self.progress.advance(note=tier)
        self.say(f"{tier}: {component} {how} in {taken:.1f} s")
        return round(taken, 2)

    def _place(self, tier: TierName, component: str, folder: Path) -> str:
        """Write a component's files into a tier's folder; says how they came there."""
        exportable = self._measured(component) if tier == "fp16" else None
        islands = self.half[component].islands if tier == "fp16" else ()
        key = self.kept.key(tier, component, islands=islands)
        if kept := self.kept.take(key, tier, component, folder, properties=self._properties(tier, component)):
            return f"kept from {f'the tiers of {kept.origin}' if kept.origin else 'an earlier build'}"
        profiles = [name for name, whose in cpu_profiles(self.layout, tier).items() if whose == component]
        with spooled(folder) as spool:
            model, stored = self._make(tier, component, exportable, spool)
            self._describe(model, tier, component, stored)
            save(model, folder / f"{component}.onnx", weights_beside=bool(profiles))
        for profile in profiles:
            write_cpu_profile(folder / f"{component}.onnx", folder / f"{profile}.onnx")
        if key is not None:
            self._made[component] = key
        return "exported" if tier.startswith("fp") else "derived"

    def _keep(self, tier: TierName, directory: Path) -> None:
        """What was made for a tier, now that it is proven, for the tiers of the next model."""
        origin = self.provenance.get("checkpoint", "")
        for component, key in self._made.items():
            properties = self._properties(tier, component)
            self.kept.keep(key, tier, component, directory, properties=properties, origin=origin)
        self._made.clear()

    def _make(
        self, tier: TierName, component: str, exportable: Exportable | None, spool: Spool
    ) -> tuple[onnx.ModelProto, list[Stored]]:
        if tier == "int8":
            return self._int8(component, spool)
        if tier == "int4":
            return self._int4(component, spool)
        if exportable is None:
            loaded = self.backbone.exportable(component, self.merged_dir)
            return export(loaded, precision="float32", spool=spool), []
        model = export(exportable, precision="half", islands=self.half[component].islands, spool=spool)
        if component in self.layout.audio:
            store_rest_as_half(model, spool=spool)
        return model, []

    def _measured(self, component: str) -> Exportable:
        """A component that is ready for export in half precision, its range measured."""
        exportable = self.backbone.exportable(component, self.merged_dir)
        calls = [probe.inputs for probe in self._stress(self.root / "fp32") if probe.component == component]
        self.half[component] = measure(exportable.module, calls, inputs=list(exportable.inputs))
        return exportable

    def _stress(self, baseline: Path) -> list[Probe]:
        if self._stressed is None:
            self._stressed = self.backbone.stress(self.backbone.runtime(baseline))
        return self._stressed

    def _int8(self, component: str, spool: Spool) -> tuple[onnx.ModelProto, list[Stored]]:
        if component in self.layout.audio:
            return lower_to_17(open_graph(self.root / "fp16" / f"{component}.onnx")), []
        model = lower_to_17(open_graph(self.root / "fp32" / f"{component}.onnx"))
        stored = quantize_int8(model, wanted=self._quantizable, spool=spool)
        return model, stored + store_rest_as_half(model, spool=spool)

    def _int4(self, component: str, spool: Spool) -> tuple[onnx.ModelProto, list[Stored]]:
        model = raise_from_18(open_graph(self.root / "fp16" / f"{component}.onnx"))
        stored: list[Stored] = []
        if component == self.layout.denoiser:
            in_four = self._in_four_bits()
            stored = quantize_int4(model, wanted=in_four.__contains__, spool=spool)
        if component not in self.layout.audio:
            stored += quantize_int8(model, wanted=self._quantizable, spool=spool)
        return model, stored

    def _in_four_bits(self) -> set[str]:
        """Layers of the denoiser's blocks, but for those that measure as the most sensitive."""
        baseline = self.root / "fp32"
        probes = self._recorded(baseline)
        self.layers = layer_losses(baseline / f"{self.layout.denoiser}.onnx", probes, self.layout)
        return {loss.layer for loss in self.layers} - set(self._spared())

    def _spared(self) -> tuple[str, ...]:
        return spared(self.layers or (), share=self.recipe.spared_share)

    def _describe(self, model: onnx.ModelProto, tier: TierName, component: str, stored: list[Stored]) -> None:
        worst = max(stored, key=lambda item: item.relative_error, default=None)
        properties = self._properties(tier, component)
        if worst is not None:
            properties["largest_weight_error"] = f"{worst.relative_error:.4f} {worst.name} {worst.bits} bits"
        onnx.helper.set_model_props(model, dict(sorted(properties.items())))

    def _properties(self, tier: TierName, component: str) -> dict[str, str]:
        """What a file says of the tier that it belongs to."""
        return self.provenance | {"tier": tier, "component": component, "fingerprint": self.fingerprint}

    def _quantizable(self, module: str) -> bool:
        return not re.match(self.layout.kept_in_float, module)

    def _tokenizers(self, folder: Path) -> None:
        for name, file in self.backbone.tokenizers(self.merged_dir).items():
            link_or_copy(file.resolve(), folder / name)

    def _compare(self, tier: TierName, folder: Path, baseline: Path) -> dict[str, float]:
        runtime, probes = self.backbone.runtime, self._recorded(baseline)
        found = compare(runtime(folder, cpu_profile=False), probes)
        for profile, component in cpu_profiles(self.layout, tier).items():
            asked = [probe for probe in probes if probe.component == component]
            found[profile] = compare(runtime(folder), asked)[component]
        return found

    def _recorded(self, baseline: Path) -> list[Probe]:
        if self._probes is None:
            self._probes = self.backbone.probes(self.backbone.runtime(baseline))
        return self._probes

    def _provenance(self, given: dict[str, str]) -> dict[str, str]:
        report = read_merge_report(self.merged_dir)
        merged = plain(report) if report else {}
        tools = {f"tool.{name}": number for name, number in _tools().items()}
        model = {
            "model_fingerprint": self.backbone.fingerprint(self.merged_dir),
            "recipe": json.dumps(asdict(self.recipe)),
        }
        return {**tools, **model, **{f"merge.{key}": str(value) for key, value in merged.items()}, **given}

    def _manifest(
        self, folder: Path, tier: TierName, policy: PolicyReport, snr: dict[str, float], broken: tuple[str, ...]
    ) -> None:
        halves = TierManifest.read(self.root / "fp16") if tier in ("int8", "int4") else None
        files = sorted(path for path in folder.iterdir() if path != manifest_path(folder))
        TierManifest(
            tier=tier,
            opset=policy.opset,
            fingerprint=self.fingerprint,
            files={path.name: TierFile(sha256_file(path), path.stat().st_size) for path in files},
            recipe=TierRecipe(self._spared() if tier == "int4" else (), BLOCK),
            provenance=dict(sorted(self.provenance.items())),
            policy=policy,
            architecture=self.backbone.architecture,
            snr_db=snr,
            half=halves.half if halves else self.half or None,
            layers=tuple(self.layers) if tier == "int4" and self.layers is not None else None,
            not_finite=broken,
        ).write(folder)


def _tools() -> dict[str, str]:
    return {name: version(name) for name in TOOLS}
