"""The merged model -> three ONNX tiers, and what each tier costs in FAD (constitution III, IV).

What belongs here: what is unchanged, the paired comparison of the tiers. What does not: merging (`merged_model.py`),
exporting and quantizing (`build.py`), the precision policy (`policy.py`).
"""

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic.dataclasses import dataclass

from lofi_assets.backbones import Backbone
from lofi_assets.evaluation.quality_metrics import evaluation_key, load_encoder
from lofi_assets.evaluation.samples import SamplePrompt, reference_tracks, sample_prompts, write_clip
from lofi_assets.files.documents import read_json
from lofi_assets.files.hashing import hash_of
from lofi_assets.files.typed import STORED, parsed, read_typed, write_typed
from lofi_assets.files.writing import atomic_folder
from lofi_assets.metrics.results import TierFidelity
from lofi_assets.outcome import Outcome, Written
from lofi_assets.profiles import Profile, SamplingSettings
from lofi_assets.progress import over
from lofi_assets.quantization.merged_model import MergedModel
from lofi_assets.quantization.sensitivity_report import most_sensitive, sensitivity_picture
from lofi_assets.quantization.tier_manifest import TierManifest
from lofi_assets.quantization.tier_tolerance import judged, pairs_needed, tolerance
from lofi_assets.store import Store
from lofi_assets.wording import rounded
from lofi_assets.workers.side_by_side import at_once, processors, side_by_side

if TYPE_CHECKING:
    from lofi_assets.quantization.build import TierReport

TIERS_VERSION = "4"
"""Raised when the comparison of the tiers changes; the export has its own version."""
COMPARED = ("fp16", "int8", "int4")
CPU_VARIANT = "int8.cpu"
"""The INT8 tier as a CPU runs it, with rounded activations (`quantization.policy.cpu_profiles`)."""
VARIANTS = ("fp16", "int8", CPU_VARIANT, "int4")
"""What is sampled: whatever of the tiers a user may run."""
SAMPLED_AT_ONCE = 2
"""Most clips that a CPU samples at once: each holds the arrays of a decoder."""


@dataclass(frozen=True, config=STORED)
class TierDistances:
    """What each variant costs in FAD: `metadata/tier_fad.json`."""

    key: str
    """Fingerprint of whatever the numbers depend on."""
    fidelity: Mapping[str, TierFidelity]
    """By variant."""
    version: str = TIERS_VERSION
    """Of the comparison. A file without it is of version 2 or before."""

    @classmethod
    def read(cls, store: Store) -> "TierDistances | None":
        """Those on record; None before, and if they were compared in another way.

        Raises:
            StoreError: they are broken.
        """
        path, remedy = cls.path(store), "remove it and materialise quantized_tiers again"
        known = read_json(path, remedy=remedy)
        if known is None or (isinstance(known, dict) and known.get("version") != TIERS_VERSION):
            return None
        return parsed(cls, known, where=str(path), remedy=remedy)

    def write(self, store: Store) -> None:
        """Put on record."""
        write_typed(self.path(store), self)

    @staticmethod
    def path(store: Store) -> Path:
        """Where they are on record."""
        return store.metadata("tier_fad.json")


@dataclass(frozen=True, config=STORED)
class TierSamples:
    """That a variant's clips are there: `samples/tiers/<variant>/samples.json`."""

    key: str
    """As of `TierDistances`."""

    @classmethod
    def read(cls, folder: Path) -> "TierSamples | None":
        """What is on record of the clips in a folder; None before they are made.

        Raises:
            StoreError: it is broken, or of another version.
        """
        return read_typed(folder / _SAMPLES, cls, remedy="remove the folder and materialise quantized_tiers again")

    def write(self, folder: Path) -> None:
        """Put on record, in the folder of the clips."""
        write_typed(folder / _SAMPLES, self)


_SAMPLES = "samples.json"


def quantize(store: Store, profile: Profile) -> Outcome:
    """Build the tiers that changed, prove their precision from the files, and measure each against FP32."""
    from lofi_assets.quantization.build import build_tiers

    merged = MergedModel.current(store)
    backbone = merged.backbone
    reports = build_tiers(
        merged.folder(store),
        store.quantized,
        backbone=backbone,
        provenance={"checkpoint": merged.checkpoint_id, "adapter": merged.adapter_sha256},
        kept=_kept(store),
    )
    fidelity, measured_now = _compare(store, profile, backbone, reports[0].fingerprint)
    policies = {report.tier: report.policy for report in reports}
    released = [report for report in reports if report.tier in COMPARED]
    int4 = TierManifest.read(store.quantized / "int4")
    layers = int4.layers or () if int4 else ()
    return Outcome(
        data_version=hash_of(reports[0].fingerprint, TIERS_VERSION, profile.quantization.model_dump()),
        counts={"tiers": len(released), "recomputed": sum(report.rebuilt for report in reports) + measured_now},
        values={
            "tiers": len(released),
            "opset_int8": policies["int8"].opset,
            "opset_int4": policies["int4"].opset,
            "policy_violations": sum(len(report.policy.violations) for report in released),
            "audio_critical_bits": _fewest_bits(released, backbone.layout.audio_critical),
            "vocal_bits": _fewest_bits(released, backbone.layout.vocal),
            "not_finite": _not_finite(released),
            **{f"fad_increase_{tier}": _increase(fidelity, tier, profile.quantization) for tier in COMPARED},
        },
        written=written(store),
        summary=_summary(fidelity),
        needs=[{"tier": r.tier, "violation": found} for r in released for found in r.policy.violations],
        rows=[
            _shown(report, variant, fidelity)
            for report in reports
            for variant in ("fp32", *VARIANTS)
            if tier_of(variant) == report.tier
        ],
        pictures={"error of each layer alone in 4 bits": partial(sensitivity_picture, layers)} if layers else {},
        details={
            **{f"fad_increase_{tier}": rounded(fidelity[worst_variant(fidelity, tier)].ratio, 4) for tier in COMPARED},
            **{f"megabytes_{report.tier}": round(report.policy.size_bytes / 1e6, 2) for report in released},
            "most sensitive layers": "; ".join(most_sensitive(layers)),
            "merged_model": merged.checkpoint_id,
        },
    )


def _kept(store: Store) -> Path:
    """Exports for the next model's tiers (`kept_components`)."""
    return store.cache / "tiers"


def written(store: Store) -> Written:
    """Distances, tiers, and what is kept of them: a kept export that somebody changed is a tier's file at the next
    model, so that it is on record too."""
    files = (path for folder in (store.quantized, _kept(store)) for path in sorted(folder.rglob("*")))
    return Written([TierDistances.path(store), *(path for path in files if path.is_file())], prunable=[_kept(store)])


def _fewest_bits(reports: Sequence["TierReport"], parts: Sequence[str]) -> int | dict[str, Any]:
    """The lowest precision of protected parts over tiers (constitution IV)."""
    if not parts:
        return {"value": None, "note": "the backbone names no such part"}
    return min(report.policy.min_bits[part] for report in reports for part in parts)


def _not_finite(reports: Sequence["TierReport"]) -> dict[str, Any]:
    """How many files of the tiers answer with something that is no number."""
    if unasked := [report.tier for report in reports if report.not_finite is None]:
        return {"value": None, "note": f"{', '.join(unasked)} was built before this was asked; build it again"}
    named = [f"{report.tier} {name}" for report in reports for name in report.not_finite or ()]
    return {"value": len(named), "note": ", ".join(named) or "with optimizations off and on, at doubled latents"}


def tier_of(variant: str) -> str:
    """`int8.cpu` -> `int8`."""
    return variant.partition(".")[0]


def worst_variant(fidelity: Mapping[str, TierFidelity], tier: str) -> str:
    """The variant of a tier whose upper bound is highest, or that has none: what a tier is judged by."""
    bounds = {variant: found.upper for variant, found in fidelity.items() if tier_of(variant) == tier}
    known = {variant: math.inf if bound is None else bound for variant, bound in bounds.items()}
    return max(known, key=lambda variant: known[variant])


def _increase(fidelity: Mapping[str, TierFidelity], tier: str, settings: SamplingSettings) -> dict[str, Any]:
    variant = worst_variant(fidelity, tier)
    found = fidelity[variant]
    value, why = judged(found, tolerance(tier))
    note = why or f"point {_percent(found.ratio)}"
    return {
        "value": value,
        "of": f"{found.n_pairs} pairs of {settings.conditions}",
        "encoder": found.encoder,
        "trained": found.trained,
        "note": note if variant == tier else f"{variant}: {note}",
    }


def _summary(fidelity: Mapping[str, TierFidelity]) -> str:
    worst = {tier: fidelity[worst_variant(fidelity, tier)] for tier in COMPARED}
    told = [f"{tier.upper()} {_percent(found.ratio)} ({_bound(found)})" for tier, found in worst.items()]
    return f"What each tier costs in FAD against FP32, with the upper bound that the gates judge: {', '.join(told)}."


def _bound(found: TierFidelity) -> str:
    return found.note or "no bound" if found.upper is None else f"at most {_percent(found.upper)}"


def _percent(value: float | None) -> str:
    return "unknown" if value is None else f"{100 * value:+.1f} %"


def _shown(report: Any, variant: str, fidelity: Mapping[str, TierFidelity]) -> dict[str, Any]:
    measured = fidelity.get(variant)
    fad = measured.fad_tier if measured else fidelity[COMPARED[0]].fad_fp32
    transformer = "transformer.cpu" if variant == CPU_VARIANT else "transformer"
    return {
        "tier": variant,
        "megabytes": rounded(report.policy.size_bytes / 1e6, 3),
        "of_fp32": rounded(report.policy.size_ratio, 3),
        "fad": rounded(fad, 2),
        "fad_increase": rounded(measured.ratio if measured else None, 4),
        "upper_95": rounded(measured.upper if measured else None, 4),
        "pairs": measured.n_pairs if measured else None,
        "pairs_needed": pairs_needed(measured, tolerance(tier_of(variant))) if measured else None,
        "fad_to_fp32": rounded(measured.fad_between if measured else None, 4),
        "transformer_snr_db": rounded(report.snr_db.get(transformer), 1),
        "opset": report.policy.opset,
        "quantized_share": rounded(report.policy.quantized_share, 3),
        "int4_share": rounded(report.policy.int4_share, 3),
        "violations": "; ".join(report.policy.violations),
    }


def _compare(store: Store, profile: Profile, backbone: Backbone, model: str) -> tuple[Mapping[str, TierFidelity], int]:
    """Variant -> its FAD against FP32 on paired prompts and seeds; and how many were sampled now."""
    prompts = sample_prompts(store, profile.quantization)
    key = hash_of(
        TIERS_VERSION,
        model,
        [asdict(prompt) for prompt in prompts],
        profile.quantization.model_dump(),
        evaluation_key(store, profile),
    )
    known = TierDistances.read(store)
    if known and known.key == key:
        return known.fidelity, 0
    from lofi_assets.metrics.tier_fidelity import evaluate_tier

    clips = {name: _sample(store, backbone, name, prompts, profile.quantization, key) for name in ("fp32", *VARIANTS)}
    embedder, reference = load_encoder(store, profile), reference_tracks(store)
    fidelity = {
        variant: evaluate_tier(
            fp32=clips["fp32"],
            tier=clips[variant],
            reference=reference,
            embedder=embedder,
            cache_dir=store.cache / "embeddings",
        )
        for variant in over(VARIANTS, "measuring tiers", unit="tier")
    }
    TierDistances(key, fidelity).write(store)
    return fidelity, len(clips)


def _sample(
    store: Store,
    backbone: Backbone,
    variant: str,
    prompts: Sequence[SamplePrompt],
    settings: SamplingSettings,
    key: str,
) -> list[Any]:
    """Clips of one variant's files run in ONNX Runtime; finished ones are read back after an interruption."""
    from lofi_assets.metrics.sample_quality import GeneratedSample

    folder = store.samples / "tiers" / variant
    if TierSamples.read(folder) != TierSamples(key):
        # the CPU's own graph is judged where it is run
        on_cpu = variant == CPU_VARIANT
        device = "cpu" if on_cpu else settings.device
        # with a share of the processors each; a GPU makes one while the one before is written
        most = at_once(len(prompts), most=SAMPLED_AT_ONCE) if device == "cpu" else 1
        pipeline = backbone.runtime(
            store.quantized / tier_of(variant), cpu_profile=on_cpu, device=device, threads=max(1, processors() // most)
        )
        with atomic_folder(folder) as temporary, ThreadPoolExecutor(1) as encoder:

            def make(item: SamplePrompt) -> Future[None]:
                audio = pipeline.generate(
                    [item.prompt],
                    lyrics=[item.lyrics],
                    seconds=settings.seconds,
                    seeds=[item.seed],
                    steps=settings.steps,
                    guidance_scale=settings.guidance_scale,
                )
                return encoder.submit(write_clip, temporary / f"{item.name}.mp3", audio[0])

            for written in side_by_side(make, prompts, label=f"sampling {variant}", most=most):
                written.result()
            TierSamples(key).write(temporary)
    return [
        GeneratedSample(
            path=folder / f"{item.name}.mp3",
            prompt=item.prompt,
            style_id=item.style_id,
            seed=item.seed,
            seconds=settings.seconds,
        )
        for item in prompts
    ]
