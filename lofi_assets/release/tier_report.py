"""What each tier is and costs, for people: precision by component, size, speed on this machine, SNR, FAD.

Precision, size and SNR are read from the tiers' manifests, FAD from where it was measured; only the speed is taken now.
"""

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lofi_assets.backbones import backbone_of
from lofi_assets.errors import LofiError
from lofi_assets.lofi_onnx.pipeline import session_options
from lofi_assets.quantization.quantized_tiers import VARIANTS, TierDistances, tier_of
from lofi_assets.quantization.sensitivity_report import by_cost
from lofi_assets.quantization.tier_manifest import TIERS, ComponentReport, TierManifest
from lofi_assets.release.bundle_parity import Parity
from lofi_assets.store import Store

if TYPE_CHECKING:
    import numpy as np
    import onnxruntime
    from numpy.typing import NDArray

SIZES: Mapping[str, int] = {"batch": 1, "frames": 256, "context": 128}
"""Free sizes of what the speed is taken with: 24 s of ACE-Step v1. Any other free size is 16."""


class NoTiersError(LofiError, ValueError):
    """A folder without tiers."""


@dataclass(frozen=True)
class Part:
    """One file of a tier."""

    tier: str
    component: str
    opset: int
    domains: tuple[str, ...]
    bits: Mapping[int, float]
    """Bits -> share of the file's elements."""
    megabytes: float
    of_fp32: float | None
    """Size as a share of FP32's file."""
    snr_db: float | None
    """Against FP32 on the same inputs."""


@dataclass(frozen=True)
class Variant:
    """One way to run a tier."""

    variant: str
    megabytes: float
    of_fp32: float | None
    milliseconds: float | None
    """One call of the component that runs at every step; None: not timed."""
    times_fp32: float | None
    """How many times as fast as FP32's in the same process; None: there is no FP32 beside it."""
    fad_increase: float | None
    """FAD over FP32's, less 1; None: not measured."""
    fad_upper: float | None
    """One-sided 95 % upper bound of it."""
    fad_note: str


@dataclass(frozen=True)
class Layer:
    """A linear layer of the denoiser's blocks, measured when INT4 was built."""

    layer: str
    elements: int
    snr_db_4: float
    """Of the denoiser with this layer alone in 4 bits."""
    snr_db_8: float
    bits: int
    """What INT4 stores it in."""


@dataclass(frozen=True)
class TierReport:
    """Everything about the tiers of a folder."""

    parts: tuple[Part, ...]
    variants: tuple[Variant, ...]
    layers: tuple[Layer, ...]
    """Those that cost most in 4 bits first; none where INT4 was built before they were measured."""


def tier_report(root: Path, *, store: Store | None = None, runs: int = 5, threads: int | None = None) -> TierReport:
    """The tiers in `root`, a bundle or a store's `quantized/`.

    Args:
        store: where the FAD of these tiers was measured; None reads a bundle's `parity.json`.
        runs: calls that each speed is the median of; 0 times nothing.
    Raises:
        NoTiersError: there are none.
        StoreError: a manifest is broken or of another version.
    """
    found: dict[str, TierManifest] = {tier: manifest for tier in TIERS if (manifest := TierManifest.read(root / tier))}
    if not found:
        raise NoTiersError(f"{root}: no tier in it; name a bundle, or materialise quantized_tiers")
    parts = [_part(tier, part, manifest) for tier, manifest in found.items() for part in manifest.policy.components]
    speeds = _speeds(root, found, runs=runs, threads=threads) if runs else {}
    distances = _distances(root, store)
    variants = []
    for variant in ("fp32", *VARIANTS):
        if manifest := found.get(tier_of(variant)):
            policy, fad = manifest.policy, distances.get(variant, {})
            variants.append(
                Variant(
                    variant,
                    megabytes=policy.size_bytes / 1e6,
                    of_fp32=policy.size_ratio,
                    milliseconds=speeds.get(variant),
                    times_fp32=speeds["fp32"] / speeds[variant] if {"fp32", variant} <= speeds.keys() else None,
                    fad_increase=fad.get("ratio"),
                    fad_upper=fad.get("upper"),
                    fad_note=fad.get("note", "" if variant == "fp32" else "not measured"),
                )
            )
    return TierReport(tuple(parts), tuple(variants), _layers(found.get("int4")))


def _layers(int4: TierManifest | None) -> tuple[Layer, ...]:
    if int4 is None or int4.layers is None:
        return ()
    spared = set(int4.recipe.int8_layers)
    return tuple(
        Layer(loss.layer, loss.elements, loss.snr_db_4, loss.snr_db_8, 8 if loss.layer in spared else 4)
        for loss in by_cost(int4.layers)
    )


def _part(tier: str, part: ComponentReport, manifest: TierManifest) -> Part:
    elements = sum(part.elements_by_bits.values())
    bits = {bits: count / elements for bits, count in sorted(part.elements_by_bits.items())} if elements else {}
    return Part(
        tier,
        part.component,
        part.opset,
        part.domains,
        bits,
        part.size_bytes / 1e6,
        part.size_ratio,
        None if tier == "fp32" else manifest.snr_db.get(part.component),
    )


def _distances(root: Path, store: Store | None) -> Mapping[str, Mapping[str, Any]]:
    """Variant -> `ratio`, `upper` and `note` of its FAD, from the store or from a bundle's own report."""
    if store is not None:
        measured = TierDistances.read(store)
        known = measured.fidelity if measured else {}
        return {name: {"ratio": f.ratio, "upper": f.upper, "note": f.note} for name, f in known.items()}
    told = Parity.read(root)
    return {
        name: {"ratio": row.fad_increase, "upper": row.fad_increase_upper_95, "note": row.fad_note}
        for name, row in (told.tiers if told else {}).items()
    }


def _speeds(root: Path, found: Mapping[str, TierManifest], *, runs: int, threads: int | None) -> Mapping[str, float]:
    """Variant -> median milliseconds of a call. The variants take turns, so that a busy machine is busy for all."""
    import onnxruntime

    denoiser = backbone_of(next(iter(found.values())).architecture).layout.denoiser
    files = {tier: root / tier / f"{denoiser}.onnx" for tier in found}
    files |= {f"{tier}.cpu": path for tier in found if (path := root / tier / f"{denoiser}.cpu.onnx").is_file()}
    options = session_options(threads=threads)
    sessions = {
        name: onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        for name, path in files.items()
    }
    inputs = _inputs(next(iter(sessions.values())).get_inputs())
    taken: dict[str, list[float]] = {name: [] for name in sessions}
    for turn in range(runs + 1):
        for name, session in sessions.items():
            started = time.perf_counter()
            session.run(None, inputs)
            if turn:  # the first call allocates
                taken[name].append(1000 * (time.perf_counter() - started))
    return {name: statistics.median(times) for name, times in taken.items()}


def _inputs(wanted: "Sequence[onnxruntime.NodeArg]") -> "dict[str, NDArray[Any]]":
    import numpy as np

    random = np.random.default_rng(0)

    def value(argument: "onnxruntime.NodeArg") -> "np.ndarray[Any, Any]":
        shape = [size if isinstance(size, int) else SIZES.get(size, 16) for size in argument.shape]
        if "int" in argument.type:
            return np.ones(shape, np.int64)
        return random.standard_normal(shape).astype(np.float32)

    return {argument.name: value(argument) for argument in wanted}
