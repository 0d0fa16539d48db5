"""Generated and reference clips: which prompts and seeds, and where the clips of a checkpoint are."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lofi_assets.files.documents import read_json
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


def samples_of(store: Store, model: str) -> dict[str, Any]:
    """`samples.json` of a checkpoint, or of `BASE`: the key it was made under, and its clips; empty before."""
    description: dict[str, Any] = read_json(store.samples / model / "samples.json", default={})
    return description


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
            path=store.root / clip["path"],
            prompt=clip["prompt"],
            style_id=clip["style_id"],
            seed=clip["seed"],
            seconds=seconds,
        )
        for clip in samples_of(store, model).get("clips", ())
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
