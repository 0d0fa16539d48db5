"""What a backbone makes of a track before training, once: latents, conditions, and targets of further losses.

What belongs here: the kinds of features, what is known of a track, and who encodes it. What does not: the models
(a folder per family), which tracks need what, and the files (`training/features`). Imports without torch.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from lofi_assets.errors import LofiError
from lofi_assets.files.hashing import hash_of

if TYPE_CHECKING:
    import numpy as np
    import torch

    from lofi_assets.audio.decode import Decoded

FEATURES_VERSION = "2"
"""Raise when the same inputs give other features: every key changes with it."""
KEY_LENGTH = 32
LATENTS = "latents"
"""The kind that every backbone has."""

Conditions = Mapping[str, "torch.Tensor"]
"""Of one track, by name, each without padding; only the backbone knows the names."""


class FeatureError(LofiError, RuntimeError):
    """Features of a track cannot be computed or read; the message names track, file and remedy."""


@dataclass(frozen=True)
class FeatureKind:
    """One array of a track, which is a file of the cache by itself: a changed prompt never encodes audio again."""

    shape: tuple[int | None, ...]
    """None: of any length."""
    role: Literal["latents", "condition", "target"]
    """What it is to training: what is learnt, what it is learnt under, or what a further loss compares with."""
    heard: bool = False
    """Made of the audio; otherwise of what is written about the track."""
    notes: tuple[str, ...] = ()
    """Small strings that are kept beside the array, such as the language of lyrics."""


@dataclass(frozen=True)
class LatentShape:
    """What the latents of a backbone are."""

    shape: tuple[int | None, ...]
    """Of one track; None at the axis of frames."""
    frames_per_second: float
    deviation: float = 1.0
    """Standard deviation that latents of music have, about, beside noise of 1: the scale that the family gives them."""

    @property
    def frame_axis(self) -> int:
        """Where the frames are."""
        return self.shape.index(None)


@dataclass(frozen=True)
class FeatureJob:
    """A track to have features of."""

    track_id: str
    audio: Path
    """Processed audio file."""
    audio_sha256: str
    """Of that file's bytes."""
    prompt: str
    """The text to encode."""
    lyrics: str = ""
    """As written, with the line that gives their language if there is one; empty for an instrumental track."""
    tags: tuple[str, ...] = ()
    """Stand in for an empty prompt."""
    speaker: Path | None = None
    """File with the singer's embedding; None: zeros."""

    @property
    def caption(self) -> str:
        """The text to encode.

        Raises:
            FeatureError: neither prompt nor tags.
        """
        caption = self.prompt.strip() or ", ".join(self.tags)
        if not caption:
            raise FeatureError(f"{self.track_id}: empty prompt and no tags; write its prompt file and run again")
        return caption


class Encoders(Protocol):
    """The frozen models of one base, each loaded when first asked for. Errors name the track."""

    def keys(self, jobs: Sequence[FeatureJob]) -> list[dict[str, str]]:
        """Kind -> hash of all that decides its content (`content_key`), for each job; loads no model."""
        ...

    def listen(self, audio: "Decoded", kinds: Collection[str]) -> "dict[str, np.ndarray]":
        """What is made of sound, by kind."""
        ...

    def read(self, kind: str, job: FeatureJob) -> "tuple[np.ndarray, Mapping[str, str]]":
        """What is made of what is written about a track, with its notes."""
        ...


class EncodesTracks(Protocol):
    """The part of a backbone that fills the feature cache."""

    @property
    def latents(self) -> LatentShape:
        """Shape and rate of the latents."""
        ...

    @property
    def feature_kinds(self) -> Mapping[str, FeatureKind]:
        """Kind -> what it is; a track need not have every target."""
        ...

    def encoders(
        self,
        base: Path,
        *,
        fingerprint: str,
        device: str = "auto",
        dtype: str = "float32",
        vocabulary: Path | None = None,
        ssl_encoders: Mapping[str, Path] | None = None,
    ) -> Encoders:
        """The encoders of a base.

        Args:
            fingerprint: of the base, for the keys.
            device: `auto` is the first GPU, or the CPU.
            dtype: of the text encoder.
            vocabulary: lyric vocabulary; else the one in the base's folder.
            ssl_encoders: encoder -> its folder, for the targets to compute.
        """
        ...

    def conditions(self, features: "Mapping[str, torch.Tensor]") -> Conditions:
        """The conditions of a track from its cached features of that role."""
        ...

    def token_counts(self, features: "Mapping[str, torch.Tensor]") -> dict[str, int]:
        """Kind -> tokens that its conditions have, for the plan."""
        ...


def content_key(kind: str, *parts: object) -> str:
    """Key of a feature by what decides its content: 32 hexadecimal digits."""
    return hash_of(kind, *parts)[:KEY_LENGTH]
