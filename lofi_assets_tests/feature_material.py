"""Features of ACE-Step v1 for tests: made by the real encoders of a base, or given as they are."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from lofi_assets.backbones.ace_step_v1.backbone import ACE_STEP_V1
from lofi_assets.backbones.features import Conditions, FeatureJob
from lofi_assets.training.features.cache import CachedFeatures, FeatureRow, cache_features


def encoded(
    jobs: Sequence[FeatureJob], base: Path, cache_dir: Path, *, base_fingerprint: str | None = None, **options: Any
) -> list[FeatureRow]:
    """Features of jobs by the encoders of a base, in a cache."""
    identity = ACE_STEP_V1.fingerprint(base) if base_fingerprint is None else base_fingerprint
    encoders = ACE_STEP_V1.encoders(base, fingerprint=identity, **options)
    return cache_features(jobs, backbone=ACE_STEP_V1, encoders=encoders, cache_dir=cache_dir)


def read(cache_dir: Path) -> CachedFeatures:
    """The features of a cache."""
    return CachedFeatures(ACE_STEP_V1, cache_dir)


@dataclass(frozen=True)
class Given:
    """Features that no cache holds, by the key of a track."""

    latents: Callable[[str], Tensor]
    conditions: Callable[[str], Conditions]
    frames: Callable[[str], int]
    targets: Callable[[str], Mapping[str, Tensor]] = lambda key: {}
