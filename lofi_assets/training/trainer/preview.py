"""Previews: what the adapter makes of a few validation tracks' conditions, to be heard while it trains.

What belongs here: a few short clips with fixed seeds, the tracks' own reconstructions beside them, and a page to listen
to both. The conditions come from the feature cache, so that no text encoder is needed; the models that turn latents
into audio are in memory only meanwhile. What does not: the samples that are judged
(`lofi_assets.evaluation.generated_samples`).

    logs/train-<run id>/previews/original/<track>.mp3   the track, encoded and decoded: the most that can be expected
    logs/train-<run id>/previews/step=<N>/<track>.mp3
    logs/train-<run id>/previews/index.html

A preview never changes or ends a run: random numbers come from generators of their own, and a failure is told and
passed over. Imports without torch.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from lofi_assets.files.documents import write_text
from lofi_assets.files.hashing import hash_of
from lofi_assets.files.writing import atomic_folder, atomic_path
from lofi_assets.html.frame import framed, players
from lofi_assets.training.checkpoints.runs import companion_folder
from lofi_assets.training.config import TrackFeatures, TrainingRun

if TYPE_CHECKING:
    import numpy as np
    import torch

ORIGINAL = "original"
STEPS = 30
"""Euler steps of a preview, half of what samples to be judged take."""
GUIDANCE_SCALE = 15.0


def preview_folder(run: TrainingRun) -> Path:
    """Where the run's previews are."""
    return companion_folder(run) / "previews"


def preview_tracks(run: TrainingRun) -> tuple[TrackFeatures, ...]:
    """The tracks that are previewed, the same at every checkpoint."""
    return run.of_split("validation")[: run.training.preview_count]


def preview_steps(run: TrainingRun) -> dict[int, Path]:
    """Step -> folder of its clips, by rising step."""
    found = {}
    for folder in preview_folder(run).glob("step=*"):
        if match := re.fullmatch(r"step=(\d+)", folder.name):
            found[int(match[1])] = folder
    return dict(sorted(found.items()))


def clip(folder: Path, track: TrackFeatures) -> Path:
    """A track's clip in the folder of a step, or of the originals."""
    return folder / f"{track.track_id}.mp3"


def write_previews(
    run: TrainingRun, model: "torch.nn.Module", *, device: "torch.device", step: int, say: Callable[[str], None]
) -> None:
    """Clips of the adapter as it is at `step`; the originals when they are not there yet."""
    import torch

    tracks = preview_tracks(run)
    if not tracks:
        return
    try:
        with torch.random.fork_rng(), torch.no_grad():
            _write(run, model, tracks, device=device, step=step)
    except Exception as error:
        # a clip to listen to is not worth a run of days
        say(f"no preview at step {step} ({type(error).__name__}: {error}); training goes on")
    finally:
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _write(
    run: TrainingRun,
    model: "torch.nn.Module",
    tracks: Sequence[TrackFeatures],
    *,
    device: "torch.device",
    step: int,
) -> None:
    decode, folder = run.backbone.decoder(run.base, device=str(device)), preview_folder(run)
    for track in tracks:
        original = clip(folder / ORIGINAL, track)
        if not original.is_file():
            with atomic_path(original) as temporary:
                _save(temporary, decode(_excerpt(run, track)))
    with atomic_folder(folder / f"step={step}") as temporary:
        for track in tracks:
            _save(clip(temporary, track), decode(_sampled(run, model, track, device)))
    write_text(folder / "index.html", _page(run))


def _excerpt(run: TrainingRun, track: TrackFeatures) -> "torch.Tensor":
    """The middle of the track's latents."""
    from lofi_assets.training.features.cache import CachedFeatures
    from lofi_assets.training.trainer.batches import crop

    backbone, frames = run.backbone, max(1, run.backbone.frames(run.training.preview_seconds))
    latents = CachedFeatures(backbone, run.features_dir).latents(track.key)
    return crop(latents, axis=backbone.latents.frame_axis, frames=frames, place=0.5)


def _sampled(
    run: TrainingRun, model: "torch.nn.Module", track: TrackFeatures, device: "torch.device"
) -> "torch.Tensor":
    """Latents that the adapter makes of the track's conditions, as long as its excerpt."""
    import torch

    from lofi_assets.training.features.cache import CachedFeatures

    backbone, mixed = run.backbone, run.training.precision == "bf16-mixed"
    compiled = any(getattr(module, "_compiled_call_impl", None) for module in model.modules())
    # a size that training does not have is not worth a minute of compiling
    eager = torch.compiler.set_stance("force_eager") if compiled else nullcontext()
    with eager, torch.autocast(device.type, dtype=torch.bfloat16, enabled=mixed):
        return backbone.sample_latents(
            model,
            CachedFeatures(backbone, run.features_dir).conditions(track.key),
            frames=_excerpt(run, track).shape[backbone.latents.frame_axis],
            seed=int(hash_of(run.training.seed, "preview", track.track_id)[:8], 16),
            steps=STEPS,
            guidance_scale=GUIDANCE_SCALE,
            device=device,
            dtype=torch.bfloat16 if mixed else torch.float32,
        )


def _save(path: Path, samples: "np.ndarray") -> None:
    from lofi_assets.audio.encode import encode_mp3

    path.write_bytes(encode_mp3(samples))


def _page(run: TrainingRun) -> str:
    """Players track by track, the original first, then the latest step down to the first."""
    folders = {"original": preview_folder(run) / ORIGINAL}
    folders |= {f"step {step:,}": folder for step, folder in reversed(preview_steps(run).items())}
    heard = "\n".join(_heard(track, folders) for track in preview_tracks(run))
    return framed(
        title=f"Previews of run {run.run_id}",
        body=f"<h1>Previews of run {escape(run.run_id)}</h1>\n<p>What the adapter makes of each validation track's"
        f" prompt, the latest step first, beside the track itself as the autoencoder passes it on.</p>\n{heard}",
    )


def _heard(track: TrackFeatures, folders: Mapping[str, Path]) -> str:
    clips = [(label, clip(folder, track)) for label, folder in folders.items()]
    return f"<h2>{escape(track.track_id)}</h2>\n" + players(
        [(label, quote(f"{path.parent.name}/{path.name}", safe="/=")) for label, path in clips if path.is_file()]
    )
