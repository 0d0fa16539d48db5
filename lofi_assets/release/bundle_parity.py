"""`parity.json`: how far each tier of a bundle is from the model in torch, and from FP32 in FAD.

The same prompt, seed and steps on both sides, and one noise, so a difference is of arithmetic and precision. It grows
along the steps: a few dB of the audio say little of how a tier sounds, which is what FAD is measured for.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic.dataclasses import dataclass

from lofi_assets.backbones import Backbone
from lofi_assets.errors import LofiError
from lofi_assets.files.typed import STORED, read_typed, write_typed
from lofi_assets.quantization.merged_model import MergedModel
from lofi_assets.quantization.quantized_tiers import CPU_VARIANT, VARIANTS, TierDistances, tier_of
from lofi_assets.quantization.tier_manifest import TierManifest
from lofi_assets.release.bundle_runs import Clip, Run, sings
from lofi_assets.store import Store

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PARITY = "parity.json"
EQUAL_DB = 200.0
FLOORS_DB: Mapping[str, float] = {"fp16": 40.0, "int8": 20.0, CPU_VARIANT: 20.0, "int4": 12.0}
"""Least dB of a variant's clip against torch's (decision 036 has what honest and wrong models measure). Drift along six
steps is part of it, so a floor tells a wrong model from a right one and says nothing of how a tier sounds."""


@dataclass(frozen=True, kw_only=True, config=STORED)
class Asked:
    """The clip that every variant makes."""

    prompt: str
    lyrics: str
    seconds: float
    steps: int
    seed: int
    guidance_scale: float


@dataclass(frozen=True, kw_only=True, config=STORED)
class VariantParity:
    """One way to run a tier; a number that was not measured is None."""

    audio_snr_db: float | None
    """Of torch's clip over the difference; `EQUAL_DB` where they are equal."""
    largest_difference: float | None
    component_snr_db_to_fp32: Mapping[str, float]
    """Component, or its CPU profile -> dB on the same inputs."""
    fad_increase: float | None
    """FAD over FP32's, less 1."""
    fad_increase_upper_95: float | None
    fad_pairs: int | None
    fad_encoder: str | None
    fad_encoder_trained: bool | None
    fad_note: str


@dataclass(frozen=True, kw_only=True, config=STORED)
class Parity:
    """`parity.json`."""

    against: str
    note: str
    """Why nothing was compared; else empty."""
    asked: Asked
    tiers: Mapping[str, VariantParity]
    """By variant."""

    @classmethod
    def read(cls, bundle: Path) -> "Parity | None":
        """That of a bundle; None of one without.

        Raises:
            StoreError: it is broken, or of another version.
        """
        return read_typed(bundle / PARITY, cls, remedy="remove bundle.json beside it and materialise onnx_artifacts")

    def write(self, bundle: Path) -> None:
        """Put it into a bundle."""
        write_typed(bundle / PARITY, self)


def parity_report(store: Store, folder: Path, *, runs: Mapping[str, Run], clip: Clip, guidance_scale: float) -> Parity:
    """What each variant of a bundle is from torch and from FP32; a number that was not measured is None, with a note.

    Args:
        runs: variant -> its clip, from the bundle in its own environment; empty where it was not run.
    """
    wanted, note = _in_torch(store, clip=clip, guidance_scale=guidance_scale, sung=sings(folder, VARIANTS[0]))
    distances = TierDistances.read(store)
    tiers = {}
    for variant in VARIANTS:
        run, manifest = runs.get(variant), TierManifest.read(folder / tier_of(variant))
        measured = distances.fidelity.get(variant) if distances else None
        tiers[variant] = VariantParity(
            **difference(wanted, run.audio if run else None),
            component_snr_db_to_fp32=dict(manifest.snr_db) if manifest else {},
            fad_increase=measured.ratio if measured else None,
            fad_increase_upper_95=measured.upper if measured else None,
            fad_pairs=measured.n_pairs if measured else None,
            fad_encoder=measured.encoder if measured else None,
            fad_encoder_trained=measured.trained if measured else None,
            fad_note=measured.note if measured else "not measured",
        )
    asked = Asked(
        prompt=clip.prompt,
        lyrics=clip.lyrics if sings(folder, VARIANTS[0]) else "",
        seconds=clip.seconds,
        steps=clip.steps,
        seed=clip.seed,
        guidance_scale=guidance_scale,
    )
    return Parity(against="the merged model in torch, float32, on a CPU", note=note, asked=asked, tiers=tiers)


def _in_torch(
    store: Store, *, clip: Clip, guidance_scale: float, sung: bool
) -> "tuple[NDArray[np.float32] | None, str]":
    """The clip of the merged model in torch; or None, and why."""
    try:
        merged = MergedModel.current(store)
        asked = clip if sung else replace(clip, lyrics="")
        return torch_clip(merged.backbone, merged.folder(store), clip=asked, guidance_scale=guidance_scale), ""
    except (LofiError, OSError) as error:
        return None, f"not compared with torch: the merged model cannot be run ({type(error).__name__})"


def torch_clip(backbone: Backbone, merged: Path, *, clip: Clip, guidance_scale: float) -> "NDArray[np.float32]":
    """(2, n) at 48 kHz of a merged model in torch, float32 on a CPU.

    Raises:
        BaseModelError: the model cannot be read.
    """
    sampler = backbone.sampler(merged, device="cpu")
    audio: NDArray[np.float32] = sampler.generate(
        [clip.prompt],
        lyrics=[clip.lyrics],
        seconds=clip.seconds,
        seeds=[clip.seed],
        steps=clip.steps,
        guidance_scale=guidance_scale,
    )[0]
    return audio


def difference(wanted: "NDArray[np.float32] | None", found: "NDArray[np.float32] | None") -> dict[str, float | None]:
    """dB of torch's audio over the difference (200 where they are equal), and the largest one; None without both, and
    where one of them holds what is no number."""
    import numpy as np

    if wanted is None or found is None or wanted.shape != found.shape or not np.isfinite(found - wanted).all():
        return {"audio_snr_db": None, "largest_difference": None}
    error = (wanted - found).astype(np.float64)
    power, noise = float(np.square(wanted, dtype=np.float64).sum()), float(np.square(error).sum())
    snr = 10 * float(np.log10(power / noise)) if power and noise else (None if noise else EQUAL_DB)
    return {"audio_snr_db": None if snr is None else round(snr, 2), "largest_difference": float(abs(error).max())}


def parity_measure(report: Parity | None) -> dict[str, Any]:
    """How many variants are farther from torch than `FLOORS_DB`; None, with a note, where one was not compared."""
    if report is None:
        return {"value": None, "note": f"the bundle has no {PARITY}"}
    told = {name: row.audio_snr_db for name, row in report.tiers.items() if name in FLOORS_DB}
    found = {name: decibel for name, decibel in told.items() if decibel is not None}
    if missing := [name for name in FLOORS_DB if name not in found]:
        why = report.note or "it did not run, or gave another length"
        return {"value": None, "note": f"{', '.join(missing)}: {why}"}
    low = [name for name, decibel in found.items() if not decibel >= FLOORS_DB[name]]
    numbers = ", ".join(f"{name} {decibel:.1f} dB" for name, decibel in found.items())
    below = f"; below the floor: {', '.join(low)}" if low else ""
    return {"value": len(low), "note": f"{numbers}{below}"}
