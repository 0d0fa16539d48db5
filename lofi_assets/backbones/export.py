"""What a backbone is to the tiers: its components, what each may be stored in, and the runtime that plays them.

What belongs here: the contract of merging, exporting, measuring and releasing. What does not: how a component gets
fewer bits and how that is proven (`quantization/`). Imports without torch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    import onnxruntime
    from numpy.typing import NDArray
    from torch import Tensor, nn

HALF = 16
"""Bits of a component that decides what is heard: it is never quantized."""


@dataclass(frozen=True)
class ProtectedPart:
    """A part that may not be stored in fewer bits (constitution, Principle IV)."""

    component: str
    weights: str
    """Regular expression of its weights' names, matched at their start; empty: all of the component's."""
    bits: int
    """Fewest that any of them may have; from `HALF` on it is audio-critical, below that it is of the voice."""


@dataclass(frozen=True)
class ExportLayout:
    """The components of a model, and how low each may go."""

    floors: Mapping[str, int]
    """Component -> fewest bits of any weight in its file, whatever its name says; in the order of export."""
    denoiser: str
    """The component that runs at every step: INT4 stores it in 4 bits, and a CPU multiplies it in integers."""
    protected: Mapping[str, ProtectedPart]
    kept_in_float: str
    """Regular expression of linear layers of the denoiser that every step passes through: never quantized, not counted
    as missing."""
    block: str
    """Regular expression of layers in a block of the denoiser; its group is the block's number. INT4 stores these in 4
    bits, but for those that measure as the most sensitive."""

    @property
    def components(self) -> tuple[str, ...]:
        """Each is a file of a tier."""
        return tuple(self.floors)

    @property
    def audio(self) -> tuple[str, ...]:
        """Components that are never quantized."""
        return tuple(name for name, bits in self.floors.items() if bits >= HALF)

    @property
    def quantized(self) -> tuple[str, ...]:
        """The others."""
        return tuple(name for name, bits in self.floors.items() if bits < HALF)

    @property
    def audio_critical(self) -> tuple[str, ...]:
        """Protected parts that decide what is heard."""
        return tuple(name for name, part in self.protected.items() if part.bits >= HALF)

    @property
    def vocal(self) -> tuple[str, ...]:
        """Protected parts of the voice."""
        return tuple(name for name, part in self.protected.items() if part.bits < HALF)


@dataclass(frozen=True)
class Exportable:
    """A component ready for export."""

    module: "nn.Module"
    """Holds the model under the name `model`, which is cut from every name."""
    inputs: "dict[str, Tensor]"
    """Examples, by name."""
    outputs: tuple[str, ...]
    free: dict[str, dict[int, str]]
    """Input -> its dimensions of any size, by name."""
    kept_in_float: str = ""
    """How the names of modules end that overflow half precision."""


@dataclass(frozen=True)
class Probe:
    """One call of a component: what went in, and the FP32 answer."""

    component: str
    inputs: "dict[str, NDArray[Any]]"
    expected: "NDArray[Any]"


@dataclass(frozen=True)
class ReleaseRuntime:
    """The code that a release carries: it plays the tiers without this package."""

    title: str
    """What it is, for a docstring."""
    modules: Mapping[str, Path]
    """File of the release's package `lofi_onnx` -> module that it is copied from; what it imports of
    `lofi_assets.lofi_onnx` and `lofi_assets.lyrics` is then imported from that package."""
    generate: Path
    """Script at the root of a release: `generate.py PROMPT --tier T --seconds S --seed N --output FILE`, and `--steps`,
    `--lyrics FILE`, `--no-cpu-graph`. FILE.npy gets (2, n) float32 at 48 kHz."""
    requirements: tuple[str, ...]
    """Distributions that it needs."""
    readme: Path
    """For users, and for whoever writes a runtime of their own; becomes `BUNDLE.md`."""
    licence: Path
    """Text of the code's licence."""
    notice: str
    """Whose model it is, and under which licence."""
    describe: Callable[[int, float, Mapping[str, Any], Mapping[str, Any]], Mapping[str, Any]]
    """`pipeline.json` from steps, guidance scale, the graphs with inputs and outputs, and the tiers."""


class Runtime(Protocol):
    """A tier's folder, ready to generate with onnxruntime."""

    def generate(
        self,
        prompts: Sequence[str],
        *,
        seconds: float,
        seeds: Sequence[int],
        lyrics: Sequence[str],
        steps: int,
        guidance_scale: float,
    ) -> "np.ndarray":
        """Music for each prompt: (B, 2, seconds * 48000) float32 in [-1, 1] at 48 kHz."""
        ...

    def session(self, component: str) -> "onnxruntime.InferenceSession":
        """The session of a component."""
        ...


class Exports(Protocol):
    """The part of a backbone that merging, tiers and release use."""

    @property
    def layout(self) -> ExportLayout: ...

    def mergeable(self, base: Path) -> "nn.Module":
        """The module of a base that takes the adapter, in float32 or as it is stored, without what no finished model
        reads.

        Raises:
            BaseModelError: the base cannot be read.
        """
        ...

    def velocity_probe(self, model: "nn.Module") -> "Callable[[nn.Module], Tensor]":
        """A function that says what a model of this shape predicts, always for the same random conditions."""
        ...

    def write_merged(self, model: "nn.Module", base: Path, folder: Path, *, vocabulary: Path | None) -> None:
        """Write a base into an existing folder: `model`, and everything else of `base` as links or copies.

        Args:
            vocabulary: lyric vocabulary that goes with it; else the base's, if it holds one.
        """
        ...

    def exportable(self, component: str, merged: Path) -> Exportable:
        """A component of a merged model, loaded anew: exporting changes it in place."""
        ...

    def unadapted_files(self, component: str, merged: Path) -> tuple[Path, ...]:
        """All files below a merged model that decide a component which no adapter changes; none of one that may be
        changed. Its export is kept for the next model under a hash of them."""
        ...

    def tokenizers(self, merged: Path) -> dict[str, Path]:
        """Name in a tier's folder -> file of a merged model that the runtime reads."""
        ...

    def runtime(
        self, folder: Path, *, cpu_profile: bool = True, device: str = "cpu", threads: int | None = None
    ) -> Runtime:
        """The runtime of a tier's folder, for several threads at once.

        Args:
            cpu_profile: where only the CPU computes, take the CPU's own file of a component if the tier has one.
            device: `cpu`, `cuda` or `cuda:1`.
            threads: of a CPU for one call; onnxruntime's choice by default.
        Raises:
            BackboneError: the device cannot run it.
        """
        ...

    def release_runtime(self) -> ReleaseRuntime:
        """The code that a release of this family carries."""
        ...

    def probes(self, runtime: Runtime) -> list[Probe]:
        """Every component's inputs and answers along one short sampling run."""
        ...

    def stress(self, runtime: Runtime) -> list[Probe]:
        """Inputs of every component at latents twice as large as any that sampling gave, and the FP32 answers."""
        ...
