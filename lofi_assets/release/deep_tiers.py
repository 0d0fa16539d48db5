"""The tiers of a release, measured again: their precision from the files, and how far they are from FP32 and torch."""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lofi_assets.backbones import Backbone, backbone_of
from lofi_assets.files.writing import link_or_copy
from lofi_assets.quantization.proof import ProofError, prove_tier
from lofi_assets.quantization.tier_manifest import PolicyReport, TierManifest, TierName
from lofi_assets.release.deep_clips import parity_again, samples_again
from lofi_assets.release.deep_fad import fad_again
from lofi_assets.release.deep_verification import FadAgain, MeasuredAgain, Status, compared
from lofi_assets.release.files import BUNDLE_FOLDER, ReleaseRecord

RELEASED: tuple[TierName, ...] = ("fp16", "int8", "int4")
SNR_WITHIN = 1.0
"""dB by which another CPU's float32 may move a component that is fed the same inputs."""
EXPORTERS = ("torch", "onnx", "onnxscript")
"""What FP32's graphs are exported with: another version of one writes other graphs of the same model."""
JUDGED = ("violations", "size_ratio")
"""What is judged by itself, and the size as a share of FP32's file, which holds other texts than one exported here."""
BY_VALUE = ("elements_by_bits", "quantized_share", "int4_share", "min_bits")
"""What counts a weight by its values, which takes FP32's: stored in 32 bits, it may hold a number of 16."""


def tiers_again(
    folder: Path, record: ReleaseRecord, *, merged: Path | None, scratch: Path, fad: FadAgain | None = None
) -> Iterator[MeasuredAgain]:
    """Every measurement of the tiers.

    Args:
        merged: base and adapter of this release, merged here; None where they could not be.
        fad: as in `measure_again`.
    """
    bundle = folder / BUNDLE_FOLDER
    manifests = {tier: TierManifest.read(bundle / tier) for tier in RELEASED}
    known = {tier: made for tier, made in manifests.items() if made is not None}
    for tier in RELEASED:
        if tier not in known:
            yield MeasuredAgain(f"tiers.policy {tier}", "not measured", text=f"{tier}/manifest.json is absent")
    if not known:
        return
    backbone = backbone_of(next(iter(known.values())).architecture)
    yield from (_of_this_adapter(tier, made, record) for tier, made in known.items())
    baseline, reason = _baseline(backbone, known, merged, scratch / "fp32")
    for tier, made in known.items():
        yield _policy(bundle, tier, made.policy, backbone, baseline=None)
        yield _policy(bundle, tier, made.policy, backbone, baseline=baseline, reason=reason)
    yield from _snr(bundle, known, backbone, baseline, reason)
    yield from parity_again(bundle, backbone, merged)
    yield from samples_again(bundle, backbone)
    yield from fad_again(bundle, backbone, baseline=baseline, reason=reason, asked=fad, scratch=scratch / "fad")


def _of_this_adapter(tier: str, made: TierManifest, record: ReleaseRecord) -> MeasuredAgain:
    """That a tier says that it was made of the adapter that the release names; only `tiers.snr` shows that it was."""
    named = made.provenance.get("merge.adapter_sha256", "")
    status: Status = "same" if named == record.adapter_sha256 else "differs"
    text = "by what the tier says of itself; tiers.snr measures it"
    return MeasuredAgain(f"tiers.adapter {tier}", status, record.adapter_sha256[:12], named[:12] or "none", text)


def _policy(
    bundle: Path,
    tier: TierName,
    recorded: PolicyReport,
    backbone: Backbone,
    *,
    baseline: Path | None,
    reason: str | None = None,
) -> MeasuredAgain:
    """The precision of every weight, read from the graphs in a process of its own."""
    about = f"tiers.policy {tier}{'' if reason is None else ', against FP32'}"
    if reason:
        text = f"whether a weight is missing, or has other values than FP32's, is not known: {reason}"
        return MeasuredAgain(about, "not measured", text=text)
    try:
        found = prove_tier(bundle / tier, tier=tier, layout=backbone.layout, baseline=baseline)
    except ProofError as error:
        return MeasuredAgain(about, "differs", text=str(error).replace(str(bundle), bundle.name))
    odd = [f"{name}: {was} on record, is {now}" for name, was, now in _differing(recorded, found, baseline)]
    odd += list(found.violations)
    text = "; ".join(odd[:5]) or (
        "opset, operators, bits, shares, sizes; every weight of FP32's graphs is read, and has its values"
        if baseline
        else "opset, domains, sizes, and bits as they are stored"
    )
    return MeasuredAgain(about, "differs" if odd else "same", _summary(recorded), _summary(found), text)


def _differing(recorded: PolicyReport, found: PolicyReport, baseline: Path | None) -> Iterator[tuple[str, Any, Any]]:
    """Name, what is on record and what was found, of everything that is not the same."""
    left_out = JUDGED if baseline else (*JUDGED, *BY_VALUE)
    pairs: list[tuple[str, Any, Any]] = [("", recorded, found)]
    pairs += [(f"{old.component}: ", old, new) for old, new in zip(recorded.components, found.components, strict=False)]
    for whose, old, new in pairs:
        for part in fields(old):
            was, now = getattr(old, part.name), getattr(new, part.name)
            if part.name not in (*left_out, "components") and was != now:
                yield f"{whose}{part.name}", was, now
    if len(recorded.components) != len(found.components):
        yield "components", len(recorded.components), len(found.components)
    if not baseline:  # a weight's values never ask for more bits than it is stored in
        lower = {name: bits for name, bits in found.min_bits.items() if bits < recorded.min_bits.get(name, 0)}
        yield from ((f"fewest bits of {name}", recorded.min_bits[name], bits) for name, bits in lower.items())


def _summary(report: PolicyReport) -> str:
    bits = ", ".join(f"{part} {count}" for part, count in sorted(report.min_bits.items()))
    return f"opset {report.opset}; {bits}; {report.size_bytes:,} bytes"


def _baseline(
    backbone: Backbone, known: Mapping[TierName, TierManifest], merged: Path | None, folder: Path
) -> tuple[Path | None, str]:
    """FP32's graphs, exported here from the merged model; or None, and why."""
    if merged is None:
        return None, "FP32's files are not released; give the adapter's repository too, and --base FOLDER"
    made_with = next(iter(known.values())).provenance
    other = [f"{name} {made_with.get(f'tool.{name}')}" for name in EXPORTERS if _other(made_with, name)]
    if other:
        return None, f"they were exported with {', '.join(other)}, which is not what is installed here"
    from lofi_assets.quantization.export import export
    from lofi_assets.quantization.graph import save

    for component in backbone.layout.components:
        save(export(backbone.exportable(component, merged), precision="float32"), folder / f"{component}.onnx")
    for name, file in backbone.tokenizers(merged).items():
        link_or_copy(file.resolve(), folder / name)
    return folder, ""


def _other(made_with: Mapping[str, str], name: str) -> bool:
    try:
        return made_with.get(f"tool.{name}") != version(name)
    except ImportError:
        return True


def _snr(
    bundle: Path,
    known: Mapping[TierName, TierManifest],
    backbone: Backbone,
    baseline: Path | None,
    reason: str,
) -> Iterator[MeasuredAgain]:
    """Each component fed FP32's own inputs: that the tiers are this base with this adapter, and nothing else."""
    from lofi_assets.quantization.policy import cpu_profiles
    from lofi_assets.quantization.signal_to_noise import below_floor, compare

    probes = backbone.probes(backbone.runtime(baseline)) if baseline else []
    for tier, made in known.items():
        if baseline is None:
            yield MeasuredAgain(f"tiers.snr {tier}", "not measured", text=reason)
            continue
        try:
            found = compare(backbone.runtime(bundle / tier, cpu_profile=False), probes)
            for profile, component in cpu_profiles(backbone.layout, tier).items():
                asked = [probe for probe in probes if probe.component == component]
                found[profile] = compare(backbone.runtime(bundle / tier), asked)[component]
        except Exception as error:  # of the release's own graphs and tokenizers: no base but this
            text = f"does not run here ({type(error).__name__}: {' '.join(str(error).split())[:300]})"
            yield MeasuredAgain(f"tiers.snr {tier}", "differs", text=text.replace(str(bundle), bundle.name))
            continue
        low = {line.partition(":")[0]: line for line in below_floor(found, tier, backbone.layout)}
        for name, decibel in found.items():
            about, recorded = f"tiers.snr {tier} {name}", made.snr_db.get(name)
            if name in low:
                yield MeasuredAgain(about, "differs", f"{recorded} dB", f"{decibel:.4g} dB", low[name])
                continue
            text = "against FP32 exported here"
            yield compared(about, recorded=recorded, measured=decibel, within=SNR_WITHIN, unit="dB", text=text)
