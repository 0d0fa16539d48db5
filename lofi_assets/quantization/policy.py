"""The precision policy (constitution, Principle IV and Export Requirements), proven from the saved files of a tier.

For every linear and convolution weight of FP32's file: that the tier's graph reads it, in how few bits, and that its
numbers are FP32's to as many bits. Beside that: the opset, standard operators only, FP32's operators and no others, no
byte without a reader. Numbers come from `weight_trace` and `weight_values`, never from a manifest. Whether the tier
sounds right is measured by FAD, in `metrics`; `proof` runs all this in a process of its own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import onnx

from lofi_assets.backbones.export import ExportLayout, ProtectedPart
from lofi_assets.quantization.data_files import data_faults
from lofi_assets.quantization.graph import GraphError, load, opset_of, stored_bytes
from lofi_assets.quantization.int8 import multiply_in_integers
from lofi_assets.quantization.tier_manifest import ComponentReport, PolicyReport, TierName
from lofi_assets.quantization.weight_trace import LINEAR_OPS, Trace, Weight, trace
from lofi_assets.quantization.weight_values import by_value, value_faults

ADDED_BY_HALF: Final = ("Clip", "IsInf", "Where", "Max", "Min", "Neg", "ReduceMax", "Cast to")
"""Operators of which a graph exported in half precision has more than FP32's: its modules clamp before they
overflow."""


def cpu_profiles(layout: ExportLayout, tier: TierName) -> dict[str, str]:
    """Further files of a tier, and the component that each is in another form: the same weights, in the same data file,
    read by a graph that a CPU runs faster."""
    return {f"{layout.denoiser}.cpu": layout.denoiser} if tier == "int8" else {}


@dataclass(frozen=True)
class TierRule:
    """What a tier must be, besides the floors."""

    opset: int
    """Exactly."""
    bits: frozenset[int]
    """Of its weights."""
    share_16: float = 0.0
    """Least share of FP32's weights stored in at most 16 bits, per component."""
    share_8: float = 0.0
    """Least share of FP32's quantizable weights stored in at most 8 bits, per component."""
    share_4: float = 0.0
    """The same in at most 4 bits, for the denoiser."""


RULES: Final[dict[TierName, TierRule]] = {
    "fp32": TierRule(18, frozenset({32})),
    "fp16": TierRule(18, frozenset({32, 16}), share_16=0.5),
    "int8": TierRule(17, frozenset({32, 16, 8}), share_8=0.95),
    "int4": TierRule(21, frozenset({32, 16, 8, 4}), share_8=0.95, share_4=0.5),
}


@dataclass(frozen=True)
class _File:
    """A component's file, read and judged."""

    report: ComponentReport
    trace: Trace
    expected: Trace
    """Of FP32's file; its own, where there is none to compare with."""


def check_tier(directory: Path, *, tier: TierName, layout: ExportLayout, baseline: Path | None = None) -> PolicyReport:
    """Read every component file of a tier's folder and judge the whole.

    Args:
        baseline: the FP32 tier's folder; without it, sizes and values are not compared and missing weights go unseen.
    Raises:
        FileNotFoundError: a component's file is absent.
    """
    files: dict[str, _File] = {}
    names = {component: component for component in layout.components} | cpu_profiles(layout, tier)
    for name, component in names.items():
        path = directory / f"{name}.onnx"
        if not path.is_file():
            raise FileNotFoundError(f"{path} is absent: tier {tier} needs {', '.join(names)}; build it again")
        if name == component:
            reference = baseline / f"{component}.onnx" if baseline is not None else None
            files[name] = _check(path, component=component, tier=tier, layout=layout, baseline=reference)
    components = [file.report for file in files.values()]
    components += [
        _cpu_report(directory / f"{name}.onnx", files[component].report)
        for name, component in names.items()
        if name != component
    ]
    min_bits = {name: _part_bits(files, part) for name, part in layout.protected.items()}
    violations = [f"{report.component}: {text}" for report in components for text in report.violations]
    for name, part in layout.protected.items():
        if min_bits[name] < part.bits:
            bits = f"{min_bits[name]} bits" if min_bits[name] else "no weights"
            violations.append(f"{name}: {bits}, at least {part.bits} bits are required")
    size = sum(report.size_bytes for report in components)
    whole = None
    if baseline is not None:
        whole = size / sum(stored_bytes(baseline / f"{component}.onnx") for component in layout.components)
    shares = [_share((files[name] for name in layout.quantized), layout, bits) for bits in (8, 4)]
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
    return _check(path, component=component, tier=tier, layout=layout, baseline=baseline).report


def _check(path: Path, *, component: str, tier: TierName, layout: ExportLayout, baseline: Path | None) -> _File:
    model = load(path, weights=False)
    found = trace(model)
    reference = load(baseline, weights=False) if baseline is not None else None
    expected = trace(reference) if reference is not None else None
    if expected is not None and baseline is not None:
        found = by_value(found, path.parent, reference=expected, reference_folder=baseline.parent)
    opset, violations = _opset(model, tier)
    violations += _format(path, model, found)
    violations += data_faults(path, model)
    violations += _precision(found, component, tier, layout)
    if reference is not None and expected is not None:
        violations += _same_work(found, expected, half=tier in ("fp16", "int4") or component in layout.audio)
        violations += _same_interface(model, reference)
        violations += _coverage(found, expected)
    violations += value_faults(
        found, path.parent, reference=expected, reference_folder=path.parent if baseline is None else baseline.parent
    )
    file = _File(_report(path, component, opset, found, baseline), found, expected or found)
    violations += _shares(file, component, tier, layout)
    measured = replace(
        file.report,
        quantized_share=_share([file], layout, 8),
        int4_share=_share([file], layout, 4),
        violations=tuple(violations),
    )
    return replace(file, report=measured)


def _report(path: Path, component: str, opset: int, found: Trace, baseline: Path | None) -> ComponentReport:
    counts = Counter[int]()
    for weight in {weight.constant.tensor.name: weight for weight in found.weights}.values():
        counts[weight.bits] += weight.elements
    size = stored_bytes(path)
    return ComponentReport(
        component=component,
        opset=opset,
        domains=tuple(sorted(found.domains)),
        elements_by_bits=dict(sorted(counts.items())),
        min_bits=min(counts, default=0),
        quantized_share=0.0,
        int4_share=0.0,
        size_bytes=size,
        size_ratio=size / stored_bytes(baseline) if baseline is not None else None,
        violations=(),
    )


def _opset(model: onnx.ModelProto, tier: TierName) -> tuple[int, list[str]]:
    try:
        opset = opset_of(model)
    except GraphError as error:
        return 0, [str(error)]
    wanted = RULES[tier].opset
    return opset, [] if opset == wanted else [f"opset {opset}, tier {tier} needs exactly {wanted}"]


def _format(path: Path, model: onnx.ModelProto, found: Trace) -> list[str]:
    """Valid for the opset on its label, standard operators only, nothing that cannot be read."""
    declared = {entry.domain or "ai.onnx" for entry in model.opset_import}
    violations = [f"domain {domain} is used but not imported" for domain in sorted(found.domains - declared)]
    violations += [f"domain {domain} is not standard" for domain in sorted((found.domains | declared) - {"ai.onnx"})]
    violations += found.faults
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
    floor, allowed = layout.floors[component], RULES[tier].bits
    low = sorted({weight.name for weight in found.weights if weight.bits < floor})
    violations = [f"{len(low)} weights below {floor} bits, first {low[0]}"] if low else []
    other = sorted({weight.name for weight in found.weights if weight.bits not in allowed})
    if other:
        violations.append(f"{len(other)} weights in bits that tier {tier} has none of, first {other[0]}")
    forms: dict[str, set[str]] = {}
    for weight in found.weights:
        forms.setdefault(weight.name, set()).add(weight.constant.tensor.name)
    violations += [f"{name} is stored in two forms" for name, stored in sorted(forms.items()) if len(stored) > 1]
    return violations


def _same_work(found: Trace, expected: Trace, *, half: bool) -> list[str]:
    """A tier does FP32's operations and no others, whatever it casts: nothing is left out, nothing rounds."""
    odd = []
    for name in sorted({*found.operators, *expected.operators} - {"Cast"}):
        more = found.operators.get(name, 0) - expected.operators.get(name, 0)
        if more < 0 or (more > 0 and not (half and name.startswith(ADDED_BY_HALF))):
            odd.append(f"{name} {more:+d}")
    return [f"operators differ from the FP32 file's: {', '.join(odd)}"] if odd else []


def _same_interface(model: onnx.ModelProto, reference: onnx.ModelProto) -> list[str]:
    ours, theirs = (
        [[(value.name, value.type.tensor_type.elem_type) for value in side] for side in (m.graph.input, m.graph.output)]
        for m in (model, reference)
    )
    return [] if ours == theirs else ["inputs or outputs differ from the FP32 file's"]


def _coverage(found: Trace, expected: Trace) -> list[str]:
    """Every weight of FP32's file is read, by the operator that reads it there, and no other weight is."""
    have, need = _readers(found), _readers(expected)
    missing, added = sorted(need - have), sorted(have - need)
    violations = []
    if missing:
        name, operator = missing[0]
        violations.append(f"{len(missing)} weights of the FP32 file are not read, first {name} by its {operator}")
    if added:
        violations.append(f"{len(added)} weights are not in the FP32 file, first {added[0][0]}")
    return violations


def _readers(found: Trace) -> set[tuple[str, str]]:
    return {(weight.name, weight.operator) for weight in found.weights if weight.multiplied}


def _quantizable(weight: Weight, layout: ExportLayout) -> bool:
    linear = weight.multiplied and weight.operator in LINEAR_OPS
    return linear and not re.match(layout.kept_in_float, weight.name)


def _share(files: Iterable[_File], layout: ExportLayout, bits: int, *, every: bool = False) -> float:
    """Share of the FP32 file's quantizable weights, or of all its weights, whose reader gets at most so many bits."""
    total = within = 0
    for file in files:
        found: Mapping[str, int] = {w.name: w.bits for w in file.trace.weights if w.multiplied}
        for name, size in {
            w.name: w.elements for w in file.expected.weights if w.multiplied and (every or _quantizable(w, layout))
        }.items():
            total += size
            within += size if found.get(name, 64) <= bits else 0
    return within / total if total else 0.0


def _shares(file: _File, component: str, tier: TierName, layout: ExportLayout) -> list[str]:
    rule, violations = RULES[tier], []
    half = _share([file], layout, 16, every=True)
    if half < rule.share_16:
        violations.append(f"{half:.2f} of the weights are in half precision, {rule.share_16} is required")
    if component in layout.quantized:
        eight, four = (_share([file], layout, bits) for bits in (8, 4))
        if eight < rule.share_8:
            violations.append(f"{eight:.2f} of the linear weights are in 8 bits or fewer, {rule.share_8} is required")
        if component == layout.denoiser and four < rule.share_4:
            violations.append(f"{four:.2f} of the linear weights are in 4 bits, {rule.share_4} is required")
    return violations


def _cpu_report(path: Path, judged: ComponentReport) -> ComponentReport:
    """The CPU's graph is what `multiply_in_integers` makes of the judged one, node by node; its sums are tested to be
    the integers that they should be, so what holds of one holds of the other."""
    name = path.name.removesuffix(".onnx")
    component = path.with_name(f"{judged.component}.onnx")
    wanted, found = load(component, weights=False), load(path, weights=False)
    violations = []
    if not multiply_in_integers(wanted):
        violations.append(f"{judged.component} has no product that could be in integers")
    violations += _format(path, found, replace(trace(found), faults=())) + data_faults(path, found)
    violations += _difference(found, wanted)
    return replace(
        judged, component=name, size_bytes=path.stat().st_size, size_ratio=None, violations=tuple(violations)
    )


def _difference(found: onnx.ModelProto, wanted: onnx.ModelProto) -> list[str]:
    for kind in ("node", "initializer", "input", "output"):
        ours, theirs = list(getattr(found.graph, kind)), list(getattr(wanted.graph, kind))
        for index in range(max(len(ours), len(theirs))):
            pair = [side[index] if index < len(side) else None for side in (ours, theirs)]
            if pair[0] != pair[1]:
                named = next(item.name for item in pair if item is not None)
                return [f"is not the integer form of the component beside it, first at {kind} {named!r}"]
    more = (found.functions, found.training_info, found.graph.sparse_initializer, found.graph.quantization_annotation)
    if any(more) or found.opset_import != wanted.opset_import:
        return ["is not the integer form of the component beside it: opset, functions, annotations or sparse weights"]
    return []


def _part_bits(files: Mapping[str, _File], part: ProtectedPart) -> int:
    """Fewest bits of the part's weights in any file; 0 when its own component has none of them."""
    names = re.compile(part.weights)
    if not any(names.match(weight.name) for weight in files[part.component].trace.weights):
        return 0
    return min(
        weight.bits
        for component, file in files.items()
        for weight in file.trace.weights
        if (component == part.component or part.weights) and names.match(weight.name)
    )
