"""All tiers of a merged model: each component exported once per precision, INT8 and INT4 derived from those files.

FP32 is the baseline that quality is measured against and is not released; FP16, INT8 and INT4 are the tiers of
Principle IV. A tier whose model, recipe and tools are unchanged is left alone. Two processes export, since an export
holds the interpreter. How a file is made is in `components`; FAD of the tiers is measured in `quantized_tiers`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

from lofi_assets.backbones import Backbone
from lofi_assets.backbones.export import Probe
from lofi_assets.errors import LofiError
from lofi_assets.files.hashing import hash_of, sha256_file
from lofi_assets.files.typed import plain
from lofi_assets.files.writing import atomic_folder, link_or_copy
from lofi_assets.progress import Progress
from lofi_assets.quantization.components import Asked, Components, Placed, Recipe
from lofi_assets.quantization.finite import not_finite
from lofi_assets.quantization.int4 import BLOCK
from lofi_assets.quantization.kept_components import EXPORTED, KeptComponents
from lofi_assets.quantization.merge_report import read_merge_report
from lofi_assets.quantization.policy import cpu_profiles
from lofi_assets.quantization.proof import prove_tier
from lofi_assets.quantization.shards import too_large
from lofi_assets.quantization.signal_to_noise import below_floor, compare
from lofi_assets.quantization.tier_manifest import (
    TIERS,
    HalfRange,
    PolicyReport,
    TierFile,
    TierManifest,
    TierName,
    TierRecipe,
    manifest_path,
)
from lofi_assets.workers.process_beside import ProcessBeside
from lofi_assets.workers.side_by_side import side_by_side

LOG = logging.getLogger(__name__)
EXPORT_VERSION: Final = "7"
"""Raised when the code here or in the model changes what a file holds, so that tiers are built again."""

TOOLS: Final = ("torch", "onnx", "onnxscript", "onnxruntime", "transformers", "diffusers")


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
    components = Components(
        backbone,
        merged_dir,
        target_root,
        recipe or Recipe(),
        KeptComponents(kept, merged=merged_dir, backbone=backbone, export_version=EXPORT_VERSION),
        provenance=_provenance(merged_dir, backbone, recipe or Recipe()) | dict(provenance or {}),
        fingerprint=tier_fingerprint(merged_dir, backbone=backbone, recipe=recipe),
    )
    current = {tier: is_current(target_root / tier, components.fingerprint) for tier in TIERS}
    waiting = len(backbone.layout.components) * sum(not unchanged for unchanged in current.values())
    with Progress("building tiers", total=waiting, unit="component", say=progress) as shown, ProcessBeside() as beside:
        builder = _Builder(components, current, beside, shown, progress)
        if not waiting:
            return side_by_side(builder.report, TIERS)  # nothing but proofs, each by a process of its own
        return [builder.report(tier) for tier in TIERS]


def tier_fingerprint(merged_dir: Path, *, backbone: Backbone, recipe: Recipe | None = None) -> str:
    """Changes when the model, the recipe, this code or a tool changes; the same for all four tiers."""
    return hash_of(EXPORT_VERSION, backbone.fingerprint(merged_dir), asdict(recipe or Recipe()), _tools())


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
        components: Components,
        current: Mapping[TierName, bool],
        beside: ProcessBeside,
        progress: Progress,
        say: Callable[[str], None],
    ) -> None:
        self.components, self.current, self.beside, self.progress, self.say = components, current, beside, progress, say
        self.root, self.fingerprint = components.root, components.fingerprint
        self.backbone, self.layout = components.backbone, components.backbone.layout
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
            placed = self._place(tier, partial)
            self._tokenizers(partial)
            baseline = partial if tier == "fp32" else self.root / "fp32"
            with ThreadPoolExecutor(1) as thread:
                asked = thread.submit(self._answers, tier, partial, baseline)
                policy = prove_tier(partial, tier=tier, layout=self.layout, baseline=baseline)  # another process
                if not policy.holds:
                    raise TierError(f"tier {tier} breaks the precision policy: {'; '.join(policy.violations)}")
                snr, broken = asked.result()
            if low := below_floor(snr, tier, self.layout):
                raise TierError(f"tier {tier} is not the model that it was made from: {'; '.join(low)}")
            self._manifest(partial, tier, policy, snr, broken, placed)
        self._keep(tier, directory, placed)
        denoiser = self.layout.denoiser
        self.say(f"{tier}: {policy.size_bytes / 1e6:.2f} MB, {denoiser} {snr[denoiser]:.1f} dB against FP32")
        seconds = {name: made.seconds for name, made in placed.items()}
        return TierReport(tier, directory, self.fingerprint, True, policy, snr, broken, seconds)

    def _place(self, tier: TierName, folder: Path) -> dict[str, Placed]:
        """Every component's file in a tier's folder; of those that are exported, some by the process beside."""

        def told(placed: Placed) -> None:
            self.progress.advance(note=tier)
            for line in (*placed.said, f"{tier}: {placed.component} {placed.how} in {placed.seconds:.1f} s"):
                self.say(line)

        # The denoiser takes as long as all others: this process begins with it, the other with those at the end.
        names = sorted(self.layout.components, key=lambda name: name != self.layout.denoiser)
        asked = [Asked(tier, name, folder, self._calls(tier, name)) for name in names]
        if tier in EXPORTED:
            made = self.beside.share(self.components.place, asked, done=told)
        else:
            made = []
            for item in asked:
                made.append(self.components.place(item))
                told(made[-1])
        for left in folder.glob(".*"):
            left.unlink()  # what a process that died had open: it is no file of the tier
        of_component = {placed.component: placed for placed in made}
        return {name: of_component[name] for name in self.layout.components}

    def _calls(self, tier: TierName, component: str) -> list[Probe]:
        if tier == "fp16":
            return [probe for probe in self._stress(self.root / "fp32") if probe.component == component]
        if tier == "int4" and component == self.layout.denoiser:
            return [probe for probe in self._recorded(self.root / "fp32") if probe.component == component]
        return []

    def _keep(self, tier: TierName, directory: Path, made: Mapping[str, Placed]) -> None:
        """What was made for a tier, now that it is proven, for the tiers of the next model."""
        origin = self.components.provenance.get("checkpoint", "")
        for component, placed in made.items():
            if placed.key is not None:
                properties = self.components.properties(tier, component)
                self.components.kept.keep(placed.key, tier, component, directory, properties=properties, origin=origin)

    def _stress(self, baseline: Path) -> list[Probe]:
        if self._stressed is None:
            self._stressed = self.backbone.stress(self.backbone.runtime(baseline))
        return self._stressed

    def _tokenizers(self, folder: Path) -> None:
        for name, file in self.backbone.tokenizers(self.components.merged_dir).items():
            link_or_copy(file.resolve(), folder / name)

    def _answers(self, tier: TierName, folder: Path, baseline: Path) -> tuple[dict[str, float], tuple[str, ...]]:
        """What the files answer: dB against FP32, and which answer with what is no number."""
        snr = self._compare(tier, folder, baseline)
        files = {name: name for name in self.layout.components} | cpu_profiles(self.layout, tier)
        return snr, not_finite(folder, files, self._stress(baseline), masked=self.layout.quantized)

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

    def _manifest(
        self,
        folder: Path,
        tier: TierName,
        policy: PolicyReport,
        snr: dict[str, float],
        broken: tuple[str, ...],
        placed: Mapping[str, Placed],
    ) -> None:
        files = sorted(path for path in folder.iterdir() if path != manifest_path(folder))
        layers = placed[self.layout.denoiser].layers
        TierManifest(
            tier=tier,
            opset=policy.opset,
            fingerprint=self.fingerprint,
            files={path.name: TierFile(sha256_file(path), path.stat().st_size) for path in files},
            recipe=TierRecipe(self.components.recipe.spared(layers or ()), BLOCK),
            provenance=dict(sorted(self.components.provenance.items())),
            policy=policy,
            architecture=self.backbone.architecture,
            snr_db=snr,
            half=self._half(tier, placed),
            layers=layers,
            not_finite=broken,
        ).write(folder)

    def _half(self, tier: TierName, placed: Mapping[str, Placed]) -> Mapping[str, HalfRange] | None:
        """How near components in half precision come to its end; a derived tier has those that it was derived from."""
        if tier in ("int8", "int4"):
            halves = TierManifest.read(self.root / "fp16")
            return halves.half if halves else None
        return {name: made.half for name, made in placed.items() if made.half} or None


def _provenance(merged_dir: Path, backbone: Backbone, recipe: Recipe) -> dict[str, str]:
    report = read_merge_report(merged_dir)
    merged = plain(report) if report else {}
    tools = {f"tool.{name}": number for name, number in _tools().items()}
    model = {"model_fingerprint": backbone.fingerprint(merged_dir), "recipe": json.dumps(asdict(recipe))}
    return {**tools, **model, **{f"merge.{key}": str(value) for key, value in merged.items()}}


def _tools() -> dict[str, str]:
    return {name: version(name) for name in TOOLS}
