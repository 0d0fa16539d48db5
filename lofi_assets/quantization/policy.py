"""The precision policy (constitution, Principle IV and Export Requirements), proven from the saved files of a tier.

What is judged: the opset against the tier, nothing but standard operators, the floors of the audio-critical and the
vocal parts, that the promised quantization is really there, and that no weight of the FP32 files is missing. Numbers
come from `weight_trace`, never from a manifest. Whether the tier sounds right is measured by FAD, in `metrics`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import onnx

from lofi_assets.backbones.export import ExportLayout, ProtectedPart
from lofi_assets.quantization.graph import GraphError, load, opset_of, stored_bytes
from lofi_assets.quantization.tier_manifest import ComponentReport, PolicyReport, TierName
from lofi_assets.quantization.weight_trace import LINEAR_OPS, QUANTIZED_OPS, Trace, Weight, trace


def cpu_profiles(layout: ExportLayout, tier: TierName) -> dict[str, str]:
    """Further files of a tier, and the component that each is in another form: the same weights, in the same data file,
    read by a graph that a CPU runs faster. Judged as the component is."""
    return {f"{layout.denoiser}.cpu": layout.denoiser} if tier == "int8" else {}


@dataclass(frozen=True)
class TierRule:
    """What a tier must be, besides the floors."""

    lowest_opset: int
    highest_opset: int | None = None
    float_bits: int | None = None
    """Unquantized tiers: at least half the elements are stored in at most so many bits."""
    share_8: float = 0.0
    """Least share of the quantizable elements stored in at most 8 bits, per component."""
    share_4: float = 0.0
    """The same in at most 4 bits, for the transformer."""


RULES: Final[dict[TierName, TierRule]] = {
    "fp32": TierRule(17),
    "fp16": TierRule(17, float_bits=16),
    "int8": TierRule(17, 17, share_8=0.95),
    "int4": TierRule(21, share_8=0.95, share_4=0.5),
}


def check_tier(directory: Path, *, tier: TierName, layout: ExportLayout, baseline: Path | None = None) -> PolicyReport:
    """Read every component file of a tier's folder and judge the whole.

    Args:
        baseline: the FP32 tier's folder; without it, sizes are not compared and missing weights go unseen.
    Raises:
        FileNotFoundError: a component's file is absent.
    """
    traces: dict[str, Trace] = {}
    components = []
    files = {component: component for component in layout.components} | cpu_profiles(layout, tier)
    for name, component in files.items():
        path = directory / f"{name}.onnx"
        if not path.is_file():
            raise FileNotFoundError(f"{path} is absent: tier {tier} needs {', '.join(files)}; build it again")
        reference = baseline / f"{component}.onnx" if baseline is not None else None
        report, traces[name] = _check(path, component=component, tier=tier, layout=layout, baseline=reference)
        if name != component and "MatMulInteger" not in traces[name].operators:
            report = replace(report, violations=(*report.violations, "multiplies nothing in integers"))
        components.append(replace(report, component=name))
    min_bits = {name: _part_bits(traces, part) for name, part in layout.protected.items()}
    violations = [f"{report.component}: {text}" for report in components for text in report.violations]
    for name, part in layout.protected.items():
        if min_bits[name] < part.bits:
            found = f"{min_bits[name]} bits" if min_bits[name] else "no weights"
            violations.append(f"{name}: {found}, at least {part.bits} bits are required")
    ratios = [report.size_ratio for report in components]
    size = sum(report.size_bytes for report in components)
    whole = None
    if None not in ratios and baseline is not None:
        whole = size / sum(stored_bytes(baseline / f"{component}.onnx") for component in layout.components)
    shares = _shares([trace_ for name, trace_ in traces.items() if name in layout.quantized], layout)
    return PolicyReport(
        tier=tier,
        opset=min(report.opset for report in components),
        min_bits=min_bits,
        quantized_share=shares[0],
        int4_share=shares[1],
        size_bytes=size,
        size_ratio=whole,
        violations=tuple(violations),
        components=tuple(components),
    )


def check_file(
    path: Path, *, component: str, tier: TierName, layout: ExportLayout, baseline: Path | None = None
) -> ComponentReport:
    """Measure and judge one component's file; `baseline` is the same component's FP32 file."""
    return _check(path, component=component, tier=tier, layout=layout, baseline=baseline)[0]


def _check(
    path: Path, *, component: str, tier: TierName, layout: ExportLayout, baseline: Path | None
) -> tuple[ComponentReport, Trace]:
    model = load(path, weights=False)
    found = trace(model)
    opset, violations = _opset(model, tier)
    violations += _format(path, model, found)
    violations += _precision(found, component, tier, layout)
    if baseline is not None:
        violations += _missing(found, trace(load(baseline, weights=False)))
    counts = Counter[int]()
    for weight in found.weights:
        counts[weight.bits] += weight.elements
    quantized, int4 = _shares([found], layout)
    size = stored_bytes(path)
    report = ComponentReport(
        component=component,
        opset=opset,
        domains=tuple(sorted(found.domains)),
        elements_by_bits=dict(sorted(counts.items())),
        min_bits=min(counts, default=0),
        quantized_share=quantized,
        int4_share=int4,
        size_bytes=size,
        size_ratio=size / stored_bytes(baseline) if baseline is not None else None,
        violations=tuple(violations),
    )
    return report, found


def _opset(model: onnx.ModelProto, tier: TierName) -> tuple[int, list[str]]:
    rule = RULES[tier]
    try:
        opset = opset_of(model)
    except GraphError as error:
        return 0, [str(error)]
    if opset < rule.lowest_opset:
        return opset, [f"opset {opset}, tier {tier} needs {rule.lowest_opset} or later"]
    if rule.highest_opset is not None and opset > rule.highest_opset:
        return opset, [f"opset {opset}, tier {tier} needs exactly {rule.highest_opset}"]
    return opset, []


def _format(path: Path, model: onnx.ModelProto, found: Trace) -> list[str]:
    """Valid for the opset on its label, standard operators only, nothing that cannot be read."""
    declared = {entry.domain or "ai.onnx" for entry in model.opset_import}
    violations = [f"domain {domain} is used but not imported" for domain in sorted(found.domains - declared)]
    violations += [f"domain {domain} is not standard" for domain in sorted((found.domains | declared) - {"ai.onnx"})]
    violations += [f"cannot be read: {place}" for place in found.unreadable]
    names = Counter(node.name for node in model.graph.node if node.name)
    repeated = sorted(name for name, times in names.items() if times > 1)
    if repeated:  # the ONNX checker lets it pass, ONNX Runtime does not load it
        violations.append(f"several nodes are called {repeated[0]}")
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        violations.append(f"not valid for the opset it declares: {' '.join(str(error).split())[:200]}")
    return violations


def _precision(found: Trace, component: str, tier: TierName, layout: ExportLayout) -> list[str]:
    rule, floor = RULES[tier], layout.floors[component]
    low = sorted({weight.name for weight in found.weights if weight.bits < floor})
    violations = [f"{len(low)} weights below {floor} bits, first {low[0]}"] if low else []
    quantizing = sorted(found.operators & QUANTIZED_OPS)
    if quantizing and (component in layout.audio or tier in ("fp32", "fp16")):
        violations.append(f"operators {', '.join(quantizing)} in a file that must stay in float")
    if rule.float_bits is not None:
        violations += _mostly_half(found)
    if component in layout.quantized:
        share_8, share_4 = _shares([found], layout)
        if share_8 < rule.share_8:
            violations.append(f"{share_8:.2f} of the linear weights are in 8 bits or fewer, {rule.share_8} is required")
        if component == layout.denoiser and share_4 < rule.share_4:
            violations.append(f"{share_4:.2f} of the linear weights are in 4 bits, {rule.share_4} is required")
    return violations


def _mostly_half(found: Trace) -> list[str]:
    total = sum(weight.elements for weight in found.weights)
    half = sum(weight.elements for weight in found.weights if weight.bits <= 16)
    return [] if total and half >= total / 2 else [f"{half} of {total} weight elements are in half precision"]


def _missing(found: Trace, reference: Trace) -> list[str]:
    have, need = _named(found), _named(reference)
    missing = sorted(name for name, count in need.items() if have.get(name) != count)
    return (
        [f"{len(missing)} weights of the FP32 file are missing or of another size, first {missing[0]}"]
        if missing
        else []
    )


def _named(found: Trace) -> dict[str, int]:
    """Weight matrices and kernels by module name; constants that the exporter made on the way have no such name."""
    return {weight.name: weight.elements for weight in found.weights if weight.rank >= 2 and "/" not in weight.name}


def _quantizable(weight: Weight, layout: ExportLayout) -> bool:
    linear = weight.operator in LINEAR_OPS and weight.rank >= 2
    return linear and not re.match(layout.kept_in_float, weight.name)


def _shares(traces: Iterable[Trace], layout: ExportLayout) -> tuple[float, float]:
    """Shares of the quantizable elements in at most 8 and at most 4 bits."""
    weights = [weight for found in traces for weight in found.weights if _quantizable(weight, layout)]
    total = sum(weight.elements for weight in weights)
    if not total:
        return 0.0, 0.0
    at_most = [sum(weight.elements for weight in weights if weight.bits <= bits) for bits in (8, 4)]
    return at_most[0] / total, at_most[1] / total


def _part_bits(traces: dict[str, Trace], part: ProtectedPart) -> int:
    """Fewest bits of the part's weights in any file; 0 when its own component has none of them."""
    names = re.compile(part.weights)
    if not any(names.match(weight.name) for weight in traces[part.component].weights):
        return 0
    return min(
        weight.bits
        for component, found in traces.items()
        for weight in found.weights
        if (component == part.component or part.weights) and names.match(weight.name)
    )
