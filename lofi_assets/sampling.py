"""Checkpoints -> audio for the validation prompts with fixed seeds (constitution III).

What belongs here: which prompts and seeds, and which checkpoints still need samples. What does not: the sampler itself
(`ace_step/sampler.py`), the judgement of the audio (`evaluation.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lofi_assets import pictures
from lofi_assets.experiment import FEATURES, current_dataset
from lofi_assets.outcome import Outcome
from lofi_assets.profiles import Profile, SamplingSettings
from lofi_assets.records import Checkpoint
from lofi_assets.store import Store, atomic_folder, fingerprint, read_json, sha256_file, write_json
from lofi_assets.training.checkpoints import read_manifest, update_record
from lofi_assets.training.runs import current_run

if TYPE_CHECKING:
    import numpy as np

    from lofi_assets.ace_step.loading import Base
    from lofi_assets.metrics.evaluate import GeneratedSample, ReferenceTrack

SAMPLING_VERSION = "1"
"""Raised when the sampler's output changes: every sample is then generated again."""
CLIPS_AT_ONCE = 4
"""Clips generated in one batch."""


@dataclass(frozen=True)
class SamplePrompt:
    """One clip to generate: the prompt of a validation track with a fixed seed."""

    name: str
    prompt: str
    lyrics: str
    style_id: str
    seed: int


def sample_prompts(store: Store, settings: SamplingSettings) -> list[SamplePrompt]:
    """`settings.count` prompts: those of the validation tracks in order of id, again with further seeds if too few."""
    folder, _, tracks = current_dataset(store)
    held_out = [track for track in tracks if track["split"] == "validation"]
    chosen = [held_out[index % len(held_out)] for index in range(settings.count)] if held_out else []
    return [
        SamplePrompt(
            name=f"{index:03d}_{track['track_id']}",
            prompt=(folder / "audio" / f"{track['track_id']}_prompt.txt").read_text(encoding="utf-8"),
            lyrics=(folder / "audio" / f"{track['track_id']}_lyrics.txt").read_text(encoding="utf-8"),
            style_id=track["style_ids"][0],
            seed=settings.seed + index,
        )
        for index, track in enumerate(chosen)
    ]


def generate_samples(store: Store, profile: Profile) -> Outcome:
    """Audio of every checkpoint for the same prompts and seeds; what is there is not generated again."""
    settings = profile.sampling
    prompts = sample_prompts(store, settings)
    records = [record for record in read_manifest(store.checkpoints) if record.is_valid]
    wanted = {record.checkpoint_id: _sample_key(store, record, prompts, settings) for record in records}
    todo = [record for record in records if samples_of(store, record).get("key") != wanted[record.checkpoint_id]]
    if todo:
        _generate(store, todo, prompts, settings, wanted)
    made = {record.checkpoint_id: samples_of(store, record) for record in records}
    clips = [clip for samples in made.values() for clip in samples.get("clips", ())]
    present = [clip for clip in clips if (store.root / clip["path"]).is_file()]
    latest = present[-1] if present else None
    latest_step = max((record.step for record in records), default=0)
    return Outcome(
        data_version=fingerprint(
            SAMPLING_VERSION,
            current_run(store.checkpoints),
            latest_step,
            [asdict(p) for p in prompts],
            settings.model_dump(),
        ),
        counts={"checkpoints": len(records), "clips": len(present), "recomputed": len(todo) * len(prompts)},
        values={
            "missing_samples": len(records) * len(prompts) - len(present) if records and prompts else None,
            "unusable_samples": sum(bool(clip["problems"]) for clip in clips) if clips else None,
        },
        rows=[{**clip, "problems": ", ".join(clip["problems"])} for clip in clips],
        pictures={"spectrogram": lambda: _spectrogram(store, latest)} if latest else {},
    )


def _sample_key(store: Store, record: Checkpoint, prompts: Sequence[SamplePrompt], settings: SamplingSettings) -> str:
    adapter = sha256_file(store.checkpoints / record.checkpoint_id / "pytorch_lora_weights.safetensors")
    base = read_json(store.metadata(FEATURES))["base_fingerprint"]
    return fingerprint(SAMPLING_VERSION, adapter, base, [asdict(prompt) for prompt in prompts], settings.model_dump())


def samples_of(store: Store, record: Checkpoint) -> dict[str, Any]:
    """`samples.json` of a checkpoint: the key it was made under, and its clips; empty before."""
    return read_json(store.samples / record.checkpoint_id / "samples.json", default={})


def _generate(
    store: Store,
    records: Sequence[Checkpoint],
    prompts: Sequence[SamplePrompt],
    settings: SamplingSettings,
    keys: Mapping[str, str],
) -> None:
    from tqdm import tqdm

    from lofi_assets.ace_step.loading import load_base

    features = read_json(store.metadata(FEATURES))
    vocabulary = Path(features["lyric_vocabulary"]) if features.get("lyric_vocabulary") else None
    base = load_base(features["base"], device=settings.device, lyric_vocabulary=vocabulary)
    assert base.transformer is not None
    with tqdm(total=len(records) * len(prompts), desc="generating samples", unit="clip") as progress:
        for record in records:
            base.transformer.load_lora_adapter(
                str(store.checkpoints / record.checkpoint_id),
                weight_name="pytorch_lora_weights.safetensors",
                adapter_name="evaluated",
                prefix=None,
            )
            with atomic_folder(store.samples / record.checkpoint_id) as folder:
                clips = []
                for start in range(0, len(prompts), CLIPS_AT_ONCE):
                    batch = prompts[start : start + CLIPS_AT_ONCE]
                    clips += _generate_batch(base, batch, settings, folder, store.samples / record.checkpoint_id, store)
                    progress.update(len(batch))
                write_json(folder / "samples.json", {"key": keys[record.checkpoint_id], "clips": clips})
            base.transformer.delete_adapters("evaluated")
            update_record(store.checkpoints, record.checkpoint_id, samples_generated=True)


def _generate_batch(
    base: "Base",
    batch: Sequence[SamplePrompt],
    settings: SamplingSettings,
    folder: Path,
    final: Path,
    store: Store,
) -> list[dict[str, Any]]:
    from lofi_assets.ace_step.sampler import text_to_music
    from lofi_assets.metrics.coverage import check_sample

    audio = text_to_music(
        base,
        prompts=[item.prompt for item in batch],
        lyrics=[item.lyrics for item in batch],
        seconds=settings.seconds,
        seeds=[item.seed for item in batch],
        steps=settings.steps,
        guidance_scale=settings.guidance_scale,
    )
    clips = []
    for item, samples in zip(batch, audio, strict=True):
        write_clip(folder / f"{item.name}.mp3", samples)
        problems = check_sample(samples, sample_rate=48000, seconds=settings.seconds).problems
        clips.append(
            {
                "path": store.relative(final / f"{item.name}.mp3"),
                "prompt": item.prompt,
                "style_id": item.style_id,
                "seed": item.seed,
                "problems": list(problems),
            }
        )
    return clips


def write_clip(path: Path, samples: "np.ndarray") -> None:
    """Write (2, frames) float audio at 48 kHz through the codec of the tracks it is compared with.

    Otherwise metrics and listeners would judge the codec. NaN becomes silence; the caller has recorded it as a problem.
    """
    import numpy as np

    from lofi_assets.audio.encode import encode_mp3

    path.write_bytes(encode_mp3(np.nan_to_num(samples, nan=0.0)))


def _spectrogram(store: Store, clip: Mapping[str, Any]) -> bytes:
    import soundfile

    samples, sample_rate = soundfile.read(store.root / clip["path"], dtype="float32")
    return pictures.spectrogram(samples.T, sample_rate=sample_rate, title=f"{clip['path']}: {clip['prompt'][:80]}")


def generated_samples(store: Store, record: Checkpoint, *, seconds: float) -> "list[GeneratedSample]":
    """A checkpoint's clips, as `metrics.evaluate` takes them."""
    from lofi_assets.metrics.evaluate import GeneratedSample

    return [
        GeneratedSample(
            path=store.root / clip["path"],
            prompt=clip["prompt"],
            style_id=clip["style_id"],
            seed=clip["seed"],
            seconds=seconds,
        )
        for clip in samples_of(store, record).get("clips", ())
    ]


def reference_tracks(store: Store) -> "list[ReferenceTrack]":
    """The validation split, as `metrics.evaluate` takes it."""
    from lofi_assets.metrics.evaluate import ReferenceTrack

    folder, _, tracks = current_dataset(store)
    return [
        ReferenceTrack(
            path=folder / "audio" / f"{track['track_id']}.mp3",
            prompt=(folder / "audio" / f"{track['track_id']}_prompt.txt").read_text(encoding="utf-8"),
            style_ids=track["style_ids"],
        )
        for track in tracks
        if track["split"] == "validation"
    ]
