"""Checkpoints -> audio for the validation prompts with fixed seeds (constitution III).

What belongs here: which checkpoints still need samples, and generating them; the base without an adapter makes the same
clips, so that there is a before. What does not: which prompts and seeds (`samples.py`), the sampler itself
(`backbones/`), the judgement of the audio (`quality_metrics.py`).
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lofi_assets import pictures
from lofi_assets.backbones.sampling import Sampler
from lofi_assets.evaluation.samples import (
    BASE,
    Clip,
    ModelSamples,
    SamplePrompt,
    clips_of,
    sample_prompts,
    samples_key,
    write_clip,
)
from lofi_assets.files.hashing import hash_of, sha256_file
from lofi_assets.files.writing import atomic_folder
from lofi_assets.outcome import Outcome, Written
from lofi_assets.profiles import Profile, SamplingSettings
from lofi_assets.progress import Progress
from lofi_assets.store import Store
from lofi_assets.training.checkpoints.files import DIFFUSERS_WEIGHTS
from lofi_assets.training.checkpoints.manifest import read_manifest, update_record
from lofi_assets.training.checkpoints.runs import current_run
from lofi_assets.training.checkpoints.soundness import fault
from lofi_assets.training.feature_cache import FeatureRecord
from lofi_assets.training.trained_on import trained_base
from lofi_assets.wording import counted, named
from lofi_assets.workers.side_by_side import side_by_side

if TYPE_CHECKING:
    import numpy as np

SAMPLING_VERSION = "2"
"""Raised when the sampler's output changes: every sample is then generated again."""
CLIPS_AT_ONCE = 4
"""Clips generated in one batch."""
BROKEN = (
    "Restore its files from a copy; without one, move its folder away with checkpoints/manifest.json, which the other "
    "checkpoints' own records replace, and materialise lora_checkpoints again"
)
"""What to do about a checkpoint that does not load."""
_PRECISIONS = {"32": "float32", "bf16": "bfloat16"}
LOG = logging.getLogger(__name__)


def generate_samples(store: Store, profile: Profile) -> Outcome:
    """Audio of every checkpoint, and of the base, for the same prompts and seeds; what is there is not made again."""
    settings = profile.sampling
    prompts = sample_prompts(store, settings)
    records = [record for record in read_manifest(store.checkpoints) if record.is_valid]
    models = ([BASE] if records else []) + [record.checkpoint_id for record in records]
    base = trained_base(store, models) if models else None
    weights = {name: None if name == BASE else store.checkpoints / name / DIFFUSERS_WEIGHTS for name in models}
    wanted = {name: sample_key(weights[name], base, prompts, settings) for name in models} if base else {}
    todo = [name for name in models if samples_key(store, name) != wanted[name]]
    broken = _leave_out_broken(store, todo)
    records = [record for record in records if record.checkpoint_id not in broken]
    models, todo = ([name for name in names if name not in broken] for names in (models, todo))
    if base and todo:
        generate(store, {name: weights[name] for name in todo}, base, prompts, settings, wanted)
    for record in records:
        if not record.samples_generated:
            update_record(store.checkpoints, record.checkpoint_id, samples_generated=True)
    made = {name: clips_of(store, name) for name in models}
    clips = [clip for name in models if name != BASE for clip in made[name]]
    present = [clip for clip in clips if clip.file(store).is_file()]
    latest = present[-1] if present else None
    faulty = [clip for clip in [*clips, *made.get(BASE, ())] if clip.problems]
    latest_step = max((record.step for record in records), default=0)
    return Outcome(
        data_version=hash_of(
            SAMPLING_VERSION,
            current_run(store.checkpoints),
            latest_step,
            [asdict(p) for p in prompts],
            settings.model_dump(),
        ),
        written=Written(
            files=[file for name in models for file in sorted((store.samples / name).glob("*"))],
            prunable=[store.samples / name for name in models],
        ),
        summary=_summary(len(records), clips=len(present), faulty=len(faulty), broken=broken),
        needs=[_shown(clip) for clip in faulty],
        counts={"checkpoints": len(records), "clips": len(present), "recomputed": len(todo) * len(prompts)},
        values={
            "missing_samples": len(records) * len(prompts) - len(present) if records and prompts else None,
            "unusable_samples": sum(bool(clip.problems) for clip in clips) if clips else None,
        },
        rows=[_shown(clip) | {"prompt": clip.prompt} for clip in [*clips, *made.get(BASE, ())]],
        details={"precision": _PRECISIONS[settings.precision]}
        | {f"left out: {name}": reason for name, reason in broken.items()},
        pictures={"spectrogram": lambda: _spectrogram(store, latest)} if latest else {},
    )


def _summary(checkpoints: int, *, clips: int, faulty: int, broken: Collection[str]) -> str:
    lost = f" Left out, since they do not load: {named(sorted(broken))}." if broken else ""
    made = f"{counted(clips, 'clip')} of {counted(checkpoints, 'checkpoint')} and the same of the base"
    if not clips:
        return f"No clips: there is no checkpoint that loads, or no validation track to prompt with.{lost}"
    waits = f"{faulty} silent, clipped or broken: listen to them" if faulty else "None is silent, clipped or broken"
    return f"{made}. {waits}.{lost}"


def _shown(clip: Clip) -> dict[str, Any]:
    """A clip in few columns; its path is `samples/<model>/<clip>`."""
    path, problems = Path(clip.path), ", ".join(clip.problems)
    about = {"style": clip.style_id, "seed": clip.seed}
    return {"clip": path.name, "model": path.parent.name, "problems": problems, **about}


def sample_key(
    weights: Path | None, base: FeatureRecord, prompts: Sequence[SamplePrompt], settings: SamplingSettings
) -> str:
    """What the clips of a model depend on.

    Args:
        weights: of its adapter, in the form of diffusers; None for the base.
    """
    adapter = sha256_file(weights) if weights and weights.is_file() else None
    asked = [asdict(prompt) for prompt in prompts]
    return hash_of(SAMPLING_VERSION, adapter, base.base_fingerprint, asked, settings.model_dump())


def _leave_out_broken(store: Store, models: Sequence[str]) -> dict[str, str]:
    """Checkpoints among `models` that do not load, with the reason; the manifest says from now on that they do not."""
    found = {model: fault(store.checkpoints / model) for model in models if model != BASE}
    broken = {model: reason for model, reason in found.items() if reason}
    for model, reason in broken.items():
        update_record(store.checkpoints, model, is_valid=False)
        LOG.warning(f"{model} is left out and marked invalid: {reason}. {BROKEN}")
    return broken


def generate(
    store: Store,
    models: Mapping[str, Path | None],
    base: FeatureRecord,
    prompts: Sequence[SamplePrompt],
    settings: SamplingSettings,
    keys: Mapping[str, str],
) -> None:
    """Write `samples/<model>/`, each whole or not at all.

    Args:
        models: name -> weights of its adapter, in the form of diffusers; None for the base.
        keys: name -> `sample_key`.
    """
    sampler = base.backbone.sampler(
        Path(base.base),
        device=settings.device,
        vocabulary=base.vocabulary,
        precision=settings.precision,
        cuda_graphs=settings.cuda_graphs,
    )
    with Progress("generating samples", total=len(models) * len(prompts), unit="clip") as progress:
        for model, weights in models.items():
            adapted = sampler.adapted(weights) if weights else nullcontext()
            with adapted, atomic_folder(store.samples / model) as folder:
                clips: list[Clip] = []
                for start in range(0, len(prompts), CLIPS_AT_ONCE):
                    batch = prompts[start : start + CLIPS_AT_ONCE]
                    clips += _generate_batch(sampler, batch, settings, folder, store.samples / model, store)
                    progress.advance(len(batch), note=model)
                ModelSamples(keys[model], tuple(clips), settings.precision).write(folder)


def _generate_batch(
    sampler: Sampler,
    batch: Sequence[SamplePrompt],
    settings: SamplingSettings,
    folder: Path,
    final: Path,
    store: Store,
) -> list[Clip]:
    from lofi_assets.metrics.coverage import check_sample

    audio = sampler.generate(
        [item.prompt for item in batch],
        lyrics=[item.lyrics for item in batch],
        seconds=settings.seconds,
        seeds=[item.seed for item in batch],
        steps=settings.steps,
        guidance_scale=settings.guidance_scale,
    )

    def write(made: tuple[SamplePrompt, "np.ndarray"]) -> Clip:
        item, samples = made
        write_clip(folder / f"{item.name}.mp3", samples)
        problems = check_sample(samples, sample_rate=48000, seconds=settings.seconds).problems
        path = store.relative(final / f"{item.name}.mp3")
        return Clip(path, item.prompt, item.style_id, item.seed, problems)

    return side_by_side(write, list(zip(batch, audio, strict=True)))


def _spectrogram(store: Store, clip: Clip) -> bytes:
    import soundfile

    samples, sample_rate = soundfile.read(clip.file(store), dtype="float32")
    return pictures.spectrogram(samples.T, sample_rate=sample_rate, title=f"{clip.path}: {clip.prompt[:80]}")
