"""Before the first step: whether a process can train the run, the folder that the run is made in, what it goes on from.

What belongs here: what happens once, in an order that several processes agree on. What does not: the steps (`loop`),
how processes reach each other (`training.distributed`).
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from safetensors.torch import load_file
from torch import Tensor

from lofi_assets.backbones.features import FeatureError
from lofi_assets.constitution.made_with import code
from lofi_assets.training.checkpoints import runs, trainer_record
from lofi_assets.training.checkpoints import state as resume
from lofi_assets.training.config import ConfigError, TrainingRun
from lofi_assets.training.distributed import Processes
from lofi_assets.training.features.latents import measured_latents
from lofi_assets.training.trainer.device import pick_device


def ready(run: TrainingRun, check: Callable[[], None]) -> torch.device:
    """The device to train on, once nothing hinders this process.

    Args:
        check: raises what else hinders it.
    Raises:
        ConfigError: base or device are not what the run says.
        FeatureError: a track would outweigh or waste the training.
    """
    code()  # what runs is what lies there now: an edit while it trains is no part of it
    check()
    device = pick_device(run.device, precision=run.training.precision)
    if run.backbone.fingerprint(run.base) != run.base_fingerprint:
        raise ConfigError(
            f"base: {run.base} has changed since the features were computed; materialise feature_cache again"
        )
    keys = {track.track_id: track.key for track in run.tracks}
    if refusal := measured_latents(run.backbone, run.features_dir, keys).refusal():
        raise FeatureError(refusal)
    return device


def open_folder(run: TrainingRun, held: ExitStack, *, fresh: bool, say: Callable[[str], None]) -> None:
    """Keep the run's folder to this process for as long as `held` is, and bring it to where the run goes on from.

    Raises:
        CheckpointError: another process trains into it; checkpoints without the state to go on from; the documents of
            what was written before are not whole.
    """
    held.enter_context(runs.exclusive(run.checkpoints_dir))
    trainer_record.chain(run)  # one that is broken is told now, not after days
    archived = runs.open_run(run, fresh=fresh, say=say)
    if archived:
        say(f"a new run; the earlier one is kept in {run.checkpoints_dir.name}/{runs.ARCHIVE}/{archived}")


@dataclass(frozen=True)
class Start:
    """Where a run goes on from."""

    point: resume.ResumePoint
    tensors: Mapping[str, Tensor]
    """Of `resume.collect_state`."""


def start_of_all(run: TrainingRun, processes: Processes) -> Start | None:
    """What the main process has saved, in all of them; None at the beginning of a run.

    The others need not see its folder, and cannot start at another step.
    """
    point = resume.resume_point(run.checkpoints_dir) if processes.main else None
    tensors = load_file(point.folder / resume.TENSORS) if point else {}
    said = {
        "at": [point.run_id, point.step, dict(point.extra)] if point else None,
        "tensors": {name: [str(tensor.dtype), list(tensor.shape)] for name, tensor in tensors.items()},
    }
    said = processes.told("state", said)
    if said["at"] is None:
        return None
    if not processes.main:
        tensors = {name: _like(*kind) for name, kind in said["tensors"].items()}
    point = point or resume.ResumePoint(run.checkpoints_dir, *said["at"])
    return Start(point, processes.sent(tensors))


def _like(dtype: str, shape: list[int]) -> Tensor:
    return torch.empty(shape, dtype=getattr(torch, dtype.removeprefix("torch.")))
