"""What people see of a run: curves and previews as pictures, speed, and where to look and listen.

It reads a run's log and previews for the asset's metadata; what the gates judge is in
`lora_checkpoints.describe_training`.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from lofi_assets import pictures
from lofi_assets.html.links import page_url
from lofi_assets.records import Checkpoint
from lofi_assets.store import Store
from lofi_assets.training import track_losses
from lofi_assets.training.checkpoints.manifest import best_by_validation
from lofi_assets.training.checkpoints.runs import ARCHIVE, companion_folder, finished, log_path
from lofi_assets.training.checkpoints.soundness import fault
from lofi_assets.training.config import TrackFeatures, TrainingRun
from lofi_assets.training.features.latents import MeasuredLatents
from lofi_assets.training.track_losses import TrackLoss
from lofi_assets.training.trainer.curves import BY_TIMESTEP
from lofi_assets.training.trainer.log import read_log
from lofi_assets.training.trainer.preview import (
    ORIGINAL,
    clip,
    preview_folder,
    preview_steps,
    preview_tracks,
)
from lofi_assets.wording import counted, named

SHOWN_PREVIEWS = 3
"""Latest checkpoints whose previews are drawn: pictures stay in the event log, the page has all of them."""
SHOWN_TRACKS = 2
RECENT_STEPS = 200

Points = list[tuple[int, float]]


def run_pictures(run: TrainingRun, tracks_seen: Sequence[TrackLoss]) -> dict[str, Callable[[], bytes]]:
    """Title -> drawing: loss, by track too, validation loss per timestep, learning rate, previews beside originals."""
    lines = list(read_log(log_path(run)))
    losses, rates = _points(lines, "loss"), _points(lines, "lr")
    drawn: dict[str, Callable[[], bytes]] = {}
    if losses:
        drawn["loss"] = partial(pictures.loss_curve, losses)
    if by_track := track_losses.picture(tracks_seen):
        drawn["loss by track"] = lambda: by_track
    if rates:
        drawn["learning rate"] = partial(pictures.curves_by_step, {"learning rate": rates}, label="learning rate")
    if validation := _by_timestep(lines):
        drawn["validation loss"] = partial(pictures.curves_by_step, validation, label="validation loss")
    tracks = preview_tracks(run)[:SHOWN_TRACKS]
    for step, folder in list(preview_steps(run).items())[-SHOWN_PREVIEWS:]:
        if all(clip(folder, track).is_file() for track in tracks) and tracks:
            drawn[f"preview step {step}"] = partial(_side_by_side, preview_folder(run) / ORIGINAL, folder, tracks)
    return drawn


def features_summary(tracks: int, *, computed: int, orphaned: int, latents: MeasuredLatents) -> str:
    """What to look at of the cached features."""
    if latents.outlying:
        stopped = counted(len(latents.outlying), "track")
        return (
            f"{stopped} of {tracks} cannot be trained on: {latents.outlying[0].track_id} and what else is listed below."
        )
    if latents.unusual:
        odd = counted(len(latents.unusual), "track")
        return f"{counted(tracks, 'track')} ready to train on, {computed} computed now; {odd} to listen to: see below."
    unused = f"{counted(orphaned, 'cached file')} no longer needed: lofi features prune." if orphaned else ""
    ready = f"{counted(tracks, 'track')} ready to train on, {computed} computed now."
    return f"{ready} {unused or 'Nothing waits for a person.'}"


def training_summary(
    records: Sequence[Checkpoint], *, loss: float | None, wanted: int, tracks_seen: Sequence[TrackLoss]
) -> str:
    """What to look at of a run: how far it is, its loss, checkpoints that cannot be used, tracks that stand out."""
    last = max((record.step for record in records), default=0)
    broken = sum(not record.is_valid for record in records)
    told = "no loss was logged" if loss is None else f"the last loss is {loss:.4g}"
    waits = f"{broken} of them cannot be loaded: see below" if broken else "all of them load"
    odd = [row.track_id for row in tracks_seen if row.outlying]
    heard = f" Listen to {named(odd)}: the loss stands out." if odd else ""
    return f"Step {last:,} of {wanted:,}, {told}; {counted(len(records), 'checkpoint')}" + (
        f", {waits}.{heard}" if records else f".{heard}"
    )


def waiting(folder: Path, records: Sequence[Checkpoint], tracks_seen: Sequence[TrackLoss]) -> list[dict[str, str]]:
    """Checkpoints that cannot be loaded, and tracks whose loss stands out, each with the reason."""
    broken = [
        {"checkpoint or track": record.checkpoint_id, "why": str(fault(folder / record.checkpoint_id))}
        for record in records
        if not record.is_valid
    ]
    heard = [
        {"checkpoint or track": row.track_id, "why": f"listen to it: {track_losses.told(row)}"}
        for row in tracks_seen
        if row.outlying
    ]
    return broken + heard


def run_links(store: Store, run: TrainingRun) -> dict[str, str | None]:
    """Where to listen."""
    page = preview_folder(run) / "index.html"
    return {"previews of every checkpoint": page_url(store, page) if page.is_file() else None}


def run_details(run: TrainingRun, *, config: Path, losses: Points, tracks_seen: Sequence[TrackLoss]) -> dict[str, Any]:
    """Loss, speed, the tracks, and how to look closer."""
    seconds = [line["seconds"] for line in read_log(log_path(run)) if "seconds" in line][-RECENT_STEPS:]
    earlier = sorted(folder.name for folder in (run.checkpoints_dir / ARCHIVE).glob("*") if folder.is_dir())
    loss = losses[-1][1] if losses else None
    return {
        "last_loss": round(loss, 4) if loss is not None and math.isfinite(loss) else None,
        "steps_per_hour": round(3600 / max(median(seconds), 1e-4)) if seconds else None,
        "run": run.run_id,
        "started_from": _start(run),
        "earlier_runs": named(earlier) or None,
        "best_by_validation": best_by_validation(run.checkpoints_dir),
        "ended_early": True if (end := finished(run)) and end.ended_early else None,
        "losses of tracks": track_losses.markdown(tracks_seen) or None,
        "table of all tracks": str(companion_folder(run) / track_losses.TABLE) if tracks_seen else None,
        "command": f"python -m lofi_assets.training --config {config}",
        "tensorboard": f"tensorboard --logdir {run.logs_dir}",
    }


def _start(run: TrainingRun) -> str | None:
    if run.initial is None:
        return None
    return run.initial.checkpoint or f"LoRA {run.initial.sha256[:12]} from elsewhere ({run.initial.form})"


def _points(lines: Iterable[Mapping[str, Any]], name: str) -> Points:
    return [(line["step"], line[name]) for line in lines if line.get(name) is not None]


def _by_timestep(lines: Iterable[Mapping[str, Any]]) -> dict[str, Points]:
    found: dict[str, Points] = {}
    for line in lines:
        for timestep, loss in line.get(BY_TIMESTEP, {}).items():
            found.setdefault(timestep, []).append((line["step"], loss))
    return found


def _side_by_side(originals: Path, folder: Path, tracks: Iterable[TrackFeatures]) -> bytes:
    import soundfile

    from lofi_assets.audio.encode import SAMPLE_RATE

    def samples(path: Path) -> Any:
        return soundfile.read(path, dtype="float32")[0].T

    rows = {track.track_id: [samples(clip(place, track)) for place in (originals, folder)] for track in tracks}
    return pictures.spectrogram_grid(rows, heads=(ORIGINAL, folder.name), sample_rate=SAMPLE_RATE)
