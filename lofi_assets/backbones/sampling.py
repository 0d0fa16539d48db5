"""What a backbone makes when it is asked for music: the contract of previews and of generated samples.

Imports without torch.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from lofi_assets.backbones.features import Conditions

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

Precision = Literal["32", "bf16"]
"""32: float32 throughout. bf16: the frozen weights in bfloat16 and the model's passes under autocast, as in training
with `bf16-mixed`; what adds up over steps stays float32."""
FLOAT32: Final = "32"


class Sampler(Protocol):
    """A base that is ready to generate."""

    def adapted(self, weights: Path) -> AbstractContextManager[None]:
        """The base with an adapter, while it lasts.

        Args:
            weights: the file that users load, in the form of diffusers.
        """
        ...

    def generate(
        self,
        prompts: Sequence[str],
        *,
        lyrics: Sequence[str],
        seconds: float,
        seeds: Sequence[int],
        steps: int,
        guidance_scale: float,
    ) -> "np.ndarray":
        """Music for each prompt with its lyrics and seed: (B, 2, seconds * 48000) float32 in [-1, 1] at 48 kHz."""
        ...


class Samples(Protocol):
    """The part of a backbone that generates."""

    def frames(self, seconds: float) -> int:
        """Latent frames that so much audio fills entirely."""
        ...

    def decoder(self, base: Path, *, device: str) -> "Callable[[Tensor], np.ndarray]":
        """From the latents of one item to audio (2, n) float32 in [-1, 1] at 48 kHz."""
        ...

    def sample_latents(
        self,
        model: Any,
        conditions: Conditions,
        *,
        frames: int,
        seed: int,
        steps: int,
        guidance_scale: float,
        device: "torch.device",
        dtype: "torch.dtype",
    ) -> "Tensor":
        """Latents of one item that `model` makes of conditions: what a preview plays."""
        ...

    def sampler(
        self,
        base: Path,
        *,
        device: str,
        vocabulary: Path | None = None,
        precision: Precision = FLOAT32,
        cuda_graphs: bool = False,
    ) -> Sampler:
        """The whole base.

        Args:
            vocabulary: lyric vocabulary; else the one in the base's folder.
            cuda_graphs: replay the model's passes, for the same samples in less time.
        Raises:
            BaseModelError: the base cannot be read.
            BackboneError: the device, or the family, cannot do the precision, or graphs.
        """
        ...
