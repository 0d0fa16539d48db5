"""A run against what this machine has left: disk before it starts, and what to change when memory ran out.

What belongs here: a run's needs beside what is free. What does not: the formulas (`memory`, `plan`), and the check of
free memory before a start (`profile_plan.obstacle`).
"""

from dataclasses import replace
from pathlib import Path

from lofi_assets.training.checkpoints.room import require_room
from lofi_assets.training.checkpoints.runs import current_run
from lofi_assets.training.checkpoints.state import BESIDE, FOLDER, TENSORS, resume_point
from lofi_assets.training.config import TrainingRun
from lofi_assets.training.planning.cards import Card
from lofi_assets.training.planning.memory import Choices, state_bytes
from lofi_assets.training.planning.model_size import measure
from lofi_assets.training.planning.plan import (
    LOG_BYTES_PER_STEP,
    PREVIEW_BYTES_PER_SECOND,
    STATES_HELD,
    checkpoint_bytes,
    make_plan,
    remedies,
)
from lofi_assets.training.planning.profile_plan import cached_workload
from lofi_assets.wording import amount, counted


def require_disk(run: TrainingRun, *, fresh: bool) -> None:
    """Do nothing if the disk has room for all that the run still writes.

    Args:
        fresh: the run starts over, and what it has is kept in the archive.
    Raises:
        DiskError: with needed and free bytes, and what to change.
    """
    size, settings = measure(run.backbone, run.base, run.lora), run.training
    point = None if fresh or current_run(run.checkpoints_dir) != run.run_id else resume_point(run.checkpoints_dir)
    done = point.step if point else 0
    count = settings.max_steps // settings.checkpoint_interval - done // settings.checkpoint_interval
    checkpoints = count * checkpoint_bytes(size)
    states = STATES_HELD * state_bytes(size, Choices.of(settings))
    held = _state_bytes_held(run.checkpoints_dir) if point else 0
    clips = settings.preview_count * settings.preview_seconds * PREVIEW_BYTES_PER_SECOND * (count + 1)
    logs = clips + (settings.max_steps - done) * LOG_BYTES_PER_STEP
    require_room(
        run.checkpoints_dir,
        checkpoints + max(0.0, states - held) + logs,
        what=f"the run, with {counted(count, 'checkpoint')} to come ({amount(checkpoints)}), its states and previews,",
        remedy="make room, or raise training.checkpoint_interval; --force starts all the same",
    )


def _state_bytes_held(checkpoints_dir: Path) -> int:
    """Bytes of saved states that are there already; hard links count once."""
    paths = [*checkpoints_dir.glob(f"{FOLDER}/*/{TENSORS}"), *checkpoints_dir.glob(f"*/{BESIDE}/{TENSORS}")]
    return sum({status.st_ino: status.st_size for status in (path.stat() for path in paths)}.values())


def relief(run: TrainingRun) -> str:
    """What takes less memory, cheapest first, each with those before it; "" if nothing does.

    Raises:
        LofiError: base or features cannot be read.
    """
    work = cached_workload(run.backbone, run.features_dir, run.tracks)
    plan = make_plan(measure(run.backbone, run.base, run.lora), run.training, work, Card("the device", None, 1.0))
    offers = remedies(replace(plan, card=Card("the device", None, None)))
    listed = ", ".join(f"{offer.change} (then {amount(offer.total)})" for offer in offers)
    now = f"by the plan this run takes {amount(plan.memory.total)}"
    return f"{now}; to lower it, each with those before it: {listed}; " if offers else f"{now}; "
