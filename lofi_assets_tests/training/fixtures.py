"""The types of fixtures that several test files of training ask for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypedDict

from lofi_assets.profiles import Profile
from lofi_assets.training.config import TrainingRun

Settings = dict[str, Any]
"""Settings of a run, by the names of its training section."""
TrainWith = Callable[..., Profile]
"""Sets these settings in the training section of the profile that the asset loads, and returns that profile."""


class TrainingMaterial(TypedDict):
    """The tiny base, and the cached features of three short tracks (`conftest.training_material`)."""

    base: Path
    features: Path
    fingerprint: str
    keys: dict[str, str]


class MakeRun(Protocol):
    """A run on the tiny base; further settings are those of its training section (`conftest.make_run`)."""

    def __call__(
        self,
        name: str = ...,
        *,
        dataset_hash: str = ...,
        lora: dict[str, Any] | None = ...,
        **training: Any,
    ) -> TrainingRun: ...
