"""All tiers of a merged model: each component exported once per precision, INT8 and INT4 derived from those files.

FP32 is the baseline that quality is measured against and is not released; FP16, INT8 and INT4 are the tiers of
Principle IV. A tier whose model, recipe and tools are unchanged is left alone. Not here: FAD of the tiers, publishing
them.
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

from lofi_assets.backbones.ace_step_v1.identity import base_fingerprint
from lofi_assets.backbones.ace_step_v1.loading import TEXT_ENCODER, load_base
from lofi_assets.backbones.ace_step_v1.lyric_vocabulary import LYRIC_VOCABULARY
from lofi_assets.errors import LofiError
from lofi_assets.files.hashing import fingerprint, sha256_file
from lofi_assets.files.typed import plain
from lofi_assets.files.writing import atomic_folder, link_or_copy
from lofi_assets.lofi_onnx.pipeline import TOKENIZER, OnnxPipeline
from lofi_assets.progress import Progress
from lofi_assets.quantization import signal_to_noise as fidelity
from lofi_assets.quantization.export import COMPONENTS, ComponentName, Precision, export, needs, prepare
from lofi_assets.quantization.graph import load, save, save_sharing
from lofi_assets.quantization.int4 import BLOCK, quantize_int4
from lofi_assets.quantization.int8 import multiply_in_integers, quantize_int8
from lofi_assets.quantization.linear_weights import Stored, store_rest_as_half
from lofi_assets.quantization.merge import USED_PARTS
from lofi_assets.quantization.merge_report import read_merge_report
from lofi_assets.quantization.opset import lower_to_17, raise_from_18
from lofi_assets.quantization.policy import CPU_PROFILES, KEPT_IN_FLOAT, check_tier
from lofi_assets.quantization.tier_manifest import (
    TIERS,
    PolicyReport,
    TierFile,
    TierManifest,
    TierName,
    TierRecipe,
    manifest_path,
)

LOG = logging.getLogger(__name__)
EXPORT_VERSION: Final = "4"
"""Raised when the code here or in the model changes what a file holds, so that tiers are built again."""

AUDIO: Final = ("dcae_decoder", "vocoder")
TOOLS: Final = ("torch", "onnx", "onnxscript", "onnxruntime", "transformers", "diffusers")


@dataclass(frozen=True)
class Recipe:
    """Which linear layers of the transformer INT4 spares; everything else follows from the constitution."""

    int8_layers: tuple[str, ...] = (r"\.to_v$", r"\.to_out\.0$")
    """Modules (regular expressions, searched) kept at INT8 in the INT4 tier. Values and outputs of the cross-attention
    reach the stream without norm or gate: sparing them gave 49 instead of 33 dB on random weights, point_conv
    nothing."""
    int8_edge_blocks: int = 1
    """Blocks at either end kept at INT8 in the INT4 tier, if there are at least eight."""


DEFAULT_RECIPE: Final = Recipe()


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
    seconds: dict[str, float]
    """Component -> time to export or derive it; empty if nothing was built."""


def build_tiers(
    merged_dir: Path,
    target_root: Path,
    *,
    recipe: Recipe = DEFAULT_RECIPE,
    provenance: Mapping[str, str] | None = None,
    progress: Callable[[str], None] = LOG.info,
) -> list[TierReport]:
    """Write `target_root`/{fp32,fp16,int8,int4}, each whole or not at all, and return their reports in that order.

    Args:
        merged_dir: a base model in the Hub's layout with the LoRA merged in (`merge_lora`).
        provenance: written into every file and manifest: checkpoint, git commit, dataset hash.
        progress: is told of each step as a line.
    Raises:
        TierError: a built tier breaks the policy; the one in place stays.
    """
    builder = _Builder(merged_dir, target_root, recipe, dict(provenance or {}), progress)
    waiting = len(COMPONENTS) * sum(not current for current in builder.current.values())
    with Progress("building tiers", total=waiting, unit="component", say=progress) as builder.progress:
        return [builder.report(tier) for tier in TIERS]


def tier_fingerprint(merged_dir: Path, *, recipe: Recipe = DEFAULT_RECIPE) -> str:
    """Changes when the model, the recipe, this code or a tool changes; the same for all four tiers."""
    return fingerprint(EXPORT_VERSION, base_fingerprint(merged_dir), asdict(recipe), _tools())


def write_cpu_profile(source: Path, target: Path) -> None:
    """Write the graph that multiplies in integers beside an INT8 file whose weights are in a data file, for both."""
    graph = load(source, weights=False)
    multiply_in_integers(graph)
    save_sharing(graph, target)


def is_current(directory: Path, wanted: str) -> bool:
    """Whether a tier's folder was built under that fingerprint and every file still has its recorded hash."""
    manifest = TierManifest.read(directory)
    if manifest is None or manifest.fingerprint != wanted:
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
        recipe: Recipe,
        provenance: dict[str, str],
        progress: Callable[[str], None],
    ) -> None:
        self.merged_dir, self.root, self.recipe, self.say = merged_dir, root, recipe, progress
        self.fingerprint = tier_fingerprint(merged_dir, recipe=recipe)
        self.current = {tier: is_current(root / tier, self.fingerprint) for tier in TIERS}
        self.provenance = self._provenance(provenance)
        self.progress: Progress | None = None
        self._probes: list[fidelity.Probe] | None = None

    def report(self, tier: TierName) -> TierReport:
        """Build the tier unless it is current."""
        directory = self.root / tier
        manifest = TierManifest.read(directory)
        if manifest and self.current[tier]:
            self.say(f"{tier}: unchanged")
            policy = check_tier(directory, tier=tier, baseline=self.root / "fp32")
            return TierReport(tier, directory, self.fingerprint, False, policy, manifest.snr_db, {})
        with atomic_folder(directory) as partial:
            seconds: dict[str, float] = {name: self._timed(tier, name, partial) for name in COMPONENTS}
            self._tokenizers(partial)
            baseline = partial if tier == "fp32" else self.root / "fp32"
            policy = check_tier(partial, tier=tier, baseline=baseline)
            if not policy.holds:
                raise TierError(f"tier {tier} breaks the precision policy: {'; '.join(policy.violations)}")
            snr = self._compare(tier, partial, baseline)
            self._manifest(partial, tier, policy, snr)
        self.say(f"{tier}: {policy.size_bytes / 1e6:.2f} MB, transformer {snr['transformer']:.1f} dB against FP32")
        return TierReport(tier, directory, self.fingerprint, True, policy, snr, seconds)

    def _timed(self, tier: TierName, component: ComponentName, folder: Path) -> float:
        started = time.monotonic()
        model, stored = self._make(tier, component)
        profiles = [name for name, whose in CPU_PROFILES.get(tier, {}).items() if whose == component]
        self._describe(model, tier, component, stored)
        save(model, folder / f"{component}.onnx", weights_beside=bool(profiles))
        for profile in profiles:
            write_cpu_profile(folder / f"{component}.onnx", folder / f"{profile}.onnx")
        taken = time.monotonic() - started
        if self.progress:
            self.progress.advance(note=tier)
        self.say(f"{tier}: {component} {'exported' if tier.startswith('fp') else 'derived'} in {taken:.1f} s")
        return round(taken, 2)

    def _make(self, tier: TierName, component: ComponentName) -> tuple[onnx.ModelProto, list[Stored]]:
        if tier == "int8":
            return self._int8(component)
        if tier == "int4":
            return self._int4(component)
        return self._export(component, "float32" if tier == "fp32" else "half"), []

    def _export(self, component: ComponentName, precision: Precision) -> onnx.ModelProto:
        part = needs(component)
        options = USED_PARTS if part == "transformer" else None
        base = load_base(self.merged_dir, components=[part], transformer_options=options)
        return export(prepare(component, base), precision=precision)

    def _int8(self, component: ComponentName) -> tuple[onnx.ModelProto, list[Stored]]:
        if component in AUDIO:
            return lower_to_17(load(self.root / "fp16" / f"{component}.onnx")), []
        model = lower_to_17(load(self.root / "fp32" / f"{component}.onnx"))
        stored = quantize_int8(model, wanted=_quantizable)
        return model, stored + store_rest_as_half(model)

    def _int4(self, component: ComponentName) -> tuple[onnx.ModelProto, list[Stored]]:
        model = raise_from_18(load(self.root / "fp16" / f"{component}.onnx"))
        stored: list[Stored] = []
        if component == "transformer":
            stored = quantize_int4(model, wanted=self._in_four_bits(model))
        if component not in AUDIO:
            stored += quantize_int8(model, wanted=_quantizable)
        return model, stored

    def _in_four_bits(self, model: onnx.ModelProto) -> Callable[[str], bool]:
        blocks = {int(found[1]) for node in model.graph.node if (found := _BLOCK.match(node.name))}
        edge = self.recipe.int8_edge_blocks if len(blocks) >= 8 else 0
        inner = set(sorted(blocks)[edge : len(blocks) - edge])
        spared = [re.compile(pattern) for pattern in self.recipe.int8_layers]

        def wanted(module: str) -> bool:
            block = _BLOCK.match(module)
            return block is not None and int(block[1]) in inner and not any(rule.search(module) for rule in spared)

        return wanted

    def _describe(self, model: onnx.ModelProto, tier: TierName, component: str, stored: list[Stored]) -> None:
        worst = max(stored, key=lambda item: item.relative_error, default=None)
        properties = self.provenance | {"tier": tier, "component": component, "fingerprint": self.fingerprint}
        if worst is not None:
            properties["largest_weight_error"] = f"{worst.relative_error:.4f} {worst.name} {worst.bits} bits"
        onnx.helper.set_model_props(model, dict(sorted(properties.items())))

    def _tokenizers(self, folder: Path) -> None:
        link_or_copy((self.merged_dir / TEXT_ENCODER / TOKENIZER).resolve(), folder / TOKENIZER)
        lyrics = self.merged_dir / LYRIC_VOCABULARY
        if lyrics.is_file():
            link_or_copy(lyrics.resolve(), folder / LYRIC_VOCABULARY)

    def _compare(self, tier: TierName, folder: Path, baseline: Path) -> dict[str, float]:
        if self._probes is None:
            self._probes = fidelity.record(OnnxPipeline(baseline))
        found = fidelity.compare(OnnxPipeline(folder, cpu_profile=False), self._probes)
        for profile, component in CPU_PROFILES.get(tier, {}).items():
            asked = [probe for probe in self._probes if probe.component == component]
            found[profile] = fidelity.compare(OnnxPipeline(folder), asked)[component]
        return found

    def _provenance(self, given: dict[str, str]) -> dict[str, str]:
        report = read_merge_report(self.merged_dir)
        merged = plain(report) if report else {}
        tools = {f"tool.{name}": number for name, number in _tools().items()}
        model = {"model_fingerprint": base_fingerprint(self.merged_dir), "recipe": json.dumps(asdict(self.recipe))}
        return {**tools, **model, **{f"merge.{key}": str(value) for key, value in merged.items()}, **given}

    def _manifest(self, folder: Path, tier: TierName, policy: PolicyReport, snr: dict[str, float]) -> None:
        files = sorted(path for path in folder.iterdir() if path != manifest_path(folder))
        TierManifest(
            tier=tier,
            opset=policy.opset,
            fingerprint=self.fingerprint,
            files={path.name: TierFile(sha256_file(path), path.stat().st_size) for path in files},
            recipe=TierRecipe(self.recipe.int8_layers, self.recipe.int8_edge_blocks, BLOCK),
            provenance=dict(sorted(self.provenance.items())),
            policy=policy,
            snr_db=snr,
        ).write(folder)


_BLOCK = re.compile(r"^transformer_blocks\.(\d+)\.")


def _quantizable(module: str) -> bool:
    return not KEPT_IN_FLOAT.match(module)


def _tools() -> dict[str, str]:
    return {name: version(name) for name in TOOLS}
