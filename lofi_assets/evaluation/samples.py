"""Generated and reference clips: which prompts and seeds, and where the clips of a checkpoint are.

samples/<model>/samples.json    the clips of a checkpoint, or of the base (`ModelSamples`)
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic.dataclasses import dataclass as stored

from lofi_assets.backbones.sampling import FLOAT32, Precision
from lofi_assets.files.documents import write_json
from lofi_assets.files.typed import STORED, plain, read_typed
from lofi_assets.profiles import SamplingSettings
from lofi_assets.store import Store
from lofi_assets.training.trained_on import trained_dataset

if TYPE_CHECKING:
    import numpy as np

    from lofi_assets.metrics.sample_quality import GeneratedSample, ReferenceTrack

BASE = "base"
"""Folder of the clips that the base model makes without an adapter."""


@dataclass(frozen=True)
class SamplePrompt:
    """One clip to generate: the prompt of a validation track with a fixed seed."""

    name: str
    prompt: str
    lyrics: str
    style_id: str
    seed: int


@stored(frozen=True, config=STORED)
class Clip:
    """A clip that a model made."""

    path: str
    """Relative to the data root."""
    prompt: str
    style_id: str
    seed: int
    problems: tuple[str, ...]
    """What is wrong with its audio, as soon as it was made."""

    def file(self, store: Store) -> Path:
        """Where it lies."""
        return store.root / self.path


@stored(frozen=True, config=STORED)
class ModelSamples:
    """The clips of a checkpoint, or of `BASE`."""

    key: str
    """Fingerprint of whatever they depend on."""
    clips: tuple[Clip, ...]
    precision: Precision = FLOAT32
    """In which the model made them; a record without it is of float32."""

    @classmethod
    def read(cls, store: Store, model: str) -> "ModelSamples | None":
        """Those on record; None before they are made.

        Raises:
            StoreError: the record is broken, or of another version.
        """
        path = store.samples / model / _SAMPLES
        return read_typed(path, cls, remedy="remove the folder and materialise generated_samples again")

    def write(self, folder: Path) -> None:
        """Put on record, in the folder of the clips; float32 is what a record that says nothing means."""
        said = plain(self)
        usual = ("precision", FLOAT32)
        write_json(folder / _SAMPLES, dict(item for item in said.items() if item != usual))


_SAMPLES = "samples.json"


def clips_of(store: Store, model: str) -> tuple[Clip, ...]:
    """Clips of a checkpoint, or of `BASE`; none before they are made."""
    found = ModelSamples.read(store, model)
    return found.clips if found else ()


def samples_key(store: Store, model: str) -> str | None:
    """What the clips of a model were made under; None before."""
    found = ModelSamples.read(store, model)
    return found.key if found else None


def sample_prompts(store: Store, settings: SamplingSettings) -> list[SamplePrompt]:
    """`settings.count` prompts: those of the validation tracks in order of id, again with further seeds if too few.

    Raises:
        DatasetError: the version that the checkpoints were trained on is gone.
    """
    version = trained_dataset(store)
    held_out = version.of_split("validation")
    chosen = [held_out[index % len(held_out)] for index in range(settings.count)] if held_out else []
    return [
        SamplePrompt(
            name=f"{index:03d}_{track.track_id}",
            prompt=version.prompt(track.track_id).read_text(encoding="utf-8"),
            lyrics=version.lyrics(track.track_id).read_text(encoding="utf-8"),
            style_id=track.style_ids[0],
            seed=settings.seed + index,
        )
        for index, track in enumerate(chosen)
    ]


def write_clip(path: Path, samples: "np.ndarray") -> None:
    """Write (2, frames) float audio at 48 kHz through the codec of the tracks it is compared with.

    Otherwise metrics and listeners would judge the codec. NaN becomes silence; the caller has recorded it as a problem.
    """
    import numpy as np

    from lofi_assets.audio.encode import encode_mp3

    path.write_bytes(encode_mp3(np.nan_to_num(samples, nan=0.0)))


def generated_samples(store: Store, model: str, *, seconds: float) -> "list[GeneratedSample]":
    """Clips of a checkpoint, or of `BASE`, as `metrics.sample_quality` takes them."""
    from lofi_assets.metrics.sample_quality import GeneratedSample

    return [
        GeneratedSample(
            path=clip.file(store),
            prompt=clip.prompt,
            style_id=clip.style_id,
            seed=clip.seed,
            seconds=seconds,
        )
        for clip in clips_of(store, model)
    ]


def reference_tracks(store: Store) -> "list[ReferenceTrack]":
    """The validation split of the version that was trained on, as `metrics.sample_quality` takes it."""
    from lofi_assets.metrics.sample_quality import ReferenceTrack

    version = trained_dataset(store)
    return [
        ReferenceTrack(
            path=version.audio(track.track_id),
            prompt=version.prompt(track.track_id).read_text(encoding="utf-8"),
            style_ids=track.style_ids,
        )
        for track in version.of_split("validation")
    ]


def training_audio(store: Store) -> list[Path]:
    """Audio of the training split of the version that was trained on."""
    version = trained_dataset(store)
    return [version.audio(track.track_id) for track in version.of_split("train")]
