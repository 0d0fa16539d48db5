"""What a tier's folder says of itself: its files, what they were made from, and the proof of their precision.

    quantized/<tier>/manifest.json    (`TierManifest`)

Read without onnx or torch.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from pydantic.dataclasses import dataclass

from lofi_assets.backbones import ACE_STEP_V1
from lofi_assets.files.typed import STORED, read_typed, write_typed

TierName = Literal["fp32", "fp16", "int8", "int4"]
TIERS: Final[tuple[TierName, ...]] = ("fp32", "fp16", "int8", "int4")


@dataclass(frozen=True, config=STORED)
class ComponentReport:
    """One file, measured and judged."""

    component: str
    opset: int
    domains: tuple[str, ...]
    elements_by_bits: Mapping[int, int]
    min_bits: int
    quantized_share: float
    """Quantizable elements in at most 8 bits."""
    int4_share: float
    size_bytes: int
    size_ratio: float | None
    """Of the FP32 file's size; None when there is none to compare with."""
    violations: tuple[str, ...]


@dataclass(frozen=True, config=STORED)
class PolicyReport:
    """A tier against the policy. It holds if there are no violations."""

    tier: TierName
    opset: int
    """The lowest of the files; where they disagree with the tier, a violation says so."""
    min_bits: Mapping[str, int]
    """Protected part -> fewest bits of any of its weights; 0 where the part was not found."""
    quantized_share: float
    int4_share: float
    size_bytes: int
    size_ratio: float | None
    violations: tuple[str, ...]
    components: tuple[ComponentReport, ...]

    @property
    def holds(self) -> bool:
        """Whether nothing is violated."""
        return not self.violations


@dataclass(frozen=True, config=STORED)
class TierFile:
    """A file of a tier."""

    sha256: str
    bytes: int


@dataclass(frozen=True, config=STORED)
class TierRecipe:
    """How many bits went where."""

    int8_layers: tuple[str, ...]
    """Layers of the denoiser's blocks that this tier stores in 8 bits beside others in 4; of a version before layers
    were measured: regular expressions of them, in every tier's record."""
    int4_block: int
    """Weights that share a scale."""
    int8_edge_blocks: int = 0
    """Blocks at either end that it keeps at INT8; 0 since layers are measured."""


@dataclass(frozen=True, config=STORED)
class HalfRange:
    """How near a component in half precision comes to its end, at inputs twice as large as any seen."""

    largest: Mapping[str, float]
    """Module -> largest absolute value that it answered in float32, of the modules with the largest."""
    islands: tuple[str, ...]
    """Modules that compute in float32 for it."""


@dataclass(frozen=True, config=STORED)
class LayerLoss:
    """What a linear layer of the denoiser costs when it alone loses bits."""

    layer: str
    elements: int
    snr_db_4: float
    """Of the denoiser's answer with this layer in 4 bits and all else in FP32; 200 stands for equal."""
    snr_db_8: float
    """The same in 8 bits."""


@dataclass(frozen=True, kw_only=True, config=STORED)
class TierManifest:
    """A tier in place."""

    tier: TierName
    opset: int
    fingerprint: str
    """Of the model, the recipe, the code and the tools; the same for all four tiers."""
    files: Mapping[str, TierFile]
    """By name; every file of the folder but this record."""
    recipe: TierRecipe
    provenance: Mapping[str, str]
    """What every file says of itself too: checkpoint, adapter, the merge, tools."""
    policy: PolicyReport
    snr_db: Mapping[str, float]
    """Component, or its CPU profile -> dB against FP32 on the same inputs; 200 stands for equal."""
    architecture: str = ACE_STEP_V1
    """Model family (`backbones.backbone_of`)."""
    half: Mapping[str, HalfRange] | None = None
    """Component -> its range in half precision; None of an FP32 tier, and where it was not measured."""
    layers: tuple[LayerLoss, ...] | None = None
    """Of INT4: what each linear layer of the denoiser's blocks costs, in the order of the graph; None of another tier,
    and where it was not measured."""
    not_finite: tuple[str, ...] | None = None
    """Files, with ONNX Runtime's optimizations off or on, that answer with something that is no number; None where they
    were not asked."""

    @classmethod
    def read(cls, folder: Path) -> "TierManifest | None":
        """That of a tier's folder; None before the tier is built.

        Raises:
            StoreError: it is broken, or of another version.
        """
        return read_typed(manifest_path(folder), cls, remedy="remove the folder and materialise quantized_tiers again")

    def write(self, folder: Path) -> None:
        """Write it into the tier's folder, after its files."""
        write_typed(manifest_path(folder), self)


def manifest_path(folder: Path) -> Path:
    """The record in a tier's folder."""
    return folder / "manifest.json"
