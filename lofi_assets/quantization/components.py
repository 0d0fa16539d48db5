"""One component's file of a tier: exported, derived from the files of other tiers, or kept from an earlier build.

What belongs here: what stands in the file and where it came from. What does not: tiers as a whole, their proof and
their comparison with FP32 (`build.py`). All of it can be pickled, so that two processes may make the files of a tier.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnx

from lofi_assets.backbones import Backbone
from lofi_assets.backbones.export import Exportable, Probe
from lofi_assets.quantization.graph import load, open_graph, save, save_sharing
from lofi_assets.quantization.int4 import quantize_int4
from lofi_assets.quantization.int8 import multiply_in_integers, quantize_int8
from lofi_assets.quantization.kept_components import KeptComponents
from lofi_assets.quantization.linear_weights import Stored, store_rest_as_half
from lofi_assets.quantization.opset import lower_to_17, raise_from_18
from lofi_assets.quantization.policy import cpu_profiles
from lofi_assets.quantization.sensitivity import SPARED_SHARE, layer_losses, spared
from lofi_assets.quantization.spool import Spool, spooled
from lofi_assets.quantization.tier_manifest import HalfRange, LayerLoss, TierName


@dataclass(frozen=True)
class Recipe:
    """How many weights of the denoiser INT4 spares; which, is measured, and all else follows from the constitution."""

    spared_share: float = SPARED_SHARE
    """Most of the weights of its blocks that are stored in 8 bits."""

    def spared(self, layers: Sequence[LayerLoss]) -> tuple[str, ...]:
        """Those of the layers that INT4 stores in 8 bits."""
        return spared(layers, share=self.spared_share)


@dataclass(frozen=True)
class Asked:
    """A component of a tier that is to be made."""

    tier: TierName
    component: str
    folder: Path
    """Of the tier that is being built."""
    calls: Sequence[Probe] = ()
    """Of FP16, what the component's range is measured at; of the denoiser in INT4, what its layers are."""


@dataclass(frozen=True)
class Placed:
    """A component's file, in its tier's folder."""

    component: str
    how: str
    """Where it came from, for people."""
    seconds: float
    key: str | None = None
    """What it can be kept under for the next build; None if it was taken from there, or cannot be kept."""
    half: HalfRange | None = None
    """Of FP16."""
    layers: tuple[LayerLoss, ...] | None = None
    """Of the denoiser in INT4."""
    said: tuple[str, ...] = ()
    """What people are to be told of it."""


@dataclass(frozen=True)
class Components:
    """The components of one merged model."""

    backbone: Backbone
    merged_dir: Path
    root: Path
    """Of the tiers that others are derived from."""
    recipe: Recipe
    kept: KeptComponents
    provenance: Mapping[str, str]
    """Written into every file."""
    fingerprint: str
    """Of the tiers; likewise."""

    def place(self, asked: Asked) -> Placed:
        """Write a component into its tier's folder."""
        started = time.monotonic()
        making = _Making(self, asked)
        how, key = making.place()
        return Placed(
            asked.component,
            how,
            round(time.monotonic() - started, 2),
            key=key,
            half=making.half,
            layers=making.layers,
            said=tuple(making.said),
        )

    def properties(self, tier: TierName, component: str) -> dict[str, str]:
        """What a file says of the tier that it belongs to."""
        return {**self.provenance, "tier": tier, "component": component, "fingerprint": self.fingerprint}


@dataclass
class _Making:
    """The making of one file, and what it tells besides."""

    components: Components
    asked: Asked
    half: HalfRange | None = None
    layers: tuple[LayerLoss, ...] | None = None
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tier, self.component, self.folder = self.asked.tier, self.asked.component, self.asked.folder
        self.backbone, self.layout = self.components.backbone, self.components.backbone.layout
        self.properties = self.components.properties(self.tier, self.component)

    def place(self) -> tuple[str, str | None]:
        """Write the file; how it came there, and what it can be kept under."""
        exportable = self._measured() if self.tier == "fp16" else None
        kept = self.components.kept
        key = kept.key(self.tier, self.component, islands=self._islands)
        found = kept.take(key, self.tier, self.component, self.folder, properties=self.properties, say=self.said.append)
        if found:
            return f"kept from {f'the tiers of {found.origin}' if found.origin else 'an earlier build'}", None
        profiles = [name for name, whose in cpu_profiles(self.layout, self.tier).items() if whose == self.component]
        path = self.folder / f"{self.component}.onnx"
        with spooled(self.folder) as spool:
            model, stored = self._make(exportable, spool)
            self._describe(model, stored)
            save(model, path, weights_beside=bool(profiles))
        for profile in profiles:
            write_cpu_profile(path, self.folder / f"{profile}.onnx")
        return "exported" if self.tier.startswith("fp") else "derived", key

    def _make(self, exportable: Exportable | None, spool: Spool) -> tuple[onnx.ModelProto, list[Stored]]:
        if self.tier == "int8":
            return self._int8(spool)
        if self.tier == "int4":
            return self._int4(spool)
        from lofi_assets.quantization.export import export  # torch, of which tiers that are unchanged need nothing

        if exportable is None:
            return export(self._exportable(), precision="float32", spool=spool), []
        model = export(exportable, precision="half", islands=self._islands, spool=spool)
        if self.component in self.layout.audio:
            store_rest_as_half(model, spool=spool)
        return model, []

    def _exportable(self) -> Exportable:
        return self.backbone.exportable(self.component, self.components.merged_dir)

    def _measured(self) -> Exportable:
        """The component, ready for export in half precision, its range measured."""
        from lofi_assets.quantization.half_range import measure

        exportable = self._exportable()
        calls = [probe.inputs for probe in self.asked.calls]
        self.half = measure(exportable.module, calls, inputs=list(exportable.inputs))
        return exportable

    @property
    def _islands(self) -> tuple[str, ...]:
        return self.half.islands if self.half else ()

    def _int8(self, spool: Spool) -> tuple[onnx.ModelProto, list[Stored]]:
        if self.component in self.layout.audio:
            return lower_to_17(self._of("fp16")), []
        model = lower_to_17(self._of("fp32"))
        stored = quantize_int8(model, wanted=self._quantizable, spool=spool)
        return model, stored + store_rest_as_half(model, spool=spool)

    def _int4(self, spool: Spool) -> tuple[onnx.ModelProto, list[Stored]]:
        model = raise_from_18(self._of("fp16"))
        stored: list[Stored] = []
        if self.component == self.layout.denoiser:
            in_four = self._in_four_bits()
            stored = quantize_int4(model, wanted=in_four.__contains__, spool=spool)
        if self.component not in self.layout.audio:
            stored += quantize_int8(model, wanted=self._quantizable, spool=spool)
        return model, stored

    def _in_four_bits(self) -> set[str]:
        """Layers of the denoiser's blocks, but for those that measure as the most sensitive."""
        path = self.components.root / "fp32" / f"{self.layout.denoiser}.onnx"
        self.layers = tuple(layer_losses(path, self.asked.calls, self.layout))
        return {loss.layer for loss in self.layers} - set(self.components.recipe.spared(self.layers))

    def _of(self, tier: TierName) -> onnx.ModelProto:
        """The component as another tier has it."""
        return open_graph(self.components.root / tier / f"{self.component}.onnx")

    def _quantizable(self, module: str) -> bool:
        return not re.match(self.layout.kept_in_float, module)

    def _describe(self, model: onnx.ModelProto, stored: list[Stored]) -> None:
        worst = max(stored, key=lambda item: item.relative_error, default=None)
        properties = dict(self.properties)
        if worst is not None:
            properties["largest_weight_error"] = f"{worst.relative_error:.4f} {worst.name} {worst.bits} bits"
        onnx.helper.set_model_props(model, dict(sorted(properties.items())))


def write_cpu_profile(source: Path, target: Path) -> None:
    """Write the graph that multiplies in integers beside an INT8 file whose weights are in data files, for both."""
    graph = load(source, weights=False)
    multiply_in_integers(graph)
    save_sharing(graph, target)
